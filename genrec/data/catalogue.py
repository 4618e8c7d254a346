"""The catalogue: one row per item, Arrow-backed.

In: an Arrow table with a column `item_id` and any other columns (title, brand, price, ...).
Out: `Catalogue`, whose rows are numbered 0..N-1; every other part of genrec speaks of items by these row numbers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.columns import ITEM_ID
from genrec.data.mapped import pieces
from genrec.errors import DataError, UnknownItemError, nearest

# Whole numbers above this are no longer exact as float64, so two ids could silently become one.
LARGEST_EXACT_FLOAT = 2**53


def is_text(kind: pa.DataType) -> bool:
    """Whether an Arrow type holds text."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of dictionary-encoded values spelled out, `string` for every kind of text, other types as they are."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.string() if is_text(kind) else kind


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column as its `plain_type`."""
    return column.cast(plain_type(column.type))


def as_id_column(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Ids as strings. Integers become their digits, whole-number floats too (pandas turns ids with gaps into floats).

    Raises `DataError` for missing or blank ids and for types that are no ids.
    """
    column = plain_column(column)
    kind = column.type
    if column.null_count:
        first = int(np.flatnonzero(column.is_null().to_numpy())[0])
        raise DataError(
            f"Column {name!r} must have a value in every row, got {column.null_count} empty ids (first in row {first}). "
            f"Remove or fill these rows; `genrec validate` lists them."
        )
    if pa.types.is_floating(kind):
        values = column.to_numpy()
        bad = np.flatnonzero(~(np.abs(values) <= LARGEST_EXACT_FLOAT) | (values != np.floor(values)))
        if len(bad):
            raise DataError(
                f"Column {name!r} must hold ids (text or whole numbers), got {values[bad[0]]} in row {bad[0]} "
                f"and {len(bad)} such rows in all. Fix these rows or read the column as text."
            )
        column = column.cast(pa.int64())
    elif not (pa.types.is_integer(kind) or pa.types.is_string(kind)):
        raise DataError(
            f"Column {name!r} must hold ids (text or whole numbers), got Arrow type {kind}. Convert it to text, "
            "or map the right column with columns={...}."
        )
    column = column.cast(pa.string())
    empty = sum(pc.sum(pc.equal(pc.utf8_trim_whitespace(piece), "")).as_py() or 0 for piece in pieces(column))
    if empty:
        raise DataError(
            f"Column {name!r} must have a value in every row, got {empty} blank ids. Remove or fill these rows; "
            "`genrec validate` lists them."
        )
    return column


def require_columns(table: pa.Table, needed: Sequence[str], what: str) -> None:
    """Raise `DataError` unless every column of `needed` is in `table`, once."""
    for name in needed:
        times = table.column_names.count(name)
        if times > 1:
            raise DataError(
                f"The {what} table must have one column {name!r}, got {times} of that name. Rename or drop the others."
            )
        if not times:
            raise DataError(
                f"The {what} table must have a column {name!r}, got {table.column_names}."
                f"{nearest(name, table.column_names)} Rename it, or map it with columns={{{name!r}: '<your name>'}} "
                f"(in a recipe: data.{what}_columns)."
            )


def conform(items: pa.Table, schema: pa.Schema) -> pa.Table:
    """New items as rows of a catalogue: exactly its columns and types; columns that `items` lacks are empty.

    Raises `DataError` for columns that the catalogue does not have, values that cannot become its type, an item named twice.
    """
    for name in items.column_names:
        if name not in schema.names:
            raise DataError(
                f"The catalogue has no column {name!r}.{nearest(name, schema.names)} It has {', '.join(schema.names)}; "
                "drop or rename the others."
            )
    items = items.set_column(items.column_names.index(ITEM_ID), ITEM_ID, as_id_column(items.column(ITEM_ID), ITEM_ID))
    if pc.count_distinct(items.column(ITEM_ID)).as_py() != items.num_rows:
        raise DataError("Every item may be named once in one change, got an item id more than once.")
    columns = []
    for column in schema:
        if column.name not in items.column_names:
            columns.append(pa.nulls(items.num_rows, column.type))
            continue
        try:
            columns.append(items.column(column.name).cast(column.type))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"Column {column.name!r} holds {column.type} in the catalogue, got {items.column(column.name).type} that "
                f"cannot become it: {error}"
            ) from None
    return pa.table(columns, schema=schema)


class RowsById(Protocol):
    """What knows the row number of an item id: a `Catalogue`, or a version of one that changes."""

    def rows(self, item_ids: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row numbers: int64 [n], -1 for unknown ids."""
        ...


@dataclass(frozen=True, eq=False)
class Catalogue:
    """N items. `table` has `item_id` (string, unique, no nulls) and the item's other fields.

    Build one with `Catalogue.from_table`, which checks and converts the ids.
    """

    table: pa.Table

    @classmethod
    def from_table(cls, table: pa.Table) -> "Catalogue":
        """Check `table` and convert its ids to strings. Raises `DataError`."""
        require_columns(table, [ITEM_ID], "items")
        if table.num_rows == 0:
            raise DataError("The items table must have at least one row, got 0. Check the path and the file's format.")
        ids = as_id_column(table.column(ITEM_ID), ITEM_ID)
        counts = pc.value_counts(ids.combine_chunks() if ids.num_chunks != 1 else ids.chunk(0))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1))
        if len(repeated):
            example = repeated[0].as_py()
            raise DataError(
                f"Column {ITEM_ID!r} must be unique in the items table, got {len(repeated)} ids more than once "
                f"(for example {example['values']!r}, {example['counts']} times). Keep one row per item."
            )
        table = table.set_column(table.column_names.index(ITEM_ID), ITEM_ID, ids)
        return cls(table.combine_chunks())

    def __len__(self) -> int:
        return self.table.num_rows

    @cached_property
    def item_ids(self) -> np.ndarray:
        """Ids by row: object array of str, [N]."""
        return self.table.column(ITEM_ID).to_numpy(zero_copy_only=False)

    @cached_property
    def _id_array(self) -> pa.Array:
        return self.table.column(ITEM_ID).combine_chunks()

    @property
    def field_names(self) -> list[str]:
        """The columns besides the id."""
        return [name for name in self.table.column_names if name != ITEM_ID]

    def rows(self, item_ids: Sequence[str] | np.ndarray | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row numbers of `item_ids`: int64 [n], -1 where an id is not in the catalogue."""
        if not isinstance(item_ids, (pa.Array, pa.ChunkedArray)):
            item_ids = pa.array([str(i) for i in item_ids], pa.string())
        found = pc.index_in(item_ids.cast(pa.string()), value_set=self._id_array)
        return pc.fill_null(found, -1).to_numpy(zero_copy_only=False).astype(np.int64)

    def require_rows(self, item_ids: Sequence[str], argument: str) -> np.ndarray:
        """Like `rows`, but raises `UnknownItemError` naming `argument` when an id is unknown."""
        item_ids = list(item_ids)
        rows = self.rows(item_ids)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown):
            raise UnknownItemError(
                f"{argument} must name items of the catalogue ({len(self)} items), got {len(unknown)} unknown ids, "
                f"for example {item_ids[int(unknown[0])]!r}."
            )
        return rows

    def fields(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The items' fields (id included) as dicts, one per row number."""
        return self.table.take(pa.array(rows, pa.int64())).to_pylist()
