"""What can be evaluated: anything that ranks catalogue rows for histories. The model and the baselines alike."""

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.splits import Targets


class Ranker(Protocol):
    """Ranks the whole catalogue for each of `U` histories."""

    name: str

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` items of each history, best first.

        Returns (catalogue rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there). `exclude_seen`
        leaves out every item of the history itself.
        """
        ...


class Baseline(Ranker, Protocol):
    """A ranker that learns from training histories alone."""

    def fit(self, train: Histories, items: Any, /) -> Self:
        """items: the size of the catalogue, or its texts, as the baseline needs. Returns itself."""
        ...


@runtime_checkable
class Tunable(Protocol):
    """A fitted baseline whose settings matter enough to be chosen on validation questions."""

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Keep the settings with the best NDCG@10, seen items masked or not. Returns itself."""
        ...
