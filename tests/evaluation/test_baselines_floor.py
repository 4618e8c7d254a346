"""The co-occurrence + TF-IDF floor against naive code, and its tuning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.data.interactions import Histories
from genrec.data.splits import Targets, leave_one_out
from genrec.data.synthetic import make_shop
from genrec.embedding.text import default_template, render
from genrec.errors import DataError, SettingError
from genrec.evaluation import ranking
from genrec.evaluation.baselines import floor as floor_module
from genrec.evaluation.baselines.floor import CooccurrenceTfidf, FloorConfig
from genrec.evaluation.baselines.neighbours import text_neighbours
from genrec.evaluation.baselines.popularity import Popularity
from genrec.evaluation.evaluate import evaluate

TEXTS = ["red soap", "blue soap", "red towel", "printer ink", "printer paper", ""]
TRAIN = [[0, 1, 2], [1, 2, 0], [3, 4], [0, 1], [3, 4, 0]]


def floor(**changes: object) -> CooccurrenceTfidf:
    return CooccurrenceTfidf(FloorConfig(**changes)).fit(Histories.from_lists(TRAIN), TEXTS)  # type: ignore[arg-type]


def naive_cooccurrence(train: list[list[int]], items: int, backward: float, damping: float, window: int = 50) -> np.ndarray:
    popularity = np.zeros(items)
    weights = np.zeros((items, items))
    for history in train:
        for place, item in enumerate(history):
            popularity[item] += 1
            for later in range(place + 1, min(len(history), place + 1 + window)):
                weights[item, history[later]] += 1 / (later - place)
    weights = weights + backward * weights.T
    np.fill_diagonal(weights, 0)
    popularity = np.maximum(popularity, 1)
    return weights / np.outer(popularity, popularity) ** damping


@given(st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=8))
def test_cooccurrence_equals_counting_pair_by_pair(train: list[list[int]]) -> None:
    fitted = CooccurrenceTfidf().fit(Histories.from_lists(train), TEXTS)
    np.testing.assert_allclose(fitted.together.toarray(), naive_cooccurrence(train, 6, 0.5, 0.25), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("window", [1, 2, 4])
def test_items_further_apart_than_the_window_do_not_count_as_together(window: int) -> None:
    long = [[0, 1, 2, 3, 4, 5], [5, 3, 1, 0]]
    fitted = CooccurrenceTfidf(FloorConfig(window=window)).fit(Histories.from_lists(long), TEXTS)
    np.testing.assert_allclose(fitted.together.toarray(), naive_cooccurrence(long, 6, 0.5, 0.25, window), rtol=1e-4)


def test_text_neighbours_are_the_highest_cosines_and_equal_ones_come_in_catalogue_order() -> None:
    texts = ["soap", "red soap", "soap", "soap", "ink", "", "soap bar"]
    alike = text_neighbours(texts, 2)
    assert [sorted(alike[row].indices.tolist()) for row in range(7)] == [[2, 3], [0, 2], [0, 3], [0, 2], [], [], [0, 2]]
    vectors = TfidfVectorizer(sublinear_tf=True).fit_transform(texts)
    cosines = (vectors @ vectors.T).toarray()
    for row in range(7):
        np.testing.assert_allclose(alike[row].data, cosines[row, alike[row].indices], rtol=1e-5)


def test_catalogues_without_words_or_with_one_item_have_no_text_neighbours() -> None:
    assert text_neighbours(["", " "], 60).nnz == 0
    assert text_neighbours(["soap"], 60).nnz == 0


def test_only_the_latest_query_items_vote() -> None:
    fitted = floor(query_items=1)
    _, short = fitted.rank(Histories.from_lists([[0]]), 6, exclude_seen=False)
    _, long = fitted.rank(Histories.from_lists([[3, 4, 0]]), 6, exclude_seen=False)
    np.testing.assert_array_equal(short, long)


def test_an_empty_history_gets_the_popularity_order() -> None:
    asked = Histories.from_lists([[], [3]])
    rows, scores = floor().rank(asked, 6, exclude_seen=True)
    expected, counts = Popularity().fit(Histories.from_lists(TRAIN), 6).rank(asked, 6, exclude_seen=True)
    assert rows[0].tolist() == expected[0].tolist()
    assert scores[0].tolist() == counts[0].tolist()
    assert rows[1].tolist() != expected[1].tolist()


def test_fitting_again_and_other_batches_give_the_same_ranking(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Histories.from_lists([[0, 1], [], [3], [2, 4, 0], [5]])
    rows, scores = floor().rank(asked, 4, exclude_seen=True)
    for size in (1, 2):
        monkeypatch.setattr(ranking, "BATCH", size)
        again, scores_again = floor().rank(asked, 4, exclude_seen=True)
        np.testing.assert_array_equal(rows, again)
        np.testing.assert_array_equal(scores, scores_again)


def test_large_catalogues_are_scored_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "BATCH_CELLS", 13)
    sizes = []
    score = CooccurrenceTfidf._score
    monkeypatch.setattr(CooccurrenceTfidf, "_score", lambda self, batch: sizes.append(len(batch)) or score(self, batch))
    floor().rank(Histories.from_lists([[0]] * 5), 1, exclude_seen=False)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_tuning_keeps_the_first_best_pair_of_the_whole_grid(exclude_seen: bool) -> None:
    catalogue, interactions = make_shop(users=60, items=40, seed=4)
    split = leave_one_out(interactions.histories(catalogue))
    texts, validation = render(catalogue, default_template(catalogue)), split.validation
    fitted = CooccurrenceTfidf().fit(split.train, texts)
    scored = {}
    for decay in floor_module.DECAYS:
        for weight in floor_module.TEXT_WEIGHTS:
            fitted.config = FloorConfig(decay=decay, text_weight=weight)
            result = evaluate(fitted, validation, exclude_seen=(exclude_seen,), progress=False)
            scored[decay, weight] = next(iter(result.metrics.values()))["ndcg@10"].mean
    assert len(set(scored.values())) > 5
    chosen = fitted.tune(validation, exclude_seen).config
    assert (chosen.decay, chosen.text_weight) == max(scored, key=lambda pair: scored[pair])


def test_tuning_without_questions_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to tune"):
        floor().tune(Targets(Histories.from_lists([]), np.zeros(0, np.int64)), exclude_seen=True)


def test_training_items_beyond_the_catalogue_are_an_error() -> None:
    with pytest.raises(DataError, match="0 to 1, got row 4"):
        CooccurrenceTfidf().fit(Histories.from_lists(TRAIN), TEXTS[:2])
    with pytest.raises(DataError, match="0 to 1, got row 4"):
        Popularity().fit(Histories.from_lists(TRAIN), 2)


def test_the_score_is_both_parts_by_their_maximum() -> None:
    fitted = floor(decay=0.5, text_weight=0.3)
    rows, scores = fitted.rank(Histories.from_lists([[3, 0]]), 6, exclude_seen=False)
    together = naive_cooccurrence(TRAIN, 6, 0.5, 0.25)
    votes = together[0] + 0.5 * together[3]
    alike = fitted.alike.toarray()
    words = alike[0] + 0.5 * alike[3]
    expected = votes / votes.max() + 0.3 * words / words.max()
    np.testing.assert_allclose(scores[0], expected[rows[0]], rtol=1e-5)
    assert rows[0].tolist() == np.argsort(-expected, kind="stable").tolist()


def test_text_finds_items_that_nobody_met() -> None:
    silent = CooccurrenceTfidf(FloorConfig(text_weight=1.0)).fit(Histories.from_lists([[0, 1]]), TEXTS)
    rows, _ = silent.rank(Histories.from_lists([[3]]), 1, exclude_seen=True)
    assert rows[0, 0] == 4, "the other printer thing"


def test_tuning_chooses_what_is_better_on_validation() -> None:
    # Validation says: what reads alike comes next, though other items co-occurred.
    validation = Targets(Histories.from_lists([[3]] * 20), np.array([4] * 20))
    confusing = Histories.from_lists([[3, 0]] * 8 + [[3, 1], [3, 2]])
    tuned = CooccurrenceTfidf(FloorConfig(text_weight=0.0)).fit(confusing, TEXTS)
    tuned.tune(validation, exclude_seen=True)
    assert tuned.config.text_weight > 0
    with_text = evaluate(tuned, validation, progress=False).metrics["masked"]["ndcg@10"].mean
    without = CooccurrenceTfidf(FloorConfig(text_weight=0.0)).fit(confusing, TEXTS)
    assert with_text >= evaluate(without, validation, progress=False).metrics["masked"]["ndcg@10"].mean


def test_the_floor_is_far_above_popularity_on_the_shop() -> None:
    catalogue, interactions = make_shop(users=400, items=100, seed=2)
    split = leave_one_out(interactions.histories(catalogue))
    fitted = CooccurrenceTfidf().fit(split.train, render(catalogue, default_template(catalogue)))
    good = evaluate(fitted, split.test, progress=False).metrics["masked"]["ndcg@10"].mean
    weak = evaluate(Popularity().fit(split.train, 100), split.test, progress=False).metrics["masked"]["ndcg@10"].mean
    assert good > 2 * weak


@pytest.mark.parametrize("setting", [{"decay": 0.0}, {"decay": 1.5}, {"text_weight": -1.0}, {"window": 0}, {"query_items": 0}])
def test_impossible_settings_are_refused(setting: dict) -> None:
    with pytest.raises(SettingError, match=next(iter(setting))):
        FloorConfig(**setting)
