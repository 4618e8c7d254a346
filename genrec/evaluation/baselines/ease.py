"""EASE: a linear model from a history to the next items, in closed form (Steck 2019, arXiv 1905.03375).

    EASE().fit(split.train, len(catalogue)).tune(split.validation, exclude_seen=True)

It is a ranker (see `genrec/evaluation/base.py`). Equal scores: the catalogue's order. A history that calls for nothing gets the
popularity order; its scores are then training counts.

Legend: `U` histories, `N` items.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from scipy.linalg.lapack import dpotrf, dpotri

from genrec.data.interactions import Histories, query_matrix
from genrec.data.splits import Targets
from genrec.errors import DataError
from genrec.evaluation.ranking import (
    best_of,
    check_above_zero,
    check_decay,
    item_counts,
    met_items,
    popular_where_silent,
    rank_by_votes,
)

L2S = (30.0, 100.0, 300.0)  # what `tune` tries, with all `DECAYS`
MOST_ITEMS = 30_000  # 7.2 GB for the solve; 18 GB while tuning, which holds three float32 [N, N] results beside it
BLOCK = 1024  # columns mirrored at once


@dataclass(frozen=True)
class EASEConfig:
    """l2: strength of the ridge, in users; catalogues with few events per item want less. decay: weight of each step back in
    time when a history asks; 1 is the paper's, and forgets the order.
    """

    l2: float = 100.0
    decay: float = 0.7

    def __post_init__(self) -> None:
        check_above_zero("l2", self.l2)
        check_decay(self.decay)


class EASE:
    """score = query @ B, where B minimises |X - X B|^2 + l2 |B|^2 with a diagonal of zeros. X: 1 where a user met an item.

    With P = (X^T X + l2 I)^-1, B[a, b] = -P[a, b] / P[b, b], and 0 for a = b. The query holds decay ** age.
    """

    name = "ease"

    def __init__(self, config: EASEConfig | None = None) -> None:
        self.config = config or EASEConfig()

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` when the histories name a row beyond it, and for more than `MOST_ITEMS` items."""
        check_size(items)
        self.popularity = item_counts(train, items)
        met = met_items(train, items)
        self.both = (met.T @ met).tocsr()
        self.learned = ease_weights(self.both, self.config.l2)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `l2` and `decay` by NDCG@10 on validation questions (of equals, the first tried): one solve per `L2S`.

        Raises `DataError` without questions.
        """
        configs = [replace(self.config, l2=l2) for l2 in L2S]
        self.config, self.learned = best_of(self, configs, validation, exclude_seen)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_by_votes(self, histories, k, exclude_seen)

    def learn(self, config: EASEConfig) -> np.ndarray:
        """See `Voting`: the weights B [N, N]; what was solved already is not solved again."""
        return self.learned if config.l2 == self.config.l2 else ease_weights(self.both, config.l2)

    def votes(self, weights: np.ndarray, batch: Histories, decay: float) -> np.ndarray:
        """See `Voting`."""
        # Sparse times dense adds up one history at a time, so the scores do not depend on who else is in the batch.
        return popular_where_silent(query_matrix(batch, len(self.popularity), decay) @ weights, self.popularity)


def ease_weights(both: sp.csr_matrix, l2: float) -> np.ndarray:
    """B [N, N] float32, solved in float64. both: users of both items, X^T X [N, N]."""
    gram = both.toarray(order="F").astype(np.float64, copy=False)
    gram[np.diag_indices_from(gram)] += l2
    # Cholesky, then the inverse from it, both in place: half the work and a third of the memory of a general inverse.
    factor, failed = dpotrf(gram, lower=True, overwrite_a=True)
    inverse, failed = dpotri(factor, lower=True, overwrite_c=True) if not failed else (factor, failed)
    if failed:
        raise DataError(f"EASE cannot be solved with l2 {l2}: the matrix is singular in float64. Choose a larger l2.")
    weights = np.empty(gram.shape, np.float32)
    diagonal = inverse.diagonal()
    for start in range(0, len(weights), BLOCK):  # only the lower triangle was computed
        end = start + BLOCK
        corner = np.tril(inverse[start:end, start:end])
        weights[start:end, start:end] = -(corner + np.tril(corner, -1).T) / diagonal[start:end]
        weights[end:, start:end] = -inverse[end:, start:end] / diagonal[start:end]
        weights[start:end, end:] = -inverse[end:, start:end].T / diagonal[end:]
    np.fill_diagonal(weights, 0)
    return weights


def check_size(items: int) -> None:
    """Raise `DataError` for a catalogue whose dense matrix is out of reach."""
    if items > MOST_ITEMS:
        raise DataError(
            f"EASE inverts a dense matrix of items x items, which takes {items**2 * 8 / 1e9:.1f} GB in float64 for {items} "
            f"items. At most {MOST_ITEMS} items are accepted. Use item-knn instead, which keeps only the nearest items."
        )
