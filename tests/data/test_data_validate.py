"""Promises of the report: every kind of problem is found, counted, shown and comes with a cure; it never raises."""

import datetime

import pyarrow as pa
import pytest

from genrec.data import Catalogue, Interactions, Report, make_shop, validate
from genrec.data.validate import KINDS

ITEMS = pa.table({"item_id": ["a", "b", "c"], "title": ["Apple 🍏", "Bread", "Crème"]})
EVENTS = pa.table({"user_id": ["u", "u", "v", "v"], "item_id": ["a", "b", "c", "a"], "timestamp": [1, 2, 3, 4]})


def change(table: pa.Table, **columns) -> pa.Table:
    """`table` with columns replaced (or, where None, removed)."""
    for name, values in columns.items():
        if values is None:
            table = table.drop_columns([name])
        elif name in table.column_names:
            table = table.set_column(table.column_names.index(name), name, pa.array(values))
        else:
            table = table.append_column(name, pa.array(values))
    return table


def codes(report: Report) -> dict[tuple[str, str], int]:
    return {(problem.table, problem.code): problem.count for problem in report.problems}


def test_good_tables_have_no_problems_and_their_facts_are_right() -> None:
    report = validate(ITEMS, EVENTS)
    assert report.ok
    assert report.problems == []
    assert report.facts == {
        "items": 3, "interactions": 4, "users": 2, "mean_history": 2.0, "longest_history": 2, "repeat_share": 0.0,
        "exclude_seen": True, "tied_share": 0.0, "first_time": 1.0, "last_time": 4.0,
    }  # fmt: skip
    assert "No problems found." in str(report)


def test_repeats_and_ties_are_measured() -> None:
    report = validate(ITEMS, change(EVENTS, user_id=["u"] * 4, item_id=["a", "a", "b", "a"], timestamp=[1, 1, 2, 9]))
    assert report.facts["repeat_share"] == 0.5
    assert report.facts["exclude_seen"] is False
    assert report.facts["tied_share"] == 0.25
    assert "50.00%" in str(report)


DATE = datetime.datetime(2024, 5, 1)
PROBLEMS = [
    (ITEMS.slice(0, 0), EVENTS, "items", "empty_table", 1, ""),
    (ITEMS, EVENTS.slice(0, 0), "interactions", "empty_table", 1, ""),
    (ITEMS.rename_columns(["itemid", "title"]), EVENTS, "items", "missing_column", 1, "Did you mean 'itemid'"),
    (ITEMS, change(EVENTS, user_id=None), "interactions", "missing_column", 1, "'user_id' is not among"),
    (ITEMS.rename_columns(["item_id", "item_id"]), EVENTS, "items", "repeated_column", 2, "'item_id'"),
    (change(ITEMS, item_id=[["a"], ["b"], ["c"]]), EVENTS, "items", "wrong_type", 3, "list"),
    (change(ITEMS, item_id=[1.0, 2.5, float("inf")]), EVENTS, "items", "wrong_type", 2, "item_id in row 1: 2.5"),
    (ITEMS, change(EVENTS, user_id=[True] * 4), "interactions", "wrong_type", 4, "user_id has Arrow type bool"),
    (ITEMS, change(EVENTS, timestamp=[True] * 4), "interactions", "wrong_type", 4, "timestamp has Arrow type bool"),
    (ITEMS, change(EVENTS, position=["x", "1", "2", "3"]), "interactions", "wrong_type", 1, "position in row 0: 'x'"),
    (change(ITEMS, item_id=["a", None, " "]), EVENTS, "items", "empty_id", 2, "item_id in row 1"),
    (change(ITEMS, item_id=[1.0, float("nan"), 3.0]), EVENTS, "items", "empty_id", 1, "item_id in row 1"),
    (change(ITEMS, item_id=pa.nulls(3)), EVENTS, "items", "empty_id", 3, "item_id in row 0"),
    (ITEMS, change(EVENTS, user_id=["u", "u", "", None]), "interactions", "empty_id", 2, "item_id 'c'"),
    (change(ITEMS, item_id=["a", "b", "a"]), EVENTS, "items", "duplicate_item", 1, "row 2: 'a'"),
    (ITEMS.slice(0, 1), EVENTS, "items", "one_item_catalogue", 1, "'a'"),
    (ITEMS, change(EVENTS, item_id=["a", "zz", "c", "yy"]), "interactions", "unknown_item", 2, "row 1: user 'u', item 'zz'"),
    (ITEMS, change(EVENTS, timestamp=["1", "soon", "3", "1999-99"]), "interactions", "bad_timestamp", 2, "row 1: 'soon'"),
    (
        ITEMS,
        change(EVENTS, timestamp=["2024-05-01", "2024-13-01", "2024-05-02", "7"]),
        "interactions",
        "bad_timestamp",
        2,
        "row 1: '2024-13-01'",
    ),
    (ITEMS, change(EVENTS, timestamp=[1.0, float("inf"), 2, 3]), "interactions", "bad_timestamp", 1, "row 1: inf"),
    (ITEMS, change(EVENTS, timestamp=["1", "2", "3", "1e999"]), "interactions", "bad_timestamp", 1, "'1e999'"),
    (ITEMS, change(EVENTS, timestamp=[1, None, 3, None]), "interactions", "missing_timestamp", 2, "row 1: user_id 'u'"),
    (ITEMS, change(EVENTS, timestamp=["1", "", "3", "4"]), "interactions", "missing_timestamp", 1, "row 1"),
    (ITEMS, change(EVENTS, timestamp=[DATE, None, DATE, DATE]), "interactions", "missing_timestamp", 1, "row 1"),
    (ITEMS, change(EVENTS, timestamp=None), "interactions", "missing_timestamp", 4, "there is no column 'timestamp'"),
    (ITEMS, change(EVENTS, timestamp=pa.nulls(4)), "interactions", "missing_timestamp", 4, "row 0"),
    (ITEMS, change(EVENTS, timestamp=[2, 1, 3, 4]), "interactions", "unsorted_timestamp", 1, "row 1: user 'u', item 'b'"),
    (ITEMS, pa.concat_tables([EVENTS, EVENTS.slice(0, 2)]), "interactions", "duplicate_row", 2, "row 4: user 'u', item 'a'"),
    (ITEMS, change(EVENTS, user_id=["u", "u", "u", "w"]), "interactions", "one_item_user", 1, "user 'w'"),
    (change(ITEMS, item_id=["a", "b", "x"]), EVENTS, "items", "item_without_interactions", 1, "'x'"),
    (change(ITEMS, title=[1, 2, 3]), EVENTS, "items", "no_text_column", 1, "['item_id', 'title']"),
    (change(ITEMS, title=["x", " ", None]), EVENTS, "items", "empty_text", 2, "row 1: 'b'"),
    (change(ITEMS, title=["", "", ""], tags=[["x"], [], None]), EVENTS, "items", "empty_text", 2, "row 1: 'b'"),
    (change(ITEMS, title=["x", "y" * 1_000_000, "z"]), EVENTS, "items", "huge_text", 1, "title in row 1: 1,000 kB"),
]


