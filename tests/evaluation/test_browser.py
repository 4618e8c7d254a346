"""The pages that genrec writes, in a real browser without a network: evaluation, comparison, item tokenizer."""

from pathlib import Path

import pytest
from browser import NARROW, WIDE, browser, look, screenshot
from matplotlib.image import imread

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.evaluate_bundle import evaluate_bundle
from genrec.evaluation.page import comparison_html, write_report
from genrec.recipe import Recipe
from genrec.tokenize import tokenize

READABLE = 3.0  # WCAG's least contrast for large text; faint rows are meant to be faint, not lost
PAGES = {"evaluation.html": (5, 2), "comparison.html": (1, 2), "quality.html": (3, 3)}  # least tables, plots


@pytest.fixture(scope="module")
def pages(
    bundle: Path, shop: tuple[Catalogue, Interactions], quick: Recipe, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """File name -> the page, as the commands write it."""
    browser()  # without one nothing is made
    catalogue, interactions = shop
    folder = tmp_path_factory.mktemp("pages")
    report = evaluate_bundle(bundle, interactions.table, probes=True)
    compared = folder / "comparison.html"
    compared.write_text(comparison_html(report.compared, "NDCG@10"), encoding="utf-8")
    tokenize(catalogue.table, interactions.table, folder / "codes", quick)
    found = [write_report(report, folder / "evaluation", "shop"), compared, folder / "codes" / "quality.html"]
    return {page.name: page for page in found}


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("width", "dark"), [(WIDE, False), (NARROW, True)], ids=["desk, light", "telephone, dark"])
def test_a_page_is_whole_readable_and_loads_nothing(
    pages: dict[str, Path], name: str, width: int, dark: bool, tmp_path: Path
) -> None:
    tables, plots = PAGES[name]
    seen = look(pages[name], tmp_path, width, dark)
    assert (seen.width, seen.dark) == (width, dark), "the browser did as it was told"
    assert len(seen.rows) >= tables
    assert all(seen.rows), "no table without rows"
    assert len(seen.plots) == plots
    assert all(seen.plots), "no plot without anything drawn"
    assert seen.overflow <= 0, "nothing is to be scrolled sideways but wide tables"
    assert seen.requests == []
    assert seen.contrast >= READABLE, seen.faintest


def test_a_picture_of_the_page_is_dark_where_dark_is_wanted(pages: dict[str, Path], tmp_path: Path) -> None:
    shades = {}
    for dark in (False, True):
        picture = tmp_path / f"{dark}.png"
        screenshot(pages["evaluation.html"], picture, tmp_path, dark)
        pixels = imread(picture)[..., :3]
        assert pixels.shape[1] == WIDE
        assert pixels.std() > 0.05, "something is drawn"
        shades[dark] = pixels.mean()
    assert shades[True] < 0.25 < 0.75 < shades[False]


def test_a_bad_page_is_seen_for_what_it_is(tmp_path: Path) -> None:
    """Else the tests above could not fail."""
    page = tmp_path / "bad.html"
    page.write_text(
        '<!doctype html><body><p style="width: 900px; color: #ddd; margin: 0">hardly to be read</p><svg></svg>'
        '<img src="http://example.com/plot.png"><table><tbody></tbody></table></body>',
        encoding="utf-8",
    )
    seen = look(page, tmp_path, NARROW)
    assert seen.overflow >= 900 - NARROW
    assert seen.requests == ["http://example.com/plot.png"]
    assert (seen.rows, seen.plots) == ([0], [0, 0])
    assert (seen.contrast < READABLE, seen.faintest) == (True, "hardly to be read")
