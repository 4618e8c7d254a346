"""Collaborative item vectors: items that the same people meet close together get close vectors.

In: training histories. Out: [N, D] float32 and what is needed to guess the vector of an item nobody has met.
Co-occurrence within `WINDOW` steps, weighted by 1 / distance, as shifted positive pointwise mutual information, factorised
by a truncated SVD (Levy and Goldberg, "Neural Word Embedding as Implicit Matrix Factorization", 2014).
"""

import numpy as np
import scipy.sparse as sp

from genrec.data.interactions import Histories
from genrec.errors import SettingError

WINDOW = 10  # steps between two items of one history that still count as together


def cooccurrence(histories: Histories, items: int, window: int = WINDOW) -> sp.csr_matrix:
    """Symmetric [N, N]: the sum of 1 / distance over all pairs at most `window` steps apart in one history."""
    users = np.repeat(np.arange(len(histories), dtype=np.int32), histories.lengths)
    pairs = sp.csr_matrix((items, items), dtype=np.float32)
    for distance in range(1, min(window, int(histories.lengths.max(initial=1)) - 1) + 1):
        together = (users[distance:] == users[:-distance]) & (histories.items[distance:] != histories.items[:-distance])
        # As 32 bits, in which scipy keeps them: there may be hundreds of millions.
        first = histories.items[:-distance][together].astype(np.int32)
        second = histories.items[distance:][together].astype(np.int32)
        weights = np.full(len(first), 1.0 / distance, np.float32)
        pairs = pairs + sp.csr_matrix((weights, (first, second)), shape=(items, items))
    return (pairs + pairs.T).tocsr()


def collaborative_vectors(histories: Histories, items: int, width: int, seed: int) -> np.ndarray:
    """[N, D] float32, rows of length 1; zero rows for items that training never met with another one."""
    from sklearn.decomposition import TruncatedSVD

    if items <= width:
        raise SettingError(f"text.collaborative_width must be below the number of items, {items}, got {width}. 0 turns it off.")
    pairs = cooccurrence(histories, items).tocoo()
    mass = np.asarray(pairs.tocsr().sum(axis=1)).ravel()
    # Smoothing the context counts (power 0.75) keeps rare items from dominating.
    smooth = mass**0.75
    information = np.log(np.maximum(pairs.data * smooth.sum() / (mass[pairs.row] * smooth[pairs.col]), 1e-12))
    positive = sp.csr_matrix((np.maximum(information, 0), (pairs.row, pairs.col)), shape=(items, items), dtype=np.float32)
    svd = TruncatedSVD(width, random_state=seed)
    vectors = svd.fit_transform(positive) / np.sqrt(np.maximum(svd.singular_values_, 1e-12))
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.where(norms > 1e-9, norms, 1)).astype(np.float32)


def text_to_collaborative(text: np.ndarray, collaborative: np.ndarray, strength: float = 1.0) -> np.ndarray:
    """A ridge map [D_text, D_collaborative] from text to collaborative vectors, learned on the items that have both."""
    met = np.linalg.norm(collaborative, axis=1) > 0
    inputs, outputs = text[met].astype(np.float64), collaborative[met].astype(np.float64)
    gram = inputs.T @ inputs + strength * np.eye(text.shape[1])
    return np.linalg.solve(gram, inputs.T @ outputs).astype(np.float32)
