"""Catalogue index: code tuples sorted, every prefix an interval of items, children by CSR arrays.

In: codes [N, L] of catalogue rows. Out: tensors that answer, for whole batches of beams at once, "which codes may follow this
prefix?" and "which items lie below it?". A child is `first[parent] + rank`, so no table of states is needed, and no interval
is stored: following `first` down to the items gives it. `Overlay` (overlay.py) answers the same questions for a catalogue
that changed since its index was built; `beam_search` takes either.

Legend: `B` users, `W` beams, `N` items, `L` levels, `n_l` distinct prefixes of length l + 1, `C` children at most.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from genrec.errors import BundleError, DataError

LARGEST_SIZE = 65_536  # codes of a level: a code takes one byte up to 256, two up to here
MOST_LEVELS = 256  # as many as OPQ has parts; a beam search takes a step for each
NOWHERE = 2**31  # above every prefix id
WALK_TOGETHER = 4096  # tuples looked up at once: each brings all siblings of its prefixes

Before = Callable[[Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class CatalogueIndex:
    """items: int32 [N], catalogue rows in code order; rows that share all codes in tie order.

    code[l]: uint8 or uint16 [n_l], the last code of each prefix of level l. first[l]: int32 [n_l + 1], where its longer
    prefixes begin at level l + 1; L - 1 of them. A "prefix" of the last level is an item: items that share all codes are
    siblings with equal codes, so n_(L-1) = N, and a complete beam is a position in `items`.
    """

    sizes: tuple[int, ...]
    items: Tensor
    code: list[Tensor]
    first: list[Tensor]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def levels(self) -> int:
        return len(self.sizes)

    @property
    def device(self) -> torch.device:
        return self.items.device

    @cached_property
    def fanout(self) -> list[int]:
        """Most children of any prefix of length l: L numbers."""
        return [len(self.code[0]), *(int((first[1:] - first[:-1]).max()) if len(self) else 0 for first in self.first)]

    @property
    def bytes_per_item(self) -> float:
        """Memory of the index over its number of items."""
        tensors = [self.items, *self.code, *self.first]
        return sum(t.numel() * t.element_size() for t in tensors) / max(1, len(self))

    @classmethod
    def build(
        cls, codes: np.ndarray, sizes: tuple[int, ...], tie_rank: np.ndarray | None = None, rows: np.ndarray | None = None
    ) -> "CatalogueIndex":
        """codes: int [N, L], N may be 0. tie_rank: [N], smaller comes first among items with the same codes (default: row
        order). rows: [N], the catalogue row of each (default: 0 .. N-1). Raises `DataError` for codes that cannot be.
        """
        codes = np.asarray(codes)
        sizes = tuple(int(size) for size in sizes)
        _check(codes, sizes)
        order, columns = _sorted(codes, sizes, tie_rank)
        items = order if rows is None else np.asarray(rows)[order]
        new_prefix = np.zeros(len(codes), bool)
        new_prefix[:1] = True
        code, starts = [], []
        for level, (column, size) in enumerate(zip(columns, sizes, strict=True)):
            new_prefix[1:] |= (column[1:] != column[:-1]) | (level == len(sizes) - 1)
            starts.append(np.flatnonzero(new_prefix).astype(np.int32))
            code.append(torch.from_numpy(column[starts[-1]].astype(np.uint8 if size <= 256 else np.uint16)))
        count = np.int32(len(codes))
        first = [
            torch.from_numpy(np.searchsorted(lower, np.append(upper, count)).astype(np.int32))
            for upper, lower in itertools.pairwise(starts)
        ]
        return cls(sizes, torch.from_numpy(np.ascontiguousarray(items, np.int32)), code, first)

    def to(self, device: torch.device | str) -> "CatalogueIndex":
        """This index on `device`."""
        if self.device == torch.device(device):
            return self
        code, first = [c.to(device) for c in self.code], [f.to(device) for f in self.first]
        return CatalogueIndex(self.sizes, self.items.to(device), code, first)

    def children(self, nodes: Tensor, level: int) -> tuple[Tensor, Tensor]:
        """First child and one past the last at level `level` of prefixes of length `level`: two int64 of the same shape."""
        if level == 0:
            return torch.zeros_like(nodes), torch.full_like(nodes, len(self.code[0]))
        first = self.first[level - 1]
        return first[nodes].long(), first[nodes + 1].long()

    def expand(
        self, nodes: Tensor, level: int, static: bool = False, before: Before | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The prefixes that are one code longer than `nodes` int64 [B, W], prefixes of length `level` (0: the root).

        before: how many allowed items stand before each position int64 [B, ...] of the code order (`Allowed.before`; None:
        everything is allowed). static: `C` does not depend on `nodes`, nothing is read back to the host.
        Returns (prefix ids int64 [B, W, C], their last codes int64 [B, W, C], allowed items below int64 [B, W, C]); without
        `before` the last is a bool [B, W, C], whether the prefix exists. Where nothing exists, ids and codes are some prefix's.
        """
        ids, codes, exists, borders = self.siblings(nodes, level, static)
        return ids, codes, exists if before is None else exists * self.between(borders, level, before)

    def siblings(self, nodes: Tensor, level: int, static: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(prefix ids, last codes, exists) as `expand`, and the borders between the children, [B, W, C + 1]."""
        begin, end = self.children(nodes, level)
        widest = self.fanout[level] if static or not nodes.numel() else int((end - begin).max())
        borders = begin.unsqueeze(-1) + torch.arange(widest + 1, device=nodes.device)
        exists = borders[..., :-1] < end.unsqueeze(-1)
        borders.clamp_(max=len(self.code[level]))
        ids = torch.where(exists, borders[..., :-1], 0)
        return ids, self.code[level][ids].long(), exists, borders

    def between(self, borders: Tensor, level: int, before: Before) -> Tensor:
        """Allowed items of neighbouring prefixes: where one ends, the next begins, so one look per border counts them all."""
        ranks = before(self.position(borders, level))
        return ranks[..., 1:] - ranks[..., :-1]

    def position(self, nodes: Tensor, level: int) -> Tensor:
        """Where the items of each prefix begin in `items` (N for one past the last prefix): int64 of the shape of `nodes`."""
        if level == 0:  # asked for all children of the root at once, by every search
            return self._root_positions[nodes]
        for first in self.first[level:]:
            nodes = first[nodes]
        return nodes.long()

    @cached_property
    def _root_positions(self) -> Tensor:
        """Where the items of each prefix of one code begin, and N: int64 [n_0 + 1]."""
        nodes = torch.arange(len(self.code[0]) + 1, device=self.device)
        for first in self.first:
            nodes = first[nodes]
        return nodes.long()

    def rows_at(self, positions: Tensor) -> Tensor:
        """Catalogue rows at positions of the code order (prefix ids of the last level): int64."""
        return self.items[positions].long()

    def rows_below(self, node: int, level: int) -> Tensor:
        """Catalogue rows of all items below one prefix: int64."""
        start, stop = self.position(torch.tensor([node, node + 1], device=self.device), level).tolist()
        return self.items[start:stop].long()

    @property
    def rows_in_order(self) -> Tensor:
        """The catalogue row of every position: [N]."""
        return self.items

    def walk(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """Prefix ids of code tuples int64 [n, L], down to `levels`: int64 [n, levels], -1 from the level on where the catalogue
        has no such prefix. At the last level it is the first of the items that share the tuple.
        """
        levels = self.levels if levels is None else levels
        if len(codes) > WALK_TOGETHER:
            return torch.cat([self.walk(part, levels) for part in codes.split(WALK_TOGETHER)])
        if not len(self) or not levels:
            return torch.full_like(codes[:, :levels], -1)
        path, node = [], torch.zeros_like(codes[:, 0])
        for level in range(levels):
            ids, found, exists, _ = self.siblings(node, level, False)
            match = exists & (found == codes[:, level : level + 1])
            path.append(torch.where(match, ids, NOWHERE).amin(-1))
            node = path[-1].clamp(max=len(self.code[level]) - 1)  # somewhere, so that the loop has one form
        walked = torch.stack(path, dim=1)
        return torch.where(walked.cummax(1).values < NOWHERE, walked, -1)

    def positions(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Where catalogue rows [n] with codes [n, L] stand in `items`: int64 [n], -1 for rows that are not in the index.

        Found through the tree, so that no second array of N numbers is kept.
        """
        if len(rows) > WALK_TOGETHER:
            parts = zip(rows.split(WALK_TOGETHER), codes.split(WALK_TOGETHER), strict=True)
            return torch.cat([self.positions(*part) for part in parts])
        if not len(self) or not len(rows):
            return torch.full_like(rows, -1)
        last = self.levels - 1
        parent = self.walk(codes, last)[:, -1] if last else torch.zeros_like(rows)
        ids, _, exists, _ = self.siblings(parent.clamp(min=0), last, False)
        # A row is where it is only once, so below a parent that is not its own it is not found.
        match = exists & (self.items[ids] == rows.unsqueeze(-1))
        return torch.where(match, ids, -1).amax(-1)

    def save(self, path: Path, codes_hash: str) -> None:
        """Write a file that `load` maps into memory. `codes_hash` names the code table it was built from."""
        tensors = {"items": self.items} | {f"code_{level}": code for level, code in enumerate(self.code)}
        tensors |= {f"first_{level}": first for level, first in enumerate(self.first)}
        about = {"sizes": ",".join(map(str, self.sizes)), "codes": codes_hash}
        save_file({name: t.cpu().contiguous() for name, t in tensors.items()}, path, metadata=about)

    @classmethod
    def load(cls, path: Path, codes_hash: str) -> "CatalogueIndex":
        """Map what `save` wrote; pages are read when they are first used.

        Raises `BundleError` when the file is missing or was built from another code table.
        """
        try:
            with safe_open(path, framework="pt") as file:
                about = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
        except (OSError, ValueError, SafetensorError) as error:
            raise BundleError(f"The catalogue index {path} cannot be read: {error} Copy the bundle again.") from None
        built_from = (about or {}).get("codes", "?")
        if built_from != codes_hash:
            raise BundleError(
                f"{path} was built from code table {built_from[:12]}, the bundle has {codes_hash[:12]}. Copy it again."
            )
        sizes = tuple(int(size) for size in about["sizes"].split(","))
        code = [tensors[f"code_{level}"] for level in range(len(sizes))]
        return cls(sizes, tensors["items"], code, [tensors[f"first_{level}"] for level in range(len(sizes) - 1)])


def _check(codes: np.ndarray, sizes: tuple[int, ...]) -> None:
    if not 1 <= len(sizes) <= MOST_LEVELS or not all(1 <= size <= LARGEST_SIZE for size in sizes):
        raise DataError(f"An index takes 1 to {MOST_LEVELS} levels of 1 to {LARGEST_SIZE} codes each, got sizes {list(sizes)}.")
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or codes.dtype.kind not in "iu":
        raise DataError(
            f"codes must be whole numbers [items, {len(sizes)}], one column per level, got {codes.dtype} {list(codes.shape)}."
        )
    if len(codes) >= 2**31 - 1:
        raise DataError(f"An index takes at most {2**31 - 2} items, got {len(codes)}.")
    if not len(codes):
        return
    for level, size in enumerate(sizes):
        low, high = int(codes[:, level].min()), int(codes[:, level].max())
        if low < 0 or high >= size:
            raise DataError(f"Codes of level {level} must be from 0 to {size - 1}, got {low if low < 0 else high}.")


def _sorted(codes: np.ndarray, sizes: tuple[int, ...], tie_rank: np.ndarray | None) -> tuple[np.ndarray, list[np.ndarray]]:
    """The order of the items by codes, then tie rank: (item numbers [N], one sorted column of codes per level).

    Where a tuple and a rank fit into 64 bits together, they are sorted as one number: several times faster than a sort of
    columns, and the sorted columns are cut out of it again.
    """
    count = len(codes)
    by_rank = None if tie_rank is None else np.argsort(tie_rank, kind="stable")
    widths = [max(1, (size - 1).bit_length()) for size in sizes]
    low_bits = max(1, (count - 1).bit_length())
    if sum(widths) + low_bits > 64:
        keys = [np.arange(count) if tie_rank is None else tie_rank, *(codes[:, level] for level in reversed(range(len(sizes))))]
        order = np.lexsort(keys)
        return order, [codes[order, level] for level in range(len(sizes))]
    key = np.zeros(count, np.uint64)
    for level, width in enumerate(widths):
        key <<= np.uint64(width)
        key |= (codes[:, level] if by_rank is None else codes[by_rank, level]).astype(np.uint64)
    key <<= np.uint64(low_bits)
    key |= np.arange(count, dtype=np.uint64)
    key.sort()
    rank = (key & np.uint64((1 << low_bits) - 1)).astype(np.int64)
    order = rank if by_rank is None else by_rank[rank]
    columns, shift = [], low_bits + sum(widths)
    for width in widths:
        shift -= width
        columns.append(((key >> np.uint64(shift)) & np.uint64((1 << width) - 1)).astype(np.int32))
    return order, columns
