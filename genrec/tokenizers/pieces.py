"""Codes as features of a ranker: N-grams, or SentencePiece pieces, of an item's code sequence.

    rows = ngrams(table.codes, table.sizes, n=2)                     # [N, L - 1] int64, one embedding row per pair and place
    pieces = CodePieces(vocabulary=4000).fit(table.codes, table.sizes, impressions)
    indptr, rows = pieces.encode(table.codes)                        # item i has rows[indptr[i]:indptr[i + 1]]

An item's vector is the sum of the embedding rows of its pieces. SentencePiece spends its vocabulary by impressions: what is
seen often becomes few long pieces, which memorise; what is rare breaks into short shared ones, which generalise. Source:
"Better Generalization with Semantic IDs" (arXiv 2306.08121).

Legend: `N` items, `L` levels.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import sentencepiece

from genrec.errors import DataError, SettingError, check_integer

# One private-use character per code of every level, so that pieces can never mix levels up.
FIRST_CHARACTER, MOST_CODES = 0xF0000, 0xFFFE


def ngrams(codes: np.ndarray, sizes: Sequence[int], n: int, rows: int | None = None) -> np.ndarray:
    """The embedding row of each run of `n` codes, by its place and its codes: int64 [N, L - n + 1].

    Without `rows` every possible run has its own, `ngram_rows` in all; with `rows` they are hashed into so many.
    """
    codes, sizes = _checked(codes, sizes), tuple(sizes)
    check_integer("n", n, 1, len(sizes))
    starts = _starts(sizes, n)
    if starts[-1] >= 2**62:
        raise SettingError(f"Runs of {n} codes of sizes {sizes} are more than 64 bits can number. Lower n.")
    found = np.empty((len(codes), len(sizes) - n + 1), np.int64)
    for place in range(found.shape[1]):
        number = np.zeros(len(codes), np.int64)
        for level in range(place, place + n):
            number = number * sizes[level] + codes[:, level]
        found[:, place] = starts[place] + number
    if rows is None:
        return found
    check_integer("rows", rows, 1)
    return (_mixed(found.astype(np.uint64)) % np.uint64(rows)).astype(np.int64)


def ngram_rows(sizes: Sequence[int], n: int) -> int:
    """How many rows `ngrams` may use without hashing."""
    return _starts(tuple(sizes), n)[-1]


class CodePieces:
    """SentencePiece (its byte-pair model) over code sequences. vocabulary: rows of the embedding table, among them one per code
    of every level and one, row 0, that is never used.
    """

    def __init__(self, vocabulary: int) -> None:
        check_integer("vocabulary", vocabulary, 2)
        self.vocabulary = vocabulary
        self.sizes: tuple[int, ...] = ()
        self.model = b""

    def fit(self, codes: np.ndarray, sizes: Sequence[int], impressions: np.ndarray | None = None) -> Self:
        """Learn the pieces from codes [N, L]. impressions: whole numbers [N], how often each item is shown (default: once)."""
        codes, self.sizes = _checked(codes, sizes), tuple(int(size) for size in sizes)
        if sum(self.sizes) > MOST_CODES or sum(self.sizes) >= self.vocabulary:
            raise SettingError(
                f"vocabulary must be above the number of codes, {sum(self.sizes)}, and that at most {MOST_CODES}; "
                f"got {self.vocabulary}."
            )
        weights = np.ones(len(codes), np.int64) if impressions is None else np.asarray(impressions)
        if weights.shape != (len(codes),) or weights.dtype.kind not in "iu" or (weights < 0).any():
            raise DataError(f"impressions must be {len(codes)} whole numbers of 0 or more, one per item.")
        every = "".join(map(chr, range(FIRST_CHARACTER, FIRST_CHARACTER + sum(self.sizes))))
        lines = [f"{text}\t{weight}" for text, weight in zip(self._texts(codes), weights.tolist(), strict=True) if weight]
        model = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(lines), input_format="tsv", model_writer=model, model_type="bpe",
                vocab_size=self.vocabulary, character_coverage=1.0, required_chars=every, normalization_rule_name="identity",
                add_dummy_prefix=False, remove_extra_whitespaces=False, split_by_unicode_script=False, split_by_number=False,
                split_by_whitespace=False, max_sentencepiece_length=len(self.sizes), bos_id=-1, eos_id=-1, unk_id=0,
                minloglevel=2, num_threads=1,
            )  # fmt: skip
        except RuntimeError as error:
            raise SettingError(
                f"SentencePiece cannot make {self.vocabulary} pieces of {len(lines)} items: {str(error).partition(chr(10))[0]} "
                "Lower the vocabulary."
            ) from None
        self.model = model.getvalue()
        return self

    def encode(self, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The pieces of each item: (indptr int64 [N + 1], embedding rows int64 [pieces])."""
        if not self.model:
            raise SettingError("CodePieces must be fitted first: call fit(codes, sizes).")
        pieces = self._processor().encode(self._texts(_checked(codes, self.sizes)), out_type=int)
        lengths = np.array([len(of_item) for of_item in pieces], np.int64)
        return np.concatenate([[0], np.cumsum(lengths)]), np.array([row for of_item in pieces for row in of_item], np.int64)

    def spelled(self, row: int) -> list[tuple[int, int]]:
        """The (level, code) pairs that an embedding row stands for."""
        starts = np.cumsum([0, *self.sizes])
        places = [ord(character) - FIRST_CHARACTER for character in self._processor().id_to_piece(int(row))]
        levels = np.searchsorted(starts, places, side="right") - 1
        return [(int(level), int(place - starts[level])) for level, place in zip(levels, places, strict=True)]

    def save(self, path: Path) -> None:
        """Write SentencePiece's own model file."""
        Path(path).write_bytes(self.model)

    @classmethod
    def load(cls, path: Path, sizes: Sequence[int]) -> Self:
        """Read what `save` wrote, or any such model. sizes: codes per level that it was made for."""
        model = Path(path).read_bytes()
        pieces = cls(max(2, sentencepiece.SentencePieceProcessor(model_proto=model).get_piece_size()))
        pieces.model, pieces.sizes = model, tuple(int(size) for size in sizes)
        return pieces

    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        return sentencepiece.SentencePieceProcessor(model_proto=self.model)

    def _texts(self, codes: np.ndarray) -> list[str]:
        starts = FIRST_CHARACTER + np.cumsum([0, *self.sizes[:-1]])
        return ["".join(map(chr, row)) for row in (codes + starts).tolist()]


def _starts(sizes: tuple[int, ...], n: int) -> list[int]:
    """The first row of each place, and one past the last."""
    starts = [0]
    for place in range(len(sizes) - n + 1):
        runs = 1
        for size in sizes[place : place + n]:
            runs *= int(size)
        starts.append(starts[-1] + runs)
    return starts


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser: neighbouring numbers far apart. uint64 in and out."""
    with np.errstate(over="ignore"):
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))


def _checked(codes: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    codes = np.asarray(codes, np.int64)
    if codes.ndim != 2 or codes.shape[1] != len(sizes) or (codes < 0).any() or (codes >= np.array(sizes)).any():
        raise DataError(f"codes must be [N, {len(sizes)}] with values below {tuple(sizes)}, got shape {list(codes.shape)}.")
    return codes
