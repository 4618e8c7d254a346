"""Promises of the catalogue and the interactions: ids become text, bad rows are refused, events come in order."""

import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genrec.data import Catalogue, Histories, Interactions, pad_histories
from genrec.errors import DataError, SettingError, UnknownItemError

CATALOGUE = Catalogue.from_table(pa.table({"item_id": list("abcdef"), "title": [f"item {c}" for c in "abcdef"]}))


def events(rows: list[tuple], names: tuple[str, ...] = ("user_id", "item_id", "timestamp", "position")) -> Histories:
    table = pa.table({name: [row[place] for row in rows] for place, name in enumerate(names[: len(rows[0])])})
    return Interactions.from_table(table).histories(CATALOGUE)


def spelled(histories: Histories) -> dict[str, str]:
    return {user: "".join(CATALOGUE.item_ids[row]) for user, row in zip(histories.user_ids, histories.to_lists(), strict=True)}


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (pa.array(["007", "8"]), ["007", "8"]),
        (pa.array([7, 8], pa.int16()), ["7", "8"]),
        (pa.array([2**63, 8], pa.uint64()), [str(2**63), "8"]),
        (pa.array([7.0, 8.0]), ["7", "8"]),
        (pa.array(["x", "y"], pa.large_string()), ["x", "y"]),
        (pa.array(["x", "y"], pa.string_view()), ["x", "y"]),
        (pa.array(["x", "y"]).dictionary_encode(), ["x", "y"]),
        (pa.array(["🧴", "é"]), ["🧴", "é"]),
    ],
)
def test_ids_of_every_usual_type_become_text(ids: pa.Array, expected: list[str]) -> None:
    catalogue = Catalogue.from_table(pa.table({"item_id": ids}))
    assert list(catalogue.item_ids) == expected
    assert catalogue.rows(expected[::-1]).tolist() == [1, 0]
    table = pa.table({"user_id": ids, "item_id": ids})
    assert spelled_ids(Interactions.from_table(table), catalogue) == expected


def spelled_ids(interactions: Interactions, catalogue: Catalogue) -> list[str]:
    return list(catalogue.item_ids[interactions.histories(catalogue).items])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (pa.array(["a", None]), "1 empty ids .first in row 1"),
        (pa.array([None, None]), "2 empty ids"),
        (pa.array(["a", " \t"]), "1 blank ids"),
        (pa.array([1.0, float("nan")]), "got nan in row 1"),
        (pa.array([1.0, 1.5]), "got 1.5 in row 1"),
        (pa.array([1.0, 1e300]), r"got 1e\+300 in row 1"),
        (pa.array([True, False]), "Arrow type bool"),
        (pa.array([["a"], ["b"]]), "Arrow type list"),
        (pa.array([decimal.Decimal("1.5")] * 2), "Arrow type decimal"),
        (pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["a", None])), "1 empty ids"),
    ],
)
def test_ids_that_are_no_ids_are_refused_with_their_row_or_type(ids: pa.Array, message: str) -> None:
    with pytest.raises(DataError, match=rf"'item_id' must .*{message}"):
        Catalogue.from_table(pa.table({"item_id": ids}))
    with pytest.raises(DataError, match=rf"'user_id' must .*{message}"):
        Interactions.from_table(pa.table({"user_id": ids, "item_id": ["a", "b"]}))


def test_tables_without_rows_columns_or_unique_ids_are_refused() -> None:
    with pytest.raises(DataError, match=r"items table must have at least one row"):
        Catalogue.from_table(pa.table({"item_id": pa.array([], pa.string())}))
    with pytest.raises(DataError, match=r"interactions table must have at least one row"):
        Interactions.from_table(pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}))
    with pytest.raises(DataError, match=r"items table must have a column 'item_id', got \['itemid'\]\. Did you mean 'itemid'"):
        Catalogue.from_table(pa.table({"itemid": ["a"]}))
    with pytest.raises(DataError, match=r"must be unique in the items table, got 1 ids more than once .*'a', 3 times"):
        Catalogue.from_table(pa.table({"item_id": ["a", "b", "a", "a"]}))
    with pytest.raises(DataError, match=r"one column 'item_id', got 2"):
        Catalogue.from_table(pa.table([["a"], ["b"]], names=["item_id", "item_id"]))


def test_a_catalogue_finds_rows_and_fields_by_id() -> None:
    assert CATALOGUE.rows(["c", "zzz", "a"]).tolist() == [2, -1, 0]
    assert CATALOGUE.rows(pa.array(["b"], pa.large_string())).tolist() == [1]
    assert CATALOGUE.rows([]).tolist() == []
    assert CATALOGUE.field_names == ["title"]
    assert CATALOGUE.fields(np.array([1])) == [{"item_id": "b", "title": "item b"}]
    assert CATALOGUE.require_rows(["f"], "only_item_ids").tolist() == [5]
    with pytest.raises(UnknownItemError, match=r"exclude_item_ids must name items .*6 items.*'zz'"):
        CATALOGUE.require_rows(["a", "zz"], "exclude_item_ids")


def test_events_come_by_time_then_position_then_order_of_the_file() -> None:
    got = events([("u", "c", 2, 0), ("v", "f", 9, 0), ("u", "b", 1, 5), ("u", "a", 1, 4), ("u", "d", 2, 0)])
    assert spelled(got) == {"u": "abcd", "v": "f"}
    assert got.times[:4].tolist() == [1, 1, 2, 2]
    assert spelled(events([("u", "b", 1), ("u", "a", 1), ("u", "c", 0)])) == {"u": "cba"}
    assert spelled(events([("u", "b"), ("v", "a"), ("u", "a")])) == {"u": "ba", "v": "a"}


