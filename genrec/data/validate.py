"""What is wrong with a user's two tables, counted, with examples and how to fix it.

In: the items and interactions tables under genrec's column names, otherwise as they came (`read_table`): bad rows give a
report here, not an exception. Out: `Report`, whose `str` is for people and whose `problems` and `facts` are for programs.

    from genrec.data import read_table, validate
    print(validate(read_table("items.csv"), read_table("events.csv", {"user_id": "reviewerID", "item_id": "asin"})))

Rows are counted from 0 and without the header, as everywhere in genrec.
"""

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from genrec.data.catalogue import LARGEST_EXACT_FLOAT, is_text, plain_column
from genrec.data.interactions import Histories, as_numbers
from genrec.data.splits import exclude_seen_by_default
from genrec.errors import DataError, nearest

Severity = Literal["error", "warning"]
EXAMPLES = 3
HUGE_TEXT_BYTES = 100_000

# code -> (severity, what is counted, how to fix it). An error stops `genrec fit`, a warning does not.
KINDS: dict[str, tuple[Severity, str, str]] = {
    "empty_table": ("error", "table without rows", "Check the path, the file's format and any filter before it."),
    "missing_column": (
        "error",
        "column that is needed and missing",
        "Rename your column, or map it with columns={'<this name>': '<your name>'}.",
    ),
    "repeated_column": ("error", "column name used more than once", "Rename or drop all but one of them."),
    "wrong_type": (
        "error",
        "value of a type that cannot be used here",
        "Ids must be text or whole numbers, timestamps and positions finite numbers, dates or times: convert the column.",
    ),
    "empty_id": ("error", "row with an empty or blank id", "Remove these rows or fill in the id."),
    "duplicate_item": ("error", "row whose item id an earlier row has", "Keep one row per item."),
    "one_item_catalogue": (
        "error",
        "catalogue with a single item, so there is nothing to choose from",
        "Check that the file was read as you expect; the items table has one row per item.",
    ),
    "unknown_item": (
        "error",
        "interaction with an item that the items table lacks",
        "Add these items, make both tables use the same ids, or drop the rows with --data.unknown-items drop.",
    ),
    "bad_timestamp": (
        "error",
        "timestamp that is neither a number nor an ISO 8601 time, or unlike most others",
        "Write all as numbers or all as 2024-05-01T12:00:00; leave unknown ones empty.",
    ),
    "missing_timestamp": (
        "warning",
        "interaction without a timestamp",
        "Fill them in; a user with any missing one keeps the order of `position` or the file; global-time splits need all.",
    ),
    "unsorted_timestamp": (
        "warning",
        "interaction that is older than the same user's row before it",
        "Nothing to do: histories are sorted by timestamp. If the order of the file is the true one, leave the column out.",
    ),
    "duplicate_row": (
        "warning",
        "row that repeats an earlier user, item and time",
        "Remove them, unless users truly meet an item twice at the same moment: copies leak test items into histories.",
    ),
    "one_item_user": (
        "warning",
        "user with a single interaction, who can be neither a training sequence nor a test",
        "Nothing to do if they are few; otherwise collect longer histories.",
    ),
    "item_without_interactions": (
        "warning",
        "item that nobody has met",
        "Nothing to do: such items can be recommended by their text alone.",
    ),
    "no_text_column": (
        "warning",
        "items table without a text column besides the id",
        "Add a title or description: item codes are made from text.",
    ),
    "empty_text": (
        "warning",
        "item whose text columns are all empty",
        "Give each at least a title: items without text all look the same to the tokenizer.",
    ),
    "huge_text": (
        "warning",
        f"text longer than {HUGE_TEXT_BYTES // 1000} kB",
        "Shorten it: text encoders read the first few hundred words, the rest costs memory. It may be an unclosed quote.",
    ),
}


