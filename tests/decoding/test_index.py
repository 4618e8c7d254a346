"""The catalogue index: prefixes, intervals, ties, and the limits of the ranker."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_decoding_exactness import make_ranker

from genrec.data.interactions import Histories
from genrec.decoding.index import Allowed, CatalogueIndex
from genrec.errors import SettingError


@given(st.integers(1, 5), st.integers(1, 60), st.integers(0, 10**6))
def test_every_prefix_is_an_interval_with_its_own_items(levels: int, items: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 4, (items, levels))
    index = CatalogueIndex.build(codes, (4,) * levels)
    assert sorted(index.items.tolist()) == list(range(items))
    ordered = codes[index.items.numpy()]
    for level in range(levels):
        prefixes = {tuple(row[: level + 1]) for row in codes}
        assert len(index.code[level]) == len(prefixes)
        for code, start, stop in zip(index.code[level], index.start[level], index.stop[level], strict=True):
            inside = {tuple(row[: level + 1]) for row in ordered[start:stop]}
            assert len(inside) == 1
            assert inside.pop()[-1] == code
    np.testing.assert_array_equal(index.position[index.items], np.arange(items))


def test_items_that_share_codes_come_in_tie_order() -> None:
    codes = np.array([[1], [0], [1], [1]])
    index = CatalogueIndex.build(codes, (2,), tie_rank=np.array([2, 3, 0, 1]))
    assert index.items.tolist() == [1, 2, 3, 0]


def test_all_items_of_a_shared_tuple_come_back_with_the_same_score() -> None:
    ranker = make_ranker((2, 2), np.array([[0, 0], [0, 1], [0, 0], [0, 0]]), 0)
    rows, scores = ranker.rank(Histories.from_lists([[]]), 4, exclude_seen=False)
    by_row = dict(zip(rows[0].tolist(), scores[0].tolist(), strict=True))
    assert by_row[0] == by_row[2] == by_row[3]
    assert [row for row in rows[0] if row != 1] == [0, 2, 3]


@given(st.integers(0, 10**6))
def test_counting_allowed_items_equals_counting_them_one_by_one(seed: int) -> None:
    random = np.random.default_rng(seed)
    items = int(random.integers(1, 30))
    index = CatalogueIndex.build(random.integers(0, 3, (items, 2)), (3, 3))
    only = random.integers(0, items, random.integers(0, items + 1))
    excluded = random.integers(-1, items, (2, random.integers(1, 6)))
    allowed = Allowed.of(index, only, excluded)
    start = torch.from_numpy(random.integers(0, items + 1, (2, 5)))
    stop = start + torch.from_numpy(random.integers(0, items + 1, (2, 5))).clamp(max=items) * 0
    stop = torch.maximum(stop, torch.from_numpy(random.integers(0, items + 1, (2, 5))))
    counts = allowed.count(start, stop)
    for user in range(2):
        fine = set(only.tolist()) - set(excluded[user].tolist())
        for column in range(5):
            inside = index.items[start[user, column] : stop[user, column]].tolist()
            assert counts[user, column] == len(fine & set(inside))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 5, "beam_width": 4}, "k must be at most beam_width, 4, got 5"),
        ({"k": 0}, "k must be an integer of at least 1, got 0"),
        ({"k": 3, "beam_width": 0}, "beam_width must be an integer from 1"),
        ({"k": 2.5}, "k must be an integer"),
    ],
)
def test_impossible_requests_say_what_is_allowed(arguments: dict, message: str) -> None:
    ranker = make_ranker((2, 2), np.array([[0, 0], [0, 1]]), 0)
    with pytest.raises(SettingError, match=message):
        ranker.rank(Histories.from_lists([[0]]), exclude_seen=False, **arguments)


def test_no_histories_is_an_empty_answer() -> None:
    rows, scores = make_ranker((2,), np.array([[0], [1]]), 0).rank(Histories.from_lists([]), 2, exclude_seen=True)
    assert rows.shape == scores.shape == (0, 2)
