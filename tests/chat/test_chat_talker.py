"""A chat model as the voice: it calls tools, and what it writes never becomes an item. Tested against a small server."""

import json
from typing import Any

import pytest
from fake_model import FakeModel

from genrec.chat.chat_model import ChatModel, ChatModelError
from genrec.chat.talker import ROUNDS, Talker, unlisted
from genrec.chat.terminal import talk
from genrec.chat.tools import Toolbox
from genrec.errors import SettingError
from genrec.recommender import Recommender


def calls(*wanted: tuple[str, Any]) -> dict[str, Any]:
    """A message that calls tools, as OpenAI's API writes it: arguments are a text."""
    return {"content": None, "tool_calls": [
        {"id": f"call_{number}", "type": "function",
         "function": {"name": name, "arguments": given if isinstance(given, str) else json.dumps(given)}}
        for number, (name, given) in enumerate(wanted)
    ]}  # fmt: skip


def says(words: str) -> dict[str, Any]:
    return {"content": words}


@pytest.fixture
def talker(model: FakeModel, tools: Toolbox) -> Talker:
    return Talker(ChatModel(model.url, "fake", "secret"), tools)


def test_items_come_from_the_tools_and_the_words_stay_apart(talker: Talker, model: FakeModel, recommender: Recommender) -> None:
    model.messages = [
        calls(("recommend", {"wish": "hair care under $20"})),
        says("Here is something for your hair.\n1. Unobtainium Shampoo, $3\n- Another invention\n**2. Third** one"),
    ]
    spoken = talker.turn("my hair is dry, I have 20 dollars", [])
    titles = {row["title"] for row in recommender.bundle.catalogue.table.to_pylist()}
    assert spoken.prose == "Here is something for your hair."
    assert spoken.items
    assert {item.title for item in spoken.items} <= titles
    assert "Rules: 1. price: below 20; 2. category: Beauty > Hair care." in spoken.text
    assert "Unobtainium" not in spoken.text
    assert "invention" not in spoken.text
    first, second = model.asked
    assert [tool["function"]["name"] for tool in first["tools"]] == ["recommend", "refine", "explain", "compare"]
    assert first["model"] == "fake"
    result = second["messages"][-1]
    assert (result["role"], result["tool_call_id"]) == ("tool", "call_0")
    assert [item["title"] for item in json.loads(result["content"])["items"]] == [item.title for item in spoken.items]


def test_a_conversation_goes_on_and_explanations_are_the_tool_s(talker: Talker, model: FakeModel) -> None:
    model.messages = [calls(("recommend", {"wish": "under $90"})), says("Look:")]
    first = talker.turn("hair", [])
    name = json.loads(first.messages[2]["content"])["conversation"]
    model.messages = [
        calls(("refine", {"conversation": name, "wish": "under $60"})),
        calls(("explain", {"conversation": name, "item": "#1"}), ("compare", {"conversation": name, "items": ["#1", "#2"]})),
        says("They are all cheaper."),
    ]
    second = talker.turn("cheaper?", first.messages)
    assert max(item.fields["price"] for item in second.items) < 60
    assert [name for name, error in second.calls if not error] == ["refine", "explain", "compare"]
    assert "p = 0." in second.text
    assert "subcategory: " in second.text
    assert model.asked[2]["messages"][1] == {"role": "user", "content": "hair"}


def test_wrong_calls_come_back_as_results_and_may_be_mended(talker: Talker, model: FakeModel) -> None:
    model.messages = [
        calls(("buy", {"item": "P0001"}), ("recommend", "{no json"), ("recommend", {"wish": 7}), ("recommend", "[]")),
        {"tool_calls": [{"id": "x"}, "text"]},
        calls(*[("recommend", {"wish": "hair care"})] * 5),
        says("So."),
    ]
    spoken = talker.turn("hair", [])
    errors = [error for _, error in spoken.calls]
    for error, part in zip(
        errors[:6], ("no tool 'buy'", "no JSON", "type string", "JSON object", "no call", "no call"), strict=True
    ):
        assert part in json.loads(error)["error"]
    assert errors[6:10] == [""] * 4
    assert "At most 4" in errors[10]
    assert len(spoken.answers) == 1, "the last recommendation takes the place of those before it"
    assert len(model.asked) == 4


def test_a_model_that_only_talks_shows_no_items(talker: Talker, model: FakeModel) -> None:
    model.messages = [says("I can only help with this catalogue.\x1b[2J <|im_start|>")]
    spoken = talker.turn("write me a poem", [])
    assert spoken.items == []
    assert spoken.text == "I can only help with this catalogue. <|im_start|>"


def test_calls_without_end_silence_and_long_messages_are_errors(talker: Talker, model: FakeModel) -> None:
    model.messages = [calls(("recommend", {"wish": "hair care"}))] * (ROUNDS + 1)
    with pytest.raises(ChatModelError, match="said nothing"):
        talker.turn("hair", [])
    assert len(model.asked) == ROUNDS
    assert [body["tool_choice"] for body in model.asked] == ["auto"] * (ROUNDS - 1) + ["none"]
    model.messages = [{"content": None}]
    with pytest.raises(ChatModelError, match="did not give words"):
        talker.turn("hair", [])
    with pytest.raises(SettingError, match="1000 characters, got 2000"):
        talker.turn("x" * 2000, [])
    model.status = 500
    with pytest.raises(ChatModelError, match="cannot be reached"):
        talker.turn("hair", [])


def test_only_whole_turns_are_remembered(talker: Talker, model: FakeModel) -> None:
    earlier = [{"role": role, "content": str(n)} for n in range(50) for role in ("user", "assistant", "tool")]
    model.messages = [says("Yes.")]
    talker.turn("hair", earlier)
    sent = model.asked[0]["messages"][1:]
    assert sent[0]["role"] == "user"
    assert len(sent) <= 61


LISTED = ["1. A", " 2) B", "(3) C", "- D", "* E", "• F", "a) G", "| H | $3 |", "# I", "> J", "**1. K**", "12: L", "① M"]
HIDDEN = ["(n) O", "1 - P", "1\u200b. Q", "Item 1: R", "１． S"]


@pytest.mark.parametrize("line", LISTED + HIDDEN)
def test_lines_that_look_like_items_are_not_the_models_to_write(line: str) -> None:
    assert unlisted(f"Before.\n{line}\nAfter 3 of them.") == "Before.\nAfter 3 of them."


def test_the_terminal_talks_through_a_model_and_survives_its_failure(talker: Talker, model: FakeModel) -> None:
    shown: list[str] = []
    model.messages = [calls(("recommend", {"wish": "hair care"})), says("Well.")]
    talk(talker, iter(["hair", "", "/quit", "never"]), shown.append)
    assert shown[1].startswith("Well.\nRules: 1.")
    model.status = 500
    talk(talker, iter(["hair"]), shown.append)
    assert "cannot be reached" in shown[-1]