@dataclass(frozen=True)
class Problem:
    """`count` times the same thing in `table` ("items" or "interactions"), with at most three examples."""

    code: str
    table: str
    count: int
    examples: tuple[str, ...]

    @property
    def severity(self) -> Severity:
        """ "error": `genrec fit` would refuse; "warning": it would work, perhaps not as you expect."""
        return KINDS[self.code][0]

    @property
    def what(self) -> str:
        """What is counted, in words."""
        return KINDS[self.code][1]

    @property
    def fix(self) -> str:
        """What to do about it."""
        return KINDS[self.code][2]


@dataclass
class Report:
    """problems: errors first. facts: users, items, interactions, mean_history, longest_history, repeat_share,
    tied_share (events at the same time as the user's event before), first_time, last_time, exclude_seen (the default that
    follows from the repeat share); only those that could be measured, on usable rows.
    """

    problems: list[Problem] = field(default_factory=list)
    facts: dict[str, int | float | bool] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether there is no error (warnings are fine)."""
        return all(problem.severity != "error" for problem in self.problems)

    def __str__(self) -> str:
        lines = [f"{label:<34}{show(self.facts[name]):>20}" for name, label, show in FACTS if name in self.facts]
        counts = {kind: sum(problem.severity == kind for problem in self.problems) for kind in ("error", "warning")}
        said = [f"{count} {kind}{'s' * (count > 1)}" for kind, count in counts.items() if count]
        lines += ["", ", ".join(said) + " (rows are counted from 0)" if said else "No problems found."]
        for problem in self.problems:
            lines += ["", f"{problem.severity.upper():<8} {problem.code:<26} {problem.table:<13} {problem.count:>10,} x"]
            lines += [f"         {problem.what}"]
            lines += [f"         for example: {example}" for example in problem.examples]
            lines += [f"         fix: {problem.fix}"]
        return "\n".join(lines).lstrip("\n")


def validate(items: pa.Table, interactions: pa.Table) -> Report:
    """Look for everything that would make `genrec fit` refuse these tables or go astray. Never raises for their content."""
    report = Report()
    catalogue = _items(items, report)
    _interactions(interactions, catalogue, report)
    report.problems.sort(key=lambda problem: problem.severity != "error")
    return report


def _items(table: pa.Table, report: Report) -> pa.Array | None:
    """Problems of the items table. Returns the usable ids, each once; None where there is no usable id column."""
    _table_shape(table, [ITEM_ID], [], "items", report)
    ids = _ids(table, ITEM_ID, "items", report)
    if table.num_rows:
        _texts(table, ids, report)
    if ids is None:
        return None
    codes = np.asarray(ids.combine_chunks().dictionary_encode().indices.fill_null(-1))
    first = np.zeros(len(codes), bool)
    first[np.unique(codes, return_index=True)[1]] = True
    _add(report, "duplicate_item", "items", np.flatnonzero(~first & (codes >= 0)), lambda row: f"row {row}: {_show(ids[row])}")
    unique = ids.drop_null().unique()
    report.facts["items"] = len(unique)
    if len(unique) == 1:
        _note(report, "one_item_catalogue", "items", 1, [_show(unique[0])])
    return unique if len(unique) else None


def _interactions(table: pa.Table, catalogue: pa.Array | None, report: Report) -> None:
    _table_shape(table, [USER_ID, ITEM_ID], [TIMESTAMP, POSITION], "interactions", report)
    if not table.num_rows:
        return
    report.facts["interactions"] = table.num_rows
    users, items = (_ids(table, name, "interactions", report) for name in (USER_ID, ITEM_ID))
    if TIMESTAMP not in table.column_names and POSITION not in table.column_names:
        example = f"there is no column {TIMESTAMP!r} (nor {POSITION!r}), only {table.column_names[:20]}"
        _note(report, "missing_timestamp", "interactions", table.num_rows, [example])
    times = _numbers(table, TIMESTAMP, report)
    positions = _numbers(table, POSITION, report)
    if users is None or items is None:
        return
    user_names, user = _encode(users)
    item_names, item = _encode(items)

    def event(row: int) -> str:
        return f"row {row}: user {_show(users[row])}, item {_show(items[row])}" + (
            f", {TIMESTAMP} {_show(table.column(TIMESTAMP)[row])}" if times is not None else ""
        )

    usable = (user >= 0) & (item >= 0)
    if catalogue is not None:
        listed = np.asarray(pc.is_in(item_names, value_set=catalogue))
        listed = np.append(listed, True)  # index -1, an empty id, is reported elsewhere
        _add(report, "unknown_item", "interactions", np.flatnonzero(~listed[item]), event)
        usable &= listed[item]
        met = pc.is_in(catalogue, value_set=item_names)
        lonely = np.flatnonzero(~np.asarray(met))
        _add(report, "item_without_interactions", "items", lonely, lambda row: _show(catalogue[row]))
    if times is not None:
        _add(report, "unsorted_timestamp", "interactions", _backward(user, times), event)
    _add(report, "duplicate_row", "interactions", _repeats(usable, user, item, times, positions), event)

    lengths = np.bincount(user[usable], minlength=len(user_names))
    _add(report, "one_item_user", "interactions", np.flatnonzero(lengths == 1), lambda one: f"user {_show(user_names[one])}")
    _measure(report, user[usable], item[usable], lengths[lengths > 0], times[usable] if times is not None else None)


def _measure(report: Report, user: np.ndarray, item: np.ndarray, lengths: np.ndarray, times: np.ndarray | None) -> None:
    """Facts from the usable events. user, item: codes [E]; lengths: events per user [U]."""
    if not len(user):
        return
    order = np.argsort(user, kind="stable")
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    share = Histories(np.arange(len(lengths)), indptr, item[order], np.zeros(len(item))).repeat_share()
    report.facts |= {
        "users": len(lengths),
        "mean_history": float(lengths.mean()),
        "longest_history": int(lengths.max()),
        "repeat_share": share,
        "exclude_seen": exclude_seen_by_default(share),
    }
    if times is not None and not np.isnan(times).all():
        order = np.lexsort((times, user))
        tied = (np.diff(times[order]) == 0) & (np.diff(user[order]) == 0)
        report.facts |= {
            "tied_share": float(tied.sum() / len(times)),
            "first_time": float(np.nanmin(times)),
            "last_time": float(np.nanmax(times)),
        }


def _table_shape(table: pa.Table, needed: list[str], optional: list[str], name: str, report: Report) -> None:
    for column in needed:
        if column not in table.column_names:
            hint = nearest(column, table.column_names)
            _note(report, "missing_column", name, 1, [f"{column!r} is not among {table.column_names[:20]}.{hint}"])
    for column in [*needed, *optional]:
        if table.column_names.count(column) > 1:
            _note(report, "repeated_column", name, table.column_names.count(column), [repr(column)])
    if not table.num_rows:
        _note(report, "empty_table", name, 1, [])


def _ids(table: pa.Table, name: str, table_name: str, report: Report) -> pa.ChunkedArray | None:
    """The ids as text, null where a row has none; None where the column is missing or of a wrong type."""
    if table.column_names.count(name) != 1:
        return None
    column = plain_column(table.column(name))
    kind = column.type
    if pa.types.is_floating(kind):
        column = _drop_where(column, pc.is_nan(column))
        values = column.to_numpy()
        odd = np.isinf(values) | (np.abs(values) > LARGEST_EXACT_FLOAT) | (~np.isnan(values) & (values != np.floor(values)))
        raw = column
        _add(report, "wrong_type", table_name, np.flatnonzero(odd), lambda row: f"{name} in row {row}: {_show(raw[row])}")
        column = _drop_where(column, pa.array(odd)).cast(pa.int64())
        missing = np.isnan(values)
    elif pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_null(kind):
        column = column.cast(pa.string())
        column = _drop_where(column, pc.equal(pc.utf8_trim_whitespace(column), ""))
        missing = np.asarray(column.is_null())
    else:
        examples = [f"{name} has Arrow type {kind}, for example {_show(value)}" for value in column[:1]]
        _note(report, "wrong_type", table_name, table.num_rows, examples)
        return None
    _add(report, "empty_id", table_name, np.flatnonzero(missing), lambda row: f"{name} in row {row}: {_row(table, row)}")
    return column.cast(pa.string())


def _numbers(table: pa.Table, name: str, report: Report) -> np.ndarray | None:
    """A time or position column as float64 [n], NaN where missing or bad; None where the column is missing or unusable."""
    if table.column_names.count(name) != 1:
        return None
    column = plain_column(table.column(name))
    code = "bad_timestamp" if name == TIMESTAMP else "wrong_type"
    bad = np.zeros(len(column), bool)
    if pa.types.is_string(column.type):
        bad = _unparsable(column)
    elif pa.types.is_floating(column.type):
        bad = np.isinf(column.to_numpy())
    try:
        values = as_numbers(_drop_where(column, pa.array(bad)), name)
    except DataError:
        _note(report, "wrong_type", "interactions", len(column), [f"{name} has Arrow type {column.type}"])
        return None
    _add(report, code, "interactions", np.flatnonzero(bad), lambda row: f"{name} in row {row}: {_show(column[row])}")
    if name == TIMESTAMP:
        missing = np.flatnonzero(np.isnan(values) & ~bad)
        _add(report, "missing_timestamp", "interactions", missing, lambda row: f"row {row}: {_row(table, row)}")
    return values


def _unparsable(column: pa.ChunkedArray) -> np.ndarray:
    """Which texts [n] are not of the kind (number, time, time with zone) that most are of. Blank ones are merely missing."""
    unique = column.unique()
    codes = np.asarray(pc.fill_null(pc.index_in(column, value_set=unique), -1))
    trimmed = pc.utf8_trim_whitespace(unique)
    blank = np.asarray(pc.fill_null(pc.equal(trimmed, ""), True))
    best = np.zeros(len(unique), bool)
    weights = np.bincount(codes, minlength=len(unique))
    for kind in (pa.float64(), pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        parsed = _castable(trimmed.filter(pa.array(~blank)), kind)
        full = np.zeros(len(unique), bool)
        full[~blank] = parsed
        if weights[full].sum() > weights[best].sum():
            best = full
    return ~(best | blank)[codes]


def _castable(values: pa.Array, kind: pa.DataType) -> np.ndarray:
    """Which of `values` Arrow can turn into `kind`: bool [n]. Halves the array until the bad ones stand alone."""
    pattern = r"^[-+]?(\d|\.\d|inf|nan)" if kind == pa.float64() else r"^\d{4}-\d\d"
    result = np.asarray(pc.match_substring_regex(values, pattern, ignore_case=True))  # so that few are left to halve for
    pending = [np.flatnonzero(result)]
    while pending:
        rows = pending.pop()
        if not len(rows):
            continue
        try:
            cast = values.take(pa.array(rows)).cast(kind)
            if kind == pa.float64():
                result[rows] = ~np.isinf(cast.to_numpy(zero_copy_only=False))
        except pa.ArrowInvalid:
            if len(rows) == 1:
                result[rows] = False
            else:
                pending += [rows[: len(rows) // 2], rows[len(rows) // 2 :]]
    return result


def _texts(table: pa.Table, ids: pa.ChunkedArray | None, report: Report) -> None:
    """Items without any text, and texts that are too long."""
    columns = {}
    for name, raw in zip(table.column_names, table.columns, strict=True):
        column = plain_column(raw)
        if name != ITEM_ID and (pa.types.is_string(column.type) or _is_text_list(column.type)):
            columns[name] = column
    if not columns:
        _note(report, "no_text_column", "items", 1, [f"columns: {table.column_names[:20]}"])
        return
    empty = np.ones(table.num_rows, bool)
    for name, column in columns.items():
        if pa.types.is_string(column.type):
            size = np.asarray(pc.fill_null(pc.binary_length(column), 0))
            blank = np.asarray(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), ""), True))
            huge = np.flatnonzero(size > HUGE_TEXT_BYTES)
            where = [f"{name} in row {row}: {size[row] / 1000:,.0f} kB" for row in huge[:EXAMPLES]]
            _note(report, "huge_text", "items", len(huge), where)
        else:
            blank = np.asarray(pc.fill_null(pc.list_value_length(column), 0)) == 0
        empty &= blank
    _add(
        report,
        "empty_text",
        "items",
        np.flatnonzero(empty),
        lambda row: f"row {row}: " + (_show(ids[row]) if ids is not None else _row(table, row)),
    )


def _backward(user: np.ndarray, times: np.ndarray) -> np.ndarray:
    """Rows whose time lies before that of the same user's row before."""
    order = np.argsort(user, kind="stable")
    order = order[user[order] >= 0]
    back = (np.diff(times[order]) < 0) & (np.diff(user[order]) == 0)
    return np.sort(order[1:][back])


