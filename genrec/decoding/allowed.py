"""Which items a request may get: bitmaps with running counts, minus short lists.

In: catalogue rows or masks over them. Out: `Allowed`, which answers "how many allowed items lie in this interval of the code
order?" for whole batches at once. A prefix without any is never entered, so what is filtered can never be spelled.

Legend: `B` users, `P` positions of the code order, `F` different filters in a batch, `E` excluded positions per user.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

BITS = 16  # per word: a table of 2^16 bytes then counts the bits of any word in one gather


@dataclass(frozen=True, eq=False)
class Bitmap:
    """A set of positions. words: int32 [P // 16 + 1], 16 bits each; ranks: of that shape, the set bits in all words before."""

    words: Tensor
    ranks: Tensor

    @classmethod
    def from_mask(cls, mask: np.ndarray, device: torch.device | str = "cpu") -> "Bitmap":
        """mask: bool [P]."""
        packed = np.packbits(mask, bitorder="little")
        words = np.zeros(len(mask) // BITS + 1, np.uint16)
        words.view(np.uint8)[: len(packed)] = packed
        return cls._of(words, device)

    @classmethod
    def _of(cls, words: np.ndarray, device: torch.device | str) -> "Bitmap":
        counts = np.bitwise_count(words)
        ranks = np.cumsum(counts, dtype=np.int32) - counts
        return cls(torch.from_numpy(words.astype(np.int32)).to(device), torch.from_numpy(ranks.astype(np.int32)).to(device))

    def mask(self, positions: int) -> np.ndarray:
        """The set as bool [P], what `from_mask` was given."""
        packed = self.words.cpu().numpy().astype(np.uint16).view(np.uint8)
        return np.unpackbits(packed, count=positions, bitorder="little").astype(bool)

    def __and__(self, other: "Bitmap") -> "Bitmap":
        """Positions that are in both."""
        words = (self.words & other.words).cpu().numpy().astype(np.uint16)
        return Bitmap._of(words, self.words.device)

    def to(self, device: torch.device) -> "Bitmap":
        """This set on `device`; made once per device."""
        if self.words.device == device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = Bitmap(self.words.to(device), self.ranks.to(device))
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> "dict[torch.device, Bitmap]":
        return {}

    def __len__(self) -> int:
        return int(self.ranks[-1]) + int(self.words[-1]).bit_count()


@dataclass(frozen=True, eq=False)
class Allowed:
    """Which positions each user of a batch may get. The parts are optional and work together.

    words, ranks: int32 [F * (P // 16 + 1)], the bitmaps of `F` filters one after the other (None: everything is allowed);
    offset: int64 [B], where each user's bitmap begins (None: all share the first). excluded: int64 [B, E], positions that a
    user may not get although the bitmap holds them, sorted, padded with P (None: none).
    """

    words: Tensor | None = None
    ranks: Tensor | None = None
    offset: Tensor | None = None
    excluded: Tensor | None = None

    @classmethod
    def of(
        cls,
        positions: int,
        bitmaps: Sequence[Bitmap] = (),
        which: Tensor | None = None,
        excluded: Tensor | None = None,
    ) -> "Allowed":
        """positions: `P`. which: int64 [B], each user's bitmap (default: all share the first). excluded: int64 [B, E],
        positions in any order, each once, -1 for none.
        """
        words = ranks = offset = None
        if bitmaps:
            words, ranks = torch.cat([b.words for b in bitmaps]), torch.cat([b.ranks for b in bitmaps])
            size = len(bitmaps[0].words)
            offset = None if which is None else which * size
        allowed = cls(words, ranks, offset)
        if excluded is None or not excluded.shape[1]:
            return allowed
        counted = excluded >= 0
        if words is not None:  # what the bitmap leaves out already must not be subtracted again
            counted = counted & allowed._has(excluded.clamp(min=0))
        return cls(words, ranks, offset, torch.where(counted, excluded, positions).sort(dim=1).values)

    @property
    def everything(self) -> bool:
        return self.words is None and self.excluded is None

    def before(self, position: Tensor) -> Tensor:
        """Allowed positions before each position, int64 [B, ...] from 0 to `P`: int64 of the same shape."""
        rank = position if self.words is None else self._rank(position)
        if self.excluded is None:
            return rank
        flat = position.reshape(len(position), -1)
        return rank - torch.searchsorted(self.excluded, flat).view(position.shape)

    def holds(self, position: Tensor, users: int) -> Tensor | None:
        """Whether each user's bitmap holds each position int64 [n], exclusions aside: bool [B, n]; None: it holds all."""
        return None if self.words is None else self._has(position.expand(users, -1))

    def _word(self, position: Tensor) -> Tensor:
        """The word of each position in its user's bitmap."""
        word = position >> 4
        return word if self.offset is None else word + self.offset.view(-1, *[1] * (position.ndim - 1))

    def _has(self, position: Tensor) -> Tensor:
        """Whether the bitmap holds each position."""
        assert self.words is not None
        return (self.words[self._word(position)] >> (position & 15)) & 1 > 0

    def _rank(self, position: Tensor) -> Tensor:
        """Set bits before each position, in its user's bitmap."""
        assert self.words is not None
        assert self.ranks is not None
        word = self._word(position)
        below, population = _tables(position.device)
        return self.ranks[word] + population[self.words[word] & below[position & 15]]


_TABLES: dict[torch.device, tuple[Tensor, Tensor]] = {}


def _tables(device: torch.device) -> tuple[Tensor, Tensor]:
    """The bits below each bit of a word, int32 [16], and the number of set bits of every word, int32 [2^16]."""
    if device not in _TABLES:
        population = torch.from_numpy(np.bitwise_count(np.arange(2**BITS, dtype=np.uint32)).astype(np.int32))
        _TABLES[device] = torch.tensor([2**bit - 1 for bit in range(BITS)], dtype=torch.int32).to(device), population.to(device)
    return _TABLES[device]
