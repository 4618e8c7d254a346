"""Templates: sentences with places, written as one sequence of token ids of which the answer alone is learned.

In: a `Template` and the `Place` of each name in it. Out: a `Prompt`, which writes examples: [start] words codes words, then the
answer, then the end token where the answer is text. An answer in codes has no end: every item takes exactly `L` tokens.

A sentence is spelled piece by piece, so codes never melt into words. The space before a place is the place's own: texts begin
with one, codes have none.

Legend: `M` examples, `T` tokens of one.
"""

import string
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from genrec.models.tokens import TokenLayout
from genrec.models.words import Words
from genrec.training.tasks.places import Examples, Place

CODES = ("item",)  # places of an answer that are codes


@dataclass(frozen=True)
class Template:
    """What is told and what has to be answered, with places in braces."""

    told: str
    answer: str

    @property
    def names(self) -> set[str]:
        """The places in it."""
        return {name for _, name, _, _ in string.Formatter().parse(self.told + self.answer) if name is not None}


@dataclass(frozen=True)
class Sample:
    """tokens: int64 [T]. learned: which of them count in the loss, bool [T]."""

    tokens: np.ndarray
    learned: np.ndarray


@dataclass(frozen=True)
class Prompt:
    """A template ready to be written. told, answer: words of ours as token ids, and places, in order."""

    told: list[np.ndarray | Place]
    answer: list[np.ndarray | Place]

    def write(self, some: Examples, n: int) -> Sample:
        """Example number n."""
        told, answer = (
            np.concatenate([part.write(some, n) if isinstance(part, Place) else part for part in parts])
            for parts in (self.told, self.answer)
        )
        learned = np.arange(len(told) + len(answer)) >= len(told)
        return Sample(np.concatenate([told, answer]).astype(np.int64), learned)

    def lengths(self, some: Examples) -> np.ndarray:
        """Tokens of each example at most: int64 [M]; 0 where a place has nothing to say, so that it cannot be written."""
        total, there = np.zeros(len(some), np.int64), np.ones(len(some), bool)
        for part in (*self.told, *self.answer):
            if isinstance(part, Place):
                lengths = part.lengths(some)
                total += lengths
                there &= lengths > 0
            else:
                total += len(part)
        return np.where(there, total, 0)


def make_prompt(template: Template, places: Mapping[str, Place], words: Words, layout: TokenLayout) -> Prompt:
    """The template with `places` (all that it names) in it."""
    answer = _parts(template.answer, places, words)
    if template.answer not in [f"{{{name}}}" for name in CODES]:
        answer.append(np.array([words.end], np.int64))
    return Prompt([np.array([layout.start], np.int64), *_parts(template.told, places, words)], answer)


def _parts(text: str, places: Mapping[str, Place], words: Words) -> list[np.ndarray | Place]:
    parts: list[np.ndarray | Place] = []
    for literal, name, _, _ in string.Formatter().parse(text):
        parts.append(words.literal(literal if name is None else literal.rstrip(" ")))
        if name is not None:
            parts.append(places[name])
    return parts
