"""Click-through metrics against scikit-learn and against counting pairs."""

import math

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn import metrics as sklearn

from genrec.errors import DataError
from genrec.evaluation.ctr_metrics import auc, gauc, log_loss

SHOWN = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([-np.inf, -1.0, 0.0, 0.25, 3.0, np.inf])), min_size=2, max_size=40
)


def pair_by_pair(labels: np.ndarray, scores: np.ndarray) -> float:
    pairs = [(a, b) for a in scores[labels == 1] for b in scores[labels == 0]]
    return sum(1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs) / len(pairs)


@given(SHOWN)
def test_auc_is_the_share_of_pairs_in_order_with_ties_counting_half(shown: list[tuple[int, float]]) -> None:
    labels, scores = (np.array(column) for column in zip(*shown, strict=True))
    assume(0 < labels.sum() < len(labels))
    assert auc(labels, scores) == pytest.approx(pair_by_pair(labels, scores), abs=1e-9)
    finite = np.nan_to_num(scores, posinf=9, neginf=-9)
    assert auc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, finite), abs=1e-9)
    assert auc(labels, -scores) == pytest.approx(1 - auc(labels, scores), abs=1e-9)
    assert auc(labels, np.exp(finite)) == pytest.approx(auc(labels, finite), abs=1e-12), "only the order counts"


@given(SHOWN, st.integers(0, 10**6))
def test_gauc_is_the_mean_of_the_users_aucs_weighted_by_what_they_were_shown(shown: list, seed: int) -> None:
    labels, scores = (np.array(column) for column in zip(*shown, strict=True))
    users = np.random.default_rng(seed).choice(["ann", "bob", "eve"], len(labels))
    parts = [(labels[users == user], scores[users == user]) for user in np.unique(users)]
    parts = [(mine, theirs) for mine, theirs in parts if 0 < mine.sum() < len(mine)]
    assume(parts)
    expected = np.average([pair_by_pair(*part) for part in parts], weights=[len(mine) for mine, _ in parts])
    assert gauc(labels, scores, users) == pytest.approx(expected, abs=1e-9)
    order = np.random.default_rng(seed).permutation(len(labels))
    assert gauc(labels[order], scores[order], users[order]) == pytest.approx(expected, abs=1e-9)


def test_gauc_by_hand_leaves_out_users_who_clicked_all_or_nothing() -> None:
    users = np.array(["a", "a", "b", "b", "b", "b", "c", "d"], object)
    labels = np.array([1, 0, 1, 1, 0, 0, 1, 0])
    scores = np.array([2.0, 1.0, 4.0, 2.0, 2.0, 3.0, 0.0, 9.0])
    assert gauc(labels, scores, users) == pytest.approx((2 * 1.0 + 4 * (2.5 / 4)) / 6)


@given(st.lists(st.tuples(st.integers(0, 1), st.floats(1e-9, 1 - 1e-9)), min_size=1, max_size=40))
def test_log_loss_equals_scikit_learns(shown: list[tuple[int, float]]) -> None:
    labels, probabilities = (np.array(column) for column in zip(*shown, strict=True))
    expected = sklearn.log_loss(labels, probabilities, labels=[0, 1])
    assert log_loss(labels, probabilities) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_being_sure_costs_nothing_when_right_and_everything_when_wrong() -> None:
    assert log_loss(np.array([1, 0]), np.array([1.0, 0.0])) == 0
    assert log_loss(np.array([1, 0]), np.array([1.0, 1.0])) == math.inf
    assert log_loss(np.array([1, 0]), np.array([0.5, 0.5])) == pytest.approx(math.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: auc(np.array([1, 1]), np.array([0.1, 0.2])), "clicked and unclicked"),
        (lambda: auc(np.array([1, 2]), np.array([0.1, 0.2])), "0 or 1, got 2.0"),
        (lambda: auc(np.array([1, 0]), np.array([0.1, np.nan])), "1 that are not"),
        (lambda: auc(np.array([1, 0]), np.array([0.1])), "same items"),
        (lambda: auc(np.array([]), np.array([])), "same items"),
        (lambda: gauc(np.array([1, 0]), np.array([0.1, 0.2]), np.array(["a"])), "each of 2 shown items, got 1"),
        (lambda: gauc(np.array([1, 0]), np.array([0.1, 0.2]), np.array(["a", "b"])), "of the same user"),
        (lambda: log_loss(np.array([1, 0]), np.array([0.1, 1.2])), "0.1 to 1.2"),
    ],
)
def test_labels_and_scores_that_have_no_answer_are_refused(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]
