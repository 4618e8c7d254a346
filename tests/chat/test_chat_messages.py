"""Messages that people write are understood as a person would: a part of the hand-checked file, on the synthetic shop."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from genrec.chat.dialogue import Conversation
from genrec.recommender import Recommender

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    sys.path.insert(0, str(BENCHMARKS))  # it imports its neighbour
    spec = importlib.util.spec_from_file_location("rule_messages", BENCHMARKS / "rule_messages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rule_messages"] = module
    spec.loader.exec_module(module)
    sys.path.remove(str(BENCHMARKS))
    return module


def test_messages_are_understood_as_written_down_beside_them(script: ModuleType, recommender: Recommender) -> None:
    templates = script.load()
    assert len({(one["say"], str(one.get("rules")), one.get("shown")) for one in templates}) == len(templates) >= 520
    found = script.measure(
        Conversation(recommender, vectors=False), recommender.bundle.catalogue.table, templates[::4], search=False
    )
    asked = found["templates"] - found["skipped"]
    assert asked > 120
    assert found["exact"] >= 0.95 * asked, found["misses"]
    assert found["wrong"] <= 0.02 * asked, found["misses"]


def test_what_comes_back_obeys_every_rule_shown(script: ModuleType, recommender: Recommender) -> None:
    table = recommender.bundle.catalogue.table
    found = script.measure(Conversation(recommender, k=10, vectors=False), table, script.load()[::30])
    assert found["items"] > 30
    assert (found["broken"], found["strange"]) == (0, 0)


def test_another_reading_is_counted_as_one(script: ModuleType, recommender: Recommender) -> None:
    conversation, table = Conversation(recommender, vectors=False), recommender.bundle.catalogue.table
    wrong = [
        {"say": "under ${price}", "means": ["price <= {price}"]},
        {"say": "under ${price}", "means": []},
        {"say": "not {brand}", "means": ["brand: {brand}"]},
        {"say": "{brand} or {brand2}", "means": ["brand: {brand}"]},
        {"say": "more like the second", "means": ["liked {title@2}"], "shown": True},
        {"say": "waterproof", "means": []},
        {"say": "under ${price}", "means": ["price < {price}"], "unknown": ["waterproof"]},
    ]
    found = script.measure(conversation, table, wrong, search=False)
    assert (found["skipped"], found["exact"]) == (0, 0)
    assert found["said"] == 1
