"""ALS and BPR against the package's own answers and naive algebra, and how a new history becomes a user vector."""

import numpy as np
import pytest

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import SettingError
from genrec.evaluation.baselines.factors import ALS, ALS_GRID, BPR, BPR_GRID, ALSConfig, BPRConfig
from genrec.evaluation.ranking import met_items

TRAIN = Histories.from_lists([[0, 1, 2], [1, 2, 0], [3, 4], [0, 1], [3, 4, 0], [2, 1], [4, 3, 5]] * 3)
ITEMS = 7  # the last one is met by nobody
ASKED = Histories.from_lists([[3, 0], [1], [2, 2, 5]])


def all_scores(baseline: ALS | BPR, asked: Histories) -> np.ndarray:
    """The score of every item [U, N], by row."""
    rows, scores = baseline.rank(asked, ITEMS, exclude_seen=False)
    found = np.empty(scores.shape)
    np.put_along_axis(found, rows, scores.astype(np.float64), axis=1)
    return found


def test_als_folds_a_history_in_as_the_package_does() -> None:
    baseline = ALS(ALSConfig(factors=4, decay=1.0), seed=3).fit(TRAIN, ITEMS)
    asked = Histories.from_lists([[0, 1], [4], [5, 3, 2]])
    rows, scores = baseline.rank(asked, 3, exclude_seen=True)
    ids, theirs = baseline.learned.recommend(np.arange(3), met_items(asked, ITEMS), N=3, recalculate_user=True)
    assert rows.tolist() == ids.tolist()
    np.testing.assert_allclose(scores, theirs, rtol=1e-4)


def test_als_user_vectors_are_weighted_least_squares_with_recency_in_the_weights() -> None:
    config = ALSConfig(factors=3, alpha=5.0, regularization=0.5, decay=0.5)
    baseline = ALS(config).fit(TRAIN, ITEMS)
    items = baseline.learned.item_factors.astype(np.float64)
    for line, history in zip(all_scores(baseline, ASKED), ASKED.to_lists(), strict=True):
        weights, wanted = np.ones(ITEMS), np.zeros(ITEMS)
        for item in set(history.tolist()):
            steps = len(history) - 1 - np.flatnonzero(history == item)
            weights[item], wanted[item] = 5.0 * (0.5**steps).sum(), 1
        gram = items.T @ (weights[:, None] * items) + 0.5 * np.eye(3)
        np.testing.assert_allclose(line, items @ np.linalg.solve(gram, items.T @ (weights * wanted)), rtol=1e-3, atol=1e-5)


def test_als_item_vectors_do_not_depend_on_the_users_who_only_ask() -> None:
    baseline = ALS(ALSConfig(factors=3)).fit(TRAIN, ITEMS)
    before = baseline.learned.item_factors.copy()
    baseline.rank(ASKED, 3, exclude_seen=True)
    np.testing.assert_array_equal(baseline.learned.item_factors, before)


def test_bpr_scores_are_the_mean_item_vector_taken_to_a_user_vector() -> None:
    baseline = BPR(BPRConfig(factors=3, iterations=30, decay=0.5)).fit(TRAIN, ITEMS)
    model = baseline.learned
    # ASKED, by hand: the latest item counts 1, the one before 0.5, before that 0.25.
    means = [
        (model.items[0] + 0.5 * model.items[3]) / 1.5,
        model.items[1],
        (model.items[5] + (0.5 + 0.25) * model.items[2]) / 1.75,
    ]
    expected = np.array([model.items @ (np.append(mean, 1) @ model.fold) + model.bias for mean in means])
    np.testing.assert_allclose(all_scores(baseline, ASKED), expected, rtol=1e-5, atol=1e-6)


def test_bpr_learns_the_way_to_user_vectors_from_its_training_users() -> None:
    from implicit.bpr import BayesianPersonalizedRanking

    config = BPRConfig(factors=3, iterations=30)
    baseline = BPR(config, seed=5).fit(TRAIN, ITEMS)
    order = np.argsort(TRAIN.user_ids)
    theirs = BayesianPersonalizedRanking(
        factors=3, iterations=30, learning_rate=config.learning_rate, regularization=config.regularization,
        use_gpu=False, num_threads=1, random_state=5,
    )  # fmt: skip
    met = met_items(TRAIN.select(order), ITEMS)
    theirs.fit(met, show_progress=False)
    np.testing.assert_array_equal(baseline.learned.items, theirs.item_factors[:, :-1])
    np.testing.assert_array_equal(theirs.user_factors[:, -1], 1)
    means = np.column_stack([met.toarray() @ baseline.learned.items / TRAIN.lengths[order, None], np.ones(len(TRAIN))])
    users = theirs.user_factors[:, :-1].astype(np.float64)

    def loss(fold: np.ndarray) -> float:
        return float(((means @ fold - users) ** 2).sum() + (fold**2).sum())

    least = loss(baseline.learned.fold)
    assert least < loss(np.zeros((4, 3)))
    for place in np.ndindex(4, 3):
        for step in (-1e-3, 1e-3):
            moved = baseline.learned.fold.copy()
            moved[place] += step
            assert loss(moved) > least, "a ridge regression is where every step leads up"


def test_items_that_nobody_met_say_nothing_in_a_bpr_history() -> None:
    baseline = BPR(BPRConfig(factors=3, iterations=10, decay=1.0)).fit(TRAIN, ITEMS)
    alone, beside = all_scores(baseline, Histories.from_lists([[3], [3, 6]]))
    np.testing.assert_array_equal(alone, beside)


@pytest.mark.parametrize("kind", [ALS, BPR])
def test_another_seed_gives_another_model(kind: type) -> None:
    config = ALSConfig(factors=3) if kind is ALS else BPRConfig(factors=3, iterations=5)
    one, other = (all_scores(kind(config, seed).fit(TRAIN, ITEMS), ASKED) for seed in (0, 1))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("kind", [ALS, BPR])
def test_tuned_factors_are_those_fitted_with_what_was_chosen(kind: type) -> None:
    config = ALSConfig(factors=3) if kind is ALS else BPRConfig(factors=3, iterations=5)
    validation = Targets(Histories.from_lists([[0, 3], [3], [2]]), np.array([4, 4, 1]))
    tuned = kind(config, 0).fit(TRAIN, ITEMS).tune(validation, exclude_seen=True)
    if kind is ALS:
        assert (tuned.config.alpha, tuned.config.regularization) in ALS_GRID
    else:
        assert tuned.config.regularization in BPR_GRID
    again = kind(tuned.config, 0).fit(TRAIN, ITEMS)
    np.testing.assert_array_equal(all_scores(tuned, ASKED), all_scores(again, ASKED))


@pytest.mark.parametrize(
    ("config", "setting"),
    [
        (ALSConfig, {"factors": 0}),
        (ALSConfig, {"iterations": 0}),
        (ALSConfig, {"alpha": 0.0}),
        (ALSConfig, {"regularization": -1.0}),
        (ALSConfig, {"decay": 0.0}),
        (BPRConfig, {"factors": 0}),
        (BPRConfig, {"iterations": 0}),
        (BPRConfig, {"learning_rate": 0.0}),
        (BPRConfig, {"regularization": 0.0}),
        (BPRConfig, {"decay": 1.1}),
    ],
)
def test_impossible_settings_are_refused(config: type, setting: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        config(**setting)
