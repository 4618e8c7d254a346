"""`genrec tokenize`: from two tables to published codes, a report, and the next generation. Every shipped recipe is run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest
from quick import QUICK as FIT

from genrec.bundle import read_bundle
from genrec.cli import main
from genrec.codes import diff
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.errors import BundleError, DataError, SettingError
from genrec.evaluate_bundle import evaluate_bundle
from genrec.fit import fit
from genrec.published import read_codes
from genrec.recipe import load_recipe
from genrec.tables import read_tables, split_histories
from genrec.tokenize import append_to, tokenize, with_recipe_of
from genrec.tokenizers.report import CHECKS

Shop = tuple[Catalogue, Interactions]
RECIPES = sorted((Path(__file__).parents[1] / "tokenizers").glob("*.yaml"))
SMALL: dict[str, dict[str, Any]] = {
    "rq-kmeans": {"tokenizer.rq_kmeans.codebook_size": 8},
    "rq-vae": {"tokenizer.rq_vae.codebook_size": 8, "tokenizer.rq_vae.hidden": [16], "tokenizer.rq_vae.steps": 30},
    "das": {"tokenizer.das.codebook_size": 8, "tokenizer.das.hidden": [16], "tokenizer.das.steps": 30},
    "fsq": {"tokenizer.fsq.grid": [4, 3], "tokenizer.fsq.steps": 30},
    "opq": {"tokenizer.opq.parts": 4, "tokenizer.opq.bits": 3},
}
TEXT = {"text.encoder": "tfidf-svd"}
QUICK = TEXT | {"text.collaborative_width": 16, "tokenizer.rq_kmeans.codebook_size": 8}


@pytest.fixture(scope="module")
def codes(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Codes of the shop's first 70 items."""
    items = shop[0].table.slice(0, 70)
    known = set(items.column("item_id").to_pylist())
    events = shop[1].table.filter(pa.array([item in known for item in shop[1].table.column("item_id").to_pylist()]))
    return tokenize(items, events, tmp_path_factory.mktemp("codes") / "shop", load_recipe(overrides=QUICK))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_shipped_recipe_makes_codes_and_a_report(path: Path, shop: Shop, tmp_path: Path) -> None:
    shipped = load_recipe(path)
    changes: dict[str, Any] = TEXT | SMALL[shipped.tokenizer.family]
    changes["text.collaborative_width"] = min(8, shipped.text.collaborative_width)
    out = tokenize(shop[0].table, shop[1].table, tmp_path / "codes", load_recipe(path, changes))
    made = read_codes(out)
    assert len(made.table) == len(shop[0])
    assert made.table.tokenizer == made.tokenizer.fingerprint
    report = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    assert report["family"] == made.tokenizer.family
    assert len(report["findings"]) == len(CHECKS)
    assert all(finding["passed"] is not None for finding in report["findings"]), "there is behaviour to measure on"
    page = (out / "quality.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 3
    assert "http://" not in page.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    )


def test_the_order_of_the_rows_changes_no_code(shop: Shop, tmp_path: Path) -> None:
    shuffled = shop[0].table.take(pa.array(np.random.default_rng(0).permutation(len(shop[0]))))
    users = shop[1].table.column("user_id").to_pylist()
    by_user = pa.array(sorted(range(len(users)), key=lambda row: users[row][::-1]))  # each user's events stay in their order
    recipe = load_recipe(overrides=QUICK | {"text.fusion": "aligned", "text.aligned_width": 8})
    a = read_codes(tokenize(shop[0].table, shop[1].table, tmp_path / "a", recipe)).table
    b = read_codes(tokenize(shuffled, shop[1].table.take(by_user), tmp_path / "b", recipe)).table
    assert diff(a, b).unchanged == len(a)


