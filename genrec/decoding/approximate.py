"""Approximate search for catalogues too large to score item by item, and what it misses.

In: vectors of items and of users, from a one-pass model that asks for whole items. Out: probably the best items, from the cells
of an inverted file that are nearest to the user (faiss `IVFFlat`), and the share of the true best ones among them.

    search = CellSearch.build(keys, cells=4096)
    rows, scores = search.best(queries, k=10, probes=32)
    recall(search, queries, keys, k=10, probes=32)

Nothing in genrec uses it unasked: an approximate answer must be a choice, with its recall known. Rules are not known to it; ask
for more than is needed and leave out what is not allowed.

Legend: `N` items, `B` users, `F` width.
"""

from dataclasses import dataclass
from typing import Self

import faiss
import numpy as np
import torch

from genrec.decoding.allowed import Allowed
from genrec.decoding.scoring import best_rows, dots
from genrec.errors import DataError, check_integer

POINTS_PER_CELL = 64  # that k-means learns from: more hardly move the cells
TOGETHER = 256  # users whose exact answer is made at once


@dataclass(frozen=True, eq=False)
class CellSearch:
    """index: faiss `IndexIVFFlat` by inner product. Results are of whatever it holds, numbered as they were added."""

    index: faiss.IndexIVFFlat

    @classmethod
    def build(cls, keys: np.ndarray, cells: int, seed: int = 0) -> Self:
        """keys: float32 [N, F]. cells: of the inverted file, at most N; some multiple of sqrt(N) is usual."""
        keys = np.ascontiguousarray(keys, np.float32)
        if keys.ndim != 2 or not len(keys):
            raise DataError(f"keys must be [items, width] with at least one item, got shape {list(keys.shape)}.")
        check_integer("cells", cells, 1, len(keys))
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(keys.shape[1]), keys.shape[1], cells, faiss.METRIC_INNER_PRODUCT)
        index.cp.seed = seed
        index.cp.min_points_per_centroid = 1
        index.cp.max_points_per_centroid = POINTS_PER_CELL
        index.train(keys)
        index.add(keys)
        return cls(index)

    def best(self, queries: np.ndarray, k: int, probes: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best items of the `probes` cells nearest to each user, queries float32 [B, F]: (rows int64 [B, k], -1 where
        these cells hold fewer; products float32 [B, k], -inf there). With all cells it is the exact answer.
        """
        check_integer("k", k, 1)
        check_integer("probes", probes, 1, self.index.nlist)
        asked = faiss.SearchParametersIVF(nprobe=probes)  # type: ignore[call-arg]  # the class is made at run time
        scores, rows = self.index.search(np.ascontiguousarray(queries, np.float32), k, params=asked)
        return rows, np.where(rows < 0, -np.inf, scores).astype(np.float32)


def recall(search: CellSearch, queries: np.ndarray, keys: np.ndarray, k: int, probes: int) -> float:
    """Share of the exact `k` best items that the search finds, mean over users: queries [B, F], keys [N, F]."""
    found, _ = search.best(queries, k, probes)
    all_keys, order = torch.from_numpy(keys), torch.arange(len(keys))
    exact = []
    for start in range(0, len(queries), TOGETHER):
        some = torch.from_numpy(np.ascontiguousarray(queries[start : start + TOGETHER], np.float32))
        exact.append(best_rows(dots(some, all_keys), len(keys), order, len(some), k, Allowed())[0].numpy())
    return share_found(found, np.concatenate(exact))


def share_found(found: np.ndarray, exact: np.ndarray) -> float:
    """Share of the exact best items that were found, mean over users: both int64 [B, k], -1 where there are fewer."""
    shares = []
    for mine, right in zip(found, exact, strict=True):
        right = right[right >= 0]
        shares.append(len(np.intersect1d(mine, right)) / max(1, len(right)))
    return float(np.mean(shares))
