"""Baselines without training: popularity, and the co-occurrence + TF-IDF floor that beats most published recommenders.

    floor = CooccurrenceTfidf().fit(split.train, texts)
    floor.tune(split.validation, exclude_seen=True)
    evaluate(floor, split.test)

Both are rankers (see `base`). Equal scores: the catalogue's order, also among the text neighbours of an item. An empty
history gets the popularity order, since a floor has to answer every question; its scores are then training counts.

Legend: `U` histories, `N` items.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.metrics import ndcg_at

BATCH = 256  # rows of dense scores held at once, fewer where they would pass the next line
BATCH_CELLS = 2**25  # 128 MB per float32 [rows, N] array, of which about four live at once
DECAYS, TEXT_WEIGHTS = (0.5, 0.6, 0.7, 0.8), (0.0, 0.15, 0.3, 0.45, 0.6)  # what `tune` tries


class Popularity:
    """Most training events first."""

    name = "popularity"

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`, the size of the catalogue. Raises `DataError` when the histories name a row beyond it."""
        self.scores = _counts(train, items)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is the number of training events."""
        return _rank_batches(histories, k, exclude_seen, self._score, len(self.scores))

    def _score(self, batch: Histories) -> np.ndarray:
        return np.tile(self.scores, (len(batch), 1))


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
        """texts: one per catalogue row. Counts come from `train` only. Raises `DataError` for fewer texts than items."""
        self.popularity = _counts(train, len(texts))
        self.together = cooccurrence_weights(train, self.popularity, self.config)
        self.alike = text_neighbours(texts, self.config.neighbours)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `decay` and `text_weight` by NDCG@10 on validation questions, and keep the best (of equals, the first tried).

        Raises `DataError` without questions.
        """
        if not len(validation):
            raise DataError(
                "There is nothing to tune on: the split has no validation questions. Leave the settings as they are."
            )
        grid = [replace(self.config, decay=decay, text_weight=weight) for decay in DECAYS for weight in TEXT_WEIGHTS]
        positions = np.empty((len(grid), len(validation)), np.int64)
        for users in tqdm(_batches(len(validation), len(self.popularity)), desc="Tuning the floor", leave=False):
            batch, targets = validation.histories.select(users), validation.items[users]
            for place, config in enumerate(grid):
                if not place or config.decay != grid[place - 1].decay:
                    parts = self._parts(batch, config.decay)
                scores = self._combine(batch, *parts, config.text_weight)
                positions[place, users] = places(_masked(scores, batch) if exclude_seen else scores, targets)
        self.config = grid[int(np.argmax([ndcg_at(found, 10).mean() for found in positions]))]
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return _rank_batches(histories, k, exclude_seen, self._score, len(self.popularity))

    def _score(self, batch: Histories) -> np.ndarray:
        return self._combine(batch, *self._parts(batch, self.config.decay), self.config.text_weight)

    def _parts(self, batch: Histories, decay: float) -> tuple[np.ndarray, np.ndarray]:
        """Votes of the latest items by co-occurrence and by text: float32 [U, N] each, row maximum 1 (or 0)."""
        age = np.repeat(batch.indptr[1:], batch.lengths) - 1 - np.arange(len(batch.items))
        users = np.repeat(np.arange(len(batch)), batch.lengths)
        latest = age < self.config.query_items
        query = sp.csr_matrix(
            (decay ** age[latest], (users[latest], batch.items[latest])),
            shape=(len(batch), len(self.popularity)),
            dtype=np.float32,
        )
        return _by_row_maximum((query @ self.together).toarray()), _by_row_maximum((query @ self.alike).toarray())

    def _combine(self, batch: Histories, together: np.ndarray, alike: np.ndarray, text_weight: float) -> np.ndarray:
        scores = alike * np.float32(text_weight)
        scores += together
        scores[batch.lengths == 0] = self.popularity
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
    columns, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for rows in _batches(items, items):
        block = (matrix[rows] @ matrix.T).toarray()
        block[np.arange(len(rows)), rows] = 0
        for line in block:
            sharing = np.flatnonzero(line)
            columns.append(sharing[top(line[sharing], neighbours)])
            values.append(line[columns[-1]])
    indptr = np.cumsum([len(found) for found in columns])
    return sp.csr_matrix((np.concatenate(values), np.concatenate(columns), indptr), (items, items), dtype=np.float32)


def _counts(train: Histories, items: int) -> np.ndarray:
    """Training events per catalogue row: float32 [N]."""
    highest = int(train.items.max(initial=-1))
    if highest >= items:
        raise DataError(
            f"Training histories must name rows of the catalogue, 0 to {items - 1}, got row {highest}. "
            "Give one text per catalogue row, in the catalogue's order."
        )
    return np.bincount(train.items, minlength=items).astype(np.float32)


def _batches(rows: int, items: int) -> list[np.ndarray]:
    """0..rows-1 in runs small enough for dense [run, items] scores."""
    size = max(1, min(BATCH, BATCH_CELLS // items))
    return [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]


def _by_row_maximum(scores: np.ndarray) -> np.ndarray:
    highest = scores.max(axis=1, keepdims=True)
    return scores / np.where(highest > 0, highest, 1)


def _masked(scores: np.ndarray, batch: Histories) -> np.ndarray:
    """`scores` [U, N] with -inf for every item of the history itself, in place."""
    scores[np.repeat(np.arange(len(batch)), batch.lengths), batch.items] = -np.inf
    return scores


def _rank_batches(
    histories: Histories, k: int, exclude_seen: bool, score: Callable[[Histories], np.ndarray], items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score histories batch by batch and keep the best `k` of each."""
    check_integer("k", k, 1)
    rows = np.full((len(histories), k), -1, np.int64)
    kept = np.full((len(histories), k), -np.inf, np.float32)
    for users in _batches(len(histories), items):
        batch = histories.select(users)
        scores = score(batch)
        if exclude_seen:
            _masked(scores, batch)
        for user, line in zip(users, scores, strict=True):
            best = top(line, k)
            rows[user, : len(best)], kept[user, : len(best)] = best, line[best]
    return rows, kept


def places(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where each target [U] stands in its row of scores [U, N], as `top` orders it: int64 [U], 0 for the top, -1 at -inf."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    found = (scores > own).sum(axis=1)
    user, row = np.nonzero(scores == own)
    found += np.bincount(user[row < targets[user]], minlength=len(scores))
    return np.where(np.isneginf(own[:, 0]), -1, found)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the `k` highest scores above -inf, best first, equal ones in index order: int64 [at most k]."""
    if k < len(scores):
        threshold = np.partition(scores, -k)[-k]
        candidates = np.flatnonzero((scores >= threshold) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]
