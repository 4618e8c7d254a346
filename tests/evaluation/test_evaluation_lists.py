"""What lists are like, by hand on a tiny case, and bounds and invariances on random ones."""

import dataclasses
import json
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.errors import DataError
from genrec.evaluation import fairness, lists
from genrec.evaluation.fairness import group_gaps, known_groups
from genrec.evaluation.lists import (
    ListContext,
    average_popularity,
    calibration,
    coverage,
    coverage_of_allowed,
    gini_of_exposure,
    intra_list_diversity,
    measure_lists,
    novelty,
    popularity_bias,
)

# Three lists over five items; item 0 stands in three places, 1 in two, 4 in none.
ROWS = np.array([[0, 1], [0, 2], [0, 1]])
COUNTS = np.array([7, 3, 1, 0, 0])
HISTORIES = Histories.from_lists([[2, 3], [1], []])
CATEGORIES = np.array(["soap", "soap", "ink", "ink", ""], object)
VECTORS = np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0], [0.0, 0.0], [-1.0, 0.0]])


@st.composite
def worlds(draw: st.DrawFn) -> tuple[np.ndarray, Histories, ListContext]:
    items, questions, k = draw(st.integers(2, 12)), draw(st.integers(1, 8)), draw(st.integers(1, 5))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = np.full((questions, k), -1)
    for line in rows:
        length = random.integers(0, min(k, items) + 1)
        line[:length] = random.permutation(items)[:length]
    rows[0, 0] = 0
    histories = Histories.from_lists([random.integers(0, items, random.integers(0, 5)) for _ in range(questions)])
    labels = np.array(["", "a", "b", "c"], object)
    return (
        rows,
        histories,
        ListContext(
            random.integers(0, 20, items),
            random.normal(size=(items, 3)).astype(np.float32),
            labels[random.integers(0, 4, items)],
            labels[random.integers(0, 4, items)],
            random.random(items) < 0.7,
        ),
    )


def test_coverage_and_gini_by_hand() -> None:
    assert coverage(ROWS, 5) == 3 / 5
    assert coverage_of_allowed(ROWS, np.array([True, False, True, True, True])) == 2 / 4
    assert coverage_of_allowed(ROWS, np.zeros(5, bool)) is None
    # Places per item 0, 0, 1, 2, 3: the ten pairs differ by 16 in all, so the mean difference is 32 / 25, over twice the mean.
    assert gini_of_exposure(ROWS, 5) == pytest.approx((32 / 25) / (2 * 6 / 5))


def test_novelty_and_average_popularity_by_hand() -> None:
    # (count + 1) / (11 + 5): 1/2, 1/4 and 1/8, which are 1, 2 and 3 bits.
    assert novelty(ROWS, COUNTS) == pytest.approx((3 * 1 + 2 * 2 + 1 * 3) / 6)
    assert average_popularity(ROWS, COUNTS) == pytest.approx((3 * 7 + 2 * 3 + 1) / 6)


def test_popularity_bias_by_hand_leaves_out_lists_without_a_history() -> None:
    # Percentiles of items 0 to 4: .9, .7, .5, and .2 for the two that nobody had.
    first, second = (0.9 + 0.7) / 2 - (0.5 + 0.2) / 2, (0.9 + 0.5) / 2 - 0.7
    assert popularity_bias(ROWS, HISTORIES, COUNTS) == pytest.approx((first + second) / 2)
    assert popularity_bias(ROWS, Histories.from_lists([[], [], []]), COUNTS) is None


def test_diversity_by_hand() -> None:
    half = math.sqrt(0.5)
    assert intra_list_diversity(np.array([[0, 1, 2]]), VECTORS) == pytest.approx(1 - (0 + half + half) / 3)
    assert intra_list_diversity(np.array([[0, 1, -1]]), VECTORS) == pytest.approx(1)
    assert intra_list_diversity(np.array([[0, 4]]), VECTORS) == pytest.approx(2)
    assert intra_list_diversity(np.array([[0, 3]]), VECTORS) == pytest.approx(1), "a zero vector is like nothing"
    assert intra_list_diversity(np.array([[0, -1], [2, -1]]), VECTORS) is None
    assert intra_list_diversity(np.array([[0, 4], [2, -1]]), VECTORS) == pytest.approx(2), "one item has no pairs"


