"""What every baseline promises, and how they are named in a recipe."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Histories
from genrec.data.splits import Split, Targets, leave_one_out
from genrec.data.synthetic import make_shop
from genrec.embedding.text import default_template, render
from genrec.errors import DataError, MissingDependencyError, SettingError
from genrec.evaluation import ranking
from genrec.evaluation.base import Baseline, Tunable
from genrec.evaluation.baselines import BASELINES, NEED_TEXTS, check_baselines
from genrec.evaluation.baselines.ease import EASE
from genrec.evaluation.baselines.factors import ALS, BPR, ALSConfig, BPRConfig
from genrec.evaluation.baselines.popularity import Popularity
from genrec.evaluation.evaluate import evaluate
from genrec.fit import evaluate_baselines, fit
from genrec.recipe import EvaluationConfig, Recipe

TEXTS = ["red soap", "blue soap", "red towel", "printer ink", "printer paper", "", "red bag"]
TRAIN = [[0, 1, 2], [1, 2, 0], [3, 4], [0, 1], [3, 4, 0], [5], [2, 1, 1], [0, 3]]
ITEMS = len(TEXTS)  # the last one is met by nobody
SMALL = {
    "als": lambda seed: ALS(ALSConfig(factors=3), seed),
    "bpr": lambda seed: BPR(BPRConfig(factors=3, iterations=20), seed),
}


def histories(lists: list[list[int]]) -> Histories:
    """With a time per event, later in later users."""
    found = Histories.from_lists(lists)
    return replace(found, times=np.arange(len(found.items)) * 86_400.0)


def fitted(name: str, train: Histories, seed: int = 0) -> Baseline:
    make: Callable[[int], Baseline] = SMALL.get(name, BASELINES[name])
    return make(seed).fit(train, TEXTS if name in NEED_TEXTS else ITEMS)


@pytest.fixture(scope="module")
def everyone() -> dict[str, Baseline]:
    return {name: fitted(name, histories(TRAIN)) for name in BASELINES}


@pytest.fixture(scope="module")
def shop() -> tuple[Catalogue, Split]:
    catalogue, interactions = make_shop(users=300, items=80, seed=2)
    return catalogue, leave_one_out(interactions.histories(catalogue))


@pytest.mark.parametrize("name", BASELINES)
class TestEveryBaseline:
    """The contract, asked of each by name."""

    def test_knows_its_name(self, name: str, everyone: dict[str, Baseline]) -> None:
        assert everyone[name].name == name

    def test_gives_rows_and_scores_best_first_and_equal_ones_in_catalogue_order(
        self, name: str, everyone: dict[str, Baseline]
    ) -> None:
        rows, scores = everyone[name].rank(Histories.from_lists([[0], [3, 1], [6, 6], []]), 5, exclude_seen=False)
        assert (rows.shape, rows.dtype) == ((4, 5), np.int64)
        assert (scores.shape, scores.dtype) == ((4, 5), np.float32)
        assert (np.diff(scores) <= 0).all()
        same = np.diff(scores) == 0
        assert (np.diff(rows)[same] > 0).all()

    @settings(max_examples=15, deadline=None)
    @given(lists=st.lists(st.lists(st.integers(0, ITEMS - 1), max_size=8), min_size=1, max_size=4))
    def test_masked_lists_hold_exactly_what_the_user_has_not_seen(
        self, name: str, everyone: dict[str, Baseline], lists: list[list[int]]
    ) -> None:
        rows, scores = everyone[name].rank(Histories.from_lists(lists), ITEMS, exclude_seen=True)
        for history, found, values in zip(lists, rows, scores, strict=True):
            assert set(found[found >= 0]) == set(range(ITEMS)) - set(history)
            assert np.isneginf(values[found < 0]).all()
            assert np.isfinite(values[found >= 0]).all()

    def test_unmasked_lists_hold_every_item(self, name: str, everyone: dict[str, Baseline]) -> None:
        rows, _ = everyone[name].rank(Histories.from_lists([[0, 1, 2], [6]]), ITEMS, exclude_seen=False)
        assert np.sort(rows).tolist() == [list(range(ITEMS))] * 2

    def test_fills_with_minus_one_when_k_is_above_the_catalogue(self, name: str, everyone: dict[str, Baseline]) -> None:
        rows, scores = everyone[name].rank(Histories.from_lists([[0, 1], []]), ITEMS + 3, exclude_seen=True)
        assert (rows >= 0).sum(axis=1).tolist() == [ITEMS - 2, ITEMS]
        assert np.isneginf(scores[rows < 0]).all()

    def test_answers_an_empty_history_by_popularity(self, name: str, everyone: dict[str, Baseline]) -> None:
        if name == "recent-popularity":
            pytest.skip("its order is another one for everybody")
        rows, _ = everyone[name].rank(Histories.from_lists([[]]), ITEMS, exclude_seen=True)
        expected, _ = everyone["popularity"].rank(Histories.from_lists([[]]), ITEMS, exclude_seen=True)
        assert rows.tolist() == expected.tolist()

    def test_answers_a_history_of_items_that_nobody_met(self, name: str, everyone: dict[str, Baseline]) -> None:
        rows, scores = everyone[name].rank(Histories.from_lists([[6]]), ITEMS, exclude_seen=True)
        assert sorted(rows[0]) == [-1, *range(6)]
        assert np.isfinite(scores[0, :6]).all()

    def test_learns_the_same_whatever_the_order_of_users(self, name: str, everyone: dict[str, Baseline]) -> None:
        train = histories(TRAIN)
        other = fitted(name, train.select(np.array([5, 2, 7, 0, 6, 1, 4, 3])))
        asked = Histories.from_lists([[0, 1], [], [3], [2, 4, 0]])
        for mine, theirs in zip(everyone[name].rank(asked, 5, True), other.rank(asked, 5, True), strict=True):
            np.testing.assert_array_equal(mine, theirs)

    def test_answers_the_same_whoever_else_asks(
        self, name: str, everyone: dict[str, Baseline], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = Histories.from_lists([[0, 1], [], [3], [2, 4, 0], [5]])
        rows, scores = everyone[name].rank(asked, 4, exclude_seen=True)
        backwards = np.arange(5)[::-1]
        for size in (1, 2, 256):
            monkeypatch.setattr(ranking, "BATCH", size)
            again, scores_again = everyone[name].rank(asked.select(backwards), 4, exclude_seen=True)
            np.testing.assert_array_equal(again[backwards], rows)
            np.testing.assert_array_equal(scores_again[backwards], scores)

    def test_learns_the_same_from_the_same_seed(self, name: str, everyone: dict[str, Baseline]) -> None:
        asked = Histories.from_lists([[0, 1], [3]])
        again = fitted(name, histories(TRAIN)).rank(asked, 5, True)
        np.testing.assert_array_equal(everyone[name].rank(asked, 5, True)[1], again[1])

    def test_changes_neither_the_question_nor_the_disk(
        self, name: str, everyone: dict[str, Baseline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        train, asked = histories(TRAIN), Histories.from_lists([[0, 1], []])
        fitted(name, train).rank(asked, 3, exclude_seen=True)
        assert train.to_lists()[0].tolist() == TRAIN[0]
        assert asked.items.tolist() == [0, 1]
        assert list(tmp_path.iterdir()) == []

    def test_refuses_a_k_of_zero_and_training_items_beyond_the_catalogue(
        self, name: str, everyone: dict[str, Baseline]
    ) -> None:
        with pytest.raises(SettingError, match="k must be"):
            everyone[name].rank(Histories.from_lists([[0]]), 0, True)
        with pytest.raises(DataError, match="0 to 6, got row 9"):
            fitted(name, histories([[9]]))

    def test_is_never_worse_on_validation_for_being_tuned_and_needs_questions_for_it(
        self, name: str, everyone: dict[str, Baseline]
    ) -> None:
        baseline = fitted(name, histories(TRAIN))
        if not isinstance(baseline, Tunable):
            assert name in ("popularity", "repeat-last")
            return
        validation = Targets(Histories.from_lists([[0], [3], [1, 0]]), np.array([1, 4, 2]))
        before = evaluate(baseline, validation, progress=False).metrics["masked"]["ndcg@10"].mean
        assert baseline.tune(validation, exclude_seen=True) is baseline
        # The defaults are points of the grids.
        assert evaluate(baseline, validation, progress=False).metrics["masked"]["ndcg@10"].mean >= before
        with pytest.raises(DataError, match="nothing to tune"):
            baseline.tune(Targets(Histories.from_lists([]), np.zeros(0, np.int64)), exclude_seen=True)


@pytest.mark.parametrize("name", sorted(BASELINES.keys() - {"popularity", "recent-popularity", "repeat-last"}))
def test_whoever_knows_items_is_far_above_popularity_on_the_shop(name: str, shop: tuple[Catalogue, Split]) -> None:
    catalogue, split = shop
    needed = render(catalogue, default_template(catalogue)) if name in NEED_TEXTS else len(catalogue)
    found = {}
    for baseline in (
        Popularity().fit(split.train, len(catalogue)),
        {"als": lambda seed: ALS(ALSConfig(factors=16)), "bpr": lambda seed: BPR(BPRConfig(factors=16))}.get(
            name, BASELINES[name]
        )(0).fit(split.train, needed),
    ):
        result = evaluate(baseline, split.test, exclude_seen=(True,), progress=False)
        found[baseline.name] = result.metrics["masked"]["ndcg@10"].mean
    assert found[name] > 1.5 * found["popularity"], found


def test_a_recipe_names_its_baselines_and_they_come_in_its_order(shop: tuple[Catalogue, Split]) -> None:
    catalogue, split = shop
    recipe = Recipe(evaluation=EvaluationConfig(baselines=["item-knn", "popularity", "text-neighbours"]))
    results = evaluate_baselines(catalogue, split, recipe, split.test.sample(20, 0))
    assert [result.name for result in results] == ["item-knn", "popularity", "text-neighbours"]
    assert all(result.questions == 20 for result in results)


def test_a_recipe_without_text_baselines_needs_no_texts(shop: tuple[Catalogue, Split]) -> None:
    catalogue, split = shop
    plain = Catalogue(catalogue.table.select(["item_id"]))
    recipe = Recipe(evaluation=EvaluationConfig(baselines=["popularity", "repeat-last"]))
    assert len(evaluate_baselines(plain, split, recipe, split.test.sample(5, 0))) == 2


def test_a_fit_says_before_its_work_that_a_baseline_cannot_be_measured(tmp_path: Path) -> None:
    catalogue, interactions = make_shop(users=30, items=20, seed=2)
    timeless = interactions.table.drop_columns(["timestamp"])
    recipe = Recipe(evaluation=EvaluationConfig(baselines=["recent-popularity"]))
    with pytest.raises(DataError, match="needs training events with a timestamp"):
        fit(catalogue.table, timeless, tmp_path / "out", recipe)
    assert not (tmp_path / "out").exists()


def test_what_the_data_cannot_give_is_said_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    timeless = Histories.from_lists(TRAIN)
    check_baselines(["popularity", "item-knn"], timeless, 10**6)
    with pytest.raises(DataError, match="needs training events with a timestamp"):
        check_baselines(["recent-popularity"], timeless, ITEMS)
    with pytest.raises(DataError, match=r"takes 80\.0 GB in float64 for 100000 items.*Use item-knn"):
        check_baselines(["ease"], timeless, 100_000)
    with pytest.raises(DataError, match="item-knn"):
        EASE().fit(timeless, 100_000)
    for name in ("als", "bpr"):
        monkeypatch.setitem(sys.modules, f"implicit.{name}", None)
        with pytest.raises(MissingDependencyError, match=r"pip install 'genrec\[baselines\]'"):
            check_baselines([name], timeless, ITEMS)
        with pytest.raises(MissingDependencyError, match="implicit"):
            fitted(name, timeless)
