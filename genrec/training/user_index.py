"""Training with a user index, which must not tell what is to be learned.

In: windows of a decoder or targets of an encoder-decoder, and the fitted index. Out: the same examples with the index of what
their user had before the first item that is learned.

When somebody asks, the index is made of all items that were given, and the answer comes after them. So an encoder-decoder's
target gets the index of the items before it. A decoder learns a window of items at once, under one index: each epoch cuts every
window at a place drawn anew, makes the index of all that the user had before the cut, and learns what comes after it alone. One
example of `UNTOLD` is learned as an unknown user's, whole: who brings no history is answered too.

Legend: `B` examples, `U` levels of the index.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genrec.data.mapped import large_array, parts
from genrec.decoding.user_index import UserIndex
from genrec.training.examples import HistoryWindows, LengthBatches
from genrec.training.targets import HistoryTargets

UNTOLD = 4
NOTHING = np.zeros(0, np.int64)


class Told(NamedTuple):
    """An example, what its index is made of (catalogue rows), and how many of a window's items come before those learned."""

    example: Any
    before: np.ndarray
    cut: int


class ToldWindows(Dataset):
    """Number (n, cut): window n with the index of all that its user had before item `cut` of it; of nobody where it is -1."""

    def __init__(self, windows: HistoryWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> Told:
        number, cut = key
        if cut < 0:
            return Told(self.windows[number], NOTHING, 0)
        first, begin = self.windows.first[number], self.windows.begin[number]
        return Told(self.windows[number], self.windows.items[first : begin + cut], cut)


class ToldBatches(LengthBatches):
    """The batches of `LengthBatches`, of numbers of `ToldWindows`. Epoch e of seed s is always the same."""

    def __iter__(self) -> Iterator[list[Any]]:
        random = np.random.default_rng([self.seed, self.epoch, 1])
        cuts = np.where(random.random(len(self.lengths)) * UNTOLD < 1, -1, random.integers(0, self.lengths))
        for batch in super().__iter__():
            yield [(number, int(cuts[number])) for number in batch]


class ToldTargets(Dataset):
    """Event e: the target with the index of all that its user had before; of nobody where `untold`, bool [events]."""

    def __init__(self, targets: HistoryTargets) -> None:
        self.targets = targets
        # By chance, not by place: what users do every fourth time must be learned under an index too.
        self.untold, random = large_array(len(targets), bool), np.random.default_rng(0)
        for part in parts(len(targets)):
            self.untold[part] = random.random(part.stop - part.start) * UNTOLD < 1

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, event: int) -> Told:
        targets = self.targets
        first = targets.indptr[targets.users(event)]
        return Told(targets[event], NOTHING if self.untold[event] else targets.items[first:event], 0)


class ToldCollator:
    """Examples with what they were told -> what `collate` makes of them, with their index int64 [B, U] and cuts int64 [B].
    vectors: of the items."""

    def __init__(self, collate: Callable[..., dict[str, torch.Tensor]], index: UserIndex, vectors: np.ndarray) -> None:
        self.collate, self.index, self.vectors = collate, index, vectors

    def __call__(self, some: list[Told]) -> dict[str, torch.Tensor]:
        examples, before, cuts = zip(*some, strict=True)
        return self.collate(list(examples), self.index.codes(before, self.vectors), np.array(cuts))
