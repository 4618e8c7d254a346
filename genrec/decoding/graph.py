"""Search along neighbours: from a few random items to those that suit the user (RPG, arXiv 2506.05781), and what it misses.

In: how alike items are, once, and how a user scores items. Out: for each user probably the best items, and the share of the
true best ones among them. Each round scores the neighbours of the `b` best items so far, and keeps the `b` best of all.

    graph = ItemGraph.build(alike_by_vectors(keys), len(keys), neighbours=100)  # or alike_by_codes(...)
    rows, scores = graph.best(picked_dots(queries, keys), len(queries), k=10, beam=10, rounds=3)
    graph_recall(graph, picked_dots(queries, keys), dots(queries, keys), len(queries), k=10, beam=10, rounds=3)

Nothing in genrec uses it unasked, and rules are not known to it, as with the cells of `approximate.py`. A graph is of one set
of weights. RPG holds the similarity of all pairs; here it is made a piece at a time and only the neighbours are kept. Where
items lie in clouds that no edge joins, a search never leaves those that it began in: measure `graph_recall` before use. All
tensors are on the CPU.

Legend: `N` items, `B` users, `b` items kept per round, `D` neighbours of an item, `n` items to score, `F` width, `L` codes per
item, `K` codes of a level, `V` codes of all levels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import embedding, pad
from tqdm.auto import tqdm

from genrec.decoding.allowed import Allowed
from genrec.decoding.approximate import CellSearch, share_found
from genrec.decoding.scoring import Score, best_rows, dots, sums
from genrec.errors import DataError, check_integer

Alike = Callable[[Tensor], Score]  # items int64 [n] -> how alike each item of the catalogue is to them
Pick = Callable[[Tensor, Tensor], Tensor]  # users int64 [n], an item for each int64 [n] -> scores float32 [n]
TOGETHER = 256  # items whose neighbours are sought at once


def alike_by_vectors(keys: Tensor) -> Alike:
    """How alike items are by the product of their vectors [N, F]."""
    return lambda items: dots(keys[items], keys)


def alike_by_codes(code_keys: Sequence[Tensor], codes: Tensor) -> Alike:
    """RPG's similarity, the mean cosine of two items' codes, place by place. code_keys: of each level, normalised [K, d], as
    `OnePassModel.code_keys` gives them; codes: int64 [N, L].
    """
    cosines = [keys @ keys.T / len(code_keys) for keys in code_keys]
    starts = np.cumsum([0, *(len(keys) for keys in code_keys[:-1])])
    tokens = (codes + torch.from_numpy(starts)).int()
    return lambda items: sums(torch.cat([table[codes[items, level]] for level, table in enumerate(cosines)], dim=1), tokens)


def picked_dots(queries: Tensor, keys: Tensor) -> Pick:
    """Score some items by their products, see `dots`. queries: [B, F]; keys: [N, F]."""
    return lambda users, rows: (embedding(users, queries) * embedding(rows, keys)).sum(dim=1)


def picked_sums(log_probs: Tensor, tokens: Tensor) -> Pick:
    """Score some items by the sums over their codes, see `sums`. log_probs: [B, V]; tokens: int [N, L]."""
    return lambda users, rows: log_probs[users.unsqueeze(1), tokens[rows].long()].sum(dim=1)


@dataclass(frozen=True, eq=False)
class ItemGraph:
    """neighbours: int32 [N, D], the items most like each item, best first, -1 where there are fewer."""

    neighbours: Tensor

    @classmethod
    def build(cls, alike: Alike, items: int, neighbours: int) -> Self:
        """The exact neighbours of all `items`, at most `neighbours` of each. Takes time in proportion to items squared."""
        _check(items, neighbours)
        order, found = torch.arange(items), []
        for start in tqdm(range(0, items, TOGETHER), desc="Item graph", leave=False):
            some = order[start : start + TOGETHER]
            near, _ = best_rows(alike(some), items, order, len(some), min(neighbours + 1, items), Allowed())
            found.append(_without_self(near, some))
        return cls(torch.cat(found))

    @classmethod
    def from_cells(cls, search: CellSearch, keys: np.ndarray, neighbours: int, probes: int) -> Self:
        """The neighbours of each item that a search in cells finds, for catalogues too large for `build`. keys: float32 [N, F],
        what the cells were built of.
        """
        _check(len(keys), neighbours)
        found = []
        for start in tqdm(range(0, len(keys), TOGETHER), desc="Item graph", leave=False):
            some = keys[start : start + TOGETHER]
            near, _ = search.best(some, min(neighbours + 1, len(keys)), probes)
            found.append(_without_self(torch.from_numpy(near), torch.arange(start, start + len(some))))
        return cls(torch.cat(found))

    def best(self, pick: Pick, users: int, k: int, beam: int, rounds: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """The `k` best items that `rounds` rounds find for each of `B` users: (rows int64 [B, k], -1 where fewer were found;
        scores float32 [B, k], -inf there). beam: `b`, at least `k`. Equal scores go by row.

        All users start at the same random items, so nobody's answer depends on who is asked beside. `B * b * (1 + D)` items are
        scored at once.
        """
        check_integer("k", k, 1)
        check_integer("beam", beam, k)
        check_integer("rounds", rounds, 1)
        items = len(self.neighbours)
        starts = np.random.default_rng(seed).choice(items, min(beam, items), replace=False)
        found = torch.full((users, beam), -1)
        found[:, : len(starts)] = torch.from_numpy(starts)
        for _ in range(rounds):
            near = self.neighbours[found.clamp(min=0)].masked_fill(found.unsqueeze(-1) < 0, -1).flatten(1)
            # In the order of the catalogue the same item twice stands side by side, and equal scores stay in that order.
            rows = torch.cat([found, near], dim=1).sort(dim=1).values
            new = (rows >= 0) & (rows != pad(rows, (1, 0), value=-1)[:, :-1])
            scores = torch.full(rows.shape, -torch.inf)
            scores[new] = pick(torch.nonzero(new)[:, 0], rows[new])
            scores, order = scores.sort(dim=1, descending=True, stable=True)
            scores, found = scores[:, :beam], rows.gather(1, order[:, :beam])
            found = found.masked_fill(torch.isneginf(scores), -1)
        return found[:, :k], scores[:, :k]


def graph_recall(
    graph: ItemGraph, pick: Pick, score: Score, users: int, k: int, beam: int, rounds: int, seed: int = 0
) -> float:
    """Share of the exact `k` best items that the search finds, mean over users. pick, score: the same scores in two ways, of
    some items and of all."""
    items = len(graph.neighbours)
    exact, _ = best_rows(score, items, torch.arange(items), users, k, Allowed())
    return share_found(graph.best(pick, users, k, beam, rounds, seed)[0].numpy(), exact.numpy())


def _check(items: int, neighbours: int) -> None:
    if not items:
        raise DataError("An item graph needs at least one item, there is none.")
    check_integer("neighbours", neighbours, 1)


def _without_self(near: Tensor, items: Tensor) -> Tensor:
    """What was found near some items [n, D + 1], without the items themselves: int32 [n, D]. One that is not among its own
    nearest, which happens to vectors of different lengths, loses the last."""
    last = (near == items[:, None]).int().argsort(dim=1, stable=True)
    return near.gather(1, last)[:, :-1].int()