def test_calibration_by_hand() -> None:
    # History all ink against a list of soap and soap: q~(ink) = .01. History all soap against one of each: q~(soap) = .505.
    assert calibration(ROWS, HISTORIES, CATEGORIES) == pytest.approx((-math.log(0.01) - math.log(0.505)) / 2)
    assert calibration(np.array([[2, 0]]), Histories.from_lists([[0, 3]]), CATEGORIES) == pytest.approx(0)
    assert calibration(np.array([[4]]), Histories.from_lists([[0]]), CATEGORIES) is None, "unknown is no category"
    mixed = Histories.from_lists([[0, 1, 2, 4]])  # 2/3 soap, 1/3 ink, one unknown
    p, q = np.array([2 / 3, 1 / 3]), 0.99 * np.array([0.5, 0.5]) + 0.01 * np.array([2 / 3, 1 / 3])
    assert calibration(np.array([[1, 3]]), mixed, CATEGORIES) == pytest.approx(float((p * np.log(p / q)).sum()))


def test_gaps_between_groups_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fairness, "FEWEST", 1)
    found = group_gaps(ROWS, CATEGORIES, np.array([0, 2, 3]), np.array([1.0, 0.5, 0.0]))
    assert found is not None
    ink, soap = found.groups
    assert dataclasses.astuple(ink) == ("ink", pytest.approx(1 / 6), 0.5, pytest.approx(2 / 3), 2, 0.25)
    assert dataclasses.astuple(soap) == ("soap", pytest.approx(5 / 6), 0.5, pytest.approx(1 / 3), 1, 1.0)
    assert found.from_catalogue == pytest.approx(5 / 6 - 1 / 2)
    assert found.from_relevance == pytest.approx(5 / 6 - 1 / 3)
    assert found.largest_gap == 0.75


def test_groups_with_few_questions_have_a_quality_but_no_say_in_the_gap() -> None:
    targets, quality = np.array([0] * 30 + [2] * 29), np.array([1.0] * 30 + [0.0] * 29)
    found = group_gaps(ROWS, CATEGORIES, targets, quality)
    assert found is not None
    assert [group.quality for group in found.groups] == [0, 1]
    assert found.largest_gap is None
    more = group_gaps(ROWS, CATEGORIES, np.append(targets, 2), np.append(quality, 0))
    assert more is not None
    assert more.largest_gap == 1


def test_what_was_not_asked_for_is_none() -> None:
    found = group_gaps(ROWS, CATEGORIES)
    assert found is not None
    assert (found.from_relevance, found.largest_gap) == (None, None)
    assert [(group.relevance, group.quality) for group in found.groups] == [(None, None)] * 2
    assert group_gaps(np.array([[4]]), CATEGORIES) is None, "only items of no known group"
    plain = measure_lists(ROWS, HISTORIES, ListContext(COUNTS))
    unknown = {name for name, value in vars(plain).items() if value is None}
    assert unknown == {"coverage_of_allowed", "intra_list_diversity", "calibration", "category_gaps", "provider_gaps"}


def test_all_numbers_together_are_those_of_the_functions_and_json() -> None:
    makers = np.array(["x", "y", "x", "", "y"], object)
    context = ListContext(COUNTS, VECTORS, CATEGORIES, makers, COUNTS > 0)
    targets, quality = np.array([0, 2, 3]), np.array([1.0, 0.5, 0.0])
    found = measure_lists(ROWS, HISTORIES, context, targets, quality)
    assert found.coverage == coverage(ROWS, 5)
    assert found.coverage_of_allowed == 1
    assert found.gini_of_exposure == gini_of_exposure(ROWS, 5)
    assert found.novelty == novelty(ROWS, COUNTS)
    assert found.intra_list_diversity == intra_list_diversity(ROWS, VECTORS)
    assert found.average_popularity == average_popularity(ROWS, COUNTS)
    assert found.popularity_bias == popularity_bias(ROWS, HISTORIES, COUNTS)
    assert found.calibration == calibration(ROWS, HISTORIES, CATEGORIES)
    assert found.category_gaps == group_gaps(ROWS, CATEGORIES, targets, quality)
    assert found.provider_gaps == group_gaps(ROWS, makers, targets, quality)
    json.dumps(dataclasses.asdict(found), allow_nan=False)


@settings(deadline=None)
@given(worlds(), st.integers(0, 10**6))
def test_numbers_keep_their_bounds_and_the_order_of_lists_and_places_changes_nothing(world: tuple, seed: int) -> None:
    rows, histories, context = world
    found = measure_lists(rows, histories, context)
    bounds = {
        "coverage": (0, 1),
        "coverage_of_allowed": (0, 1),
        "gini_of_exposure": (0, 1),
        "novelty": (0, math.inf),
        "intra_list_diversity": (0, 2),
        "average_popularity": (context.counts.min(), context.counts.max()),
        "popularity_bias": (-1, 1),
        "calibration": (0, -math.log(0.01)),
    }
    for name, (low, high) in bounds.items():
        value = getattr(found, name)
        assert value is None or low - 1e-9 <= value <= high + 1e-9, name
    if found.provider_gaps:
        assert sum(group.exposure for group in found.provider_gaps.groups) == pytest.approx(1)
        assert sum(group.catalogue for group in found.provider_gaps.groups) == pytest.approx(1)
        assert 0 <= found.provider_gaps.from_catalogue <= 1
    random = np.random.default_rng(seed)
    order = random.permutation(len(rows))
    moved = measure_lists(random.permuted(rows[order], axis=1), histories.select(order), context)
    for name in bounds:
        assert getattr(moved, name) == (None if (value := getattr(found, name)) is None else pytest.approx(value, abs=1e-9))
    assert moved.provider_gaps == found.provider_gaps


