"""Token layout: a code (level l, k) is token `base + offset[l] + k`. Arithmetic only, never through text.

Adding tens of thousands of words to a text tokenizer makes it slow, and words added as special ones vanish from outputs;
and what never is text can never be typed by a user: no message spells an item by accident or on purpose.

A history is written as [start] codes(item 1) codes(item 2) ...; every item takes exactly `L` tokens. A model that knows users
(TIGER, arXiv 2305.05065) reads one of `users` more tokens in the place of [start], onto which the user's id is hashed. One with
a user index (decoding/user_index.py) reads a token for each of its levels behind [start]. One with a user adapter
(user_adapter.py) has places behind [start], before the index, that hold no token: vectors stand there. With an item encoder
(item_encoder.py) an item of a history takes `queries` such places in the stead of its codes; what is written stays codes.
Legend: `B` histories, `T` tokens of the longest one, `L` levels, `U` levels of the user index.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from genrec.errors import DataError

PAD, START, FIRST_CODE = 0, 1, 2  # token ids of a model built from scratch
SOFT = -1  # no token: a vector stands here


@dataclass(frozen=True)
class TokenLayout:
    """base: token id of the first code; sizes: codes per level; start: the token before the first item; pad: filler; users:
    tokens behind the codes that user ids are hashed onto; index: codes per level of the user index, whose tokens come last: one
    for the unknown user, then those of each level; soft: places for soft tokens, which no token stands for; queries: places of
    an item of a history, where an item encoder fills them, or 0 where its codes stand there."""

    base: int
    sizes: tuple[int, ...]
    start: int
    pad: int
    users: int = 0
    index: tuple[int, ...] = ()
    soft: int = 0
    queries: int = 0

    @classmethod
    def from_scratch(cls, sizes: Sequence[int], users: int = 0, index: Sequence[int] = (), soft: int = 0) -> "TokenLayout":
        """Layout of a model that knows nothing but codes, and users if any: pad, start, then the codes, then the users, then
        the user index."""
        return cls(FIRST_CODE, tuple(sizes), START, PAD, users, tuple(index), soft)

    @property
    def levels(self) -> int:
        return len(self.sizes)

    @cached_property
    def offsets(self) -> np.ndarray:
        """First token id of each level: int64 [L]."""
        return self.base + np.concatenate([[0], np.cumsum(self.sizes)[:-1]]).astype(np.int64)

    @property
    def vocabulary_size(self) -> int:
        """One past the last token."""
        return self.unknown_user + (1 + sum(self.index) if self.index else 0)

    @property
    def unknown_user(self) -> int:
        """The token of a user without index, where there is an index."""
        return self.base + sum(self.sizes) + self.users

    @property
    def lead(self) -> int:
        """Tokens before the first item of a history."""
        return 1 + self.soft + len(self.index)

    @property
    def item_tokens(self) -> int:
        """Places that an item of a history takes."""
        return self.queries or self.levels

    def longest(self, max_history: int) -> int:
        """Places that so many items, and one more that is written, take."""
        return self.lead + self.item_tokens * max_history + self.levels

    def index_tokens(self, index: np.ndarray) -> np.ndarray:
        """Codes of the user index [..., U], -1 for an unknown user's -> token ids [..., U], int64."""
        offsets = self.unknown_user + 1 + np.concatenate([[0], np.cumsum(self.index)[:-1]])
        return np.where(index < 0, self.unknown_user, index + offsets).astype(np.int64)

    @property
    def code_tokens(self) -> range:
        """All token ids that are codes."""
        return range(self.base, self.base + sum(self.sizes))

    def first_token(self, user: str | None = None) -> int:
        """What a history of this user begins with, the same on every machine: `start` where there are no users' tokens or
        nobody says who it is."""
        if user is None or not self.users:
            return self.start
        digest = hashlib.blake2b(str(user).encode(), digest_size=8).digest()
        return self.base + sum(self.sizes) + int.from_bytes(digest, "little") % self.users

    def to_tokens(self, codes: np.ndarray) -> np.ndarray:
        """Codes [..., L] -> token ids [..., L], int64."""
        return np.asarray(codes, np.int64) + self.offsets

    def to_codes(self, tokens: np.ndarray) -> np.ndarray:
        """Token ids [..., L] -> codes [..., L], int32. Raises `DataError` for a token that is not a code of its level."""
        codes = np.asarray(tokens, np.int64) - self.offsets
        if (codes < 0).any() or (codes >= np.array(self.sizes)).any():
            raise DataError("These tokens do not spell items: a token lies outside the code range of its level.")
        return codes.astype(np.int32)

    def name(self, level: int, code: int) -> str:
        """How a code token is written where people look at it, e.g. `<c1_37>`."""
        return f"<c{level}_{code}>"

    def name_of(self, token: int) -> str:
        """The same of a token id, which must be a code."""
        level = int(np.searchsorted(self.offsets, token, side="right")) - 1
        return self.name(level, token - int(self.offsets[level]))


def write_histories(
    histories: Sequence[np.ndarray],
    codes: np.ndarray,
    layout: TokenLayout,
    users: Sequence[str | None] | None = None,
    index: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Histories of catalogue rows -> (token ids [B, T], mask [B, T]), padded on the left so that all end together.

    codes: int [N, L], of every catalogue row. users: whose they are, as far as it is known. index: their user index, int64 [B,
    U], -1 for an unknown user's codes (None: all unknown). An empty history is its first token alone, and its index. Places for
    soft tokens hold `SOFT`, and are in the mask.
    """
    users = [None] * len(histories) if users is None else users
    told = layout.index_tokens(np.full((len(histories), len(layout.index)), -1) if index is None else index)
    lengths = np.array([layout.lead + layout.item_tokens * len(h) for h in histories], np.int64)
    width = int(lengths.max(initial=1))
    tokens = np.full((len(histories), width), layout.pad, np.int64)
    mask = np.arange(width) >= (width - lengths)[:, None]
    for row, (history, user) in enumerate(zip(histories, users, strict=True)):
        tokens[row, width - lengths[row]] = layout.first_token(user)
        begin = width - lengths[row] + layout.lead
        tokens[row, begin - layout.lead + 1 : begin] = SOFT
        tokens[row, begin - len(layout.index) : begin] = told[row]
        tokens[row, begin:] = SOFT if layout.queries else layout.to_tokens(codes[history]).reshape(-1)
    return tokens, mask
