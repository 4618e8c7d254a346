"""Engines answer as the bare ranker does, together and in any order, and say when they are full."""

import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import numpy as np
import pytest

from genrec import Recommender
from genrec.errors import SettingError
from genrec.recommender import Request
from genrec.serving.engine import BusyError, ClosedError, Found, TorchEngine
from genrec.serving.vllm.wire import pack, unpack


@pytest.fixture
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


def same(a: Found, b: Found) -> bool:
    return all(
        np.array_equal(rows, others) and np.allclose(scores, more, atol=1e-4)
        for (rows, scores), (others, more) in zip(a, b, strict=True)
    )


def test_requests_that_wait_are_searched_together_and_answered_as_alone(recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    asked = [
        ([ids[:3]], Request(k=4)),
        ([ids[5:9], []], Request(k=7, where="price < 20")),
        ([ids[2:4]], Request(k=2, beam_width=40, max_per={"brand": 1})),
        ([ids[:30]], Request(k=5, beam_width=5, exclude_seen=True)),
    ]
    prepared = [recommender.prepare(*one) for one in asked]
    sizes: list[float] = []
    engine = TorchEngine(recommender.ranker, observe=lambda name, value: sizes.append(value) if name == "batch_size" else None)
    hold = threading.Event()
    engine.call(hold.wait)
    futures = [engine.submit(one.queries, one.version) for one in prepared]
    assert engine.waiting == 6
    hold.set()
    for one, future in zip(prepared, futures, strict=True):
        assert same(future.result(), recommender.ranker.answer(one.queries, one.version.snapshot))
    assert sizes == [1, 5], "the call, then all searches at once"
    engine.close()


def test_a_query_arrives_in_another_process_as_it_was_sent(recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    asked = Request(k=4, beam_width=[9, 8, 7, 6], where="price < 20", exclude_item_ids=ids[:2], max_per={"brand": 1})
    one = recommender.prepare([ids[:3], []], asked, ["somebody", "somebody else"])
    for query in (*one.queries, *recommender.prepare([[]], Request(k=3)).queries):
        arrived, version, rows = unpack(pack(query, one.version), {one.version.hash: one.version})
        assert (arrived.k, arrived.widths, arrived.exclude_seen) == (query.k, query.widths, query.exclude_seen)
        assert arrived.user == query.user
        np.testing.assert_array_equal(arrived.history, query.history)
        assert (version, rows) == (one.version, None)
        assert same(recommender.ranker.answer([arrived]), recommender.ranker.answer([query]))
    assert [query.user for query in one.queries] == ["somebody", "somebody else"]


def test_versions_of_the_catalogue_do_not_mix(recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    engine, hold = TorchEngine(recommender.ranker), threading.Event()
    engine.call(hold.wait)
    before = recommender.prepare([[]], Request(k=80, beam_width=200))
    recommender.catalogue.remove(ids[:10])
    after = recommender.prepare([[]], Request(k=80, beam_width=200))
    futures = [engine.submit(one.queries, one.version) for one in (before, after, before)]
    hold.set()
    assert [len(future.result()[0][0]) for future in futures] == [80, 70, 80]
    engine.close()


def test_a_full_engine_says_so_and_when_to_come_back(recommender: Recommender) -> None:
    engine, hold = TorchEngine(recommender.ranker, most_waiting=4), threading.Event()
    engine.call(hold.wait)
    one = recommender.prepare([[]] * 2, Request(k=1))
    engine.submit(one.queries, one.version)
    with pytest.raises(BusyError, match="has 3 histories waiting and takes 4") as caught:
        engine.submit(one.queries, one.version)
    assert caught.value.retry_after > 0
    hold.set()
    while engine.waiting:
        time.sleep(0.01)
    large = recommender.prepare([[]] * 9, Request(k=1))
    assert len(engine.submit(large.queries, large.version).result()) == 9, "alone it may be larger than the queue"
    engine.close()


def test_what_was_cancelled_before_its_turn_is_not_searched(recommender: Recommender) -> None:
    sizes: list[float] = []
    engine = TorchEngine(recommender.ranker, observe=lambda name, value: sizes.append(value) if name == "batch_size" else None)
    hold = threading.Event()
    engine.call(hold.wait)
    one = recommender.prepare([[]], Request(k=1))
    kept, given_up = (engine.submit(one.queries, one.version) for _ in range(2))
    assert given_up.cancel()
    hold.set()
    assert len(kept.result()) == 1
    with pytest.raises(CancelledError):
        given_up.result()
    engine.close()
    assert sizes == [1, 1]
    assert engine.waiting == 0


def test_one_that_cannot_be_answered_does_not_take_others_with_it(recommender: Recommender) -> None:
    engine, hold = TorchEngine(recommender.ranker), threading.Event()
    engine.call(hold.wait)
    good = recommender.prepare([[]], Request(k=3))
    bad = recommender.prepare([[]], Request(k=3))
    object.__setattr__(bad.queries[0], "history", np.array([10**9]))
    futures = [engine.submit(one.queries, one.version) for one in (good, bad, good)]
    hold.set()
    assert len(futures[0].result()[0][0]) == len(futures[2].result()[0][0]) == 3
    with pytest.raises(IndexError):
        futures[1].result()
    engine.close()


def test_closing_answers_what_waits_and_takes_nothing_more(recommender: Recommender) -> None:
    engine, hold = TorchEngine(recommender.ranker), threading.Event()
    engine.call(hold.wait)
    one = recommender.prepare([[]], Request(k=1))
    future = engine.submit(one.queries, one.version)
    threading.Timer(0.1, hold.set).start()
    engine.close()
    assert future.done()
    with pytest.raises(ClosedError):
        engine.submit(one.queries, one.version)


@pytest.mark.parametrize("setting", [{"batch": 0}, {"most_waiting": 0}, {"batch": "many"}])
def test_impossible_settings_are_refused(recommender: Recommender, setting: dict) -> None:
    with pytest.raises(SettingError):
        TorchEngine(recommender.ranker, **setting)
