"""A teacher: at every place of a training history, a language model also learns what another recommender would have said there.

In: a bundle's ranker, the training events, the codes. Out: its lists, in files; what each batch is to learn; the loss.

Of all that might have come next, one item did. The teacher says how likely the others were, which a one-pass model knows better
than a language model of few weights: it asks for whole items. Of its best items a code of a level learns from those that share
the codes before it, so the language model is taught P(code | history, codes before), and P(item | history) with it. The teacher
is asked once, before the training; serving never sees it. It was fitted on the events that it is asked about: it does not read
them, and it is surer of them than of others. Source: knowledge distillation (arXiv 1503.02531), of ranked lists
(arXiv 1809.07428); here with the item that came beside the list, and level by level.

Legend: `E` training events, `K` items of a list, `N` items, `L` levels, `P` items that a batch learns, `B` rows of a batch, `T`
tokens of a row, `V` tokens of the vocabulary.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.models.tokens import TokenLayout
from genrec.training.examples import IGNORED, HistoryWindows
from genrec.training.targets import HistoryTargets

CPU_CELLS, GPU_CELLS = 2**19, 2**26  # logits of the loss worked on at once
ASKED, COPIED = 4096, 2**20  # events that the teacher is asked about at once, and items that came before them in all
ROWS, SHARES = "rows.npy", "shares.npy"


@dataclass(frozen=True, eq=False)
class Teacher:
    """ranker: of the bundle that teaches. rows: int64 [N], its row of each of our items."""

    ranker: OnePassRanker | BeamRanker
    rows: np.ndarray

    def lists(self, histories: Histories, most: int, exclude_seen: bool, folder: Path) -> "Lists":
        """What it recommends before each event of the histories, of what came before it, written to a folder; read there if it
        is written already. exclude_seen: whether it leaves out what was there before, as serving will."""
        if not folder.exists():
            ours = np.empty(len(self.rows), np.int64)
            ours[self.rows] = np.arange(len(self.rows))
            theirs = Histories(histories.user_ids, histories.indptr, self.rows[histories.items], histories.times)
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            shape = (len(histories.items), most)
            rows = np.lib.format.open_memmap(partial / ROWS, "w+", np.int32, shape)
            shares = np.lib.format.open_memmap(partial / SHARES, "w+", np.float32, shape)
            with tqdm(total=len(rows), desc="Asking the teacher") as bar:
                for some in _pieces(histories):
                    users = np.searchsorted(histories.indptr, some, "right") - 1
                    before = theirs.select(users, some - histories.indptr[users])
                    found, scores = self.ranker.rank(before, most, exclude_seen)
                    rows[some] = np.where(found >= 0, ours[found], -1)
                    shares[some] = torch.from_numpy(scores).softmax(dim=1).nan_to_num()
                    bar.update(len(some))
            rows.flush()
            shares.flush()
            partial.rename(folder)
        return Lists.load(folder)


def _pieces(histories: Histories) -> Iterator[np.ndarray]:
    """Numbers of all events, so many together that what came before them, copied for each, stays small."""
    for start in range(0, len(histories.items), ASKED):
        some = np.arange(start, min(start + ASKED, len(histories.items)))
        before = some - histories.indptr[np.searchsorted(histories.indptr, some, "right") - 1]
        yield from np.split(some, np.flatnonzero(np.diff(np.cumsum(before) // COPIED)) + 1)


@dataclass(frozen=True, eq=False)
class Lists:
    """rows: int32 [E, K], a teacher's best items before each event, -1 where it had fewer. shares: float32 [E, K], how likely
    it holds each of them, 1 in all (0 of an empty list)."""

    rows: np.ndarray
    shares: np.ndarray

    @classmethod
    def load(cls, folder: Path) -> "Lists":
        """What `Teacher.lists` wrote, mapped into memory."""
        return cls(np.load(folder / ROWS, mmap_mode="r"), np.load(folder / SHARES, mmap_mode="r"))


class TaughtExamples(Dataset):
    """The examples of a decoder or of an encoder-decoder, each with the events that are learned from it, int64 [n]."""

    def __init__(self, examples: HistoryWindows | HistoryTargets) -> None:
        self.examples = examples

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, number: int) -> tuple[Any, np.ndarray]:
        if isinstance(self.examples, HistoryTargets):
            return self.examples[number], np.array([number])
        return self.examples[number], np.arange(self.examples.begin[number], self.examples.stop[number])


class TaughtCollator:
    """What `collate` makes of the examples, with `taught_tokens`, int64 [B, T, 1 + K], and `taught_shares`, float32 of the
    same shape: for each label, it and what the teacher would have there, and how much of the lesson each is, 1 in all.

    items: int64 [E], what came. weight: the teacher's part of a lesson, from 0 to 1; 0 where none of its items is left.
    """

    def __init__(
        self,
        collate: Callable[[list[Any]], dict[str, Tensor]],
        lists: Lists,
        items: np.ndarray,
        codes: np.ndarray,
        layout: TokenLayout,
        weight: float,
    ) -> None:
        self.collate, self.lists, self.items, self.weight = collate, lists, items, weight
        self.tokens = layout.to_tokens(codes)

    def __call__(self, some: list[tuple[Any, np.ndarray]]) -> dict[str, Tensor]:
        examples, events = zip(*some, strict=True)
        batch = self.collate(list(examples))
        learned = (batch["labels"] != IGNORED).numpy()
        tokens, shares = self.lessons(np.concatenate(events))
        shape = (*learned.shape, tokens.shape[-1])
        places, parts = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
        places[learned], parts[learned] = tokens.reshape(-1, shape[-1]), shares.reshape(-1, shape[-1])
        return batch | {"taught_tokens": torch.from_numpy(places), "taught_shares": torch.from_numpy(parts)}

    def lessons(self, events: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of some events: tokens, int64 [P, L, 1 + K], and their shares."""
        rows, right = self.lists.rows[events], self.tokens[self.items[events]][:, :, None]
        others = self.tokens[rows].transpose(0, 2, 1)
        agree = np.logical_and.accumulate(others == right, axis=1)  # whether an item has the codes up to a level, it included
        before = np.concatenate([np.ones_like(agree[:, :1]), agree[:, :-1]], axis=1)
        shares = np.where(before & (rows >= 0)[:, None], self.lists.shares[events][:, None], 0)
        mass = shares.sum(axis=2, keepdims=True)
        shares = np.divide(self.weight * shares, mass, out=np.zeros_like(shares), where=mass > 0)
        return np.concatenate([right, others], axis=2), np.concatenate([1 - shares.sum(axis=2, keepdims=True), shares], axis=2)


