"""CodeTable: immutable, hashed, refused when edited."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from genrec.codes import CodeTable, diff
from genrec.errors import BundleError, DataError


def table(**changes: object) -> CodeTable:
    values = {
        "item_ids": np.array(["a", "b", "ç🙂"], object),
        "codes": np.array([[0, 1], [1, 1], [2, 0]]),
        "sizes": (3, 2),
        "policy": "shared",
        "tokenizer": "f" * 64,
    }
    return CodeTable(**(values | changes))  # type: ignore[arg-type]


def test_what_is_saved_is_what_is_loaded(tmp_path: Path) -> None:
    table().append(["d"], np.array([[0, 0]])).save(tmp_path / "codes.parquet")
    loaded = CodeTable.load(tmp_path / "codes.parquet")
    assert loaded.hash == table().append(["d"], np.array([[0, 0]])).hash
    assert loaded.item_ids.tolist() == ["a", "b", "ç🙂", "d"]
    assert (loaded.generation, loaded.parent) == (1, table().hash)


@pytest.mark.parametrize(
    "change",
    [
        {"codes": np.array([[0, 1], [1, 1], [2, 1]])},
        {"sizes": (4, 2)},
        {"policy": "suffix"},
        {"tokenizer": "0" * 64},
        {"generation": 1},
    ],
)
def test_any_change_changes_the_hash(change: dict) -> None:
    assert table(**change).hash != table().hash


def test_codes_cannot_be_written_to() -> None:
    with pytest.raises(ValueError, match="read-only"):
        table().codes[0, 0] = 2


def test_an_edited_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.parquet"
    table().save(path)
    written = pq.read_table(path)
    pq.write_table(written.set_column(1, "code_0", [[1, 1, 2]]).replace_schema_metadata(written.schema.metadata), path)
    with pytest.raises(BundleError, match="was edited"):
        CodeTable.load(path)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codes.parquet").write_text("not parquet")
    with pytest.raises(BundleError, match="not a code table"):
        CodeTable.load(tmp_path / "codes.parquet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": np.array([[0, 1], [1, 2], [2, 0]])}, "Code 2 of item 'b' at level 1 is out of range"),
        ({"codes": np.array([[0, 1], [1, 1]])}, "codes must be"),
        ({"item_ids": np.array(["a", "b", "a"], object)}, "more than once"),
        ({"item_ids": np.array([], object), "codes": np.zeros((0, 2), int)}, "at least one item"),
    ],
)
def test_impossible_tables_are_refused(change: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        table(**change)


def test_diff_counts_items() -> None:
    new = CodeTable(np.array(["b", "ç🙂", "d"], object), np.array([[1, 1], [2, 1], [0, 0]]), (3, 2), "shared", "x")
    changes = diff(table(), new)
    assert (changes.unchanged, changes.changed, changes.added, changes.removed) == (1, 1, 1, 1)
    assert changes.together is None, "no two items of both tables shared their first code"
    moved = {row.pop("item_id"): row for row in changes.moved.to_pylist()}
    assert {item: row["change"] for item, row in moved.items()} == {"a": "removed", "ç🙂": "changed", "d": "added"}
    assert moved["ç🙂"] == {"change": "changed", "before": "2-0", "after": "2-1", "kept": 1}
    assert moved["d"] == {"change": "added", "before": "", "after": "0-0", "kept": 0}


def test_diff_sees_through_new_names_of_the_same_codes() -> None:
    ids = np.array(list("abcde"), object)
    old = CodeTable(ids, np.array([[0, 0], [0, 1], [0, 2], [1, 0], [1, 1]]), (3, 3), "shared", "x")
    renamed = CodeTable(ids, np.array([[2, 0], [2, 1], [2, 2], [0, 0], [0, 1]]), (3, 3), "shared", "y")
    assert (diff(old, renamed).changed, diff(old, renamed).together) == (5, 1.0)
    parted = CodeTable(ids, np.array([[0, 0], [0, 1], [2, 2], [1, 0], [2, 1]]), (3, 3), "shared", "y")
    assert diff(old, parted).together == 0.25, "of four pairs, a and b are left"
    assert diff(old, parted).moved.column("kept").to_pylist() == [0, 0]
    assert diff(old, old).moved.num_rows == 0
