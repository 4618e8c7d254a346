"""Residual codes: what RQ-KMeans and RQ-VAE share once their codebooks are there.

Legend: `N` vectors, `D` their width, `L` levels, `K` codes per level.
"""

from collections.abc import Sequence

import numpy as np


def nearest(centroids: np.ndarray, vectors: np.ndarray, handicaps: np.ndarray | float = 0.0) -> np.ndarray:
    """Index of the closest centroid, by squared Euclidean distance plus the centroid's handicap: int64 [N].

    In float64 and in blocks of one fixed size: which codes an item gets must not depend on who else is in the call.
    """
    centers = centroids.astype(np.float64)
    norms = (centers**2).sum(axis=1) + handicaps
    found = np.empty(len(vectors), np.int64)
    for start in range(0, len(vectors), 4096):
        block = vectors[start : start + 4096].astype(np.float64)
        found[start : start + 4096] = np.argmin(norms - 2.0 * (block @ centers.T), axis=1)
    return found


def residual_codes(
    codebooks: Sequence[np.ndarray], vectors: np.ndarray, handicaps: Sequence[np.ndarray] | None = None
) -> np.ndarray:
    """Codes of vectors [N, D], each level the one nearest to what the levels before left over: int32 [N, L]."""
    codes = np.empty((len(vectors), len(codebooks)), np.int32)
    for level, codebook in enumerate(codebooks):
        codes[:, level] = nearest(codebook, vectors, handicaps[level] if handicaps else 0.0)
        vectors = vectors - codebook[codes[:, level]]
    return codes


def last_distances(codebooks: Sequence[np.ndarray], vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Squared distance of what the levels before the last left over to each of its codes: float64 [N, K]."""
    left = vectors - sum((book[codes[:, level]] for level, book in enumerate(codebooks[:-1])), np.zeros((1, vectors.shape[1])))
    last = codebooks[-1].astype(np.float64)
    return (left**2).sum(axis=1, keepdims=True) - 2 * left @ last.T + (last**2).sum(axis=1)


def sum_of_codes(codebooks: Sequence[np.ndarray], codes: np.ndarray) -> np.ndarray:
    """The sum of the code vectors of each item, codes int [N, L]: float32 [N, D]."""
    return np.stack([codebook[codes[:, level]] for level, codebook in enumerate(codebooks)]).sum(axis=0, dtype=np.float32)
