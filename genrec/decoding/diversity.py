"""Diversity: at most so many items per brand, category or code prefix.

In: a column of the catalogue (or its codes) and items in order of score. Out: the items that a person would pick who goes down
the exact ranking and skips every item whose group is full. `BeamRanker` asks the search again, without the full groups, while
fewer than k items are chosen and others are left; so caps never cost items that could have been returned.

Legend: `R` catalogue rows, `G` groups.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.errors import SettingError


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of every row: `members[offsets[row] : offsets[row + 1]]`. A row may have none (no brand known) or several
    (a list of categories). offsets: int64 [R + 1]; members: int64."""

    offsets: np.ndarray
    members: np.ndarray

    @classmethod
    def of_column(cls, column: pa.ChunkedArray) -> "Groups":
        """Equal values are one group; a missing value is none. Lists put an item into the group of each value."""
        array = column.combine_chunks()
        if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
            values, rows = pc.list_flatten(array), np.repeat(np.arange(len(array)), lengths)
        else:
            values, rows = array, np.arange(len(array))
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        known = values.is_valid().to_numpy(zero_copy_only=False)
        if pa.types.is_floating(values.type):  # pandas writes a missing number as NaN
            known = known & ~np.isnan(values.to_numpy(zero_copy_only=False))
        try:
            groups = pc.fill_null(values.dictionary_encode().indices, 0).to_numpy(zero_copy_only=False).astype(np.int64)
        except pa.ArrowNotImplementedError:
            raise SettingError(f"max_per takes columns of texts, numbers or lists of them, got one of {array.type}.") from None
        # A value that an item names twice is one group.
        pairs = np.unique(np.column_stack([rows[known], groups[known]]), axis=0)
        counts = np.bincount(pairs[:, 0], minlength=len(array))
        return cls(np.concatenate([[0], np.cumsum(counts)]), pairs[:, 1])

    @classmethod
    def of_prefix(cls, codes: np.ndarray, length: int) -> "Groups":
        """Rows whose first `length` codes are equal are one group. codes: int [R, L]."""
        _, groups = np.unique(codes[:, :length], axis=0, return_inverse=True)
        return cls(np.arange(len(codes) + 1), groups.reshape(-1).astype(np.int64))

    def of(self, row: int) -> list[int]:
        """Groups of one row."""
        return self.members[self.offsets[row] : self.offsets[row + 1]].tolist()

    def rows(self, groups: Iterable[int]) -> np.ndarray:
        """All rows in any of `groups`: int64."""
        order, begin = self._by_group
        parts = [order[begin[group] : begin[group + 1]] for group in groups]
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)

    @cached_property
    def _by_group(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))
        counts = np.bincount(self.members)
        return rows[np.argsort(self.members, kind="stable")], np.concatenate([[0], np.cumsum(counts)])


@dataclass(frozen=True, eq=False)
class Cap:
    """At most `most` items of any one of `groups`. label: the column, or the number of first codes, that made them."""

    groups: Groups
    most: int
    label: str | int = ""


class Selection:
    """What one user gets, chosen greedily under caps."""

    def __init__(self, caps: Iterable[Cap]) -> None:
        self.caps = list(caps)
        self.rows: list[int] = []
        self.scores: list[float] = []
        self.counts: list[dict[int, int]] = [{} for _ in self.caps]

    def take(self, rows: np.ndarray, scores: np.ndarray, k: int) -> bool:
        """Go down the ranking (rows [n], -1 where nothing is left) and take what fits, up to `k` in all. Whether that is all:
        `k` are chosen, or the ranking has come to its end."""
        for row, score in zip(rows.tolist(), scores.tolist(), strict=False):
            if row < 0 or len(self.rows) == k:
                return True
            groups = [cap.groups.of(row) for cap in self.caps]
            fits = all(
                count.get(group, 0) < cap.most
                for cap, count, mine in zip(self.caps, self.counts, groups, strict=True)
                for group in mine
            )
            if fits:
                self.rows.append(row)
                self.scores.append(score)
                for count, mine in zip(self.counts, groups, strict=True):
                    for group in mine:
                        count[group] = count.get(group, 0) + 1
        return len(self.rows) == k

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Rows int64 and scores float32, best first."""
        scores = np.array(self.scores, np.float32)
        best = np.argsort(-scores, kind="stable")
        return np.array(self.rows, np.int64)[best], scores[best]

    def closed(self) -> np.ndarray:
        """Rows that cannot come any more: those taken, and all of full groups."""
        parts = [np.array(self.rows, np.int64)]
        for cap, count in zip(self.caps, self.counts, strict=True):
            parts.append(cap.groups.rows(group for group, taken in count.items() if taken >= cap.most))
        return np.concatenate(parts)
