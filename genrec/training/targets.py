"""Training examples of an encoder-decoder: a history to read and the item after it to write.

In: training `Histories` and the codes of every item. Out: batches of encoder tokens, with the loss on the target's codes alone.

Every event of a training history can be a target, the first one after an empty history; validation and test targets are not
in training histories. A decoder reads a window of n items once and learns n targets from it; an encoder-decoder reads the
history again for every target. All targets of long histories in every epoch would cost their length squared, so each epoch
takes `per_user` of a user: the history is cut into so many stretches of nearly equal length, and one event of each is drawn
anew each epoch. Where batches are cut depends on the stretches and not on the draw, so every epoch has as many batches.

Where the model has user tokens, every fourth event of a user is learned without: whoever asks without a name is answered too.

Legend: `E` training events, `S` stretches, `B` targets of a batch, `T` tokens of its longest history, `L` levels.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from genrec.data.interactions import Histories
from genrec.models.tokens import TokenLayout, write_histories
from genrec.networks import length_cuts

NAMELESS = 4  # one of so many events is learned without its user's token

Example = tuple[np.ndarray, int, str | None]


class HistoryTargets(Dataset):
    """Event number e is an `Example`: at most `max_history` items before it, int64 [n], n >= 0; the item itself; whose it is,
    or None where that is not told."""

    def __init__(self, histories: Histories, max_history: int) -> None:
        self.items, self.indptr, self.user_ids = histories.items, histories.indptr, histories.user_ids
        self.max_history = max_history

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, event: int) -> Example:
        user = int(self.users(event))
        begin = int(self.indptr[user])
        named = (event - begin) % NAMELESS > 0
        history = self.items[max(begin, event - self.max_history) : event]
        return history, int(self.items[event]), self.user_ids[user] if named else None

    def users(self, events: np.ndarray | int) -> np.ndarray:
        """Whose each event is: int64 [n]. It is looked up, since a number for each event would fill the memory."""
        return np.searchsorted(self.indptr, events, "right") - 1

    def lengths(self, events: np.ndarray) -> np.ndarray:
        """Items read before each target: int64 [n]."""
        return np.minimum(events - self.indptr[self.users(events)], self.max_history)

    def stretches(self, per_user: int) -> tuple[np.ndarray, np.ndarray]:
        """First event of each stretch and the one after its last: int64 [S] each; `per_user` a user, or one an event where the
        user has fewer (0: always one an event)."""
        lengths = np.diff(self.indptr)
        parts = np.minimum(lengths, per_user) if per_user else lengths
        user = np.repeat(np.arange(len(parts)), parts)
        part = np.arange(len(user)) - np.repeat(np.cumsum(parts) - parts, parts)
        begin, length, count = self.indptr[user], lengths[user], parts[user]
        return begin + part * length // count, begin + (part + 1) * length // count


class TargetBatches(Sampler[list[int]]):
    """Batches of event numbers, one of each stretch, of nearly equal history lengths and at most `batch_tokens` tokens (those
    written included), in random order. Epoch e of seed s is always the same, as in `LengthBatches`."""

    def __init__(
        self, targets: HistoryTargets, per_user: int, tokens_per_item: int, batch_tokens: int, seed: int, lead: int = 1
    ) -> None:
        """lead: tokens before the first item."""
        self.targets, self.seed, self.epoch = targets, seed, 0
        self.first, self.stop = targets.stretches(per_user)
        # The k-th shortest history drawn is never longer than the k-th shortest that could be drawn: these cuts always hold.
        longest = targets.lengths(self.stop - 1)
        self.cuts = length_cuts(lead + tokens_per_item * (longest + 1), batch_tokens)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        events = random.integers(self.first, self.stop)
        order = events[np.lexsort((random.random(len(events)), self.targets.lengths(events)))]
        for number in random.permutation(len(self)):
            yield order[self.cuts[number] : self.cuts[number + 1]].tolist()


class TargetCollator:
    """Examples -> `input_ids` and `attention_mask`, int64 [B, T], for the encoder, `labels`, int64 [B, L], for the decoder.

    index: the user index of each, int64 [B, U] (None: nobody is known). An example has one target: there is nothing to cut.
    """

    def __init__(self, codes: np.ndarray, layout: TokenLayout) -> None:
        self.codes, self.layout = codes, layout

    def __call__(
        self, examples: list[Example], index: np.ndarray | None = None, cuts: np.ndarray | int = 0
    ) -> dict[str, torch.Tensor]:
        histories, items, users = zip(*examples, strict=True)
        tokens, mask = write_histories(histories, self.codes, self.layout, users, index)
        labels = self.layout.to_tokens(self.codes[list(items)])
        batch = {"input_ids": tokens, "attention_mask": mask.astype(np.int64), "labels": labels}
        return {name: torch.from_numpy(array) for name, array in batch.items()}