def taught_loss(logits: Tensor, labels: Tensor, tokens: Tensor, shares: Tensor) -> Tensor:
    """The cross-entropy to what is taught, summed over all labels. logits: [B, T, V], of what stands in labels [B, T], tokens
    and shares [B, T, 1 + K]."""
    learned = labels != IGNORED
    return _SparseCrossEntropy.apply(logits[learned], tokens[learned], shares[learned])


class _SparseCrossEntropy(torch.autograd.Function):
    """Cross-entropy to some tokens of each row, summed. A few rows at a time, which a CPU keeps in its cache: with thousands of
    codes a level, most of the time of a step would go into logits that travel between it and memory."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, tokens: Tensor, shares: Tensor) -> Tensor:
        """logits: [n, V]; tokens, shares: [n, k]."""
        gradient, total = torch.empty_like(logits), logits.new_zeros((), dtype=torch.float32)
        rows = max(1, (CPU_CELLS if logits.device.type == "cpu" else GPU_CELLS) // logits.shape[1])
        for some, token, share, place in zip(*(part.split(rows) for part in (logits, tokens, shares, gradient)), strict=True):
            told = some.float()
            norm, all_shares = told.logsumexp(dim=1, keepdim=True), share.sum(dim=1, keepdim=True)
            total += (norm * all_shares).sum() - (told.gather(1, token) * share).sum()
            place.copy_((told - norm).exp_().mul_(all_shares).scatter_add_(1, token, -share))
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor, None, None]:
        [gradient] = ctx.saved_tensors
        return gradient * outer, None, None
