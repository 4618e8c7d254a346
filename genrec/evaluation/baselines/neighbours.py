"""Nearest neighbours of items: by who met them, and by what they say.

    ItemKNN().fit(split.train, len(catalogue)).tune(split.validation, exclude_seen=True)
    TextNeighbours().fit(split.train, texts)      # or vectors [N, D]

ItemKNN is the item-based top-N of Deshpande and Karypis, "Item-Based Top-N Recommendation Algorithms" (TOIS 2004): each item
keeps its nearest ones, and the items of a history add up what theirs give. Both are rankers (see
`genrec/evaluation/base.py`). Equal scores: the catalogue's order, also among neighbours. A history that calls for nothing gets
the popularity order; its scores are then training counts.

Legend: `U` histories, `N` items, `D` vector width.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import scipy.sparse as sp

from genrec.data.interactions import Histories, query_matrix
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.ranking import (
    batches,
    best_of,
    check_decay,
    item_counts,
    met_items,
    popular_where_silent,
    rank_by_votes,
    top,
)

SHRINKS, NEIGHBOURS = (0.0, 10.0, 30.0, 100.0), (50, 200)  # what tuning ItemKNN tries, with all `DECAYS`


@dataclass(frozen=True)
class ItemKNNConfig:
    """neighbours: nearest items kept per item. shrink: added to the denominator of the cosine, so that two items that one user
    met are no perfect match. decay: weight of each step back in time when a history asks; 1 forgets the order.
    """

    neighbours: int = 200
    shrink: float = 10.0
    decay: float = 0.7

    def __post_init__(self) -> None:
        check_integer("neighbours", self.neighbours, 1)
        if not 0 <= self.shrink < np.inf:
            raise SettingError(f"shrink must be a number of 0 or more, got {self.shrink}.")
        check_decay(self.decay)


class ItemKNN:
    """Items that the same users met: score(b) = sum over the history of decay ** age * similarity(a, b).

    similarity(a, b) = users of both / (sqrt(users of a * users of b) + shrink), kept for the `neighbours` highest b of each a.
    """

    name = "item-knn"

    def __init__(self, config: ItemKNNConfig | None = None) -> None:
        self.config = config or ItemKNNConfig()

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` when the histories name a row beyond it."""
        self.popularity = item_counts(train, items)
        met = met_items(train, items)
        self.both = (met.T @ met).tocsr()
        self.learned = self.learn(self.config)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `shrink`, `neighbours` and `decay` by NDCG@10 on validation questions (of equals, the first tried).

        Raises `DataError` without questions.
        """
        configs = [replace(self.config, shrink=shrink, neighbours=kept) for kept in NEIGHBOURS for shrink in SHRINKS]
        self.config, self.learned = best_of(self, configs, validation, exclude_seen)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_by_votes(self, histories, k, exclude_seen)

    def learn(self, config: ItemKNNConfig) -> sp.csr_matrix:
        """See `Voting`: similarities [N, N]."""
        return shrunk_cosines(self.both, config.shrink, config.neighbours)

    def votes(self, alike: sp.csr_matrix, batch: Histories, decay: float) -> np.ndarray:
        """See `Voting`."""
        return _votes(alike, batch, decay, self.popularity)


@dataclass(frozen=True)
class TextNeighboursConfig:
    """neighbours: nearest items kept per item. decay: weight of each step back in time when a history asks; 1 forgets the
    order.
    """

    neighbours: int = 200
    decay: float = 0.7

    def __post_init__(self) -> None:
        check_integer("neighbours", self.neighbours, 1)
        check_decay(self.decay)


class TextNeighbours:
    """Items that read like those of the history: score(b) = sum over the history of decay ** age * cosine(a, b), over the
    `neighbours` nearest b of each a with a cosine above 0.
    """

    name = "text-neighbours"

    def __init__(self, config: TextNeighboursConfig | None = None) -> None:
        self.config = config or TextNeighboursConfig()

    def fit(self, train: Histories, texts: list[str] | np.ndarray) -> Self:
        """texts: one per catalogue row, compared by TF-IDF; or vectors [N, D]. Raises `DataError` for fewer than items."""
        self.popularity = item_counts(train, len(texts))
        kept = self.config.neighbours
        self.learned = vector_neighbours(texts, kept) if isinstance(texts, np.ndarray) else text_neighbours(texts, kept)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `decay` by NDCG@10 on validation questions (of equals, the first tried). Raises `DataError` without any."""
        self.config, _ = best_of(self, [self.config], validation, exclude_seen)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`."""
        return rank_by_votes(self, histories, k, exclude_seen)

    def learn(self, config: TextNeighboursConfig) -> sp.csr_matrix:
        """See `Voting`: cosines [N, N], which no decay changes."""
        return self.learned

    def votes(self, alike: sp.csr_matrix, batch: Histories, decay: float) -> np.ndarray:
        """See `Voting`."""
        return _votes(alike, batch, decay, self.popularity)


def _votes(alike: sp.csr_matrix, batch: Histories, decay: float, popularity: np.ndarray) -> np.ndarray:
    """What the items of each history give through `alike` [N, N]; popularity where that is nothing: float32 [U, N]."""
    return popular_where_silent((query_matrix(batch, len(popularity), decay) @ alike).toarray(), popularity)


def shrunk_cosines(both: sp.csr_matrix, shrink: float, neighbours: int) -> sp.csr_matrix:
    """[N, N] float32: similarity of each item's nearest `neighbours`, itself left out. both: users of both items [N, N]."""
    users = both.diagonal()
    pairs = both.tocoo()
    others = pairs.row != pairs.col
    row, column = pairs.row[others], pairs.col[others]
    found = pairs.data[others] / (np.sqrt(users[row].astype(np.float64) * users[column]) + shrink)
    cosines = sp.csr_matrix((found.astype(np.float32), (row, column)), both.shape)
    ends = zip(cosines.indptr[:-1], cosines.indptr[1:], strict=True)
    lines = ((cosines.indices[start:end], cosines.data[start:end]) for start, end in ends)
    return _kept(lines, neighbours, both.shape[0])


def text_neighbours(texts: list[str], neighbours: int) -> sp.csr_matrix:
    """[N, N] float32: TF-IDF cosine of each item's nearest `neighbours`, itself left out; zero for texts without words."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    items = len(texts)
    try:
        matrix = TfidfVectorizer(sublinear_tf=True, dtype=np.float32).fit_transform(texts)
    except ValueError:  # no words anywhere
        return sp.csr_matrix((items, items), dtype=np.float32)
    blocks = ((rows, (matrix[rows] @ matrix.T).toarray()) for rows in batches(items, items))
    return _nearest(blocks, neighbours, items)


def vector_neighbours(vectors: np.ndarray, neighbours: int) -> sp.csr_matrix:
    """[N, N] float32: cosine of each item's nearest `neighbours`, itself left out; none for a vector of zeros.

    Raises `DataError` for vectors that are not finite or not [N, D].
    """
    if vectors.ndim != 2 or not np.isfinite(vectors).all():
        raise DataError(f"Item vectors must be finite numbers of shape [items, width], got shape {vectors.shape}.")
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    blocks = ((rows, np.maximum(unit[rows] @ unit.T, 0)) for rows in batches(len(unit), len(unit)))
    return _nearest(blocks, neighbours, len(unit))


def _nearest(blocks: Iterable[tuple[np.ndarray, np.ndarray]], neighbours: int, items: int) -> sp.csr_matrix:
    """From dense blocks (rows, [rows, N] of 0 and above), the items themselves left out."""

    def lines() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for rows, block in blocks:
            block[np.arange(len(rows)), rows] = 0
            for line in block:
                sharing = np.flatnonzero(line)
                yield sharing, line[sharing]

    return _kept(lines(), neighbours, items)


def _kept(lines: Iterable[tuple[np.ndarray, np.ndarray]], neighbours: int, items: int) -> sp.csr_matrix:
    """[N, N] float32 of the highest `neighbours` of each line. lines: (columns in order, strengths) per item."""
    columns, values = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)]
    for sharing, strengths in lines:
        best = top(strengths, neighbours)
        columns.append(sharing[best])
        values.append(strengths[best])
    indptr = np.cumsum([len(found) for found in columns])
    return sp.csr_matrix((np.concatenate(values), np.concatenate(columns), indptr), (items, items), dtype=np.float32)
