"""Interactions: who met which item when; Arrow-backed on the way in, flat numpy arrays for computing.

In: an Arrow table with `user_id`, `item_id`, and optionally `timestamp` and `position`.
Out: `Histories`, every user's items in order, as row numbers of a `Catalogue`.

Order inside a user: by timestamp, ties by `position` where there is one, then by the order of the file. A user with any
missing timestamp keeps `position` or the order of the file, and a user with any missing position the order of the file: half
an order would be worse than none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from genrec.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from genrec.data.catalogue import RowsById, as_id_column, plain_column, require_columns
from genrec.errors import DataError, check_choice


@dataclass(frozen=True, eq=False)
class Histories:
    """`U` histories in one flat array.

    user_ids: object [U]; indptr: int64 [U + 1]; items: int64 [E], catalogue rows, oldest first inside a user;
    times: float64 [E], NaN where unknown.
    """

    user_ids: np.ndarray
    indptr: np.ndarray
    items: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, user: int) -> np.ndarray:
        """Items of one user: int64 [T]."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def following_pairs(self) -> np.ndarray:
        """Items that follow each other in a history: int64 [pairs, 2]."""
        users = np.repeat(np.arange(len(self)), self.lengths)
        together = users[1:] == users[:-1]
        return np.column_stack([self.items[:-1][together], self.items[1:][together]]).astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Events per user: int64 [U]."""
        return np.diff(self.indptr)

    @classmethod
    def from_lists(cls, histories: Sequence[Sequence[int] | np.ndarray], user_ids: Sequence[str] | None = None) -> "Histories":
        """From row-number lists, one per user."""
        lengths = np.array([len(h) for h in histories], np.int64)
        items = np.concatenate([np.asarray(h, np.int64) for h in histories]) if lengths.sum() else np.zeros(0, np.int64)
        names = np.array(list(user_ids) if user_ids is not None else [str(i) for i in range(len(histories))], object)
        return cls(names, np.concatenate([[0], np.cumsum(lengths)]), items, np.full(len(items), np.nan))

    def select(self, users: np.ndarray, stop: np.ndarray | None = None) -> "Histories":
        """The chosen users' histories ([n] indices, repeats allowed), each cut to its first `stop` ([n]) events."""
        users = np.asarray(users, np.int64)
        starts = self.indptr[users]
        lengths = self.indptr[users + 1] - starts
        if stop is not None:
            lengths = np.clip(stop, 0, lengths)
        indptr = np.concatenate([[0], np.cumsum(lengths)])
        events = np.arange(indptr[-1]) - np.repeat(indptr[:-1] - starts, lengths)
        return Histories(self.user_ids[users], indptr, self.items[events], self.times[events])

    def to_lists(self) -> list[np.ndarray]:
        """One int64 array per user."""
        return np.split(self.items, self.indptr[1:-1]) if len(self) else []

    def repeat_share(self) -> float:
        """Share of events whose item the same user had before. 0 where users never repeat an item."""
        if not len(self.items):
            return 0.0
        users = np.repeat(np.arange(len(self)), self.lengths)
        width = int(self.items.max()) + 1
        return 1.0 - len(np.unique(users * width + self.items)) / len(self.items)


