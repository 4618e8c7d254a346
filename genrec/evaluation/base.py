"""What can be evaluated: anything that ranks catalogue rows for histories. The model and the baselines alike."""

from typing import Protocol

import numpy as np

from genrec.data.interactions import Histories


class Ranker(Protocol):
    """Ranks the whole catalogue for each of `U` histories."""

    name: str

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """The best `k` items of each history, best first.

        Returns (catalogue rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there). `exclude_seen`
        leaves out every item of the history itself.
        """
        ...