def test_codebooks_of_training_items_do_not_know_the_others(shop: Shop, tmp_path: Path) -> None:
    """As RPG fits OPQ: vectors of items that no training history holds change no codebook."""
    cold = set(shop[0].item_ids[:8])
    events = shop[1].table.filter(pa.array([item not in cold for item in shop[1].table.column("item_id").to_pylist()]))
    recipe = load_recipe(overrides=QUICK | {"text.collaborative_width": 0, "tokenizer.fit_on": "training"})
    made = read_codes(tokenize(shop[0].table, events, tmp_path / "codes", recipe))
    tables = read_tables(shop[0].table, events, recipe)
    train = split_histories(tables.interactions.histories(tables.catalogue), recipe).train
    met = np.unique(train.items)
    assert len(met) < len(made.table)
    alone = recipe.tokenizer.make(recipe.seed).fit(made.vectors[met])
    assert alone.fingerprint == made.tokenizer.fingerprint != recipe.tokenizer.make(recipe.seed).fit(made.vectors).fingerprint
    for change in (
        {"tokenizer.fit_on": "training"},
        {"tokenizer.family": "das"},
        {"tokenizer.collision_policy": "popular-suffix"},
    ):
        alone = load_recipe(overrides=TEXT | {"text.collaborative_width": 0} | change)
        with pytest.raises(SettingError, match=r"learns from histories. Give --interactions"):
            tokenize(shop[0].table, None, tmp_path / "none", alone)


def test_the_next_generation_moves_no_code(codes: Path, shop: Shop, tmp_path: Path) -> None:
    before = read_codes(codes)
    after = read_codes(append_to(codes, shop[0].table, tmp_path / "next"))
    found = diff(before.table, after.table)
    assert (found.unchanged, found.changed, found.added, found.removed) == (70, 0, 10, 0)
    assert (after.table.generation, after.table.parent) == (1, before.table.hash)
    assert after.tokenizer.fingerprint == before.tokenizer.fingerprint
    assert len(np.unique(after.table.codes, axis=0)) == 80, "the policy's promise holds for new items too"
    assert (tmp_path / "next" / "quality.html").is_file()
    with pytest.raises(DataError, match=r"All 80 items have codes .* already"):
        append_to(tmp_path / "next", shop[0].table, tmp_path / "more")
    assert not (tmp_path / "more").exists()
    with pytest.raises(BundleError, match="generations stay"):
        append_to(codes, shop[0].table, codes, overwrite=True)


def test_a_fit_trains_on_published_codes(codes: Path, shop: Shop, tmp_path: Path) -> None:
    out = append_to(codes, shop[0].table, tmp_path / "next")
    shuffled = shop[0].table.take(pa.array(np.random.default_rng(0).permutation(len(shop[0]))))
    recipe = load_recipe(overrides={k: v for k, v in FIT.items() if not k.startswith("text.")})
    made = read_bundle(fit(shuffled, shop[1].table, tmp_path / "shop", recipe, codes=out))
    assert made.codes.hash == read_codes(out).table.hash
    assert made.manifest["recipe"]["text"]["encoder"] == "tfidf-svd", "what made the codes is recorded"
    with pytest.raises(SettingError, match="data.split must be 'leave-one-out' with these codes"):
        fit(shuffled, shop[1].table, tmp_path / "other", load_recipe(overrides={"data.split": "global-time"}), codes=out)
    assert "other-events" in {leak["kind"] for leak in made.metrics["leaks"]}, "the codes learned from the events of 70 items"
    assert made.manifest["codes_learned_from"] == read_codes(out).manifest["data"]["interactions"]
    with pytest.raises(DataError, match="not the ones of the fit of the codes"):
        evaluate_bundle(made.folder, shop[1].table, strict=True)
    with pytest.raises(DataError, match="10 items of the table have no published codes"):
        fit(shop[0].table, shop[1].table, tmp_path / "other", recipe, codes=codes)
    with pytest.raises(SettingError, match="published with another text section"):
        fit(shop[0].table, shop[1].table, tmp_path / "other", load_recipe(overrides={"text.template": "{title}"}), codes=out)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.questions": "warm"}, "data section .* Give --interactions"),
        ({"data.split": "global-time"}, "data section .* Give --interactions"),
        ({"text.aligned_width": 8}, "of text.fusion 'aligned'"),
        ({"text.item_vectors_weight": 2.0}, "beside the text"),
        ({"text.collaborative": "graph"}, "needs text.collaborative_width above 0"),
        ({"text.collaborative_weight": 2.0}, "collaborative_weight needs"),
        ({"tokenizer.rq_kmeans.balanced": True, "tokenizer.rq_kmeans.codebook_size": 8192}, "at most 4096"),
    ],
)
def test_a_setting_that_would_do_nothing_is_refused(settings: dict[str, Any], message: str, shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match=message):
        tokenize(
            shop[0].table, None, tmp_path / "codes", load_recipe(overrides=TEXT | {"text.collaborative_width": 0} | settings)
        )


