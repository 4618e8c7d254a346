"""What a person chooses by: items found by title, columns with their kinds, and a chat told of history and filters."""

from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from servers import Running

from genrec.bundle import read_bundle
from genrec.chat.vocabulary import Vocabulary
from genrec.serving.browse import columns_out
from genrec.serving.client import Client


def get(server: Running, path: str, **params: object) -> httpx.Response:
    return httpx.get(f"{server.url}/v1/{path}", params=params)


def chat(server: Running, text: str, **more: object) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/chat/completions", json={"messages": [{"role": "user", "content": text}]} | more)


@pytest.fixture
def rows(bundle: Path) -> dict[str, dict]:
    return {row["item_id"]: row for row in read_bundle(bundle).catalogue.table.to_pylist()}


def test_items_are_found_by_all_words_of_a_title_in_any_order_and_by_id(server: Running, rows: dict[str, dict]) -> None:
    for query in ("CARE", "repair lumen", rows["P0003"]["title"].upper()):
        found = [item["item_id"] for item in get(server, "catalog/items", query=query, limit=1000).json()["items"]]
        words = query.lower().split()
        assert set(found) == {item_id for item_id, row in rows.items() if all(w in row["title"].lower() for w in words)}
        assert len(found) == len(set(found))
    assert get(server, "catalog/items", query="P0003").json()["items"][0] == rows["P0003"]
    assert len(get(server, "catalog/items", query="e", limit=3).json()["items"]) == 3
    assert get(server, "catalog/items", query=" ").json() == {"items": [], "next": None}
    assert get(server, "catalog/items", query="no such thing").json()["items"] == []
    assert get(server, "catalog/items", query=".*").json()["items"] == []
    assert "give no item_id" in get(server, "catalog/items", query="x", item_id="P0003").json()["error"]["message"]


def test_titles_that_begin_with_the_words_come_first_and_removed_items_never(start: Callable[..., Running]) -> None:
    server = start()
    with Client(server.url) as client:
        client.add_items([{"item_id": "b", "title": "A long zzyzx cream"}, {"item_id": "a", "title": "Zzyzx"}])
        client.add_items([{"item_id": "gone", "title": "Zzyzx"}])
        client.remove_items(["gone"])
    assert [item["item_id"] for item in get(server, "catalog/items", query="zzyzx").json()["items"]] == ["a", "b"]


def test_the_columns_say_what_a_filter_may_be_about(server: Running, rows: dict[str, dict]) -> None:
    told = get(server, "catalog/columns", model="shop").json()
    assert told["title"] == "title"
    columns = {column["name"]: column for column in told["columns"]}
    brands = [row["brand"] for row in rows.values()]
    assert columns["brand"]["kind"] == "values"
    assert {one["value"]: one["items"] for one in columns["brand"]["values"]} == {b: brands.count(b) for b in set(brands)}
    assert columns["brand"]["different"] == len(set(brands))
    prices = [row["price"] for row in rows.values() if row["price"] is not None]
    assert (columns["price"]["kind"], columns["price"]["low"], columns["price"]["high"]) == ("number", min(prices), max(prices))
    assert "description" not in columns
    assert "There are shop" in get(server, "catalog/columns", model="nope").json()["error"]["message"]


def test_lists_dates_and_numbers_in_text_have_their_kinds() -> None:
    table = pa.table(
        {
            "item_id": [str(n) for n in range(30)], "title": ["t"] * 30, "tags": [["x", "y"], ["x"]] * 15,
            "released": pa.array([0, 1, 2] * 10, pa.date32()), "year": ["1990", "1984", "2001"] * 10,
        }
    )  # fmt: skip
    tags, released, year = columns_out(Vocabulary(table)).columns
    assert (tags.kind, tags.many, [(one.value, one.items) for one in tags.values]) == ("values", True, [("x", 30), ("y", 15)])
    assert (released.kind, released.values) == ("date", [])
    assert (year.kind, [one.value for one in year.values], year.low) == ("values", ["1984", "1990", "2001"], 1984.0)


def test_a_chat_begins_with_the_history_given_and_keeps_the_filters_given(server: Running, rows: dict[str, dict]) -> None:
    history = list(rows)[:3]
    more = {"history": history, "where": "price < 20 or price > 60", "filters": ["cheap"]}
    for text in ("recommend something", "not Lumen"):
        answer = chat(server, text, **more).json()["genrec"]
        items = [rows[item["item_id"]] for item in answer["items"]]
        assert len(items) == 5
        assert all(row["price"] < 15 and row["item_id"] not in history for row in items)
    assert all(row["brand"] != "Lumen" for row in items)
    assert any("goes with" in reason for item in answer["items"] for reason in item["reasons"])
    assert answer["said"] == "Rules: 1. brand: not Lumen."


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"where": "pric < 5"}, "Did you mean 'price'"),
        ({"where": "price < 5) or (price > 1"}, "where cannot be read"),
        ({"filters": ["chep"]}, "Did you mean 'cheap'"),
        ({"history": ["nope"]}, "for example 'nope'"),
        ({"history": [], "user": "anna"}, "give either user or history"),
    ],
)
def test_a_chat_says_what_is_wrong_with_them_also_where_nothing_is_searched(server: Running, more: dict, message: str) -> None:
    response = chat(server, "hello", **more)
    assert response.status_code == 422
    assert message in response.json()["error"]["message"]