@pytest.mark.parametrize(
    ("items", "events", "table", "code", "count", "example"),
    PROBLEMS,
    ids=[f"{p[2]}-{p[3]}-{n}" for n, p in enumerate(PROBLEMS)],
)
def test_every_problem_is_found_counted_and_shown(items, events, table, code, count, example) -> None:
    report = validate(items, events)
    assert codes(report)[table, code] == count
    problem = next(p for p in report.problems if (p.table, p.code) == (table, code))
    assert len(problem.examples) <= 3
    assert example in " | ".join(problem.examples)
    assert report.ok == all(p.severity == "warning" for p in report.problems)
    text = str(report)
    assert code in text
    assert problem.fix in text
    assert all(shown in text for shown in problem.examples)


def test_every_kind_of_problem_has_a_test() -> None:
    assert {problem[3] for problem in PROBLEMS} == set(KINDS)


@pytest.mark.parametrize(("items", "events"), [p[:2] for p in PROBLEMS])
def test_whatever_the_report_calls_fine_can_be_loaded_and_the_rest_not(items: pa.Table, events: pa.Table) -> None:
    report = validate(items, events)
    if any(p.code == "one_item_catalogue" for p in report.problems):
        return  # loads, but is not worth a fit
    try:
        Interactions.from_table(events).histories(Catalogue.from_table(items))
        loaded = True
    except ValueError:
        loaded = False
    assert loaded == report.ok


def test_errors_come_first_and_are_counted_in_words() -> None:
    report = validate(change(ITEMS, title=["", "", ""]), change(EVENTS, item_id=["a", "b", "zz", "yy"]))
    assert [p.severity for p in report.problems] == sorted(p.severity for p in report.problems)
    assert not report.ok
    assert "1 error, 2 warnings" in str(report)


def test_times_are_shown_as_dates_where_they_are_dates() -> None:
    for times in ([1704067200 + n for n in range(4)], [1704067200_000 + n for n in range(4)], ["2024-01-01"] * 4):
        assert "2024-01-01 00:00" in str(validate(ITEMS, change(EVENTS, timestamp=times)))


def test_many_bad_timestamps_among_many_good_ones_are_all_found() -> None:
    n = 20_000
    times = [f"2024-05-{1 + row % 31:02d}T10:{row % 60:02d}:00" if row % 7 else f"day {row}" for row in range(n)]
    times[10] = "2024-02-31"
    report = validate(ITEMS, pa.table({"user_id": ["u"] * n, "item_id": ["a"] * n, "timestamp": times}))
    assert codes(report)["interactions", "bad_timestamp"] == sum(row % 7 == 0 for row in range(n)) + 1


def test_the_synthetic_shop_is_clean() -> None:
    catalogue, interactions = make_shop(users=300, items=60, seed=2)
    report = validate(catalogue.table, interactions.table)
    assert report.ok
    assert {p.code for p in report.problems} <= {"item_without_interactions"}
