"""Approximate search says what it misses, and misses nothing when it looks everywhere."""

import numpy as np
import pytest

from genrec.decoding.approximate import CellSearch, recall
from genrec.errors import DataError, SettingError


def clouds(seed: int, items: int = 600, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Items in clouds, and users near some of them."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((20, width)) * 2
    keys = centres[random.integers(0, 20, items)] + random.standard_normal((items, width)) * 0.3
    queries = centres[random.integers(0, 20, 50)] + random.standard_normal((50, width)) * 0.3
    return keys.astype(np.float32), queries.astype(np.float32)


def test_with_all_cells_it_is_exact() -> None:
    keys, queries = clouds(0)
    search = CellSearch.build(keys, cells=20)
    rows, scores = search.best(queries, 10, probes=20)
    exact = queries @ keys.T
    np.testing.assert_allclose(scores, -np.sort(-exact, axis=1)[:, :10], rtol=1e-5)
    np.testing.assert_allclose(np.take_along_axis(exact, rows, axis=1), scores, rtol=1e-5)
    assert recall(search, queries, keys, 10, probes=20) == 1


def test_recall_counts_what_is_found_of_the_exact_best_and_grows_with_the_cells() -> None:
    keys, queries = clouds(1)
    search = CellSearch.build(keys, cells=20)
    found, _ = search.best(queries, 10, probes=1)
    exact = np.argsort(-(queries @ keys.T), axis=1, kind="stable")[:, :10]
    by_hand = np.mean([len(set(mine) & set(right)) / 10 for mine, right in zip(found.tolist(), exact.tolist(), strict=True)])
    measured = [recall(search, queries, keys, 10, probes) for probes in (1, 5, 20)]
    assert measured[0] == pytest.approx(by_hand)
    assert measured == sorted(measured)
    assert measured[0] < 1


def test_the_same_keys_and_seed_give_the_same_cells() -> None:
    keys, queries = clouds(2)
    answers = [CellSearch.build(keys, cells=20, seed=3).best(queries, 5, probes=2) for _ in range(2)]
    np.testing.assert_array_equal(answers[0][0], answers[1][0])


def test_fewer_items_than_asked_for_leave_empty_places() -> None:
    keys, queries = clouds(3, items=4)
    rows, scores = CellSearch.build(keys, cells=1).best(queries, 6, probes=1)
    assert (rows[:, 4:] == -1).all()
    assert np.isneginf(scores[:, 4:]).all()


def test_what_cannot_be_is_refused() -> None:
    keys, queries = clouds(4)
    with pytest.raises(DataError, match="at least one item"):
        CellSearch.build(keys[:0], cells=1)
    with pytest.raises(SettingError, match="cells must be"):
        CellSearch.build(keys, cells=601)
    with pytest.raises(SettingError, match="probes must be"):
        CellSearch.build(keys, cells=20).best(queries, 5, probes=21)
