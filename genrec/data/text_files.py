"""Text files into Arrow tables: CSV, TSV, JSON lines and RecBole's atomic files, plain or gzipped.

In: a path and the columns that must be read as text (ids: "007" stays "007"). Out: `Opened`, which knows the file's column
names at once and reads the values when asked, only those needed. Arrow does the reading; what it refuses becomes a
`DataError` that names the file and, where Arrow knows it, the row.
"""

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.json as pajson

from genrec.errors import DataError, nearest

# Arrow cuts a file into blocks and a row must fit into two of them: descriptions of megabytes are real.
BLOCK_BYTES = 64 << 20

ATOMIC_TYPES = ("token", "float", "token_seq", "float_seq")


@dataclass(frozen=True)
class Opened:
    """A source whose column names are known. `load(names)` reads these columns; `label` names the source in messages.

    stream: the same columns as tables of some rows, all with the schema that comes with them, for sources that need not be in
    memory as a whole.
    """

    label: str
    names: list[str]
    load: Callable[[list[str]], pa.Table]
    stream: Callable[[list[str]], tuple[pa.Schema, Iterator[pa.Table]]] | None = None


def open_csv(path: Path, text_columns: Iterable[str], delimiter: str = ",") -> Opened:
    """A file with column names in its first line. Types are inferred over the whole file, except `text_columns`.

    Quoted values may hold newlines. An empty value is missing in a number column and empty text in a text column.
    """
    names = _header(path, delimiter)
    if len(names) == 1:
        other = next((mark for mark in (";", "\t", "|", ",") if mark != delimiter and mark in names[0]), None)
        if other:
            raise DataError(
                f"{path} must have its values separated by {delimiter!r}, got the first line {names[0][:200]!r}, which looks "
                f"separated by {other!r}. Save it with {delimiter!r}" + (", or call it .tsv." if other == "\t" else ".")
            )
    types = {name: pa.string() for name in text_columns}
    return Opened(str(path), names, lambda chosen: _read_csv(path, chosen, types, delimiter, '"'))


def open_atomic(path: Path) -> Opened:
    """A RecBole atomic file (.inter, .item, .user): tab-separated, header such as `user_id:token<TAB>rating:float`.

    token and token_seq are read as text, float as numbers, float_seq as lists of numbers. A token_seq keeps the spaces it
    has in the file: the format uses it for titles as much as for lists of genres.
    """
    kinds = {}
    for field in _header(path, "\t"):
        name, _, kind = field.rpartition(":")
        if not name or kind not in ATOMIC_TYPES:
            raise DataError(
                f"{path} must have a header of NAME:TYPE fields separated by tabs, TYPE one of {list(ATOMIC_TYPES)}, got "
                f"{field[:200]!r}.{nearest(kind, ATOMIC_TYPES)} If it is a plain table, call it .tsv or .csv."
            )
        kinds[name] = kind

    def load(chosen: list[str]) -> pa.Table:
        full = {f"{name}:{kinds[name]}": pa.float64() if kinds[name] == "float" else pa.string() for name in chosen}
        # The files are written without quoting, so a quotation mark in a title is only a character.
        table = _read_csv(path, list(full), full, "\t", False).rename_columns(chosen)
        for index, name in enumerate(chosen):
            if kinds[name] == "float_seq":
                table = table.set_column(index, name, _number_lists(path, name, table.column(index)))
        return table

    return Opened(str(path), list(kinds), load)


def open_json(path: Path, text_columns: Iterable[str]) -> Opened:
    """One JSON object per line, or (as `.json`) one array of objects. Missing keys and nulls are missing values.

    Numbers stay numbers (ids too: 7 is read as 7, "007" as "007").
    """
    with _binary(path) as stream:
        try:
            head = stream.read(4096).decode("utf-8-sig", errors="ignore").lstrip()
        except (OSError, EOFError) as error:
            raise _unreadable(path, error) from error
    if not head:
        raise DataError(f"{path} must hold JSON objects, got an empty file.")
    table = _read_json_array(path) if head[0] == "[" else _read_json_lines(path, text_columns)
    return Opened(str(path), table.column_names, table.select)


def _header(path: Path, delimiter: str) -> list[str]:
    """The first line that is not blank, as names."""
    try:
        with _binary(path) as stream, io.TextIOWrapper(stream, "utf-8-sig", newline="") as text:
            names = next((row for row in csv.reader(text, delimiter=delimiter) if row), None)
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as error:
        raise _unreadable(path, error) from error
    if names is None:
        raise DataError(f"{path} must have a line of column names and then rows, got an empty file.")
    return names


