"""Metrics and the evaluation loop against hand-made and naive answers."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation.evaluate import evaluate, repeated_targets, report_table
from genrec.evaluation.metrics import METRICS, hit_positions, mrr_at, ndcg_at, recall_at
from genrec.evaluation.statistics import bootstrap


class Fixed:
    """Always the same ranking; masks when asked."""

    name = "fixed"

    def __init__(self, order: list[int]) -> None:
        self.order = order

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        rows = np.full((len(histories), k), -1, np.int64)
        for user in range(len(histories)):
            kept = [i for i in self.order if not (exclude_seen and i in histories[user])][:k]
            rows[user, : len(kept)] = kept
        return rows, np.zeros(rows.shape, np.float32)


def questions(histories: list[list[int]], items: list[int]) -> Targets:
    return Targets(Histories.from_lists(histories), np.array(items))


def test_places_gains_and_hits_by_hand() -> None:
    rows = np.array([[4, 2, 9], [1, 3, -1], [5, 6, 7]])
    positions = hit_positions(rows, np.array([4, 3, 8]))
    assert positions.tolist() == [0, 1, -1]
    np.testing.assert_allclose(ndcg_at(positions, 3), [1, 1 / np.log2(3), 0])
    assert recall_at(positions, 1).tolist() == [1, 0, 0]
    assert recall_at(positions, 2).tolist() == [1, 1, 0]
    assert mrr_at(positions, 3).tolist() == [1, 0.5, 0]
    assert mrr_at(positions, 1).tolist() == [1, 0, 0]


@given(st.lists(st.integers(-1, 20), min_size=1, max_size=20), st.integers(1, 15))
def test_with_one_target_map_is_mrr_hit_rate_is_recall_and_ndcg_lies_between_them(places: list[int], k: int) -> None:
    positions = np.array(places)
    assert METRICS["map"](positions, k).tolist() == mrr_at(positions, k).tolist()
    assert METRICS["hit_rate"](positions, k).tolist() == recall_at(positions, k).tolist()
    recall, ndcg, mrr = recall_at(positions, k), ndcg_at(positions, k), mrr_at(positions, k)
    assert ((recall >= ndcg) & (ndcg >= mrr) & (mrr >= 0)).all()


def test_a_padded_place_is_never_a_hit() -> None:
    assert hit_positions(np.array([[-1, -1]]), np.array([0])).tolist() == [-1]


@given(st.integers(2, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_ndcg_agrees_with_scikit_learn(items: int, k: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    scores, target = random.permutation(items).astype(float), int(random.integers(items))
    rows = np.argsort(-scores)[None, :k]
    truth = np.zeros((1, items))
    truth[0, target] = 1
    expected = ndcg_score(truth, scores[None], k=k)
    np.testing.assert_allclose(ndcg_at(hit_positions(rows, np.array([target])), k)[0], expected)


def test_masked_and_unmasked_are_two_numbers_and_repeated_targets_are_counted() -> None:
    result = evaluate(Fixed([0, 1, 2, 3]), questions([[0], [0, 1], [2]], [1, 2, 2]), ks=(1, 2), progress=False)
    assert result.positions["masked"].tolist() == [0, 0, -1]
    assert result.positions["unmasked"].tolist() == [1, -1, -1]
    assert result.metrics["masked"]["recall@1"].mean == pytest.approx(2 / 3)
    assert result.repeated_targets == 1
    assert result.questions == 3
    assert result.rows["masked"].tolist() == [[1, 2], [2, 3], [0, 1]]
    assert result.rows["unmasked"].dtype == np.int32
    assert result.users.tolist() == ["0", "1", "2"]
    assert set(result.metrics["masked"]) == {f"{name}@{k}" for name in METRICS for k in (1, 2)}
    json.dumps(result.to_dict())


@pytest.mark.parametrize("batch", [1, 2, 100])
def test_a_repeated_target_is_one_in_its_own_history(batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genrec.evaluation.evaluate.REPEATS_BATCH", batch)
    asked = questions([[0, 5], [], [5, 1, 1], [2], [1, 3]], [5, 5, 1, 1, 2])
    assert repeated_targets(asked).tolist() == [True, False, True, False, False]


@pytest.mark.parametrize("batch_size", [1, 2, 100])
def test_batches_change_nothing(batch_size: int) -> None:
    asked = questions([[0], [1, 2], [], [3]], [1, 3, 0, 2])
    result = evaluate(Fixed([2, 1, 0, 3]), asked, batch_size=batch_size, progress=False)
    assert result.positions["masked"].tolist() == [1, 1, 2, 0]


def test_intervals_hold_the_mean_shrink_with_more_questions_and_can_be_drawn_again() -> None:
    random = np.random.default_rng(0)
    small, large = (random.random(n) < 0.3 for n in (100, 10_000))
    few, many = (bootstrap({"m": values.astype(float)}, seed=1)["m"] for values in (small, large))
    assert few.low < few.mean < few.high
    assert (many.high - many.low) < 0.2 * (few.high - few.low)
    assert bootstrap({"m": small.astype(float)}, seed=1)["m"] == few
    # The normal approximation is right at this size.
    assert many.high - many.low == pytest.approx(2 * 1.96 * large.std() / 100, rel=0.1)


def test_a_user_with_many_questions_is_one_piece_of_evidence() -> None:
    users = np.repeat([f"u{i:02}" for i in range(50)], 20)
    answers = np.repeat(np.random.default_rng(3).random(50) < 0.3, 20).astype(float)  # all of a user's questions agree
    alone = bootstrap({"m": answers}, seed=0)["m"]
    together = bootstrap({"m": answers}, seed=0, users=users.astype(object))["m"]
    assert together.mean == alone.mean
    assert together.high - together.low > 3 * (alone.high - alone.low)
    per_user = bootstrap({"m": answers[::20]}, seed=0)["m"]
    assert (together.low, together.high) == pytest.approx((per_user.low, per_user.high))


def test_the_interval_weighs_users_by_their_questions() -> None:
    users = np.array(["a"] * 9 + ["b"], object)
    found = bootstrap({"m": np.array([1.0] * 9 + [0.0])}, seed=0, users=users)["m"]
    assert (found.mean, found.low, found.high) == (pytest.approx(0.9), 0.0, 1.0)


def test_evaluation_draws_users_not_questions() -> None:
    histories = Histories.from_lists([[0]] * 60, [f"u{i // 20}" for i in range(60)])
    asked = Targets(histories, np.repeat([1, 9, 1], 20))  # user u1 is never answered
    estimate = evaluate(Fixed([0, 1]), asked, ks=(1,), exclude_seen=(True,), progress=False).metrics["masked"]["recall@1"]
    assert (estimate.mean, estimate.low, estimate.high) == (pytest.approx(2 / 3), 0.0, 1.0)


def test_per_question_values_average_to_the_mean() -> None:
    result = evaluate(Fixed([0, 1, 2, 3]), questions([[0], [0, 1], [2]], [1, 3, 2]), progress=False)
    values = result.per_question("masked", "ndcg", 10)
    np.testing.assert_allclose(values, [1, 1 / np.log2(3), 0])
    assert values.mean() == pytest.approx(result.metrics["masked"]["ndcg@10"].mean)
    with pytest.raises(SettingError, match="from 1 to 10, got 20"):
        result.per_question("masked", "ndcg", 20)
    with pytest.raises(SettingError, match="Did you mean 'masked'"):
        result.per_question("maskd", "ndcg", 10)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ks": ()}, "ks must be a list of at least one value"),
        ({"ks": 10}, "ks must be a list"),
        ({"ks": (0,)}, "ks must be an integer of at least 1"),
        ({"exclude_seen": True}, "exclude_seen must be a list"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1"),
        ({"sampled_negatives": 100}, "not offered, got 100: .* can put the worse model first"),
    ],
)
def test_impossible_evaluation_settings_are_refused(setting: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        evaluate(Fixed([0, 1]), questions([[0]], [1]), progress=False, **setting)


def test_a_ranker_that_returns_too_few_places_is_refused() -> None:
    class Short(Fixed):
        def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
            rows, scores = super().rank(histories, k, exclude_seen)
            return rows[:, :3], scores[:, :3]

    with pytest.raises(SettingError, match=r"'fixed' must return rows of shape \(1, 10\)"):
        evaluate(Short([0, 1]), questions([[0]], [1]), progress=False)


def test_a_table_of_nothing_or_of_different_lists_is_refused() -> None:
    asked = questions([[0]], [1])
    results = [evaluate(Fixed([0, 1]), asked, ks=ks, progress=False) for ks in ((1,), (5,))]
    for bad in ([], results):
        with pytest.raises(SettingError, match="same ks"):
            report_table(bad)


def test_nothing_to_ask_is_an_error() -> None:
    with pytest.raises(DataError, match="nothing to evaluate"):
        evaluate(Fixed([0]), questions([], []), progress=False)


def test_the_table_is_markdown_with_a_row_per_model_and_protocol() -> None:
    result = evaluate(Fixed([0, 1, 2, 3]), questions([[0], [0, 1]], [1, 2]), progress=False)
    lines = report_table([result, result]).splitlines()
    assert len(lines) == 6
    assert len({len(line) for line in lines}) == 1
    assert "| fixed | masked " in " ".join(lines[2].split())
    assert "1.0000" in lines[2]