def test_a_fit_must_hold_out_the_users_that_its_codes_held_out(shop: Shop, tmp_path: Path) -> None:
    """Codes learn from training users. With another seed they would know users that the model is asked about."""
    holdout = {"data.split": "user-holdout", "data.split_seed": 1}
    out = tokenize(shop[0].table, shop[1].table, tmp_path / "codes", load_recipe(overrides=QUICK | holdout))
    for changes, message in (
        ({"data.split_seed": 2}, "data.split_seed must be 1"),
        ({"data.test_share": 0.2}, "data.test_share"),
    ):
        with pytest.raises(SettingError, match=message):
            fit(shop[0].table, shop[1].table, tmp_path / "shop", load_recipe(overrides=holdout | changes), codes=out)
    published = read_codes(out)
    warm = load_recipe(overrides=holdout | {"data.questions": "warm"})
    assert with_recipe_of(warm, published).data == warm.data, "which questions are asked changes nothing that codes learn"


def test_without_interactions_text_alone_makes_codes(shop: Shop, tmp_path: Path) -> None:
    recipe = load_recipe(overrides=QUICK)
    with pytest.raises(SettingError, match="item vectors need interactions"):
        tokenize(shop[0].table, None, tmp_path / "codes", recipe)
    out = tokenize(shop[0].table, None, tmp_path / "codes", load_recipe(overrides=QUICK | {"text.collaborative_width": 0}))
    report = json.loads((out / "quality.json").read_text(encoding="utf-8"))
    assert report["behaviour_lift"] is None
    assert {finding["passed"] for finding in report["findings"]} == {True, False, None}