def _read_csv(path: Path, names: list[str], types: dict[str, pa.DataType], delimiter: str, quote: str | bool) -> pa.Table:
    def read(use_threads: bool) -> pa.Table:
        with pa.input_stream(str(path)) as stream:  # unpacks .gz by itself
            return pacsv.read_csv(
                stream,
                read_options=pacsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=use_threads),
                parse_options=pacsv.ParseOptions(delimiter=delimiter, quote_char=quote, newlines_in_values=bool(quote)),
                convert_options=pacsv.ConvertOptions(column_types=types, include_columns=names),
            )

    try:
        table = read(use_threads=True)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if "CSV parse error" in str(error):
            try:
                read(use_threads=False)  # Arrow knows the row number only when it reads in order
            except pa.ArrowException as ordered:
                error = ordered
        raise _unreadable(path, error) from error
    for name in names:
        if pa.types.is_binary(table.schema.field(name).type):
            raise _not_utf8(path, name, table.column(name))
    return table


def _number_lists(path: Path, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers separated by spaces as lists of float64; blank is missing."""
    text = pc.utf8_trim_whitespace(column)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    try:
        return pc.split_pattern_regex(text, r"\s+").cast(pa.list_(pa.float64()))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: column {name!r} must hold numbers separated by spaces (float_seq): {error}.") from error


def _read_json_lines(path: Path, text_columns: Iterable[str]) -> pa.Table:
    def read(schema: pa.Schema | None) -> pa.Table:
        with pa.input_stream(str(path)) as stream:
            return pajson.read_json(
                stream,
                read_options=pajson.ReadOptions(block_size=BLOCK_BYTES),
                parse_options=pajson.ParseOptions(explicit_schema=schema, newlines_in_values=False),
            )

    try:
        table = read(None)
        # Arrow takes text such as "2024-01-01" for a time; an id that looks like a date is still an id.
        dates = [
            name for name in text_columns if name in table.column_names and pa.types.is_timestamp(table.schema.field(name).type)
        ]
        if dates:
            table = read(pa.schema([(name, pa.string()) for name in dates])).select(table.column_names)
        table.validate(full=True)  # Arrow's JSON reader does not check that text is UTF-8
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    return table


def _read_json_array(path: Path) -> pa.Table:
    try:
        with _binary(path) as stream:
            rows = json.loads(stream.read().decode("utf-8-sig"))
    except (ValueError, OSError, EOFError) as error:
        raise _unreadable(path, error) from error
    wrong = next((row for row in rows if not isinstance(row, dict)), None)
    if wrong is not None:
        raise DataError(f"{path} must hold an array of JSON objects, got {str(wrong)[:100]!r} in it.")
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = []
    for name in names:
        try:
            columns.append(pa.array([row.get(name) for row in rows]))
        except pa.ArrowException as error:
            raise DataError(f"{path}: column {name!r} must hold values of one type ({error}).") from error
    return pa.table(columns, names=names)


def _binary(path: Path) -> Any:
    return gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb")


def _not_utf8(path: Path, name: str, column: pa.ChunkedArray) -> DataError:
    for row, value in enumerate(column.to_pylist()):
        try:
            (value or b"").decode()
        except UnicodeDecodeError:
            return DataError(
                f"{path} must be UTF-8 text, got other bytes in column {name!r}, row {row} of the data: {value[:60]!r}. "
                "Convert the file, for example with: iconv -f latin1 -t utf-8 OLD > NEW"
            )
    return DataError(f"{path} must be UTF-8 text, got other bytes in column {name!r}.")


def _unreadable(path: Path, error: Exception) -> DataError:
    """What went wrong with a file, and what to do about it."""
    reason = str(error).strip()
    if isinstance(error, UnicodeDecodeError) or "utf8" in reason.lower():
        cure = "It must be UTF-8 text: convert it, for example with: iconv -f latin1 -t utf-8 OLD > NEW"
    elif "straddling" in reason:
        cure = f"A row must fit into {BLOCK_BYTES >> 20} MiB; a longer one is often a quotation mark that is never closed."
    elif "Expected" in reason and "columns" in reason:
        cure = "Every row needs as many values as the first line has names; put values that contain separators in quotes."
    elif "changed from" in reason:
        cure = "A key must hold values of one type in every line (rows are counted from 0)."
    else:
        cure = "Check that the file is complete and has the format that its name says."
    return DataError(f"{path} cannot be read: {reason.rstrip('.')}. {cure}")
