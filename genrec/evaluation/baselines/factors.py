"""Matrix factorisation through the package `implicit`: ALS and BPR.

    ALS(seed=0).fit(split.train, len(catalogue)).tune(split.validation, exclude_seen=True)

ALS is weighted least squares (Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008);
BPR learns pairs, a met item above one that was not (Rendle et al., arXiv 1205.2618). Both are rankers (see
`genrec/evaluation/base.py`) and answer any history, not only those of training users. One thread, since more would race: the
same data and seed give the same ranking. Equal scores: the catalogue's order. A history that calls for nothing gets the
popularity order; its scores are then training counts.

Legend: `U` histories, `N` items, `D` factors.
"""

import importlib
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from genrec.data.interactions import Histories, query_matrix
from genrec.data.splits import Targets
from genrec.errors import MissingDependencyError, check_integer
from genrec.evaluation.ranking import (
    best_of,
    check_above_zero,
    check_decay,
    in_order_of_ids,
    item_counts,
    met_items,
    popular_where_silent,
    rank_by_votes,
)

ALS_GRID = ((1.0, 0.1), (10.0, 1.0), (40.0, 10.0))  # (alpha, regularization) that tuning ALS tries, with all `DECAYS`
BPR_GRID = (0.0003, 0.001, 0.01)  # regularization that tuning BPR tries, with all `DECAYS`


@dataclass(frozen=True)
class ALSConfig:
    """factors: width of the vectors. alpha: weight of an item that the user met, against 1 of every other. regularization:
    pull of the vectors to zero. iterations: rounds over users and items. decay: weight of each step back in time when a history
    asks; 1 forgets the order.
    """

    factors: int = 256
    alpha: float = 10.0
    regularization: float = 1.0
    iterations: int = 15
    decay: float = 0.7

    def __post_init__(self) -> None:
        for name in ("factors", "iterations"):
            check_integer(name, getattr(self, name), 1)
        for name in ("alpha", "regularization"):
            check_above_zero(name, getattr(self, name))
        check_decay(self.decay)


