"""Balanced codebooks: every code stands for nearly as many items, and items that come later are encoded by the same rule.

Each centroid gets a handicap that is added to its squared distance. The handicaps that make the shares equal are the prices of
semi-discrete optimal transport between the items and the centroids; the cells of the codes are then a power diagram
(Aurenhammer, Hoffmann and Aronov, "Minkowski-Type Theorems and Least-Squares Clustering", 1998). Centroids move to the middle
of their cells in turn.

Legend: `N` vectors, `D` their width, `K` centroids.
"""

import numpy as np

ROUNDS = 10  # of handicaps, then centroids
STEPS = 100  # of the handicaps in each round
MOST_BALANCED = 4096  # centroids: with more, the distances of the sample are gigabytes
SAMPLE = 50_000  # vectors that the handicaps are found on


def balanced(vectors: np.ndarray, centroids: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Centroids float32 [K, D] and handicaps float64 [K] such that every centroid is nearest to about N / K of the vectors [N,
    D].

    `centroids` is where they start, such as k-means'.
    """
    if len(vectors) > SAMPLE:
        vectors = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), SAMPLE, replace=False))]
    points, centers = vectors.astype(np.float64), centroids.astype(np.float64)
    handicaps = np.zeros(len(centers))
    for _ in range(ROUNDS):
        far = (centers**2).sum(axis=1) - 2.0 * points @ centers.T
        handicaps = _prices(far, handicaps)
        codes = np.argmin(far + handicaps, axis=1)
        counts = np.bincount(codes, minlength=len(centers))
        order = np.argsort(codes, kind="stable")
        used = np.flatnonzero(counts)
        sums = np.add.reduceat(points[order], np.r_[0, np.cumsum(counts[used])[:-1]], axis=0)
        centers[used] = sums / counts[used, None]
    centers = centers.astype(np.float32).astype(np.float64)
    return centers.astype(np.float32), _prices((centers**2).sum(axis=1) - 2.0 * points @ centers.T, handicaps)


def _prices(far: np.ndarray, start: np.ndarray) -> np.ndarray:
    """Handicaps [K] that make the shares of `far` [N, K] most even, of those tried: subgradient steps that get smaller."""
    items, count = far.shape
    scale = float(np.std(np.sort(far, axis=1)[:, : min(4, count)])) or 1.0
    handicaps, best, least = start.copy(), start, np.inf
    for step in range(STEPS):
        share = np.bincount(np.argmin(far + handicaps, axis=1), minlength=count) * (count / items)
        uneven = float(((share - 1.0) ** 2).sum())
        if uneven < least:
            best, least = handicaps.copy(), uneven
        handicaps += scale / (5 + step) * np.clip(share - 1.0, -1.0, 3.0)
    return best - best.min()
