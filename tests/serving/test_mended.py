"""What a hostile reader found, and must not come back."""

import json
import logging
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import Running

from genrec import Recommender
from genrec.bundle import read_bundle, write_bundle
from genrec.data.catalogue import Catalogue
from genrec.decoding.filters import Filter
from genrec.errors import SettingError
from genrec.manifest import MANIFEST
from genrec.serving import client as client_module
from genrec.serving.client import Client, ServerError
from genrec.serving.security import make_key, read_keys
from genrec.serving.store import Store


def engines() -> int:
    return sum(thread.name == "genrec-engine" for thread in threading.enumerate())


def test_replacing_items_that_name_different_columns_keeps_what_each_does_not_name(
    start: Callable[..., Running], ids: list[str]
) -> None:
    with Client(start().url) as client:
        before = client.items(ids[:2])
        client.add_items([{"item_id": ids[0], "price": 1.5}, {"item_id": ids[1], "title": "New title"}], replace=True)
        assert client.items(ids[:2]) == [before[0] | {"price": 1.5}, before[1] | {"title": "New title"}]


def test_no_item_is_passed_over_when_the_last_one_of_a_page_changes(start: Callable[..., Running], ids: list[str]) -> None:
    server, found, after = start(), [], 0
    with Client(server.url) as client:
        while after is not None:
            page = httpx.get(f"{server.url}/v1/catalog/items", params={"limit": 10, "after": after}).json()
            found += [item["item_id"] for item in page["items"]]
            after = page.get("next")
            if len(found) < 50:
                client.add_items([{"item_id": found[-1], "price": 2.0}], replace=True)
    assert set(found) == set(ids)


@pytest.mark.parametrize("where", ["5 in title", "None in title", "True in title", "a" + ".b" * 800, "~" * 400 + "price"])
def test_odd_rules_are_told_what_is_wrong(server: Running, where: str) -> None:
    response = httpx.post(f"{server.url}/v1/recommendations", json={"histories": [[]], "where": where})
    assert response.status_code == 422, response.text
    assert response.json()["error"]["type"] == "SettingError"