def _repeats(
    usable: np.ndarray, user: np.ndarray, item: np.ndarray, times: np.ndarray | None, positions: np.ndarray | None
) -> np.ndarray:
    """Usable rows that say the same as an earlier one. Missing times are alike."""
    rows = np.flatnonzero(usable)
    keys = [user[rows].astype(float), item[rows].astype(float)]
    keys += [np.nan_to_num(values[rows], nan=-np.inf) for values in (times, positions) if values is not None]
    order = np.lexsort(keys)
    same = np.ones(max(len(rows) - 1, 0), bool)
    for key in keys:
        same &= key[order][1:] == key[order][:-1]
    return np.sort(rows[order[1:][same]])


def _add(report: Report, code: str, table: str, rows: np.ndarray, example: Callable[[int], str]) -> None:
    """Note `code` for `rows`, with the first of them spelled out by `example`."""
    _note(report, code, table, len(rows), [example(int(row)) for row in rows[:EXAMPLES]])


def _note(report: Report, code: str, table: str, count: int, examples: Iterable[str]) -> None:
    if count:
        report.problems.append(Problem(code, table, int(count), tuple(examples)))


def _encode(ids: pa.ChunkedArray) -> tuple[pa.Array, np.ndarray]:
    """(distinct ids, code of each row: int64 [n], -1 where null)."""
    encoded = ids.combine_chunks().dictionary_encode()
    return encoded.dictionary, np.asarray(encoded.indices.fill_null(-1)).astype(np.int64)


