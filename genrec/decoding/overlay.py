"""Overlay: an index plus a small one of items that came later, walked as one tree.

In: the index of a catalogue and the index of its additions. Out: the same questions answered as by an index built anew. A
search over it returns the same items with the same scores; only its cost differs a little.

A prefix of the base keeps its id. A prefix that only additions have gets the id `n_l + its id among the additions`. The two
trees are joined once, when the overlay is made: for each prefix of the additions, its twin in the base.

Legend: `B` users, `W` beams, `L` levels, `n_l` prefixes of the base at level l, `C` children at most.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from genrec.decoding.index import Before, CatalogueIndex


@dataclass(frozen=True, eq=False)
class Overlay:
    """base, delta: both with at least one item and the same sizes; positions of the delta follow those of the base.

    Per level: twins[l], ids of the base prefixes that additions extend, ascending; owners[l], the same prefixes' ids in the
    delta; lone[l], ids of the delta's prefixes that the base does not have; lone_first[l], where those below each delta
    prefix of the level before begin in lone[l] (for level 0: below the root).
    """

    base: CatalogueIndex
    delta: CatalogueIndex
    twins: list[Tensor]
    owners: list[Tensor]
    lone: list[Tensor]
    lone_first: list[Tensor]

    @classmethod
    def join(cls, base: CatalogueIndex, delta: CatalogueIndex) -> "Overlay":
        """Both indexes as one. Costs time by the size of `delta`."""
        device, levels = delta.device, delta.levels
        # The codes of every addition, from its path in the delta: [D, L].
        path = torch.empty(len(delta), levels, dtype=torch.int64, device=device)
        path[:, -1] = torch.arange(len(delta), device=device)
        for level in reversed(range(levels - 1)):
            path[:, level] = torch.searchsorted(delta.first[level].long(), path[:, level + 1].contiguous(), right=True) - 1
        codes = torch.stack([delta.code[level][path[:, level]].long() for level in range(levels)], dim=1)
        known = torch.full_like(codes, -1)  # items are never twins: each is its own
        known[:, :-1] = base.walk(codes, levels - 1)
        twins, owners, lone, lone_first = [], [], [], []
        for level in range(levels):
            twin = torch.full((len(delta.code[level]),), -1, dtype=torch.int64, device=device)
            twin[path[:, level]] = known[:, level]
            owners.append((twin >= 0).nonzero().squeeze(1))
            twins.append(twin[owners[-1]])
            alone = (twin < 0).nonzero().squeeze(1)
            lone.append(alone)
            above = torch.tensor([0, len(twin)], device=device) if level == 0 else delta.first[level - 1].long()
            lone_first.append(torch.searchsorted(alone, above))
        return cls(base, delta, twins, owners, lone, lone_first)

    def __len__(self) -> int:
        return len(self.base) + len(self.delta)

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.base.sizes

    @property
    def levels(self) -> int:
        return self.base.levels

    @property
    def device(self) -> torch.device:
        return self.base.device

    @cached_property
    def fanout(self) -> list[int]:
        """Most children of any prefix of length l: L numbers."""
        return [ours + theirs for ours, theirs in zip(self.base.fanout, self._most_lone, strict=True)]

    @cached_property
    def _most_lone(self) -> list[int]:
        return [int((first[1:] - first[:-1]).max()) for first in self.lone_first]

    def to(self, device: torch.device | str) -> "Overlay":
        """This overlay on `device`."""
        if self.device == torch.device(device):
            return self
        return Overlay.join(self.base.to(device), self.delta.to(device))

    def expand(
        self, nodes: Tensor, level: int, static: bool = False, before: Before | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `CatalogueIndex.expand`: (prefix ids, their last codes, allowed items below or exists), each [B, W, C]."""
        count = len(self.base.code[level - 1]) if level else 1
        ids, codes, below, borders = self.base.siblings(nodes.clamp(max=count - 1), level, static)
        below = below & (nodes < count).unsqueeze(-1)
        if before is not None:  # a prefix of the base may live on in its additions alone
            below = below * (self.base.between(borders, level, before) + self._added_below(ids, level, before))
        owner = self._in_delta(nodes, level - 1) if level else torch.zeros_like(nodes)
        first = self.lone_first[level]
        begin = torch.where(owner < 0, 0, first[owner.clamp(min=0)])
        end = torch.where(owner < 0, 0, first[owner.clamp(min=0) + 1])
        widest = self._most_lone[level] if static else int((end - begin).max())
        if not widest:
            return ids, codes, below
        places = begin.unsqueeze(-1) + torch.arange(widest, device=nodes.device)
        more = places < end.unsqueeze(-1)
        added = self.lone[level][torch.where(more, places, 0)]
        added_codes = self.delta.code[level][added].long()
        added_below = more if before is None else self._items_of(added, level, before) * more
        added = added + len(self.base.code[level])
        ids, codes = torch.cat([ids, added], dim=-1), torch.cat([codes, added_codes], dim=-1)
        below = torch.cat([below, added_below], dim=-1)
        # In code order again, additions after what was there: ties are broken as in an index built anew.
        order = torch.where(below > 0, codes, self.sizes[level]).argsort(dim=-1, stable=True)
        return ids.gather(-1, order), codes.gather(-1, order), below.gather(-1, order)

    def _added_below(self, nodes: Tensor, level: int, before: Before) -> Tensor:
        """Allowed additions below prefixes of the base: int64 of the shape of `nodes`."""
        owner = self._in_delta(nodes, level)
        return torch.where(owner >= 0, self._items_of(owner.clamp(min=0), level, before), 0)

    def _items_of(self, owners: Tensor, level: int, before: Before) -> Tensor:
        """Allowed additions below prefixes of the delta: int64 of the shape of `owners`."""
        start, stop = self.delta.position(owners, level), self.delta.position(owners + 1, level)
        return before(stop + len(self.base)) - before(start + len(self.base))

    def _in_delta(self, nodes: Tensor, level: int) -> Tensor:
        """Ids of prefixes among the additions, -1 for those that no addition has: int64 of the shape of `nodes`."""
        alone = nodes - len(self.base.code[level])
        if not len(self.twins[level]):
            return torch.where(alone >= 0, alone, -1)
        place = torch.searchsorted(self.twins[level], nodes.contiguous()).clamp(max=len(self.twins[level]) - 1)
        shared = torch.where(self.twins[level][place] == nodes, self.owners[level][place], -1)
        return torch.where(alone >= 0, alone, shared)

    def rows_at(self, positions: Tensor) -> Tensor:
        """Catalogue rows at positions: int64."""
        known = len(self.base)
        in_delta = self.delta.rows_at((positions - known).clamp(min=0))
        return torch.where(positions < known, self.base.rows_at(positions.clamp(max=known - 1)), in_delta)

    def rows_below(self, node: int, level: int) -> Tensor:
        """Catalogue rows of all items below one prefix: int64."""
        owner = int(self._in_delta(torch.tensor(node, device=self.device), level))
        before = self.base.rows_below(node, level) if node < len(self.base.code[level]) else self.base.items[:0].long()
        return torch.cat([before, self.delta.rows_below(owner, level)]) if owner >= 0 else before

    @property
    def rows_in_order(self) -> Tensor:
        """The catalogue row of every position: [N]."""
        return torch.cat([self.base.items, self.delta.items])

    def walk(self, codes: Tensor, levels: int | None = None) -> Tensor:
        """As `CatalogueIndex.walk`: prefix ids of code tuples, -1 where there is no such prefix, int64 [n, levels]."""
        before, after = self.base.walk(codes, levels), self.delta.walk(codes, levels)
        known = torch.tensor([len(code) for code in self.base.code], device=self.device)[: before.shape[1]]
        return torch.where(before >= 0, before, torch.where(after >= 0, after + known, -1))

    def positions(self, rows: Tensor, codes: Tensor) -> Tensor:
        """As `CatalogueIndex.positions`: int64 [n], -1 for rows in neither index."""
        before, after = self.base.positions(rows, codes), self.delta.positions(rows, codes)
        return torch.where(after >= 0, after + len(self.base), before)
