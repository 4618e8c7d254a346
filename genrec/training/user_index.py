"""Training with a user index or a user adapter, which must not tell what is to be learned.

In: windows of a decoder or targets of an encoder-decoder, and the fitted index. Out: the same examples with the index of what
their user had before the first item that is learned, and with what an adapter reads: items before the window, and those of the
window that are not learned.

When somebody asks, the index is made of all items that were given, and the answer comes after them. So an encoder-decoder's
target gets the index of the items before it. A decoder learns a window of items at once, under one index: each epoch cuts every
window at a place drawn anew, makes the index of all that the user had before the cut, and learns what comes after it alone. An
adapter that pools by the mean looks at nothing of the window: all of it is learned. One example of `UNTOLD` is learned as an
unknown user's, whole: who brings no history is answered too.

Legend: `B` examples, `U` levels of the index.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from genrec.data.mapped import large_array, parts
from genrec.decoding.user_index import UserIndex
from genrec.models.user_adapter import outside
from genrec.training.examples import HistoryWindows, LengthBatches
from genrec.training.targets import HistoryTargets

UNTOLD = 4
NOTHING = np.zeros(0, np.int64)


class Told(NamedTuple):
    """An example; what its index is made of (catalogue rows); how many of a window's items come before those learned; how many
    of `before`, the latest, the model reads."""

    example: Any
    before: np.ndarray
    cut: int
    read: int


class ToldWindows(Dataset):
    """Number (n, cut): window n with the index of all that its user had before item `cut` of it; of nobody where it is -1."""

    def __init__(self, windows: HistoryWindows) -> None:
        self.windows = windows

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, key: tuple[int, int]) -> Told:
        number, cut = key
        if cut < 0:
            return Told(self.windows[number], NOTHING, 0, 0)
        first, begin = self.windows.first[number], self.windows.begin[number]
        return Told(self.windows[number], self.windows.items[first : begin + cut], cut, cut)


class ToldBatches(LengthBatches):
    """The batches of `LengthBatches`, of numbers of `ToldWindows`. Epoch e of seed s is always the same."""

    def __init__(self, *size: Any, cut: bool = True, **more: Any) -> None:
        """size, more: as of `LengthBatches`. cut: whether windows are cut, or learned whole."""
        super().__init__(*size, **more)
        self.cut = cut

    def __iter__(self) -> Iterator[list[Any]]:
        random = np.random.default_rng([self.seed, self.epoch, 1])
        cuts = np.where(random.random(len(self.lengths)) * UNTOLD < 1, -1, random.integers(0, self.lengths))
        if not self.cut:
            cuts = np.minimum(cuts, 0)
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
        if self.untold[event]:
            return Told(targets[event], NOTHING, 0, 0)
        return Told(targets[event], targets.items[first:event], 0, int(targets.lengths(np.asarray(event))))


class ToldCollator:
    """Examples with what they were told -> what `collate` makes of them, with their index int64 [B, U] and cuts int64 [B].
    vectors: of the items. adapted: whether batches hold what a user adapter reads, too."""

    def __init__(
        self,
        collate: Callable[..., dict[str, torch.Tensor]],
        index: UserIndex | None,
        vectors: np.ndarray,
        adapted: bool = False,
    ) -> None:
        self.collate, self.index, self.vectors, self.adapted = collate, index, vectors, adapted

    def __call__(self, some: list[Told]) -> dict[str, torch.Tensor]:
        examples, before, cuts, read = zip(*some, strict=True)
        index = None if self.index is None else self.index.codes(before, self.vectors)
        batch = self.collate(list(examples), index, np.array(cuts))
        if self.adapted:
            kept = [len(rows) - count for rows, count in zip(before, read, strict=True)]
            older, recent = zip(*((rows[:n], rows[n:]) for rows, n in zip(before, kept, strict=True)), strict=True)
            batch |= {name: torch.from_numpy(array) for name, array in outside(older, recent, self.vectors).items()}
        return batch
