"""Slices: which questions are in which, by hand; their table against the numbers of the whole."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation.evaluate import Result, evaluate
from genrec.evaluation.slices import FIFTHS, Slice, SliceRow, fifths, largest_gaps, slice_table, slices_markdown, slices_of
from genrec.evaluation.statistics import Estimate

COUNTS = np.array([10, 4, 3, 2, 1, 0])
CATEGORIES = np.array(["soap", "soap", "ink", "paper", "", "ink"], object)
ASKED = Targets(Histories.from_lists([[0], [1, 2], [3, 5, 5], [], [1, 0, 2, 4]]), np.array([0, 1, 5, 4, 3]))


class Noisy:
    """Lists that depend on the history alone."""

    name = "noisy"

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        lists = [np.random.default_rng(len(h) + int(h.sum())).permutation(max(k, 6))[:k] for h in histories.to_lists()]
        return np.where(np.stack(lists) < 6, np.stack(lists), -1), np.zeros((len(lists), k), np.float32)


def asked(users: int, each: int, seed: int = 0) -> Targets:
    random = np.random.default_rng(seed)
    lists = [random.integers(0, 6, random.integers(0, 7)) for _ in range(users * each)]
    ids = [f"u{i // each:03}" for i in range(users * each)]
    return Targets(Histories.from_lists(lists, ids), random.integers(0, 6, users * each))


def result_of(questions: Targets) -> Result:
    return evaluate(Noisy(), questions, ks=(2, 4), exclude_seen=(True,), progress=False)


def masks(slices: list[Slice], group: str) -> dict[str, list[int]]:
    return {part.name: np.flatnonzero(part.mask).tolist() for part in slices if part.group == group}


def test_every_group_by_hand() -> None:
    found = slices_of(ASKED, COUNTS, CATEGORIES)
    assert masks(found, "training") == {"cold": [2], "warm": [0, 1, 3, 4]}
    assert masks(found, "age") == {"new since training": [2], "known in training": [0, 1, 3, 4]}
    assert masks(found, "repeat") == {"in the history": [0, 1, 2], "first time": [3, 4]}
    assert masks(found, "category") == {"soap": [0, 1], "ink": [2], "paper": [4], "unknown": [3]}
    assert masks(found, "history") == {"0 to 1 events": [0, 3], "2 events": [1], "3 events": [2], "4 events": [4]}
    # Events before items 0 to 4: 0, 10, 14, 17, 19 of 20. The cold target is in no fifth.
    assert masks(found, "popularity") == {FIFTHS[0]: [0], FIFTHS[2]: [1], FIFTHS[4]: [3, 4]}


def test_fifths_are_of_events_so_the_head_is_few_items_and_ties_go_by_row() -> None:
    assert fifths(COUNTS).tolist() == [0, 2, 3, 4, 4, -1]
    assert fifths(np.ones(10)).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert fifths(np.zeros(3)).tolist() == [-1, -1, -1]


@given(st.lists(st.integers(0, 50), min_size=1, max_size=60))
def test_fifths_fall_with_popularity_and_hold_a_fifth_of_the_events_give_or_take_one_item(counts: list[int]) -> None:
    array = np.array(counts)
    number = fifths(array)
    assert ((number == -1) == (array == 0)).all()
    assert ((number[array > 0] >= 0) & (number[array > 0] < 5)).all()
    order = np.argsort(-array, kind="stable")
    assert (np.diff(number[order][array[order] > 0]) >= 0).all()
    for place in range(5):
        assert abs(array[number == place].sum() - array.sum() / 5) <= array.max()


def test_in_a_split_by_time_new_is_first_met_after_the_cut_not_merely_untrained() -> None:
    first = np.array([1.0, 2.0, 3.0, 9.0, 10.0, 4.0])
    found = masks(slices_of(ASKED, COUNTS, first_times=first, cut=9.0), "age")
    assert found == {"new since training": [3, 4], "known in training": [0, 1, 2]}


def test_only_the_largest_categories_have_a_slice_of_their_own() -> None:
    labels = np.array([f"c{i:02}" for i in range(14)], object)
    targets = np.array([*range(14), 3])
    found = masks(slices_of(Targets(Histories.from_lists([[]] * 15), targets), np.ones(14), labels), "category")
    assert list(found) == ["c03", "c00", "c01", "c02", *(f"c{i:02}" for i in range(4, 10)), "other"]
    assert found["c03"] == [3, 14]
    assert found["other"] == [10, 11, 12, 13]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(0, 10**6))
def test_every_group_but_popularity_divides_all_questions_without_overlap(users: int, seed: int) -> None:
    questions = asked(users, 2, seed)
    found = slices_of(questions, COUNTS, CATEGORIES)
    for group in {part.group for part in found}:
        times = np.sum([part.mask for part in found if part.group == group], axis=0)
        assert times.tolist() == ((COUNTS[questions.items] > 0) if group == "popularity" else np.ones(2 * users)).tolist()
    assert all(part.mask.any() for part in found)


def test_rows_are_means_of_their_questions_and_gaps_to_all() -> None:
    questions = asked(120, 3)
    result = result_of(questions)
    slices = slices_of(questions, COUNTS, CATEGORIES)
    values = result.per_question("masked", "recall", 2)
    for part, row in zip(slices, slice_table(result, slices, metric="recall", k=2), strict=True):
        assert (row.group, row.name, row.questions) == (part.group, part.name, part.mask.sum())
        assert row.users == len(set(questions.histories.user_ids[part.mask]))
        assert row.metric.mean == pytest.approx(values[part.mask].mean())
        assert row.gap.mean == pytest.approx(values[part.mask].mean() - values.mean())
        assert row.metric.low <= row.metric.mean <= row.metric.high
        assert row.gap.low <= row.gap.mean <= row.gap.high


def test_the_slice_of_everything_has_the_interval_of_the_whole_and_no_gap() -> None:
    result = result_of(asked(60, 2))
    [row] = slice_table(result, [Slice("all", "all", np.ones(120, bool))])
    assert dataclasses.astuple(row.metric) == pytest.approx(dataclasses.astuple(result.metrics["masked"]["ndcg@4"]))
    assert dataclasses.astuple(row.gap) == (0, 0, 0)


def test_the_gap_of_half_the_users_is_half_their_difference_to_the_others() -> None:
    questions = asked(400, 1)
    result = dataclasses.replace(result_of(questions), positions={"masked": np.where(np.arange(400) < 200, 0, -1)})
    first = Slice("first", "half", np.arange(400) < 200)
    [row] = slice_table(result, [first], metric="recall")
    assert (row.metric.mean, row.metric.low, row.metric.high) == (1, 1, 1)
    assert row.gap.mean == 0.5
    assert row.gap.high - row.gap.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.1), "the whole varies, and the gap with it"


def test_slices_of_few_users_are_marked_however_many_questions_they_have() -> None:
    questions = asked(40, 5)
    owner = np.arange(200) // 5
    slices = [Slice("29 users", "size", owner < 29), Slice("30 users", "size", owner < 30), Slice("one", "size", owner == 7)]
    rows = slice_table(result_of(questions), slices)
    assert [row.too_small for row in rows] == [True, False, True]
    lines = slices_markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [("too small to read" in line) for line in lines[2:]] == [True, False, True]
    assert "| size | 29 users | 145       | 29    |" in lines[2]


def test_the_largest_gap_of_a_group_is_between_its_best_and_worst_slices_that_can_be_read() -> None:
    def row(group: str, mean: float, too_small: bool = False) -> SliceRow:
        return SliceRow(group, f"{mean}", 40, 40, Estimate(mean, 0, 1), Estimate(0, 0, 0), too_small)

    rows = [row("history", 0.2), row("history", 0.5), row("history", 0.3), row("history", 0.9, too_small=True)]
    alone = [row("repeat", 0.4), row("repeat", 0.1, too_small=True)]
    assert largest_gaps([*rows, *alone, row("age", 0.4)]) == {"history": pytest.approx(0.3)}


def test_the_order_of_questions_changes_no_row() -> None:
    questions = asked(50, 3)
    order = np.random.default_rng(1).permutation(150)
    moved = Targets(questions.histories.select(order), questions.items[order])
    for one, other in zip(
        *(slice_table(result_of(some), slices_of(some, COUNTS, CATEGORIES)) for some in (questions, moved)), strict=True
    ):
        assert (one.name, one.questions, one.users, one.too_small) == (
            other.name,
            other.questions,
            other.users,
            other.too_small,
        )
        for a, b in ((one.metric, other.metric), (one.gap, other.gap)):
            assert dataclasses.astuple(a) == pytest.approx(dataclasses.astuple(b), abs=1e-12)


def test_what_does_not_fit_the_questions_is_refused() -> None:
    with pytest.raises(SettingError, match="belong together"):
        slices_of(ASKED, COUNTS, cut=3.0)
    with pytest.raises(DataError, match="categories must have one value per catalogue row, got 2"):
        slices_of(ASKED, COUNTS, CATEGORIES[:2])
    with pytest.raises(DataError, match="counts must have .* target row 5"):
        slices_of(ASKED, COUNTS[:3])
    result = result_of(asked(10, 1))
    for mask in (np.zeros(10, bool), np.ones(9, bool)):
        with pytest.raises(DataError, match="over the 10 questions of the result"):
            slice_table(result, [Slice("bad", "bad", mask)])
    with pytest.raises(SettingError, match="protocol"):
        slice_table(result, [], protocol="unmasked")
