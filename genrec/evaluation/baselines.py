"""Baselines without training: popularity, and the co-occurrence + TF-IDF floor that beats most published recommenders.

    floor = CooccurrenceTfidf().fit(split.train, texts)
    floor.tune(split.validation, exclude_seen=True)
    evaluate(floor, split.test)

Both are rankers (see `base`). Equal scores: the catalogue's order. An empty history gets the popularity order.

Legend: `U` histories, `N` items.
"""

from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import SettingError, check_integer
from genrec.evaluation.metrics import hit_positions, ndcg_at

BATCH = 256  # histories scored at once: U x N dense scores, 25 MB at 12,000 items


class Popularity:
    """Most training events first."""

    name = "popularity"

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`, the size of the catalogue."""
        self.scores = np.bincount(train.items, minlength=items).astype(np.float32)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is the number of training events."""
        return _rank_batches(histories, k, exclude_seen, lambda batch: np.tile(self.scores, (len(batch), 1)))


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
        if not 0 < self.decay <= 1:
            raise SettingError(f"decay must be above 0 and at most 1, got {self.decay}.")
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
        """texts: one per catalogue row. Counts come from `train` only."""
        items = len(texts)
        self.popularity = np.bincount(train.items, minlength=items).astype(np.float32)
        self.together = cooccurrence_weights(train, self.popularity, self.config)
        self.alike = text_neighbours(texts, self.config.neighbours)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `decay` and `text_weight` by NDCG@10 on validation questions, and keep the best."""
        best = (-1.0, self.config)
        grid = [(decay, weight) for decay in (0.5, 0.6, 0.7, 0.8) for weight in (0.0, 0.15, 0.3, 0.45, 0.6)]
        for decay, weight in tqdm(grid, desc="Tuning the floor", leave=False):
            self.config = replace(self.config, decay=decay, text_weight=weight)
            rows, _ = self.rank(validation.histories, 10, exclude_seen)
            score = float(ndcg_at(hit_positions(rows, validation.items), 10).mean())
            best = max(best, (score, self.config), key=lambda pair: pair[0])
        self.config = best[1]
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return _rank_batches(histories, k, exclude_seen, self._score)

    def _score(self, batch: Histories) -> np.ndarray:
        latest = [history[-self.config.query_items :] for history in batch.to_lists()]
        lengths = np.array([len(history) for history in latest])
        users = np.repeat(np.arange(len(latest)), lengths)
        age = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(lengths.sum())
        flat = np.concatenate(latest) if lengths.sum() else np.zeros(0, np.int64)
        query = sp.csr_matrix(
            (self.config.decay**age, (users, flat)), shape=(len(latest), len(self.popularity)), dtype=np.float32
        )
        scores = _by_row_maximum((query @ self.together).toarray())
        if self.config.text_weight:
            scores += self.config.text_weight * _by_row_maximum((query @ self.alike).toarray())
        scores[lengths == 0] = self.popularity
        return scores


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


def text_neighbours(texts: list[str], neighbours: int) -> sp.csr_matrix:
    """[N, N] float32: TF-IDF cosine of each item's nearest `neighbours`, itself left out; zero for texts without words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    items = len(texts)
    try:
        matrix = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError:  # no words anywhere
        return sp.csr_matrix((items, items), dtype=np.float32)
    kept = min(neighbours, items - 1)
    rows, columns, values = [], [], []
    for start in range(0, items if kept else 0, BATCH):
        block = (matrix[start : start + BATCH] @ matrix.T).toarray()
        block[np.arange(len(block)), np.arange(start, start + len(block))] = -1
        nearest = np.argpartition(-block, kept - 1, axis=1)[:, :kept]
        rows.append(np.repeat(np.arange(start, start + len(block)), kept))
        columns.append(nearest.ravel())
        values.append(np.take_along_axis(block, nearest, axis=1).ravel())
    if not rows:
        return sp.csr_matrix((items, items), dtype=np.float32)
    alike = sp.csr_matrix(
        (np.maximum(np.concatenate(values), 0), (np.concatenate(rows), np.concatenate(columns))), (items, items)
    )
    alike.eliminate_zeros()
    return alike


def _by_row_maximum(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(axis=1, keepdims=True)
    return scores / np.where(highest > 0, highest, 1)


def _rank_batches(histories, k, exclude_seen, score):  # noqa: ANN202
    """Score histories batch by batch and keep the best `k` of each."""
    check_integer("k", k, 1)
    rows = np.full((len(histories), k), -1, np.int64)
    kept = np.full((len(histories), k), -np.inf, np.float32)
    for start in range(0, len(histories), BATCH):
        users = np.arange(start, min(start + BATCH, len(histories)))
        batch = histories.select(users)
        scores = score(batch)
        if exclude_seen:
            scores[np.repeat(np.arange(len(batch)), batch.lengths), batch.items] = -np.inf
        for user, line in zip(users, scores, strict=True):
            best = top(line, k)
            rows[user, : len(best)], kept[user, : len(best)] = best, line[best]
    return rows, kept


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the `k` highest scores above -inf, best first, equal ones in index order: int64 [at most k]."""
    if k < len(scores):
        threshold = np.partition(scores, -k)[-k]
        candidates = np.flatnonzero((scores >= threshold) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