@dataclass(frozen=True, eq=False)
class Interactions:
    """An event table. `table` has string ids; build one with `Interactions.from_table`."""

    table: pa.Table

    @classmethod
    def from_table(cls, table: pa.Table) -> "Interactions":
        """Check `table` and convert its ids to strings. Raises `DataError`."""
        require_columns(table, [USER_ID, ITEM_ID], "interactions")
        if table.num_rows == 0:
            raise DataError("The interactions table must have at least one row, got 0. Check the path and the file's format.")
        for name in (USER_ID, ITEM_ID):
            table = table.set_column(table.column_names.index(name), name, as_id_column(table.column(name), name))
        for name in (TIMESTAMP, POSITION):
            if name in table.column_names:
                require_columns(table, [name], "interactions")
                as_numbers(table.column(name), name)
        return cls(table)

    def __len__(self) -> int:
        return self.table.num_rows

    def histories(self, catalogue: RowsById, unknown_items: Literal["raise", "drop"] = "raise") -> Histories:
        """Every user's items in order. Users come in order of first appearance.

        `unknown_items`: what to do with events whose item is not in `catalogue`. Raises `DataError`.
        """
        check_choice("unknown_items", unknown_items, ["raise", "drop"])
        table = self.table
        rows = catalogue.rows(table.column(ITEM_ID))
        known = rows >= 0
        if not known.all():
            example = table.column(ITEM_ID)[int(np.flatnonzero(~known)[0])].as_py()
            if unknown_items == "raise":
                raise DataError(
                    f"Every interaction must name an item of the items table, got {int((~known).sum())} of {len(rows)} "
                    f"that do not (for example item {example!r}). Add these items, or drop the rows with "
                    f"unknown_items='drop' (command line: --data.unknown-items drop)."
                )
            table, rows = table.filter(pa.array(known)), rows[known]
            if not len(rows):
                raise DataError(
                    f"No interaction names an item of the items table (for example {example!r} is not in it). "
                    "Check that both tables use the same ids."
                )
        encoded = table.column(USER_ID).combine_chunks().dictionary_encode()
        users = encoded.indices.to_numpy().astype(np.int64)
        names = encoded.dictionary.to_numpy(zero_copy_only=False)
        times = (
            as_numbers(table.column(TIMESTAMP), TIMESTAMP) if TIMESTAMP in table.column_names else np.full(len(rows), np.nan)
        )
        positions = as_numbers(table.column(POSITION), POSITION) if POSITION in table.column_names else np.zeros(len(rows))
        order = np.lexsort((_whole_users(positions, users, len(names)), _whole_users(times, users, len(names)), users))
        lengths = np.bincount(users, minlength=len(names))
        return Histories(names, np.concatenate([[0], np.cumsum(lengths)]), rows[order], times[order])


class EventNumbers:
    """Gives every event its own number, where a catalogue gives the row of its item: the histories then say which row of the
    table stands where."""

    def rows(self, item_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row numbers of the events: int64 [n]."""
        return np.arange(len(item_ids))


def _whole_users(values: np.ndarray, users: np.ndarray, n_users: int) -> np.ndarray:
    """Sort keys [E]: `values`, but 0 throughout for every user who lacks any, so that a stable sort keeps that user's order."""
    lacking = np.bincount(users, np.isnan(values), n_users) > 0
    return np.where(lacking[users], 0.0, values)


def as_numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A time or position column as float64 [n], NaN where empty. Dates and times become seconds since 1970.

    Raises `DataError` for other types, text that is neither, and infinite numbers.
    """
    column = plain_column(column)
    if pa.types.is_string(column.type):
        column = _parse_text(column, name)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    kind = column.type
    if pa.types.is_timestamp(kind):
        ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[kind.unit]
        return _floats(column.cast(pa.int64())) / ticks
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(
            f"Column {name!r} must hold numbers, dates or times, got Arrow type {kind}. Convert it, or leave it out: "
            "without it the order of the file is used."
        )
    values = _floats(column)
    infinite = int(np.isinf(values).sum())
    if infinite:
        raise DataError(
            f"Column {name!r} must hold finite numbers, got {infinite} infinite ones. Fix them or leave them empty."
        )
    return values


def _parse_text(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Numbers or ISO 8601 dates written as text (blank means missing)."""
    column = pc.utf8_trim_whitespace(column)
    blank = pc.equal(column, "")
    column = pc.if_else(pc.fill_null(blank, True), pa.scalar(None, pa.string()), column)
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            return column.cast(kind)
        except pa.ArrowInvalid:
            continue
    example = next(v for v in column.drop_null().to_pylist() if v is not None)
    raise DataError(
        f"Column {name!r} must hold numbers or ISO 8601 times such as 2024-05-01T12:00:00, got text, for example "
        f"{example!r}. Convert it, or leave it out: without it the order of the file is used."
    )


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float64(), safe=False), float("nan")).to_numpy()


def pad_histories(histories: Iterable[np.ndarray], fill: int) -> np.ndarray:
    """Histories as one matrix, right-padded with `fill`: int64 [U, longest] (at least one column)."""
    rows = list(histories)
    padded = np.full((len(rows), max([1, *map(len, rows)])), fill, np.int64)
    for row, items in zip(padded, rows, strict=True):
        row[: len(items)] = items
    return padded


def query_matrix(batch: Histories, items: int, decay: float, latest: int | None = None) -> sp.csr_matrix:
    """How much each item of a history has to say: decay ** (steps before its end), repeats summed: float32 [U, N].

    latest: only so many last items vote (None: all).
    """
    age = np.repeat(batch.indptr[1:], batch.lengths) - 1 - np.arange(len(batch.items))
    users = np.repeat(np.arange(len(batch)), batch.lengths)
    voting = slice(None) if latest is None else age < latest
    return sp.csr_matrix(
        (decay ** age[voting], (users[voting], batch.items[voting])), shape=(len(batch), items), dtype=np.float32
    )
