"""Item-level metrics with one right answer per question, over the full catalogue.

In: ranked rows [M, k] and the target row of each question [M]. Out: one number per question [M], to be averaged.
A hit is the item itself, never another one that happens to share its codes.

Legend: `M` questions.
"""

from collections.abc import Callable

import numpy as np

MISS = -1


def hit_positions(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where each target stands in its list, 0 for the top; -1 where it is not in it: int64 [M]. rows: [M, k]."""
    hits = rows == np.asarray(targets)[:, None]
    return np.where(hits.any(axis=1), hits.argmax(axis=1), MISS).astype(np.int64)


def recall_at(positions: np.ndarray, k: int) -> np.ndarray:
    """1 where the target is among the first `k`, else 0 (with one target, recall and hit rate are the same): float64 [M]."""
    return ((positions >= 0) & (positions < k)).astype(np.float64)


def ndcg_at(positions: np.ndarray, k: int) -> np.ndarray:
    """1 / log2(place + 1) for a target at place 1..k, else 0 (with one target the ideal gain is 1): float64 [M]."""
    return recall_at(positions, k) / np.log2(np.maximum(positions, 0) + 2.0)


def mrr_at(positions: np.ndarray, k: int) -> np.ndarray:
    """1 / place for a target at place 1..k, else 0: float64 [M]."""
    return recall_at(positions, k) / (np.maximum(positions, 0) + 1.0)


# What `evaluate` reports, by the name before the @. With one answer per question, average precision is the reciprocal place and
# whether any answer is found is recall: map and hit_rate stand here for readers who look for them.
METRICS: dict[str, Callable[[np.ndarray, int], np.ndarray]] = {
    "recall": recall_at,
    "ndcg": ndcg_at,
    "mrr": mrr_at,
    "map": mrr_at,
    "hit_rate": recall_at,
}
