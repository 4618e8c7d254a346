"""Of everything that a conversation says it understood, every returned item obeys every rule: the benchmark, small."""

import importlib.util
from pathlib import Path

import pytest

from genrec.recommender import Recommender

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "rule_obedience.py"


def test_no_item_breaks_a_rule_shown_and_no_message_is_silently_misread(bundle: Path) -> None:
    spec = importlib.util.spec_from_file_location("rule_obedience", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found = script.measure(Recommender.load(bundle), "shop", 40)
    assert found["items"] > 100
    assert (found["broken"], found["strange"], found["wrong"]) == (0, 0, 0), found["examples"]
    assert found["exact"] + found["said"] == 40
    assert found["exact"] >= 28


@pytest.mark.parametrize("row", [{"price": 20.0, "brand": "A"}, {"price": None, "brand": "A"}, {"price": 5.0, "brand": None}])
def test_the_checker_can_fail(row: dict) -> None:
    spec = importlib.util.spec_from_file_location("rule_obedience", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    below = {
        "kind": "range",
        "column": "price",
        "low": None,
        "high": 20.0,
        "low_open": False,
        "high_open": True,
        "negative": False,
    }
    brand = {"kind": "values", "choices": {"brand": ["A"]}, "negative": True}
    assert not (script.obeys(below, row) and script.obeys(brand, row))
