"""Training examples: windows of user histories, batched by length.

In: training `Histories` and the tokens of every item. Out: batches of token ids with loss on every code.

A window is at most `max_history` + 1 items (as many as a request may show, and the one to predict), cut from the end of a
history; what is older makes further windows. Batches hold windows of nearly the same length up to a number of tokens, so
short histories are not padded to long ones.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from genrec.data.interactions import Histories
from genrec.models.tokens import TokenLayout, write_histories
from genrec.networks import length_cuts
from genrec.training.distillation import item_ends

IGNORED = -100  # the label that Hugging Face models leave out of the loss


class HistoryWindows(Dataset):
    """Windows of item rows, each int64 [n] with n >= 1; at most `per_user` of each history, the latest (0: all).

    A window is two places in the events, 16 bytes, and is cut out when it is asked for; those of a history stand one after the
    other, the latest first.
    """

    def __init__(self, histories: Histories, max_history: int, per_user: int = 0) -> None:
        size = max_history + 1
        parts = -(-histories.lengths // size)
        if per_user:
            parts = np.minimum(parts, per_user)
        user = np.repeat(np.arange(len(histories)), parts)
        number = np.arange(len(user)) - np.repeat(np.cumsum(parts) - parts, parts)
        self.items, self.first = histories.items, histories.indptr[user]  # first: where the user's events begin
        self.stop = histories.indptr[user + 1] - number * size
        self.begin = np.maximum(histories.indptr[user], self.stop - size)

    def __len__(self) -> int:
        return len(self.stop)

    def __getitem__(self, number: int) -> np.ndarray:
        return self.items[self.begin[number] : self.stop[number]]

    @property
    def lengths(self) -> np.ndarray:
        """Items per window: int64 [n]."""
        return self.stop - self.begin


class LengthBatches(Sampler[list[int]]):
    """Batches of window numbers, each of nearly equal lengths and at most `batch_tokens` tokens, in random order.

    Epoch e of seed s is always the same, so a resumed run sees the batches it would have seen. Which windows of equal length
    meet is drawn anew each epoch; where batches are cut is not, so an epoch always has `len(self)` batches.
    """

    def __init__(self, lengths: np.ndarray, tokens_per_item: int, batch_tokens: int, seed: int, lead: int = 1) -> None:
        """lead: tokens before the first item."""
        self.lengths, self.seed, self.epoch = lengths, seed, 0
        self.cuts = length_cuts(lead + tokens_per_item * lengths, batch_tokens)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = np.lexsort((random.random(len(self.lengths)), self.lengths))
        for number in random.permutation(len(self)):
            yield order[self.cuts[number] : self.cuts[number + 1]].tolist()


class Collator:
    """Windows -> `input_ids`, `attention_mask`, `position_ids`, `labels` and, on request, `items` (see distillation.py), each
    int64 [B, T].

    index, cuts: of each window, its user index int64 [B, U] and how many items come before those that are learned (None: nobody
    is known, and all are learned).
    """

    def __init__(self, codes: np.ndarray, layout: TokenLayout, items: bool = False) -> None:
        self.codes, self.layout, self.items = codes, layout, items

    def __call__(
        self, windows: list[np.ndarray], index: np.ndarray | None = None, cuts: np.ndarray | int = 0
    ) -> dict[str, torch.Tensor]:
        tokens, mask = write_histories(windows, self.codes, self.layout, index=index)
        learned = self.layout.levels * (np.array([len(window) for window in windows]) - cuts)
        # Nobody has to predict how a history begins: nothing comes before it.
        labels = np.where(np.arange(tokens.shape[1]) >= tokens.shape[1] - learned[:, None], tokens, IGNORED)
        batch = {
            "input_ids": tokens, "attention_mask": mask.astype(np.int64), "position_ids": positions(mask), "labels": labels,
        }  # fmt: skip
        if self.items:
            batch["items"] = item_ends(windows, self.layout)
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def positions(mask: np.ndarray) -> np.ndarray:
    """Place of each token in its row, from 0, padding on the left not counted, as in decoding: int64 [B, T]. A model that is
    given none may count padding, and then learns at other places than it is asked at (GPT-2's are absolute)."""
    return np.maximum(mask.cumsum(axis=1, dtype=np.int64) - 1, 0)
