"""Spreading items over last codes."""

from collections.abc import Callable

import numpy as np
import pytest

from genrec.errors import DataError
from genrec.tokenizers.last_code import by_id, nearest_free, sinkhorn, spread_evenly


def nothing(size: int) -> Callable[[tuple[int, ...]], np.ndarray]:
    """Nobody has any last code yet."""
    return lambda prefix: np.zeros(size, np.int64)


def test_transport_has_the_sums_it_must_have_and_uses_codes_alike() -> None:
    random = np.random.default_rng(0)
    distances = random.gamma(2.0, size=(2048, 1)) * random.random((2048, 64)) ** 0.2
    plan = sinkhorn(distances)
    np.testing.assert_allclose(plan.sum(axis=0), 2048 / 64, rtol=1e-3)
    np.testing.assert_allclose(plan.sum(axis=1), 1.0, rtol=0.5)
    crowded = np.bincount(distances.argmin(axis=1), minlength=64)
    even = np.bincount(plan.argmax(axis=1), minlength=64)
    assert even.std() < crowded.std()
    assert sinkhorn(np.zeros((1, 4))).tolist() == [[0.25] * 4], "a group of one is no trouble"


def test_ordinary_distances_are_spread_with_exact_sums_and_nearly_even_counts() -> None:
    """LC-Rec's acceptance: a batch of 2048 against a codebook, where the nearest code alone would crowd."""
    random = np.random.default_rng(0)
    codes, items = random.normal(size=(16, 8)), random.normal(size=(2048, 8))
    distances = ((items[:, None] - codes[None] * (1 + np.arange(16)[:, None] / 8)) ** 2).sum(axis=2)
    plan = sinkhorn(distances, epsilon=0.02, rounds=1000)
    np.testing.assert_allclose(plan.sum(axis=0), 2048 / 16, rtol=1e-3)
    np.testing.assert_allclose(plan.sum(axis=1), 1.0, rtol=1e-3)
    crowded, even = (np.bincount(found, minlength=16) for found in (distances.argmin(axis=1), plan.argmax(axis=1)))
    assert even.max() / even.min() <= 2 < crowded.max() / max(1, crowded.min())


def test_the_nearest_to_a_code_keeps_it_and_the_next_takes_its_neighbour() -> None:
    ids = np.array(["b", "a", "c"], object)
    codes = np.array([[0, 1], [0, 1], [0, 1]], np.int32)
    far = np.array([[3.0, 0.2, 0.5], [2.0, 0.1, 0.9], [0.4, 0.3, 0.6]])
    assert nearest_free(ids, codes, nothing(3), 3, 1, lambda rows: far[rows]).tolist() == [2, 1, 0]
    taken = {(0,): np.array([0, 1, 0])}.__getitem__
    assert nearest_free(ids[:2], codes[:2], taken, 3, 1, lambda rows: far[rows]).tolist() == [0, 2], (
        "a, who is nearer, goes first"
    )


def test_without_room_it_says_how_many_want_how_much() -> None:
    ids, codes = np.array(list("abcd"), object), np.zeros((4, 2), np.int32)
    with pytest.raises(
        DataError, match="4 items begin with the same codes, for example 'a', and their last level has room for 2"
    ):
        by_id(ids, codes, nothing(2), 2, 1)
    assert sorted(by_id(ids, codes, nothing(2), 2, 2).tolist()) == [0, 0, 1, 1]


def test_items_with_one_vector_are_told_apart_too() -> None:
    ids, codes = np.array(list("abcdef"), object), np.zeros((6, 2), np.int32)
    last = spread_evenly(ids, codes, nothing(8), 8, lambda rows: np.tile(np.arange(8.0), (len(rows), 1)))
    assert len(set(last.tolist())) == 6


def test_nobody_loses_a_code_that_has_room() -> None:
    ids, codes = np.array(list("abc"), object), np.array([[0, 0], [0, 0], [0, 1]], np.int32)
    far = np.array([[0.1, 0.2, 0.9], [0.15, 0.2, 0.8], [0.9, 0.3, 0.4]])
    assert nearest_free(ids, codes, nothing(3), 3, 1, lambda rows: far[rows]).tolist() == [0, 2, 1]
