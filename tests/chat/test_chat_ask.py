"""The second reader: a chat model proposes, the catalogue decides. Tested against a small server."""

from typing import Any

import pyarrow as pa
import pytest
from fake_model import FakeModel

from genrec.chat.ask_rules import AskedReader, schema
from genrec.chat.chat_model import ChatModelError
from genrec.chat.link import Linker
from genrec.chat.reading import Context
from genrec.chat.rules import where_of
from genrec.chat.vocabulary import Vocabulary
from genrec.errors import SettingError


@pytest.fixture
def context() -> Context:
    table = pa.table({
        "item_id": [str(n) for n in range(12)], "title": ["Home Alone", "Heat", "Alien", *(f"Film {n}" for n in range(9))],
        "year": [1990 + n for n in range(12)], "genre": [["Comedy"], ["Drama"], ["Horror"]] * 4,
    })  # fmt: skip
    vocabulary = Vocabulary(table)
    return Context(vocabulary, Linker(table, vocabulary), shown=("2", "1"))


def reading(model: FakeModel, context: Context, **answer: Any) -> Any:
    parts = {name: [] for name in schema(context.vocabulary)["required"]} | {"something_else": False, "asks_for_items": True}
    model.answer = parts | answer
    return AskedReader(f"http://127.0.0.1:{model.server_port}/v1", "fake")("something funny", context)


def rule(column: str, *values: str, negative: bool = False, low: float | None = None, high: float | None = None) -> dict:
    return {"column": column, "values": list(values), "negative": negative, "low": low, "high": high}


def test_what_the_model_reads_becomes_rules_and_links(model: FakeModel, context: Context) -> None:
    found = reading(
        model, context, rules=[rule("genre", "comedy"), rule("year", low=1992)], liked=["home alone"], rejected=["#2"]
    )
    assert [str(one) for one in found.add] == ["genre: Comedy", "year: from 1992"]
    assert [link.title for link in found.liked] == ["Home Alone"]
    assert [link.title for link in found.rejected] == ["Heat"]
    [asked] = model.asked
    assert asked["path"] == "/v1/chat/completions"
    form = asked["response_format"]
    assert form["type"] == "json_schema"
    assert form["json_schema"]["schema"]["properties"]["rules"]["items"]["properties"]["column"]["enum"] == ["year", "genre"]
    assert "Comedy" in asked["messages"][0]["content"]
    assert asked["messages"][1] == {"role": "user", "content": "something funny"}


def test_what_the_catalogue_lacks_is_reported_and_never_obeyed(model: FakeModel, context: Context) -> None:
    evil = 'Comedy"] or 1 == 1 or ["'
    found = reading(
        model, context, rules=[rule("genre", evil, "Western"), rule("item_id", "1"), rule("genre", "Drama", "Opera"),
               rule("year")],
        liked=["No Such Film At All"], remove_rules=[7], not_understood=["funny"],
    )  # fmt: skip
    assert [str(one) for one in found.add] == ["genre: Drama"]
    assert {evil, "Western", "Opera", "No Such Film At All", "funny", "item_id ['1']"} <= set(found.unknown)
    assert found.remove == []
    assert "1 == 1" not in (where_of(found.add, context.vocabulary) or "")


@pytest.mark.parametrize(
    "answer", ["not json", "[]", '{"rules": [5]}', '{"rules": [{"column": "year", "low": "many"}]}', "null"]
)
def test_an_answer_that_is_not_of_the_schema_is_an_error_not_a_guess(model: FakeModel, context: Context, answer: str) -> None:
    model.answer = answer
    with pytest.raises(ChatModelError, match="schema"):
        AskedReader(f"http://127.0.0.1:{model.server_port}/v1", "fake")("something funny", context)


def test_a_model_that_is_away_or_refuses_is_named(model: FakeModel, context: Context) -> None:
    model.status = 500
    with pytest.raises(ChatModelError, match="cannot be reached"):
        reading(model, context)
    with pytest.raises(SettingError, match="http"):
        AskedReader("file:///etc/passwd", "fake")


def test_long_messages_are_not_sent(model: FakeModel, context: Context) -> None:
    assert AskedReader(f"http://127.0.0.1:{model.server_port}/v1", "fake")("x" * 5000, context).unknown
    assert model.asked == []