def _drop_where(column: pa.ChunkedArray, mask: pa.ChunkedArray | pa.Array) -> pa.ChunkedArray:
    """`column` with null where `mask` is true."""
    return pc.if_else(pc.fill_null(mask, False), pa.scalar(None, column.type), column)


def _is_text_list(kind: pa.DataType) -> bool:
    return (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type)


def _show(value: pa.Scalar) -> str:
    """A value as an example, shortened."""
    plain = value.as_py()
    text = str(plain) if isinstance(plain, (datetime.date, datetime.datetime)) else repr(plain)
    return text if len(text) <= 80 else text[:77] + "..."


def _row(table: pa.Table, row: int) -> str:
    """A row's first columns, for finding it again."""
    return ", ".join(f"{name} {_show(table.column(place)[row])}" for place, name in enumerate(table.column_names[:4]))


def _when(value: float) -> str:
    """A time for people. Numbers of the size of seconds or milliseconds since 1970 are written as dates."""
    seconds = value / 1000 if 1e11 <= value < 1e13 else value
    if 1e8 <= seconds < 1e11:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return f"{value:,.6g}"


FACTS: tuple[tuple[str, str, Callable[..., str]], ...] = (
    ("items", "items", "{:,}".format),
    ("users", "users", "{:,}".format),
    ("interactions", "interactions", "{:,}".format),
    ("mean_history", "mean history length", "{:.2f}".format),
    ("longest_history", "longest history", "{:,}".format),
    ("repeat_share", "events that repeat an item", "{:.2%}".format),
    ("exclude_seen", "leave out seen items by default", lambda value: "yes" if value else "no"),
    ("tied_share", "events tied in time", "{:.2%}".format),
    ("first_time", "first event", _when),
    ("last_time", "last event", _when),
)