def test_a_user_with_a_missing_time_keeps_position_or_file_order_and_others_do_not_suffer() -> None:
    rows = [("u", "c", 3, 2), ("u", "a", None, 1), ("u", "b", 1, 3), ("v", "b", 2, 0), ("v", "a", 1, 0)]
    assert spelled(events(rows)) == {"u": "acb", "v": "ab"}
    assert spelled(events([row[:3] for row in rows])) == {"u": "cab", "v": "ab"}


def test_a_user_with_a_missing_position_keeps_file_order_among_ties() -> None:
    assert spelled(events([("u", "c", 1, 2), ("u", "a", 1, None), ("u", "b", 1, 1)])) == {"u": "cab"}


@pytest.mark.parametrize(
    "times",
    [
        ["2024-05-01", "2024-04-30"],
        ["2024-05-01T12:00:00", "2024-05-01T11:59:59.5"],
        ["2024-05-01T12:00:00Z", "2024-05-01T12:00:00+02:00"],
        ["1.5e3", " 12 ", ""],
        pa.array([2, 1], pa.timestamp("ns", "UTC")),
        pa.array([2, 1], pa.date32()),
        pa.array([decimal.Decimal("2.5"), decimal.Decimal("1.5")]),
        pa.array([2, 1], pa.uint64()),
        pa.array(["2", "1"]).dictionary_encode(),
        pa.array(["2", "1", None], pa.string_view()),
    ],
)
def test_times_of_every_usual_type_sort(times) -> None:
    n = len(times)
    table = pa.table({"user_id": ["u", "u", "v"][:n], "item_id": ["b", "a", "c"][:n], "timestamp": times})
    assert spelled(Interactions.from_table(table).histories(CATALOGUE))["u"] == "ab"


def test_dates_are_seconds_since_1970() -> None:
    assert events([("u", "a", pd.Timestamp("2024-01-01T00:00:01").to_pydatetime())]).times.tolist() == [1704067201.0]


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (["yesterday", "1"], "ISO 8601 .*'yesterday'"),
        ([True, False], "Arrow type bool"),
        ([[1], [2]], "Arrow type list"),
        ([1.0, float("inf")], "1 infinite"),
    ],
)
def test_times_that_are_no_times_are_refused(times: list, message: str) -> None:
    with pytest.raises(DataError, match=rf"'timestamp' must hold .*{message}"):
        Interactions.from_table(pa.table({"user_id": ["u", "u"], "item_id": ["a", "b"], "timestamp": times}))


def test_unknown_items_are_refused_or_dropped_as_told() -> None:
    interactions = Interactions.from_table(pa.table({"user_id": ["u", "v", "u"], "item_id": ["a", "b", "zz"]}))
    with pytest.raises(DataError, match=r"got 1 of 3 that do not .*'zz'.*unknown_items='drop'"):
        interactions.histories(CATALOGUE)
    assert spelled(interactions.histories(CATALOGUE, "drop")) == {"u": "a", "v": "b"}
    with pytest.raises(SettingError, match=r"unknown_items must be one of"):
        interactions.histories(CATALOGUE, "ignore")  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"No interaction names an item"):
        Interactions.from_table(pa.table({"user_id": ["u"], "item_id": ["zz"]})).histories(CATALOGUE, "drop")


lists = st.lists(st.lists(st.integers(0, 5), max_size=6), max_size=6)


@settings(max_examples=60, deadline=None)
@given(lists, st.data())
def test_histories_agree_with_plain_lists(rows: list[list[int]], data: st.DataObject) -> None:
    histories = Histories.from_lists(rows)
    assert len(histories) == len(rows)
    assert [got.tolist() for got in histories.to_lists()] == rows
    assert [histories[user].tolist() for user in range(len(rows))] == rows
    assert histories.lengths.tolist() == [len(row) for row in rows]
    repeats = sum(item in row[:place] for row in rows for place, item in enumerate(row))
    assert histories.repeat_share() == pytest.approx(repeats / max(1, sum(map(len, rows))))
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=8)) if rows else []
    stop = data.draw(st.lists(st.integers(0, 9), min_size=len(chosen), max_size=len(chosen)))
    users = np.array(chosen, np.int64)
    assert [got.tolist() for got in histories.select(users).to_lists()] == [rows[user] for user in chosen]
    cut = histories.select(users, np.array(stop, np.int64))
    assert [got.tolist() for got in cut.to_lists()] == [rows[user][:end] for user, end in zip(chosen, stop, strict=True)]
    assert cut.user_ids.tolist() == [str(user) for user in chosen]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from("abcdef"), st.integers(0, 3), st.integers(0, 2)), min_size=1))
def test_order_agrees_with_a_plain_sort(rows: list[tuple[int, str, int, int]]) -> None:
    naive: dict[str, list[tuple]] = {}
    for user, item, time, position in rows:
        naive.setdefault(str(user), []).append((time, position, item))
    expected = {user: "".join(e[2] for e in sorted(of, key=lambda e: e[:2])) for user, of in naive.items()}
    got = spelled(events(rows))
    assert got == expected
    assert list(got) == list(expected)  # users in order of first appearance


def test_padding_fills_the_right_side() -> None:
    assert pad_histories([np.array([1, 2]), np.array([], int), np.array([3])], -1).tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert pad_histories([], 0).shape == (0, 1)
