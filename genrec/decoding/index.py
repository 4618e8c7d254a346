"""Catalogue index: code tuples sorted, every prefix an interval, children by CSR arrays.

In: a code table (codes [N, L]). Out: tensors that answer, for whole batches at once, "which codes may follow this prefix?"
and "how many allowed items lie below it?". The second is a difference of two counts, which is why filters are exact: a
prefix with no allowed item below it is never entered.

Legend: `B` users, `W` beams, `N` items, `L` levels, `n_l` distinct prefixes of length l + 1, `C` children at most.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class CatalogueIndex:
    """items: [N] catalogue rows in code order (items that share all codes in tie order).

    Per level l: code[l] [n_l], the last code of each prefix; start[l], stop[l] [n_l], its interval in `items`;
    children[l] [n_l + 1], where its longer prefixes begin at level l + 1 (the last level has none).
    """

    sizes: tuple[int, ...]
    items: Tensor
    position: Tensor  # [N], inverse of `items`: where a catalogue row stands in code order
    code: list[Tensor]
    start: list[Tensor]
    stop: list[Tensor]
    children: list[Tensor]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def levels(self) -> int:
        return len(self.sizes)

    @classmethod
    def build(cls, codes: np.ndarray, sizes: tuple[int, ...], tie_rank: np.ndarray | None = None) -> "CatalogueIndex":
        """codes: int [N, L]. tie_rank: [N], smaller comes first among items with the same codes (default: row order)."""
        count, levels = codes.shape
        tie_rank = np.arange(count) if tie_rank is None else tie_rank
        order = np.lexsort([tie_rank, *(codes[:, level] for level in reversed(range(levels)))])
        ordered = codes[order]
        code, start, stop, children = [], [], [], []
        new_prefix = np.zeros(count, bool)
        new_prefix[0] = True
        previous_start: np.ndarray | None = None
        for level in range(levels):
            new_prefix[1:] |= ordered[1:, level] != ordered[:-1, level]
            first = np.flatnonzero(new_prefix)
            code.append(ordered[first, level].astype(np.int64))
            start.append(first)
            stop.append(np.append(first[1:], count))
            if previous_start is not None:
                children.append(np.searchsorted(first, np.append(previous_start, count)))
            previous_start = first
        position = np.empty(count, np.int64)
        position[order] = np.arange(count)

        def tensors(arrays: list[np.ndarray]) -> list[Tensor]:
            return [torch.from_numpy(np.ascontiguousarray(a, np.int64)) for a in arrays]

        [items_t, position_t] = tensors([order, position])
        return cls(tuple(sizes), items_t, position_t, tensors(code), tensors(start), tensors(stop), tensors(children))

    def to(self, device: torch.device | str) -> "CatalogueIndex":
        """A copy on `device`."""

        def moved(tensors: list[Tensor]) -> list[Tensor]:
            return [t.to(device) for t in tensors]

        return CatalogueIndex(
            self.sizes, self.items.to(device), self.position.to(device),
            moved(self.code), moved(self.start), moved(self.stop), moved(self.children),
        )  # fmt: skip

    def expand(self, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """Children of the prefixes `nodes` [B, W] of length `level` (level 0: the root; `nodes` then only gives the shape).

        Returns (child ids at level `level` [B, W, C], exists [B, W, C]); ids where nothing exists are 0.
        """
        if level == 0:
            ids = torch.arange(len(self.code[0]), device=self.items.device).expand(*nodes.shape, -1)
            return ids, torch.ones_like(ids, dtype=torch.bool)
        pointer = self.children[level - 1]
        begin, end = pointer[nodes], pointer[nodes + 1]
        widest = int((end - begin).max())
        ids = begin.unsqueeze(-1) + torch.arange(widest, device=nodes.device)
        exists = ids < end.unsqueeze(-1)
        return torch.where(exists, ids, 0), exists


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which items each request may get. Both parts are optional and work together.

    only: int64 [N + 1], running count of allowed items in code order, shared by the batch (None: all are).
    excluded: int64 [B, E], positions in code order that a user may not get, sorted, padded with N (None: none).
    """

    only: Tensor | None = None
    excluded: Tensor | None = None

    @classmethod
    def of(
        cls, index: CatalogueIndex, only_rows: np.ndarray | None = None, excluded_rows: np.ndarray | None = None
    ) -> "Allowed":
        """only_rows: catalogue rows [n] or None. excluded_rows: catalogue rows [B, E], padded with -1, or None."""
        device = index.items.device
        only = excluded = None
        if only_rows is not None:
            flags = torch.zeros(len(index) + 1, dtype=torch.int64, device=device)
            flags[index.position[torch.as_tensor(only_rows, device=device)] + 1] = 1
            only = flags.cumsum(0)
        if excluded_rows is not None and excluded_rows.size:
            rows = torch.as_tensor(excluded_rows, device=device)
            places = torch.where(rows < 0, len(index), index.position[rows.clamp(min=0)]).sort(dim=1).values
            repeated = torch.zeros_like(places, dtype=torch.bool)
            repeated[:, 1:] = places[:, 1:] == places[:, :-1]  # a row named twice must be subtracted once
            excluded = places.masked_fill(repeated, len(index)).sort(dim=1).values
            if only is not None:  # what `only` leaves out already must not be subtracted again
                outside = (only[1:] - only[:-1]) == 0
                outside = torch.cat([outside, outside.new_zeros(1)])
                excluded = excluded.masked_fill(outside[excluded], len(index)).sort(dim=1).values
        return cls(only, excluded)

    @property
    def everything(self) -> bool:
        return self.only is None and self.excluded is None

    def count(self, start: Tensor, stop: Tensor) -> Tensor:
        """Allowed items in the intervals [start, stop), each [B, ...]: int64 of the same shape."""
        left = stop - start if self.only is None else self.only[stop] - self.only[start]
        if self.excluded is None:
            return left
        flat = (len(start), -1)
        below_stop = torch.searchsorted(self.excluded, stop.reshape(flat).contiguous())
        below_start = torch.searchsorted(self.excluded, start.reshape(flat).contiguous())
        return left - (below_stop - below_start).reshape(start.shape)
