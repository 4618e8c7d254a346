"""Interactions: who met which item when; Arrow-backed on the way in, flat numpy arrays for computing.

In: an Arrow table with `user_id`, `item_id`, and optionally `timestamp` and `position`.
Out: `Histories`, every user's items in order, as row numbers of a `Catalogue`.

A table may be larger than memory: it is read in stretches, and long arrays lie on disk (mapped.py).

Order inside a user: by timestamp, ties by `position` where there is one, then by the order of the file. A user with any
missing timestamp keeps `position` or the order of the file, and a user with any missing position the order of the file: half
an order would be worse than none.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from genrec.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from genrec.data.catalogue import RowsById, as_id_column, plain_column, require_columns
from genrec.data.mapped import large_array, parts, pieces, stretches
from genrec.data.order import in_order
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
        shift = starts - indptr[:-1]
        items, times = (large_array(int(indptr[-1]), values.dtype) for values in (self.items, self.times))
        for first, last in stretches(indptr):
            there = slice(indptr[first], indptr[last])
            events = np.arange(there.start, there.stop) + np.repeat(shift[first:last], lengths[first:last])
            items[there], times[there] = self.items[events], self.times[events]
        return Histories(self.user_ids[users], indptr, items, times)

    def to_lists(self) -> list[np.ndarray]:
        """One int64 array per user."""
        return np.split(self.items, self.indptr[1:-1]) if len(self) else []

    def repeat_share(self) -> float:
        """Share of events whose item the same user had before. 0 where users never repeat an item."""
        if not len(self.items):
            return 0.0
        width, different = int(self.items.max()) + 1, 0
        for first, last in stretches(self.indptr):
            users = np.repeat(np.arange(last - first), self.lengths[first:last])
            items = self.items[self.indptr[first] : self.indptr[last]]
            different += len(np.unique(users * width + items))
        return 1.0 - different / len(self.items)


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
                for _ in _numbers(table.column(name), name):  # whether they are
                    pass
        return cls(table)

    def __len__(self) -> int:
        return self.table.num_rows

    def histories(self, catalogue: RowsById, unknown_items: Literal["raise", "drop"] = "raise") -> Histories:
        """Every user's items in order. Users come in order of first appearance.

        `unknown_items`: what to do with events whose item is not in `catalogue`. Raises `DataError`.
        """
        check_choice("unknown_items", unknown_items, ["raise", "drop"])
        size, numbers = len(self), dict[str, int]()
        users, items = large_array(size, np.int32), large_array(size, np.int64)
        keys = [as_numbers(self.table.column(name), name) for name in (TIMESTAMP, POSITION) if name in self.table.column_names]
        if TIMESTAMP not in self.table.column_names:
            keys.insert(0, large_array(size, np.float64))
            keys[0][:] = np.nan
        unknown, example, kept = 0, "", 0
        for stretch in parts(size):
            part = self.table.select([USER_ID, ITEM_ID])[stretch]
            rows = catalogue.rows(part.column(ITEM_ID))
            known = rows >= 0
            if not known.all():
                example = example or part.column(ITEM_ID)[int(np.flatnonzero(~known)[0])].as_py()
                unknown += int((~known).sum())
                part, rows = part.filter(pa.array(known)), rows[known]
            stop = kept + len(rows)
            users[kept:stop], items[kept:stop] = _numbered(part.column(USER_ID), numbers), rows
            for values in keys:
                values[kept:stop] = values[stretch][known]
            kept = stop
        if unknown and unknown_items == "raise":
            raise DataError(
                f"Every interaction must name an item of the items table, got {unknown} of {size} "
                f"that do not (for example item {example!r}). Add these items, or drop the rows with "
                f"unknown_items='drop' (command line: --data.unknown-items drop)."
            )
        if not kept:
            raise DataError(
                f"No interaction names an item of the items table (for example {example!r} is not in it). "
                "Check that both tables use the same ids."
            )
        items, times, indptr = in_order(users[:kept], items[:kept], [key[:kept] for key in keys], len(numbers))
        return Histories(np.array(list(numbers), object), indptr, items, times)


def _numbered(ids: pa.ChunkedArray, numbers: dict[str, int]) -> np.ndarray:
    """Users by number, in the order of first appearance; new ones are added to `numbers`: int64 [n]."""
    encoded = ids.combine_chunks().dictionary_encode()
    found = [numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()]
    return np.array(found, np.int64)[encoded.indices.to_numpy()]


class EventNumbers:
    """Gives every event its own number, where a catalogue gives the row of its item: the histories then say which row of the
    table stands where. Events are counted on from call to call; each table takes new ones."""

    def __init__(self) -> None:
        self.given = 0

    def rows(self, item_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row numbers of the next events: int64 [n]."""
        self.given += len(item_ids)
        return np.arange(self.given - len(item_ids), self.given)


def as_numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A time or position column as float64 [n], NaN where empty. Dates and times become seconds since 1970.

    Raises `DataError` for other types, text that is neither, and infinite numbers.
    """
    values, stop = large_array(len(column), np.float64), 0
    for piece in _numbers(column, name):
        values[stop : stop + len(piece)] = piece
        stop += len(piece)
    return values


def _numbers(column: pa.ChunkedArray, name: str) -> Iterator[np.ndarray]:
    """The values of `as_numbers` piece by piece, and what it raises."""
    column = plain_column(column)
    written = _kind_of_text(column, name) if pa.types.is_string(column.type) else None
    kind = written or column.type
    if not (_is_time(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
            or pa.types.is_null(kind)):  # fmt: skip
        raise DataError(
            f"Column {name!r} must hold numbers, dates or times, got Arrow type {kind}. Convert it, or leave it out: "
            "without it the order of the file is used."
        )
    infinite = 0
    for piece in pieces(column):
        if written is not None:
            piece = _without_blanks(piece).cast(written)
        values = _seconds(piece) if _is_time(kind) else _floats(piece)
        infinite += int(np.isinf(values).sum())
        yield values
    if infinite:
        raise DataError(
            f"Column {name!r} must hold finite numbers, got {infinite} infinite ones. Fix them or leave them empty."
        )


def _is_time(kind: pa.DataType) -> bool:
    return pa.types.is_date(kind) or pa.types.is_timestamp(kind)


def _seconds(column: pa.ChunkedArray) -> np.ndarray:
    """Dates or times as seconds since 1970."""
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s"))
    ticks = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}[column.type.unit]
    return _floats(column.cast(pa.int64())) / ticks


def _without_blanks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    column = pc.utf8_trim_whitespace(column)
    blank = pc.equal(column, "")
    return pc.if_else(pc.fill_null(blank, True), pa.scalar(None, pa.string()), column)


def _kind_of_text(column: pa.ChunkedArray, name: str) -> pa.DataType:
    """What all texts of a column are: numbers or ISO 8601 times (blank means missing). Raises `DataError` where they are
    neither."""
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            for piece in pieces(column):
                _without_blanks(piece).cast(kind)
        except pa.ArrowInvalid:
            continue
        return kind
    example = next(value for piece in pieces(column) for value in _without_blanks(piece).drop_null().to_pylist())
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
