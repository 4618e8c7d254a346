"""Metrics and the evaluation loop against hand-made and naive answers."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError
from genrec.evaluation.evaluate import bootstrap, evaluate, report_table
from genrec.evaluation.metrics import hit_positions, ndcg_at, recall_at


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
    json.dumps(result.to_dict())


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
