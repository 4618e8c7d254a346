"""The co-occurrence + TF-IDF floor: no training, and better than most published recommenders.

    floor = CooccurrenceTfidf().fit(split.train, texts)
    floor.tune(split.validation, exclude_seen=True)
    evaluate(floor, split.test)

It is a ranker (see `genrec/evaluation/base.py`). Equal scores: the catalogue's order, also among the text neighbours of an
item. An empty history gets the popularity order, since a floor has to answer every question; its scores are then training
counts.

Legend: `U` histories, `N` items.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from genrec.data.interactions import Histories, query_matrix
from genrec.data.splits import Targets
from genrec.errors import SettingError, check_integer
from genrec.evaluation.baselines.neighbours import text_neighbours
from genrec.evaluation.ranking import (
    check_decay,
    in_order_of_ids,
    item_counts,
    rank_batches,
    validation_ndcg,
)

DECAYS, TEXT_WEIGHTS = (0.5, 0.6, 0.7, 0.8), (0.0, 0.15, 0.3, 0.45, 0.6)  # what `tune` tries


@dataclass(frozen=True)
class FloorConfig:
    """query_items: latest items of a history that vote. decay: weight of each step back in time. text_weight: of the text
    part beside the co-occurrence part. backward: weight of "b came before a" beside "b came after a". window: steps
    between two items that still count as together. neighbours: text neighbours kept per item. damping: power of popularity
    that co-occurrence is divided by.
    """

    query_items: int = 10
    decay: float = 0.7
    text_weight: float = 0.3
    backward: float = 0.5
    window: int = 50
    neighbours: int = 60
    damping: float = 0.25

    def __post_init__(self) -> None:
        for name in ("query_items", "window", "neighbours"):
            check_integer(name, getattr(self, name), 1)
        check_decay(self.decay)
        for name in ("text_weight", "backward", "damping"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} must be 0 or more, got {getattr(self, name)}.")


class CooccurrenceTfidf:
    """Items that followed the latest ones, weighted by nearness in time, plus items that read alike.

    Co-occurrence: W[a, b] = sum over training histories of 1 / distance for every b after a, plus `backward` times the same
    for every b before a, divided by (popularity of a * popularity of b) ** damping. Text: cosine of TF-IDF vectors, the top
    `neighbours` of each item. Score = (query @ W) / row maximum + text_weight * (query @ text) / row maximum.
    """

    name = "cooccurrence-tfidf"

    def __init__(self, config: FloorConfig | None = None) -> None:
        self.config = config or FloorConfig()

    def fit(self, train: Histories, texts: list[str]) -> Self:
        """texts: one per catalogue row. Counts come from `train` only. Raises `DataError` for fewer texts than items."""
        self.popularity = item_counts(train, len(texts))
        self.together = cooccurrence_weights(in_order_of_ids(train), self.popularity, self.config)
        self.alike = text_neighbours(texts, self.config.neighbours)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `decay` and `text_weight` by NDCG@10 on validation questions, and keep the best (of equals, the first tried).

        Raises `DataError` without questions.
        """
        grid = [replace(self.config, decay=decay, text_weight=weight) for decay in DECAYS for weight in TEXT_WEIGHTS]

        def scores(batch: Histories) -> Iterator[np.ndarray]:
            for decay in DECAYS:
                parts = self._parts(batch, decay)
                yield from (self._combine(batch, *parts, weight) for weight in TEXT_WEIGHTS)

        found = validation_ndcg(validation, len(self.popularity), scores, len(grid), exclude_seen, "Tuning the floor")
        self.config = grid[int(found.argmax())]
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_batches(histories, k, exclude_seen, self._score, len(self.popularity))

    def _score(self, batch: Histories) -> np.ndarray:
        return self._combine(batch, *self._parts(batch, self.config.decay), self.config.text_weight)

    def _parts(self, batch: Histories, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """Votes of the latest items by co-occurrence and by text: float32 [U, N] each, row maximum 1 (or 0)."""
        query = query_matrix(batch, len(self.popularity), decay, self.config.query_items)
        return _by_row_maximum((query @ self.together).toarray()), _by_row_maximum((query @ self.alike).toarray())

    def _combine(self, batch: Histories, together: np.ndarray, alike: np.ndarray, text_weight: float) -> np.ndarray:
        scores = alike * np.float32(text_weight)
        scores += together
        scores[batch.lengths == 0] = self.popularity
        return scores


def _by_row_maximum(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(axis=1, keepdims=True)
    return scores / np.where(highest > 0, highest, 1)


def cooccurrence_weights(train: Histories, popularity: np.ndarray, config: FloorConfig) -> sp.csr_matrix:
    """[N, N] float32: how strongly item a (row) calls for item b (column)."""
    items = len(popularity)
    users = np.repeat(np.arange(len(train)), train.lengths)
    forward = sp.csr_matrix((items, items), dtype=np.float32)
    for distance in range(1, min(config.window, int(train.lengths.max(initial=1)) - 1) + 1):
        same = users[distance:] == users[:-distance]
        weights = np.full(int(same.sum()), 1.0 / distance, np.float32)
        forward = forward + sp.csr_matrix(
            (weights, (train.items[:-distance][same], train.items[distance:][same])), (items, items)
        )
    together = forward + config.backward * forward.T
    together.setdiag(0)
    damp = sp.diags(np.maximum(popularity, 1) ** -config.damping)
    return (damp @ together @ damp).tocsr().astype(np.float32)
