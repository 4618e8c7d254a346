"""Popularity, neighbours and EASE against answers by hand and naive code."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation.baselines import ease
from genrec.evaluation.baselines.ease import EASE, EASEConfig
from genrec.evaluation.baselines.neighbours import (
    ItemKNN,
    ItemKNNConfig,
    TextNeighbours,
    TextNeighboursConfig,
    vector_neighbours,
)
from genrec.evaluation.baselines.popularity import Popularity, RecentPopularity, RecentPopularityConfig, RepeatLast

TRAIN = [[0, 1, 2], [1, 2, 0], [3, 4], [0, 1], [3, 4, 0], [2, 2]]
DAY = 86_400.0
LISTS = st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=8)


def timed(lists: list[list[int]], days: list[float]) -> Histories:
    return replace(Histories.from_lists(lists), times=np.array(days) * DAY)


def scores_of(baseline: object, history: list[int], items: int) -> np.ndarray:
    """The score of every item [N], by row."""
    rows, scores = baseline.rank(Histories.from_lists([history]), items, exclude_seen=False)  # type: ignore[attr-defined]
    found = np.empty(items)
    found[rows[0]] = scores[0]
    return found


def test_popularity_counts_training_events() -> None:
    rows, scores = Popularity().fit(Histories.from_lists(TRAIN), 6).rank(Histories.from_lists([[], [0]]), 3, True)
    assert rows.tolist() == [[0, 2, 1], [2, 1, 3]]
    assert scores[0].tolist() == [4, 4, 3]


def test_an_event_counts_half_after_the_half_life() -> None:
    train = timed([[0, 1], [1, 2]], [0, 10, 20, 20])
    found = scores_of(RecentPopularity(RecentPopularityConfig(half_life=10)).fit(train, 3), [], 3)
    np.testing.assert_allclose(found, [0.25, 0.5 + 1, 1])


def test_the_last_share_counts_its_events_alike_and_those_of_the_same_moment() -> None:
    train = timed([[0, 0, 0, 1], [2, 1]], [1, 2, 3, 9, 8, 8])
    baseline = RecentPopularity(RecentPopularityConfig(None, last_share=1 / 3)).fit(train, 4)
    found = scores_of(baseline, [], 4)
    assert found[[1, 2]].tolist() == [2, 1]
    assert 0 < found[0] < 1, "old events come after every recent one"
    assert found[3] == 0
    everything = RecentPopularity(RecentPopularityConfig(None, last_share=1.0)).fit(train, 4)
    assert scores_of(everything, [], 4).tolist() == [3, 2, 1, 0]


def test_events_without_a_time_are_not_recent() -> None:
    train = timed([[0, 0, 1], [2]], [np.nan, np.nan, 3, 3])
    rows, _ = RecentPopularity().fit(train, 4).rank(Histories.from_lists([[]]), 4, False)
    assert rows[0].tolist() == [1, 2, 0, 3]


def test_tuning_recent_popularity_finds_that_only_the_last_days_matter() -> None:
    train = timed([[0] * 50, [1, 1]], [*range(50), 500, 500])
    baseline = RecentPopularity(RecentPopularityConfig(half_life=10_000)).fit(train, 3)
    assert scores_of(baseline, [], 3).argmax() == 0
    baseline.tune(Targets(Histories.from_lists([[], []]), np.array([1, 1])), exclude_seen=True)
    assert scores_of(baseline, [], 3).argmax() == 1
    assert baseline.config.half_life == 7


def test_a_half_life_of_milliseconds_is_refused_and_tuning_leaves_it_out() -> None:
    train = Histories.from_lists([[0, 1]])
    train = replace(train, times=np.array([1.7e12, 1.7e12 + 1]))
    with pytest.raises(DataError, match="needs timestamps in seconds since 1970, got 1.7e\\+12"):
        RecentPopularity().fit(train, 2)
    baseline = RecentPopularity(RecentPopularityConfig(None, 0.5)).fit(train, 2)
    baseline.tune(Targets(Histories.from_lists([[]]), np.array([1])), exclude_seen=True)
    assert baseline.config.half_life is None


@pytest.mark.parametrize(
    "setting", [{"half_life": None}, {"last_share": 0.5}, {"half_life": 0.0}, {"half_life": None, "last_share": 1.5}]
)
def test_impossible_ways_to_be_recent_are_refused(setting: dict) -> None:
    with pytest.raises(SettingError, match=r"half_life|last_share"):
        RecentPopularityConfig(**setting)


def test_repeat_last_gives_the_history_latest_first_then_popularity() -> None:
    baseline = RepeatLast().fit(Histories.from_lists(TRAIN), 6)
    asked = Histories.from_lists([[4, 5, 1, 5, 3], []])
    rows, _ = baseline.rank(asked, 6, exclude_seen=False)
    assert rows.tolist() == [[3, 5, 1, 4, 0, 2], [0, 2, 1, 3, 4, 5]]
    masked, _ = baseline.rank(asked, 2, exclude_seen=True)
    assert masked[0].tolist() == [0, 2], "masked, it is popularity"


def naive_cosines(train: list[list[int]], items: int, shrink: float, neighbours: int) -> np.ndarray:
    users = [{user for user, history in enumerate(train) if item in history} for item in range(items)]
    found = np.zeros((items, items))
    for a in range(items):
        for b in range(items):
            if a != b and users[a] & users[b]:
                found[a, b] = len(users[a] & users[b]) / (np.sqrt(len(users[a]) * len(users[b])) + shrink)
        kept = np.argsort(-found[a], kind="stable")[:neighbours]
        found[a, np.setdiff1d(np.arange(items), kept)] = 0
    return found


@settings(max_examples=40, deadline=None)
@given(train=LISTS, shrink=st.sampled_from([0.0, 2.5]), neighbours=st.integers(1, 6))
def test_item_neighbours_equal_counting_user_by_user(train: list[list[int]], shrink: float, neighbours: int) -> None:
    baseline = ItemKNN(ItemKNNConfig(neighbours=neighbours, shrink=shrink)).fit(Histories.from_lists(train), 6)
    np.testing.assert_allclose(baseline.learned.toarray(), naive_cosines(train, 6, shrink, neighbours), rtol=1e-6)


def test_item_neighbours_add_up_over_the_history_and_the_latest_item_counts_most() -> None:
    baseline = ItemKNN(ItemKNNConfig(shrink=1.0, decay=0.5)).fit(Histories.from_lists(TRAIN), 6)
    alike = naive_cosines(TRAIN, 6, 1.0, 6)
    np.testing.assert_allclose(scores_of(baseline, [3, 1, 0], 6), alike[0] + 0.5 * alike[1] + 0.25 * alike[3], rtol=1e-6)


def test_tuning_item_neighbours_finds_that_only_the_last_item_matters() -> None:
    train = Histories.from_lists([[0, 1]] * 5 + [[2, 3]] * 5)
    baseline = ItemKNN(ItemKNNConfig(decay=1.0)).fit(train, 4)
    baseline.tune(Targets(Histories.from_lists([[0, 0, 2]] * 3), np.array([3] * 3)), exclude_seen=True)
    assert baseline.config.decay == 0.3


def test_text_neighbours_by_vectors_are_the_highest_cosines_and_equal_ones_come_in_catalogue_order() -> None:
    vectors = np.array([[1, 0], [2, 0], [1, 1], [0, 0], [3, 0], [-1, 0]], np.float64)
    alike = vector_neighbours(vectors, 2)
    assert [sorted(alike[row].indices.tolist()) for row in range(6)] == [[1, 4], [0, 4], [0, 1], [], [0, 1], []]
    np.testing.assert_allclose(alike[2].data, [np.sqrt(0.5)] * 2, rtol=1e-6)


def test_text_neighbours_take_texts_or_vectors() -> None:
    train = Histories.from_lists([[0, 1]])
    by_text = TextNeighbours(TextNeighboursConfig(decay=0.5)).fit(train, ["red soap", "red towel", "ink"])
    assert scores_of(by_text, [1], 3).argmax() == 0
    by_vector = TextNeighbours(TextNeighboursConfig(decay=0.5)).fit(train, np.array([[1.0, 0], [0, 1], [0.6, 0.8]]))
    np.testing.assert_allclose(scores_of(by_vector, [0, 1], 3), [0, 0, 0.8 + 0.5 * 0.6], rtol=1e-6)


@pytest.mark.parametrize("vectors", [np.zeros(3), np.array([[1.0], [np.nan], [0.0]])])
def test_vectors_that_are_none_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(DataError, match="finite numbers of shape"):
        TextNeighbours().fit(Histories.from_lists([[0]]), vectors)


def naive_ease(train: list[list[int]], items: int, l2: float) -> np.ndarray:
    """Column by column: the ridge regression of an item on all the others."""
    met = np.array([[float(item in history) for item in range(items)] for history in train])
    found = np.zeros((items, items))
    for item in range(items):
        others = np.delete(np.arange(items), item)
        gram = met[:, others].T @ met[:, others] + l2 * np.eye(items - 1)
        found[others, item] = np.linalg.solve(gram, met[:, others].T @ met[:, item])
    return found


@settings(max_examples=30, deadline=None)
@given(train=LISTS, l2=st.sampled_from([0.5, 20.0]), block=st.sampled_from([1, 4, 100]))
def test_ease_is_the_ridge_regression_of_each_item_on_all_the_others(train: list[list[int]], l2: float, block: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ease, "BLOCK", block)
        baseline = EASE(EASEConfig(l2=l2)).fit(Histories.from_lists(train), 6)
    np.testing.assert_allclose(baseline.learned, naive_ease(train, 6, l2), rtol=1e-5, atol=1e-7)
    assert (baseline.learned.diagonal() == 0).all()


def test_ease_asks_with_recency_weights_and_with_decay_one_as_in_the_paper() -> None:
    weights = naive_ease(TRAIN, 6, 2.0)
    for decay in (1.0, 0.5):
        baseline = EASE(EASEConfig(l2=2.0, decay=decay)).fit(Histories.from_lists(TRAIN), 6)
        np.testing.assert_allclose(scores_of(baseline, [3, 0], 6), weights[0] + decay * weights[3], rtol=1e-5, atol=1e-7)


def test_tuned_ease_is_ease_fitted_with_what_was_chosen() -> None:
    train = Histories.from_lists(TRAIN)
    validation = Targets(Histories.from_lists([[0, 3], [3], [2]]), np.array([4, 4, 1]))
    tuned = EASE().fit(train, 6).tune(validation, exclude_seen=True)
    assert tuned.config.l2 in ease.L2S
    np.testing.assert_array_equal(tuned.learned, EASE(tuned.config).fit(train, 6).learned)


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (ItemKNNConfig, {"neighbours": 0}),
        (ItemKNNConfig, {"shrink": -1.0}),
        (ItemKNNConfig, {"decay": 0.0}),
        (TextNeighboursConfig, {"neighbours": 0}),
        (TextNeighboursConfig, {"decay": 2.0}),
        (EASEConfig, {"l2": 0.0}),
        (EASEConfig, {"decay": -0.1}),
    ],
)
def test_impossible_settings_are_refused(config: type, setting: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        config(**setting)