def test_a_store_that_fails_is_logged_without_naming_anybody(
    start: Callable[..., Running], ids: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    with sqlite3.connect(tmp_path / "store.db") as other, caplog.at_level(logging.DEBUG):
        other.execute("BEGIN IMMEDIATE")
        event = {"user_id": "anna@example.com", "item_id": ids[0]}
        response = httpx.post(f"{server.url}/v1/events", json={"events": [event]}, timeout=60)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert httpx.get(f"{server.url}/healthz").status_code == 200
    assert "The store failed" in caplog.text
    assert "anna" not in caplog.text


def test_a_database_url_is_never_repeated() -> None:
    with pytest.raises(SettingError) as caught:
        Store("postgresql+nodriver://genrec:hunter2@db/genrec")
    assert "hunter2" not in str(caught.value)
    with pytest.raises(SettingError, match="memory is not kept"):
        Store("sqlite://")


def test_reloads_at_once_and_reloads_that_fail_leave_one_engine(
    start: Callable[..., Running], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, others = shutil.copytree(bundle, tmp_path / "shop"), engines()
    server = start(bundles={"shop": folder})
    assert engines() == others + 1
    url = f"{server.url}/v1/models/shop/reload"
    threads = [threading.Thread(target=httpx.post, args=(url,), kwargs={"timeout": 60}) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert engines() == others + 1

    monkeypatch.setattr("genrec.serving.models.ServedModel.catch_up", lambda self: 1 / 0)
    assert httpx.post(url, timeout=60).status_code == 500
    monkeypatch.undo()
    (folder / MANIFEST).unlink()
    response = httpx.post(url)
    assert (response.status_code, response.json()["error"]["type"]) == (409, "BundleError")
    assert engines() == others + 1
    with Client(server.url) as client:
        assert client.recommend([[]], k=1), "the old one answers"
        assert client.models()[0]["weights"] > 0


def test_changes_carry_over_to_a_bundle_with_the_same_codes_and_another_column(
    start: Callable[..., Running], bundle: Path, tmp_path: Path, ids: list[str]
) -> None:
    folder = shutil.copytree(bundle, tmp_path / "shop")
    server = start(bundles={"shop": folder})
    with Client(server.url) as client:
        client.add_items([{"item_id": ids[0], "price": 7.5}], replace=True)
        client.remove_items([ids[1]])
        read = read_bundle(folder)
        table = read.catalogue.table.drop_columns(["brand"]).append_column("stock", pa.array([3] * len(ids)))
        (folder / MANIFEST).unlink()
        pq.write_table(table, folder / "catalogue.parquet")
        embedder, tokenizer = read_bundle(bundle).load_encoders()
        write_bundle(
            folder, settings=read.settings, serving=read.serving, catalogue=Catalogue(table), codes=read.codes,
            train_counts=read.train_counts, tokenizer=tokenizer, embedder=embedder, metrics=read.metrics, about={}, card="",
        )  # fmt: skip
        client.reload("shop")
        [item] = client.items(ids[:2])
        assert (item["item_id"], item["price"], item["stock"], "brand" in item) == (ids[0], 7.5, None, False)


def test_explanations_have_a_limit_and_let_others_in_between(start: Callable[..., Running], ids: list[str]) -> None:
    server = start()
    many = {"histories": [ids[:20]] * 30, "k": 10, "explain": True}
    response = httpx.post(f"{server.url}/v1/recommendations", json=many, timeout=60)
    assert response.status_code == 422
    assert "explain takes 200 items in one request at most, got 300" in response.json()["error"]["message"]
    assert len(Client(server.url).recommend([ids[:20]] * 20, k=10, explain=True)) == 20


def test_an_item_that_a_prepared_filter_cannot_judge_spoils_no_request(
    bundle: Path, ids: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    recommender = Recommender.load(bundle)
    recommender.prepare_filter("cheap", where="price < 15")
    before = recommender.recommend([[]], k=80, beam_width=90, filters=["cheap"])[0]
    recommender.prepared["cheap"].rule = Filter("title < 5")  # as a number that overflows would: it fails on the new row
    gone = before[0].item_id
    recommender.catalogue.replace(pa.table({"item_id": [gone], "price": [3.0]}))
    after = recommender.recommend([[]], k=80, beam_width=90, filters=["cheap"])[0]
    assert [item.item_id for item in after] == [item.item_id for item in before[1:]]
    assert "New items are left out of a prepared filter" in caplog.text


def test_the_log_names_the_key_that_was_too_fast(
    start: Callable[..., Running], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = make_key(tmp_path / "keys.json", "hasty", rate=1)
    server = start(keys=tmp_path / "keys.json")
    with caplog.at_level(logging.INFO, "genrec.access"):
        answers = [httpx.get(f"{server.url}/v1/models", headers={"Authorization": f"Bearer {key}"}) for _ in range(4)]
        assert answers[-1].status_code == 429
        while sum(record.name == "genrec.access" for record in caplog.records) < 4:
            time.sleep(0.01)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "genrec.access"]
    assert {line["key"] for line in lines if line["status"] == 429} == {"hasty"}


def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        read_keys(tmp_path)


def test_the_client_does_not_sleep_for_a_day(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(client_module.time, "sleep", slept.append)
    with Client("http://nowhere") as client:
        client._http = httpx.Client(
            base_url="http://nowhere",
            transport=httpx.MockTransport(lambda request: httpx.Response(503, headers={"Retry-After": "86400"})),
        )
        with pytest.raises(ServerError):
            client.models()
    assert slept == [30.0] * 3


def test_a_bundles_files_can_be_read_by_the_user_that_serves_it(bundle: Path) -> None:
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in bundle.rglob("*") if path.is_file())