def test_a_folder_in_use_is_refused_and_nothing_foreign_is_deleted(codes: Path, shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not empty"):
        tokenize(shop[0].table, shop[1].table, codes, load_recipe(overrides=QUICK))
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BundleError, match="is not a folder of codes"):
        tokenize(shop[0].table, shop[1].table, tmp_path, load_recipe(overrides=QUICK), overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "mine"
    with pytest.raises(BundleError, match="is a file"):
        tokenize(shop[0].table, shop[1].table, tmp_path / "mine.txt", load_recipe(overrides=QUICK))


def test_codes_that_a_crash_left_half_written_are_refused_and_can_be_replaced(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(overrides=QUICK)
    out = tokenize(shop[0].table, shop[1].table, tmp_path / "codes", recipe)

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("genrec.published.write_manifest", crash)
        with pytest.raises(KeyboardInterrupt):
            tokenize(shop[0].table, shop[1].table, tmp_path / "first", recipe)
        with pytest.raises(KeyboardInterrupt):
            tokenize(shop[0].table, shop[1].table, out, load_recipe(overrides=QUICK | {"seed": 1}), overwrite=True)
    with pytest.raises(BundleError):
        read_codes(out)
    for folder in (out, tmp_path / "first"):
        read_codes(tokenize(shop[0].table, shop[1].table, folder, recipe, overwrite=True))


def test_replacing_codes_leaves_what_somebody_else_put_beside_them(shop: Shop, tmp_path: Path) -> None:
    recipe = load_recipe(overrides=QUICK)
    for _ in range(3):
        out = tokenize(shop[0].table, shop[1].table, tmp_path / "codes", recipe, overwrite=True)
        (out / "notes.txt").write_text("mine")
    read_codes(tokenize(shop[0].table, shop[1].table, out, recipe, overwrite=True))
    assert (out / "notes.txt").read_text() == "mine"


def test_codes_that_were_edited_or_are_something_else_are_refused(codes: Path, bundle: Path, tmp_path: Path) -> None:
    import shutil

    copy = Path(shutil.copytree(codes, tmp_path / "copy"))
    (copy / "quality.json").write_text("{}")
    with pytest.raises(BundleError, match=r"quality\.json in the folder of codes .* was truncated or edited"):
        read_codes(copy)
    with pytest.raises(BundleError, match="is a bundle, not a folder of codes"):
        read_codes(bundle)


def test_titles_cannot_write_into_the_report(shop: Shop, tmp_path: Path) -> None:
    table = shop[0].table
    titles = pa.array([f"<script>alert({i})</script> {t}" for i, t in enumerate(table.column("title").to_pylist())])
    table = table.set_column(table.column_names.index("title"), "title", titles)
    out = tokenize(table, None, tmp_path / "codes", load_recipe(overrides=QUICK | {"text.collaborative_width": 0}))
    page = (out / "quality.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.fixture(scope="module")
def tables(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The shop as files, as flags."""
    folder = tmp_path_factory.mktemp("tables")
    items, events = folder / "items.csv", folder / "events.csv"
    fields = [name for name in shop[0].table.column_names if not pa.types.is_list(shop[0].table.schema.field(name).type)]
    pyarrow.csv.write_csv(shop[0].table.select(fields), items)
    pyarrow.csv.write_csv(shop[1].table.rename_columns(["customer", *shop[1].table.column_names[1:]]), events)
    return ["--items", str(items), "--interactions", str(events), "--columns", "user_id=customer"]


def test_the_command_line_makes_compares_and_continues_codes(
    tables: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, recipe = tmp_path / "codes", tmp_path / "mine.yaml"
    flags = ["--text.encoder", "tfidf-svd", "--tokenizer.rq-kmeans.codebook-size", "8"]
    assert main(["tokenize", *tables, "--out", str(out), *flags]) == 0
    assert "pass" in capsys.readouterr().err
    recipe.write_text("text: {encoder: tfidf-svd, collaborative_width: 8}\ntokenizer: {rq_kmeans: {codebook_size: 8}}\n")
    shared = tmp_path / "shared.yaml"
    shared.write_text(recipe.read_text().replace("tokenizer: {", "tokenizer: {collision_policy: shared, "))
    numbers = tmp_path / "numbers.json"
    assert main(["tokenizers", "compare", str(recipe), *tables, "--json", str(tmp_path / "nowhere" / "x.json")]) == 2
    assert "its folder does not exist" in capsys.readouterr().err
    assert main(["tokenizers", "compare", str(recipe), str(shared), *tables, "--json", str(numbers)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["mine", "shared"]
    assert set(json.loads(numbers.read_text())) == {"mine", "shared"}
    moved = tmp_path / "moved.csv"
    assert main(["tokenizers", "diff", str(out), str(out), "--out", str(moved)]) == 0
    told = capsys.readouterr().out
    assert "80 items keep their codes, 0 have others" in told
    assert "100.0% of the pairs of items that shared their first code still share one" in told
    assert moved.read_text().splitlines() == ['"item_id","change","before","after","kept"']
    for wrong in ("nowhere/moved.csv", "moved.txt"):
        assert main(["tokenizers", "diff", str(out), str(out), "--out", str(tmp_path / wrong)]) == 2
        assert "items keep their codes" not in capsys.readouterr().out
    assert main(["tokenizers", "diff", str(out), str(tmp_path / "nowhere")]) == 2
    assert "is not a code table" in capsys.readouterr().err
    assert main(["tokenize", "--items", tables[1], "--append-to", str(out), "--out", str(tmp_path / "b"), "--seed", "1"]) == 2
    assert "--append-to takes --items, --item-vectors, --out and --overwrite only" in capsys.readouterr().err
    assert main(["tokenize", *tables, "--out", str(tmp_path / "c"), "--training.epochs", "3"]) == 2
    assert "There is no flag --training.epochs" in capsys.readouterr().err


def test_the_page_about_tokenizers_names_every_check_with_its_limit() -> None:
    page = (Path(__file__).parents[1] / "docs" / "tokenizers.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1].strip(): line.split("|")[3].strip() for line in page.splitlines() if line.count("|") == 4}
    for check in CHECKS:
        assert check.limit.startswith(rows[check.name]), check.name
