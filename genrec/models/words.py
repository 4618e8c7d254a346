"""Texts as token ids of a pretrained model's own tokenizer.

In: texts. Out: `Texts`, all their token ids in one flat array. A text is always one token sequence of its own, begun as after a
space; no text becomes a code or a token that steers the model (a special one, or one added later, such as `<think>`),
whatever a catalogue or a user has written into it.

Legend: `N` texts, `W` tokens of all of them.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from genrec.errors import SettingError

BATCH = 4096  # texts spelled at once
CHARACTERS = 32  # of a text are read for each token it may have: a title of a megabyte is not spelled to its end


@dataclass(frozen=True, eq=False)
class Texts:
    """tokens: int32 [W]; indptr: int64 [N + 1]. An empty text has no token."""

    tokens: np.ndarray
    indptr: np.ndarray

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def __getitem__(self, number: int) -> np.ndarray:
        """Token ids of one text: int32 [n]."""
        return self.tokens[self.indptr[number] : self.indptr[number + 1]]

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens per text: int64 [N]."""
        return np.diff(self.indptr)


@dataclass(frozen=True, eq=False)
class Words:
    """tokenizer: the model's. stop: one past the last token of text, where the codes begin. most: tokens of a text."""

    tokenizer: PreTrainedTokenizerBase
    stop: int
    most: int

    @property
    def end(self) -> int:
        """The token behind an answer in words. Raises `SettingError` where the tokenizer has none."""
        if self.tokenizer.eos_token_id is None:
            raise SettingError(
                "An answer in words needs an end, and the tokenizer of model.pretrained has no eos token. Give it one, or set "
                "the weights in tasks to 0."
            )
        return int(self.tokenizer.eos_token_id)

    @cached_property
    def control(self) -> dict[int, str]:
        """The tokens that are no words, and how they are written: special ones and all that were added to the spelling."""
        added = {number: token.content for number, token in self.tokenizer.added_tokens_decoder.items()}
        special = zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True)
        return {number: text for number, text in (added | dict(special)).items() if len(text) > 1}

    def writable(self, rows: int) -> np.ndarray:
        """Which of a model's `rows` tokens are words of a text: bool [rows]."""
        words = np.arange(rows) < min(self.stop, len(self.tokenizer))
        words[[number for number in self.control if number < rows]] = False
        return words

    @cached_property
    def _typed(self) -> re.Pattern[str] | None:
        """Finds where somebody typed what would be read as a token which steers, though it is not called special. Looks ahead
        without taking, so that none hides behind another."""
        texts = sorted(set(self.control.values()) - set(self.tokenizer.all_special_tokens), key=len, reverse=True)
        return re.compile(f"(?={'|'.join(map(re.escape, texts))})") if texts else None

    def _spell(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text; what reads like a token that steers is spelled in two pieces."""
        pieces = [self._apart(text) for text in texts]
        flat = [piece for some in pieces for piece in some]
        spelled = iter(self.tokenizer(flat, add_special_tokens=False, split_special_tokens=True)["input_ids"] if flat else [])
        return [list(itertools.chain.from_iterable(next(spelled) for _ in some)) for some in pieces]

    def _apart(self, text: str) -> list[str]:
        typed = self._typed.finditer(text) if self._typed else []
        cuts = [0, *(match.start() + 1 for match in typed), len(text)]
        return [text[start:stop] for start, stop in itertools.pairwise(cuts)]

    def literal(self, text: str) -> np.ndarray:
        """Token ids of words of ours, all of them: int64 [n]."""
        ids = self.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
        return np.array(ids, np.int64)

    def texts(self, texts: Sequence[str]) -> Texts:
        """Token ids of words of others, each text cut to `most` tokens. Raises `SettingError` where the tokenizer knows more
        tokens than its model."""
        lengths, tokens = [np.zeros(1, np.int64)], [np.zeros(0, np.int32)]
        for begin in range(0, len(texts), BATCH):
            batch = [text.strip()[: CHARACTERS * self.most] for text in texts[begin : begin + BATCH]]
            # Behind a space, as words in a sentence are. Nothing is left of a blank text.
            spaced = [f" {text}" if text else "" for text in batch]
            cut = [ids[: self.most] for ids in self._spell(spaced)]
            lengths.append(np.array([len(ids) for ids in cut], np.int64))
            tokens.append(np.fromiter(itertools.chain.from_iterable(cut), np.int32))
        found = np.concatenate(tokens)
        if len(found) and found.max() >= self.stop:
            raise SettingError(
                f"The model has rows for {self.stop} tokens, and its tokenizer spells with token {found.max()}. Check that "
                "model.pretrained holds a model with its own tokenizer."
            )
        return Texts(found, np.cumsum(np.concatenate(lengths)))
