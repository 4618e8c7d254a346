"""Residual codes: what RQ-KMeans and RQ-VAE share once their codebooks are there.

Legend: `N` vectors, `D` their width, `L` levels, `K` codes per level.
"""

from collections.abc import Sequence

import numpy as np

BLOCK = 4096  # vectors at a time, so that a catalogue of millions is not copied


def nearest(centroids: np.ndarray, vectors: np.ndarray, handicaps: np.ndarray | float = 0.0) -> np.ndarray:
    """Index of the closest centroid, by squared Euclidean distance plus the centroid's handicap: int64 [N].

    In float64 and in blocks of one fixed size: which codes an item gets must not depend on who else is in the call.
    """
    centers = centroids.astype(np.float64)
    norms = (centers**2).sum(axis=1) + handicaps
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), BLOCK):
        block = vectors[start : start + BLOCK].astype(np.float64)
        found[start : start + BLOCK] = np.argmin(norms - 2.0 * (block @ centers.T), axis=1)
    return found


def residual_codes(
    codebooks: Sequence[np.ndarray], vectors: np.ndarray, handicaps: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Codes of vectors [N, D], each level the one nearest to what the levels before left over: int32 [N, L]."""
    codes = np.empty((len(vectors), len(codebooks)), np.int32)
    for start in range(0, len(vectors), BLOCK):
        left = vectors[start : start + BLOCK].copy()
        for level, codebook in enumerate(codebooks):
            codes[start : start + BLOCK, level] = subtract_nearest(left, codebook, handicaps[level] if handicaps else 0.0)
    return codes


def subtract_nearest(vectors: np.ndarray, centroids: np.ndarray, handicaps: np.ndarray | float = 0.0) -> np.ndarray:
    """Take the nearest centroid off every vector [N, D], in place, and return which it was: int64 [N]."""
    codes = nearest(centroids, vectors, handicaps)
    for start in range(0, len(vectors), BLOCK):
        vectors[start : start + BLOCK] -= centroids[codes[start : start + BLOCK]]
    return codes


def last_distances(codebooks: Sequence[np.ndarray], vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Squared distance of what the levels before the last left over to each of its codes: float64 [N, K]."""
    left = vectors - sum((book[codes[:, level]] for level, book in enumerate(codebooks[:-1])), np.zeros((1, vectors.shape[1])))
    last = codebooks[-1].astype(np.float64)
    return (left**2).sum(axis=1, keepdims=True) - 2 * left @ last.T + (last**2).sum(axis=1)


def sum_of_codes(codebooks: Sequence[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """The sum of the code vectors of each item, codes int [N, L]: float32 [N, D]."""
    found = codebooks[0][codes[:, 0]].astype(np.float32)
    for start in range(0, len(codes), BLOCK):
        for level, codebook in enumerate(codebooks[1:], 1):
            found[start : start + BLOCK] += codebook[codes[start : start + BLOCK, level]]
    return found
