"""Snapshot: one version of a catalogue as the decoder sees it, and the rules that a request adds to it.

In: an index, the tokens of every catalogue row, and which rows may be returned at all. Out: what one search needs. Both are
immutable: a search keeps the snapshot it started with while the catalogue moves on.

Legend: `R` catalogue rows (removed ones included: histories may hold them), `P` positions of the code order, `L` levels.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch

from genrec.data.interactions import pad_histories
from genrec.decoding.allowed import Allowed, Bitmap
from genrec.decoding.beam import Index
from genrec.decoding.diversity import Cap
from genrec.decoding.index import CatalogueIndex

# An exclusion list longer than this becomes part of a bitmap: a bit costs nothing per candidate, a list entry a comparison.
LONGEST_LIST = 256


@dataclass(frozen=True, eq=False)
class Snapshot:
    """index: over the rows that can be found; codes: int32 [R, L] of every row; live: bool [R] or None (all rows).

    What one-pass models and a user index read: vectors, float32 [R, D] or None. What one-pass models and votes read: fitted,
    int64 [R], the row that the item had in the fit, -1 for one that came later (None: all have the row they had).
    """

    index: Index
    codes: np.ndarray
    live: np.ndarray | None = None
    vectors: np.ndarray | None = None
    fitted: np.ndarray | None = None

    @classmethod
    def of(cls, codes: np.ndarray, sizes: tuple[int, ...], tie_rank: np.ndarray | None = None) -> "Snapshot":
        """A catalogue that never changed. codes: int [R, L]."""
        return cls(CatalogueIndex.build(codes, sizes, tie_rank), np.asarray(codes, np.int32))

    @cached_property
    def everything(self) -> Bitmap:
        """All that may be returned at all."""
        return self.bitmap(np.ones(len(self.codes), bool))

    def bitmap(self, mask: np.ndarray) -> Bitmap:
        """The live rows of a bool mask [R], as a set of positions."""
        if self.live is not None:
            mask = mask & self.live
        return Bitmap.from_mask(mask[self._rows_in_order], self.index.device)

    def mask_of(self, bitmap: Bitmap) -> np.ndarray:
        """The rows of a set of positions: bool [R], what `bitmap` was made of."""
        mask = np.zeros(len(self.codes), bool)
        mask[self._rows_in_order] = bitmap.mask(len(self.index))
        return mask

    @cached_property
    def _rows_in_order(self) -> np.ndarray:
        return self.index.rows_in_order.cpu().numpy()

    def allowed(self, bitmaps: Sequence[Bitmap | None], excluded: Sequence[np.ndarray]) -> Allowed:
        """What each user of a batch may get. bitmaps: one per user (None: all that may be returned at all); excluded: per user,
        rows [E] that it may not get besides; any order, repeats and strangers to the index allowed."""
        # Long lists (a full category, a long history) become bitmaps of their own: looking up rows costs more than all bits.
        long = [user for user, rows in enumerate(excluded) if len(rows) > max(LONGEST_LIST, len(self.codes) // 1000)]
        if long or self.live is not None or any(bitmap is not None for bitmap in bitmaps):
            known = [self.everything if bitmap is None else bitmap for bitmap in bitmaps]
            bitmaps, excluded = known, list(excluded)
            for user in long:
                mask = np.ones(len(self.codes), bool)
                mask[excluded[user]] = False
                known[user] = self.bitmap(mask) & known[user].to(self.index.device)
                excluded[user] = excluded[user][:0]
        device = self.index.device
        distinct = {id(bitmap): bitmap.to(device) for bitmap in bitmaps if bitmap is not None}
        places_of = {key: place for place, key in enumerate(distinct)}
        chosen = [places_of[id(bitmap)] for bitmap in bitmaps] if len(distinct) > 1 else None
        which = None if chosen is None else torch.tensor(chosen, device=device)
        rows = np.sort(pad_histories(excluded, -1), axis=1)
        if not len(self.index) or not (rows >= 0).any():
            return Allowed.of(len(self.index), list(distinct.values()), which)
        rows[:, 1:][rows[:, 1:] == rows[:, :-1]] = -1  # one named twice must be subtracted once
        flat = rows.ravel()
        wanted = torch.from_numpy(flat).to(device)
        codes = torch.from_numpy(self.codes[np.maximum(flat, 0)].astype(np.int64)).to(device)
        places = torch.where(wanted < 0, -1, self.index.positions(wanted, codes)).view(rows.shape)
        return Allowed.of(len(self.index), list(distinct.values()), which, places)

    def to(self, device: torch.device) -> "Snapshot":
        """This snapshot with its index on `device`; made once per device."""
        if self.index.device == device:
            return self
        if device not in self._elsewhere:
            self._elsewhere[device] = replace(self, index=self.index.to(device))
        return self._elsewhere[device]

    @cached_property
    def _elsewhere(self) -> dict[torch.device, "Snapshot"]:
        return {}


@dataclass(frozen=True, eq=False)
class Rules:
    """What one request asks for. bitmap: positions of its snapshot that may be returned (None: all that are live); excluded:
    int64 [E], rows that may not; caps: at most so many items of one group."""

    bitmap: Bitmap | None = None
    excluded: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    caps: Sequence[Cap] = ()

    @classmethod
    def of(
        cls, snapshot: Snapshot, only: np.ndarray | None = None, excluded: np.ndarray | None = None, caps: Sequence[Cap] = ()
    ) -> "Rules":
        """only: catalogue rows [n] (None: all); excluded: rows [n]. Long lists of excluded rows become part of the bitmap."""
        excluded = np.zeros(0, np.int64) if excluded is None else np.unique(np.asarray(excluded, np.int64))
        long = len(excluded) > LONGEST_LIST
        if only is None and not long:
            return cls(None, excluded, caps)
        mask = np.full(len(snapshot.codes), only is None)
        if only is not None:
            mask[only] = True
        mask[excluded] = False
        return cls(snapshot.bitmap(mask), np.zeros(0, np.int64), caps)


@dataclass(frozen=True, eq=False)
class Query:
    """One history (rows int64 [n], oldest first) and what is asked about it. widths: the beam of each level [L].

    exclude_seen: leave out all of the history, also what is older than the model reads. user: whose history it is, for models
    with user tokens; None where nobody says.
    """

    history: np.ndarray
    k: int
    widths: tuple[int, ...]
    exclude_seen: bool
    rules: Rules = field(default_factory=Rules)
    user: str | None = None

    @property
    def excluded(self) -> np.ndarray:
        """Rows that may not be returned, beside those outside the bitmap: int64 [E]."""
        return np.concatenate([self.rules.excluded, self.history]) if self.exclude_seen else self.rules.excluded
