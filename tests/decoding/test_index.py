"""The catalogue index and its overlay: prefixes, ties, lookups, limits, files."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import catalogues

from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.errors import BundleError, DataError


def prefixes_of(index: CatalogueIndex | Overlay) -> dict[tuple[int, ...], list[int]]:
    """Every prefix that a walk from the root reaches, and the rows below it, asked node by node."""
    found: dict[tuple[int, ...], list[int]] = {}
    level_nodes = [((), 0)]
    for level in range(index.levels):
        following = []
        for prefix, node in level_nodes:
            ids, codes, exists = (part[0, 0].tolist() for part in index.expand(torch.tensor([[node]]), level))
            seen = [code for code, real in zip(codes, exists, strict=True) if real]
            assert seen == sorted(seen), "children in code order"
            for child, code, real in zip(ids, codes, exists, strict=True):
                if real:
                    rows = sorted(index.rows_below(child, level).tolist())
                    found.setdefault((*prefix, code), []).extend(rows)
                    following.append(((*prefix, code), child))
        level_nodes = following
    return {prefix: sorted(rows) for prefix, rows in found.items()}


def expected_prefixes(codes: np.ndarray) -> dict[tuple[int, ...], list[int]]:
    expected: dict[tuple[int, ...], list[int]] = {}
    for row, item in enumerate(codes.tolist()):
        for length in range(1, len(item) + 1):
            expected.setdefault(tuple(item[:length]), []).append(row)
    return expected


@settings(deadline=None)
@given(catalogues(most=60))
def test_every_prefix_is_there_with_its_own_items_and_no_other(catalogue: tuple) -> None:
    sizes, codes = catalogue
    assert prefixes_of(CatalogueIndex.build(codes, sizes)) == expected_prefixes(codes)


@settings(deadline=None)
@given(catalogues(most=60), st.data())
def test_an_overlay_is_the_index_of_all_items(catalogue: tuple, data: st.DataObject) -> None:
    sizes, codes = catalogue
    if len(codes) < 2:
        return
    split = data.draw(st.integers(1, len(codes) - 1))
    rows = np.random.default_rng(split).permutation(len(codes))
    base, delta = (CatalogueIndex.build(codes[part], sizes, rows=part) for part in (rows[:split], rows[split:]))
    both = Overlay.join(base, delta)
    assert len(both) == len(codes)
    assert prefixes_of(both) == expected_prefixes(codes)
    places = both.positions(torch.arange(len(codes)), torch.from_numpy(codes))
    np.testing.assert_array_equal(both.rows_at(places), np.arange(len(codes)))
    np.testing.assert_array_equal(both.rows_in_order[places], np.arange(len(codes)))


@settings(deadline=None)
@given(catalogues(most=60))
def test_rows_and_code_tuples_are_found_and_strangers_are_not(catalogue: tuple) -> None:
    sizes, codes = catalogue
    some = np.arange(0, len(codes), 2)
    index = CatalogueIndex.build(codes[some], sizes, rows=some)
    places = index.positions(torch.arange(len(codes)), torch.from_numpy(codes))
    assert (places[1::2] == -1).all(), "rows that the index does not have, even where another row has their codes"
    np.testing.assert_array_equal(index.rows_at(places[::2]), some)
    known = {tuple(item[:length]) for item in codes[some].tolist() for length in range(1, len(item) + 1)}
    every = np.stack(np.meshgrid(*[range(size) for size in sizes[:3]], indexing="ij"), -1).reshape(-1, min(3, len(sizes)))
    every = np.pad(every, ((0, 0), (0, len(sizes) - every.shape[1])))
    for item, path in zip(every.tolist(), index.walk(torch.from_numpy(every)).tolist(), strict=True):
        assert [node >= 0 for node in path] == [tuple(item[:length]) in known for length in range(1, len(item) + 1)]


def test_long_lists_are_looked_up_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.decoding.index.WALK_TOGETHER", 3)
    codes = np.array([[a, b] for a in range(4) for b in range(4)])
    index = CatalogueIndex.build(codes, (4, 4))
    assert index.rows_at(index.positions(torch.arange(16), torch.from_numpy(codes))).tolist() == list(range(16))


def test_items_that_share_codes_come_in_tie_order() -> None:
    codes = np.array([[1], [0], [1], [1]])
    assert CatalogueIndex.build(codes, (2,)).items.tolist() == [1, 0, 2, 3]
    assert CatalogueIndex.build(codes, (2,), tie_rank=np.array([2, 3, 0, 1])).items.tolist() == [1, 2, 3, 0]


def test_keys_wider_than_64_bits_are_sorted_alike() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 3, (500, 8))
    ranks = random.permutation(500)
    narrow, wide = (CatalogueIndex.build(codes, (size,) * 8, ranks) for size in (3, 65_536))
    assert torch.equal(narrow.items, wide.items)
    assert all(torch.equal(a.long(), b.long()) for a, b in zip(narrow.code, wide.code, strict=True))


def test_the_largest_codes_and_most_levels_fit() -> None:
    codes = np.array([[65_535] * 8, [0] * 8, [65_535] * 7 + [1]])
    index = CatalogueIndex.build(codes, (65_536,) * 8)
    assert index.items.tolist() == [1, 2, 0]
    assert index.positions(torch.arange(3), torch.from_numpy(codes)).tolist() == [2, 0, 1]


@pytest.mark.parametrize(
    ("codes", "sizes", "message"),
    [
        ([[0, 2]], (2, 2), "Codes of level 1 must be from 0 to 1, got 2"),
        ([[-1, 0]], (2, 2), "Codes of level 0 must be from 0 to 1, got -1"),
        ([[0, 1]], (2,), r"codes must be whole numbers \[items, 1\]"),
        ([[0.5]], (2,), "codes must be whole numbers"),
        ([[0] * 257], (2,) * 257, "1 to 256 levels of 1 to 65536 codes"),
        ([[0]], (65_537,), "1 to 256 levels of 1 to 65536 codes"),
        ([[0]], (0,), "1 to 256 levels"),
    ],
)
def test_codes_that_cannot_be_are_refused(codes: list, sizes: tuple, message: str) -> None:
    with pytest.raises(DataError, match=message):
        CatalogueIndex.build(np.array(codes), sizes)


def test_an_empty_catalogue_is_an_index_of_nothing() -> None:
    index = CatalogueIndex.build(np.zeros((0, 3), int), (4, 4, 4))
    assert len(index) == 0
    assert index.walk(torch.zeros(2, 3, dtype=torch.int64)).tolist() == [[-1] * 3] * 2
    assert index.positions(torch.tensor([0]), torch.zeros(1, 3, dtype=torch.int64)).tolist() == [-1]


def test_a_saved_index_is_mapped_back_and_only_for_its_own_codes(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, (300, 5), (50, 2))
    index, path = CatalogueIndex.build(codes, (300, 5)), tmp_path / "index.safetensors"
    index.save(path, "abc")
    again = CatalogueIndex.load(path, "abc")
    assert again.sizes == (300, 5)
    for a, b in zip([index.items, *index.code, *index.first], [again.items, *again.code, *again.first], strict=True):
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    with pytest.raises(BundleError, match="was built from code table abc, the bundle has xyz"):
        CatalogueIndex.load(path, "xyz")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(BundleError, match="cannot be read"):
        CatalogueIndex.load(path, "abc")


def test_a_large_catalogue_takes_few_bytes_an_item() -> None:
    codes = np.random.default_rng(0).integers(0, 256, (1_000_000, 4))
    assert CatalogueIndex.build(codes, (256,) * 4).bytes_per_item < 12