class ALS:
    """score = user vector . item vector, both from weighted least squares over all (user, item) pairs.

    A history is folded in: the least-squares user vector for its items, each weighted alpha * decay ** age.
    """

    name = "als"

    def __init__(self, config: ALSConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or ALSConfig(), seed

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` when the histories name a row beyond it; `MissingDependencyError`."""
        self.popularity = item_counts(train, items)
        self.met = met_items(in_order_of_ids(train), items)
        self.learned = self.learn(self.config)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `alpha` and `regularization` from `ALS_GRID`, and `decay`, by NDCG@10 on validation questions (of equals, the
        first tried). Raises `DataError` without questions.
        """
        configs = [replace(self.config, alpha=alpha, regularization=pull) for alpha, pull in ALS_GRID]
        self.config, self.learned = best_of(self, configs, validation, exclude_seen)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_by_votes(self, histories, k, exclude_seen)

    def learn(self, config: ALSConfig) -> Any:
        """See `Voting`: the model of the package."""
        model = need_implicit("als").AlternatingLeastSquares(
            factors=config.factors, alpha=config.alpha, regularization=config.regularization, iterations=config.iterations,
            use_gpu=False, num_threads=1, random_state=self.seed,
        )  # fmt: skip
        model.fit(self.met, show_progress=False)
        return model

    def votes(self, model: Any, batch: Histories, decay: float) -> np.ndarray:
        """See `Voting`."""
        users = model.recalculate_user(np.arange(len(batch)), query_matrix(batch, len(self.popularity), decay))
        return popular_where_silent(_products(users, model.item_factors), self.popularity)


@dataclass(frozen=True)
class BPRConfig:
    """factors: width of the vectors. learning_rate, regularization: of the stochastic gradient steps. iterations: passes over
    the training events. decay: weight of each step back in time when a history asks; 1 forgets the order.
    """

    factors: int = 128
    learning_rate: float = 0.05
    regularization: float = 0.01
    iterations: int = 100
    decay: float = 0.7

    def __post_init__(self) -> None:
        for name in ("factors", "iterations"):
            check_integer(name, getattr(self, name), 1)
        for name in ("learning_rate", "regularization"):
            check_above_zero(name, getattr(self, name))
        check_decay(self.decay)


@dataclass(frozen=True, eq=False)
class BPRModel:
    """items: float64 [N, D]; bias: float64 [N]; fold: float64 [D + 1, D], from a history's mean item vector and 1 to a user."""

    items: np.ndarray
    bias: np.ndarray
    fold: np.ndarray


class BPR:
    """score = user vector . item vector + item bias, learned so that a met item is above one that was not.

    BPR gives vectors to training users only, and has no closed form for another history. So a history is the mean of its item
    vectors, weighted decay ** age, taken to a user vector by a ridge regression: the one that best gives the vectors that BPR
    learned for the training users from the plain means of theirs. Items that no training user met do not count in the mean.
    """

    name = "bpr"

    def __init__(self, config: BPRConfig | None = None, seed: int = 0) -> None:
        self.config, self.seed = config or BPRConfig(), seed

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` when the histories name a row beyond it; `MissingDependencyError`."""
        self.popularity = item_counts(train, items)
        self.met = met_items(in_order_of_ids(train), items)
        self.learned = self.learn(self.config)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `regularization` from `BPR_GRID`, and `decay`, by NDCG@10 on validation questions (of equals, the first
        tried). Raises `DataError` without questions.
        """
        configs = [replace(self.config, regularization=pull) for pull in BPR_GRID]
        self.config, self.learned = best_of(self, configs, validation, exclude_seen)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_by_votes(self, histories, k, exclude_seen)

    def learn(self, config: BPRConfig) -> BPRModel:
        """See `Voting`."""
        model = need_implicit("bpr").BayesianPersonalizedRanking(
            factors=config.factors, learning_rate=config.learning_rate, regularization=config.regularization,
            iterations=config.iterations, use_gpu=False, num_threads=1, random_state=self.seed,
        )  # fmt: skip
        model.fit(self.met, show_progress=False)
        # The package keeps the bias of an item as one more factor, which is 1 for every user.
        users, items, bias = model.user_factors[:, :-1], model.item_factors[:, :-1], model.item_factors[:, -1]
        return BPRModel(items.astype(np.float64), bias.astype(np.float64), _fold_in(self.met, users, items))

    def votes(self, model: BPRModel, batch: Histories, decay: float) -> np.ndarray:
        """See `Voting`."""
        query = query_matrix(batch, len(self.popularity), decay)
        query.data *= self.popularity[query.indices] > 0
        scores = _with_one(_means(query, model.items)) @ model.fold @ model.items.T + model.bias
        silent = np.asarray(query.sum(axis=1)).ravel() == 0
        scores[silent] = self.popularity
        return scores.astype(np.float32)


def _fold_in(met: sp.csr_matrix, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Ridge regression from the mean item vector of each training user, and 1, to the user's vector: float64 [D + 1, D]."""
    active = np.diff(met.indptr) > 0
    means = _with_one(_means(met[active], items.astype(np.float64)))
    gram = means.T @ means + np.eye(means.shape[1])
    return np.linalg.solve(gram, means.T @ users[active].astype(np.float64))


def _means(query: sp.csr_matrix, items: np.ndarray) -> np.ndarray:
    """Weighted mean of the item vectors of each history, zero for an empty one: float64 [U, D]."""
    total = np.asarray(query.sum(axis=1, dtype=np.float64)).reshape(-1, 1)
    return (query @ items) / np.where(total > 0, total, 1)


def _with_one(vectors: np.ndarray) -> np.ndarray:
    return np.column_stack([vectors, np.ones(len(vectors))])


def _products(users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """users @ items.T, float32 [U, N]. Summed in float64, so that rounding hides how the batch was cut."""
    return (users.astype(np.float64) @ items.T.astype(np.float64)).astype(np.float32)


def need_implicit(module: str) -> ModuleType:
    """A module of the package `implicit`. Raises `MissingDependencyError` where it cannot be imported."""
    try:
        return importlib.import_module(f"implicit.{module}")
    except ImportError as error:
        raise MissingDependencyError(
            f"The baselines als and bpr need the package implicit, which cannot be imported ({error}). Install it with "
            "`pip install 'genrec[baselines]'`, or leave them out of evaluation.baselines."
        ) from None
