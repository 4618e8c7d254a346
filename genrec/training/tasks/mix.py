"""The mix: plain histories and alignment tasks together, drawn and batched anew each epoch.

In: windows of histories, and tasks with their weights. Out: a `Mix` (the data set), `MixBatches` (what an epoch holds, in
batches of nearly equal length) and `MixCollator` (token ids, with loss on what is learned).

An epoch holds every window, and of each task as many examples as its weight says. A task's examples are sorted by their longest
form and cut into so many stretches; every epoch takes the next one of each, in one of the sentences that fit it. What is drawn
from a stretch is never longer than its longest, so every epoch has as many batches.

Legend: `M` examples of a task, `P` its prompts, `S` slots of an epoch, `B` samples of a batch, `T` tokens of its longest.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.networks import length_cuts
from genrec.training.examples import IGNORED, HistoryWindows, positions
from genrec.training.tasks.dialogue import DIALOGUE_TASKS
from genrec.training.tasks.families import TASKS, Given
from genrec.training.tasks.places import Examples, Place
from genrec.training.tasks.prompts import Prompt, Sample, make_prompt

PLAIN = "next_item"

Key = tuple[int, int, int]  # number of the task (0: plain windows), of the example, of the prompt


@dataclass(frozen=True, eq=False)
class Aligned:
    """A task with its examples. lengths: tokens of each at most in the words of each prompt, int32 [M, P]; 0 where the prompt
    has a place that the example cannot fill. slots: examples of an epoch.
    """

    name: str
    examples: Examples
    prompts: list[Prompt]
    lengths: np.ndarray
    slots: int

    @cached_property
    def order(self) -> np.ndarray:
        """Examples from the shortest to the longest, each in its longest form: int64 [M]."""
        return np.argsort(self.lengths.max(axis=1), kind="stable")

    @cached_property
    def stretches(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each slot's stretch of `order` begins, and how many examples it has: int64 [S] each."""
        first = np.arange(self.slots) * len(self.order) // self.slots
        stop = np.maximum(np.arange(1, self.slots + 1) * len(self.order) // self.slots, first + 1)
        return first, stop - first

    @property
    def longest(self) -> np.ndarray:
        """Tokens that a slot's example may have: int64 [S]."""
        first, counts = self.stretches
        return self.lengths[self.order[first + counts - 1]].max(axis=1)

    def draw(self, seed: Sequence[int], epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """The examples of an epoch and the prompt of each: int64 [S] each. After as many epochs as a stretch is long, each of
        its examples has had its turn."""
        first, counts = self.stretches
        begin = np.random.default_rng([*seed, 0]).integers(0, counts)
        chosen = self.order[first + (begin + epoch) % counts]
        fits = self.lengths[chosen] > 0
        place = np.random.default_rng([*seed, 1, epoch]).integers(0, fits.sum(axis=1))
        return chosen, np.argmax(np.cumsum(fits, axis=1) > place[:, None], axis=1)


class Mix(Dataset):
    """Sample (task, example, prompt). windows: plain histories, task 0. codes: int [N, L]. tasks: 1, 2, ..."""

    def __init__(self, windows: HistoryWindows, codes: np.ndarray, layout: TokenLayout, tasks: Sequence[Aligned]) -> None:
        self.windows, self.codes, self.layout, self.tasks = windows, codes, layout, list(tasks)

    def __len__(self) -> int:
        return len(self.windows) + sum(task.slots for task in self.tasks)

    def __getitem__(self, key: Key) -> Sample:
        task, example, prompt = key
        if task:
            aligned = self.tasks[task - 1]
            return aligned.prompts[prompt].write(aligned.examples, example)
        codes = self.layout.to_tokens(self.codes[self.windows[example]]).reshape(-1)
        return Sample(np.concatenate([[self.layout.start], codes]), np.arange(len(codes) + 1) > 0)

    @property
    def plain_lengths(self) -> np.ndarray:
        """Tokens of each window: int64 [windows]."""
        return 1 + self.layout.levels * self.windows.lengths

    @property
    def longest(self) -> np.ndarray:
        """Tokens that each slot of an epoch may have, those of the windows first: int64 [S]."""
        return np.concatenate([self.plain_lengths, *(task.longest for task in self.tasks)])

    def epoch(self, seed: int, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        """What an epoch holds: keys, int64 [S, 3], and tokens of each at most, int64 [S]."""
        plain = np.arange(len(self.windows))
        keys, lengths = [np.column_stack([np.zeros_like(plain), plain, np.zeros_like(plain)])], [self.plain_lengths]
        for number, task in enumerate(self.tasks, 1):
            examples, prompts = task.draw([seed, number], epoch)
            keys.append(np.column_stack([np.full(task.slots, number), examples, prompts]))
            lengths.append(task.lengths[examples, prompts].astype(np.int64))
        return np.concatenate(keys), np.concatenate(lengths)


class MixBatches(Sampler[list[Key]]):
    """Batches of keys of nearly equal lengths, at most `batch_tokens` tokens each, in random order. Epoch e of seed s is always
    the same, as in `LengthBatches`."""

    def __init__(self, mix: Mix, batch_tokens: int, seed: int) -> None:
        self.mix, self.seed, self.epoch = mix, seed, 0
        # The k-th shortest that is drawn is never longer than the k-th shortest that could be: these cuts always hold.
        self.cuts = length_cuts(mix.longest, batch_tokens)

    def __len__(self) -> int:
        return len(self.cuts) - 1

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer before each epoch."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Key]]:
        random = np.random.default_rng([self.seed, self.epoch])
        keys, lengths = self.mix.epoch(self.seed, self.epoch)
        order = np.lexsort((random.random(len(keys)), lengths))
        for number in random.permutation(len(self)):
            chosen = keys[order[self.cuts[number] : self.cuts[number + 1]]]
            yield [(task, example, prompt) for task, example, prompt in chosen.tolist()]


class MixCollator:
    """Samples -> `input_ids`, `attention_mask`, `position_ids`, `labels`, each int64 [B, T], padded on the left as histories
    are."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, samples: list[Sample]) -> dict[str, torch.Tensor]:
        width = max(len(sample.tokens) for sample in samples)
        tokens = np.full((len(samples), width), self.pad, np.int64)
        mask, labels = np.zeros_like(tokens), np.full_like(tokens, IGNORED)
        for row, sample in enumerate(samples):
            begin = width - len(sample.tokens)
            tokens[row, begin:] = sample.tokens
            mask[row, begin:] = 1
            labels[row, begin:] = np.where(sample.learned, sample.tokens, IGNORED)
        batch = {"input_ids": tokens, "attention_mask": mask, "position_ids": positions(mask), "labels": labels}
        return {name: torch.from_numpy(array) for name, array in batch.items()}


def make_mix(
    weights: Mapping[str, float],
    windows: HistoryWindows,
    given: Given,
    codes: np.ndarray,
    layout: TokenLayout,
    words: Words,
    places: Mapping[str, Place],
) -> Mix:
    """The mix of a recipe. weights: examples of each task for one window. places: what the data can fill.

    Raises `SettingError` for a task that the data have nothing for.
    """
    tasks = []
    for task in (*TASKS, *DIALOGUE_TASKS):
        if not weights.get(task.name):
            continue
        prompts = [make_prompt(t, places, words, layout) for t in task.templates if t.names <= places.keys()]
        examples = task.examples(given)
        lengths = np.stack([prompt.lengths(examples) for prompt in prompts] or [np.zeros(len(examples))], axis=1)
        some = np.flatnonzero(lengths.any(axis=1))
        if not len(some):
            raise SettingError(
                f"tasks.{task.name} has no example in these tables: it needs {task.needs}. Add it, or set the weight to 0."
            )
        slots = max(1, round(weights[task.name] * len(windows)))
        tasks.append(Aligned(task.name, examples.select(some), prompts, lengths[some].astype(np.int32), slots))
    return Mix(windows, codes, layout, tasks)
