"""The mixed load of benchmarks/, for a few seconds; and that it would notice what it promises to notice."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from genrec.serving.store import Store


@pytest.fixture(scope="module")
def mixed_load() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "mixed_load.py"
    spec = importlib.util.spec_from_file_location("mixed_load", path)
    assert spec
    assert spec.loader
    module = sys.modules["mixed_load"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_wrong_answer_and_nothing_lost_through_kills_and_swaps(
    mixed_load: ModuleType, bundle: Path, tmp_path: Path, url: str
) -> None:
    bundles = [bundle, mixed_load.twin(bundle, tmp_path / "second", seed=0)]
    load = mixed_load.Load(tmp_path, bundles, "torch", url, seed=0)

    def enough(record: Any) -> bool:
        return (
            record.done["kills of the server"] >= 2
            and record.done["bundle swaps"] >= 2
            and len({answer.bundle for answer in record.answers}) == 2
            and len({answer.version for answer in record.answers}) > 3
            and any(record.events.values())
        )

    record = load.run(30, customers=3, kill_every=5, swap_every=3, enough=enough)
    checked, wrong, lost = mixed_load.wrong_answers(record, bundles, url)
    assert (checked, wrong, lost) == (len(record.answers), [], [])
    assert enough(record)
    assert mixed_load.users_with_a_lost_event(record, Store(url)) == []
    assert mixed_load.errors_at_other_times(record) == []

    answer = record.answers[len(record.answers) // 2]
    answer.items[0], answer.items[-1] = answer.items[-1], answer.items[0]
    user = next(user for user, sent in record.events.items() if sent)
    record.events[user].insert(0, "never sent")
    record.versions[max(record.versions) + 99] = "hash"
    record.added.add("never added")
    record.errors.append((0.0, 1.0, "long before"))
    _, wrong, lost = mixed_load.wrong_answers(record, bundles, url)
    assert len(wrong) == 1
    assert {line.split(" is ")[0] for line in lost} == {"never added", f"version {max(record.versions)}"}
    assert mixed_load.users_with_a_lost_event(record, Store(url)) == [user]
    assert mixed_load.errors_at_other_times(record) == ["long before"]


def test_equal_scores_may_change_places_and_others_may_not(mixed_load: ModuleType) -> None:
    def answer(items: list[str]):  # noqa: ANN202
        return mixed_load.Seen("b", 0, [], {}, items, [-1.0, -2.0, -2.0, -3.0])

    scores = [-1.0, -2.0, -2.0005, -3.0]
    assert mixed_load.same(answer(["a", "c", "b", "d"]), ["a", "b", "c", "d"], scores)
    assert mixed_load.same(answer(["a", "b", "c", "other"]), ["a", "b", "c", "d"], scores), "may tie with the last one"
    assert not mixed_load.same(answer(["b", "a", "c", "d"]), ["a", "b", "c", "d"], scores)
    assert not mixed_load.same(answer(["other", "b", "c", "d"]), ["a", "b", "c", "d"], scores)
    assert not mixed_load.same(answer(["a", "b", "c", "d"]), ["a", "b", "c", "d"], list(np.array(scores) - 0.1))
    assert not mixed_load.same(answer(["a", "b", "c", "d"]), ["a", "b", "c"], scores[:3])
