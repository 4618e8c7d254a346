"""The best of a line of scores, and where a target stands in it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import Histories, query_matrix
from genrec.errors import SettingError
from genrec.evaluation.metrics import hit_positions
from genrec.evaluation.ranking import (
    check_above_zero,
    check_decay,
    in_order_of_ids,
    met_items,
    places,
    popular_where_silent,
    top,
)


@settings(max_examples=30)
@given(st.lists(st.lists(st.sampled_from([0.0, 1.0, -np.inf]), min_size=6, max_size=6), min_size=1, max_size=4), st.data())
def test_places_are_where_top_puts_the_target(lines: list[list[float]], data: st.DataObject) -> None:
    scores = np.array(lines)
    targets = np.array([data.draw(st.integers(0, 5)) for _ in lines])
    rows = np.full(scores.shape, -1)
    for user, line in enumerate(scores):
        best = top(line, 6)
        rows[user, : len(best)] = best
    assert places(scores, targets).tolist() == hit_positions(rows, targets).tolist()


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, -np.inf]), min_size=1, max_size=12), st.integers(1, 15))
def test_top_is_a_stable_sort_cut_short(scores: list[float], k: int) -> None:
    array = np.array(scores)
    expected = [i for i in np.argsort(-array, kind="stable") if array[i] > -np.inf][:k]
    assert top(array, k).tolist() == expected


def test_a_query_weighs_each_step_back_and_adds_up_repeats() -> None:
    batch = Histories.from_lists([[4, 1, 4], [], [0]])
    expected = np.zeros((3, 5))
    expected[0, 4], expected[0, 1], expected[2, 0] = 1 + 0.25, 0.5, 1
    np.testing.assert_allclose(query_matrix(batch, 5, 0.5).toarray(), expected)
    expected[0, 4] = 1
    np.testing.assert_allclose(query_matrix(batch, 5, 0.5, latest=2).toarray(), expected)


def test_an_item_met_twice_is_met_once() -> None:
    assert met_items(Histories.from_lists([[2, 0, 2], []]), 3).toarray().tolist() == [[1, 0, 1], [0, 0, 0]]


def test_histories_come_in_the_order_of_their_users_ids() -> None:
    ordered = in_order_of_ids(Histories.from_lists([[1], [2, 3], [4]], ["c", "a", "b"]))
    assert ordered.user_ids.tolist() == ["a", "b", "c"]
    assert [line.tolist() for line in ordered.to_lists()] == [[2, 3], [4], [1]]


def test_only_lines_without_any_score_become_popularity() -> None:
    scores = np.array([[0.0, 0.0], [0.0, -1.0]])
    assert popular_where_silent(scores, np.array([5.0, 6.0])).tolist() == [[5, 6], [0, -1]]


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_settings_that_must_be_above_zero_are_checked(value: float) -> None:
    with pytest.raises(SettingError, match="l2 must be a number above 0"):
        check_above_zero("l2", value)
    with pytest.raises(SettingError, match="decay must be above 0 and at most 1"):
        check_decay(value)