@settings(deadline=None, max_examples=30)
@given(worlds(), st.integers(0, 10**6))
def test_new_row_numbers_for_the_same_items_change_nothing(world: tuple, seed: int) -> None:
    rows, histories, context = world
    old_of_new = np.random.default_rng(seed).permutation(len(context.counts))
    new_of_old = np.argsort(old_of_new)
    renamed = ListContext(*(getattr(context, field.name)[old_of_new] for field in dataclasses.fields(context)))
    found = measure_lists(rows, histories, context)
    again = measure_lists(
        np.where(rows >= 0, new_of_old[rows], -1), dataclasses.replace(histories, items=new_of_old[histories.items]), renamed
    )
    for name, value in vars(found).items():
        if not name.endswith("_gaps"):
            assert getattr(again, name) == (None if value is None else pytest.approx(value, abs=1e-9)), name
    assert (again.category_gaps, again.provider_gaps) == (found.category_gaps, found.provider_gaps)


@settings(deadline=None, max_examples=30)
@given(worlds())
def test_small_batches_give_the_same_numbers_as_naive_loops(world: tuple) -> None:
    rows, histories, context = world
    diversity, divergence = [], []
    for line, history in zip(rows, histories.to_lists(), strict=True):
        kept = [int(item) for item in line if item >= 0]
        unit = [context.vectors[item] / np.linalg.norm(context.vectors[item]) for item in kept]
        cosines = [unit[i] @ unit[j] for i in range(len(kept)) for j in range(i)]
        diversity += [1 - np.mean(cosines)] if cosines else []
        p, q = (Counter(context.categories[item] for item in some if context.categories[item]) for some in (history, kept))
        if p and q:
            shares = {name: (p[name] / p.total(), q[name] / q.total()) for name in p}
            divergence.append(sum(a * math.log(a / (0.99 * b + 0.01 * a)) for a, b in shares.values()))
    for cells in (1, lists.CELLS):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(lists, "CELLS", cells)
            found = measure_lists(rows, histories, context)
        for value, expected in ((found.intra_list_diversity, diversity), (found.calibration, divergence)):
            assert value == (pytest.approx(np.mean(expected), abs=1e-5) if expected else None)


def test_lists_of_the_same_things_are_neither_novel_nor_fair_beside_lists_of_all_things() -> None:
    same, spread = np.array([[0, 1]] * 5), np.array([[0, 1], [2, 3], [4, 0], [1, 2], [3, 4]])
    assert coverage(same, 5) < coverage(spread, 5) == 1
    assert gini_of_exposure(same, 5) > gini_of_exposure(spread, 5) == pytest.approx(0)
    assert novelty(same, COUNTS) < novelty(spread, COUNTS)


def test_labels_are_sorted_and_blank_or_missing_ones_are_unknown() -> None:
    names, number = known_groups(np.array(["b", "", None, "a", "b"], object))
    assert names == ["a", "b"]
    assert number.tolist() == [1, -1, -1, 0, 1]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: coverage(np.full((3, 2), -1), 5), "got 3 lists without any"),
        (lambda: novelty(np.array([[5]]), COUNTS), "0 to 4, got row 5"),
        (lambda: intra_list_diversity(np.array([[5]]), VECTORS), "0 to 4, got row 5"),
        (lambda: group_gaps(np.array([[5]]), CATEGORIES), "0 to 4, got row 5"),
        (lambda: popularity_bias(ROWS, Histories.from_lists([[0]]), COUNTS), "3 lists and 1 histories"),
        (lambda: group_gaps(ROWS, CATEGORIES, None, np.ones(3)), "needs the answer"),
        (lambda: group_gaps(ROWS, CATEGORIES, np.array([0]), np.ones(3)), "needs the answer"),
        (lambda: ListContext(COUNTS, categories=CATEGORIES[:2]), "categories must have one row per item, 5"),
    ],
)
def test_lists_of_another_catalogue_are_refused(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
