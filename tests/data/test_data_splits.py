"""Promises of the splits: who tests, who trains, and that nothing from the future trains."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import Histories, exclude_seen_by_default, global_time, leave_one_out
from genrec.errors import DataError, SettingError

lists = st.lists(st.lists(st.integers(0, 9), max_size=7), max_size=8)


@settings(max_examples=60, deadline=None)
@given(lists)
def test_leave_one_out_tests_the_last_item_and_validates_the_one_before(rows: list[list[int]]) -> None:
    split = leave_one_out(Histories.from_lists(rows))
    tested = [row for row in rows if len(row) >= 2]
    validated = [row for row in rows if len(row) >= 3]
    assert [h.tolist() for h in split.test.histories.to_lists()] == [row[:-1] for row in tested]
    assert split.test.items.tolist() == [row[-1] for row in tested]
    assert [h.tolist() for h in split.validation.histories.to_lists()] == [row[:-2] for row in validated]
    assert split.validation.items.tolist() == [row[-2] for row in validated]
    expected = [row[:-2] if len(row) >= 3 else row[:1] for row in rows]
    assert [h.tolist() for h in split.train.to_lists()] == expected
    assert split.repeat_share == Histories.from_lists(expected).repeat_share()


def timed(rows: list[list[int]]) -> Histories:
    """Times in order inside each user; the item is the time, so that times can be read off items."""
    plain = Histories.from_lists([sorted(row) for row in rows])
    return Histories(plain.user_ids, plain.indptr, plain.items, plain.items.astype(float))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), max_size=8), min_size=1, max_size=8).filter(any), st.sampled_from([0.1, 0.2, 0.4]))
def test_global_time_trains_on_the_past_alone(rows: list[list[int]], share: float) -> None:
    histories = timed(rows)
    times = np.sort(histories.times)
    try:
        split = global_time(histories, validation_share=share, test_share=share)
    except DataError:
        # Allowed only where the first window starts with the very first moment.
        assert np.quantile(times, 1 - 2 * share, method="higher") == times[0]
        return
    start_validation, start_test = np.quantile(times, [1 - share - share, 1 - share], method="higher")
    assert split.train.items.max() < start_validation
    assert len(split.train.items) == (times < start_validation).sum()
    for targets, low, high in ((split.validation, start_validation, start_test), (split.test, start_test, np.inf)):
        expected = [
            (sorted(row)[:place], moment)
            for row in rows
            for place, moment in enumerate(sorted(row))
            if place and low <= moment < high
        ]
        got = [(h.tolist(), item) for h, item in zip(targets.histories.to_lists(), targets.items.tolist(), strict=True)]
        assert got == expected
        assert all(max(history) <= item for history, item in got)


def test_global_time_needs_timestamps_and_sensible_shares() -> None:
    histories = timed([[1, 2, 3], [4, 5]])
    holes = Histories(histories.user_ids, histories.indptr, histories.items, np.array([1, np.nan, 3, 4, 5]))
    with pytest.raises(DataError, match=r"needs a timestamp in every interaction, got 1 of 5 without"):
        global_time(holes)
    for shares in [(0.0, 0.1), (0.5, 0.5), (-0.1, 0.2), (0.1, 1.0)]:
        with pytest.raises(SettingError, match=r"add up to less than 1"):
            global_time(histories, *shares)
    with pytest.raises(DataError, match=r"got none: 4 events share too few moments"):
        global_time(timed([[7, 7], [7, 7]]))


def test_a_sample_of_questions_is_seeded_and_keeps_their_order() -> None:
    test = leave_one_out(Histories.from_lists([[user, user + 1] for user in range(50)])).test
    sample = test.sample(10, seed=3)
    assert len(sample) == 10
    assert np.all(np.diff(sample.items) > 0)
    assert [h.tolist() for h in sample.histories.to_lists()] == [[item - 1] for item in sample.items]
    assert sample.items.tolist() == test.sample(10, seed=3).items.tolist() != test.sample(10, seed=4).items.tolist()
    assert test.sample(50, seed=0) is test


def test_seen_items_are_left_out_where_users_hardly_repeat() -> None:
    assert exclude_seen_by_default(0.0)
    assert exclude_seen_by_default(0.001)
    assert not exclude_seen_by_default(0.3)
