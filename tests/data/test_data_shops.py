"""Promises of several shops as one pair of tables: nobody's ids meet, columns are joined, orders stay."""

import numpy as np
import pyarrow as pa
import pytest

from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.data.shops import join_shops
from genrec.errors import DataError, SettingError


def shop(items: dict, events: dict) -> tuple[Catalogue, Interactions]:
    return Catalogue.from_table(pa.table(items)), Interactions.from_table(pa.table(events))


BOOKS = shop(
    {"item_id": ["1", "2"], "title": ["A novel", "An atlas"], "pages": [300, 90]},
    {"user_id": ["ann", "ann", "bob"], "item_id": ["2", "1", "1"], "timestamp": ["2024-01-02", "2024-01-01", "2024-01-03"]},
)
TOOLS = shop(
    {"item_id": pa.array([1, 3]), "title": pa.array(["Hammer", "Saw"], pa.large_string()), "brand": ["Tamsin", None]},
    {"user_id": ["ann", "ann"], "item_id": ["3", "1"]},
)


def test_equal_ids_of_two_shops_stay_two_items_and_two_people() -> None:
    items, events = join_shops({"books": BOOKS, "tools": TOOLS})
    assert items["item_id"].to_pylist() == ["books/1", "books/2", "tools/1", "tools/3"]
    assert set(events["user_id"].to_pylist()) == {"books/ann", "books/bob", "tools/ann"}


def test_a_column_that_one_shop_lacks_is_empty_there() -> None:
    items, _ = join_shops({"books": BOOKS, "tools": TOOLS})
    assert items["brand"].to_pylist() == [None, None, "Tamsin", None]
    assert items["pages"].to_pylist() == [300, 90, None, None]
    assert items["title"].to_pylist() == ["A novel", "An atlas", "Hammer", "Saw"]


def test_every_history_is_what_it_was_in_its_own_shop() -> None:
    items, events = join_shops({"books": BOOKS, "tools": TOOLS})
    together = Interactions.from_table(events).histories(Catalogue.from_table(items))
    found = {
        user: [items["item_id"][row].as_py() for row in rows]
        for user, rows in zip(together.user_ids, map(np.ndarray.tolist, together.to_lists()), strict=True)
    }
    assert found == {"books/ann": ["books/1", "books/2"], "books/bob": ["books/1"], "tools/ann": ["tools/3", "tools/1"]}


def test_a_column_of_two_kinds_is_refused_by_name() -> None:
    numbers = shop({"item_id": ["1"], "title": [5]}, {"user_id": ["u"], "item_id": ["1"]})
    with pytest.raises(DataError, match="Column 'title' must hold one kind of value .* string in 'books', int64 in 'numbers'"):
        join_shops({"books": BOOKS, "numbers": numbers})


@pytest.mark.parametrize(
    ("shops", "message"), [({"a/b": BOOKS}, "without '/', got 'a/b'"), ({"": BOOKS}, "got ''"), ({}, "got none")]
)
def test_names_that_would_not_keep_ids_apart_are_refused(shops: dict, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        join_shops(shops)
