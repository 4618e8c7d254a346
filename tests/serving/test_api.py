"""The HTTP API as its users meet it: a real server, a real client."""

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from quick import QUICK
from servers import Running, best_by_brute_force
from transformers import AutoTokenizer

from genrec import Recommender
from genrec.bundle import read_bundle
from genrec.data.catalogue import Catalogue
from genrec.data.interactions import Interactions
from genrec.fit import fit
from genrec.recipe import load_recipe
from genrec.serving.client import AsyncClient, Client, ServerError
from genrec.serving.security import make_key


def post(server: Running, path: str, body: Any, **headers: str) -> httpx.Response:
    return httpx.post(server.url + path, json=body, headers=headers)


def test_answers_are_those_of_the_recommender(client: Client, bundle: Path, ids: list[str]) -> None:
    recommender = Recommender.load(bundle)
    histories = [ids[:3], [], ids[10:30]]
    for rules in (
        {"k": 5},
        {"k": 3, "where": 'price < 20 and brand != "Lumen"', "max_per": {"brand": 1}},
        {"k": 7, "beam_width": [10, 20, 20, 20], "exclude_seen": False},
        {"k": 4, "only_item_ids": ids[:20], "exclude_item_ids": ids[:5], "max_per_prefix": {1: 1}},
    ):
        answers = client.recommend(histories, **rules)
        for answer, expected in zip(answers, recommender.recommend(histories, **rules), strict=True):
            assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
            np.testing.assert_allclose([i.score for i in answer.items], [i.score for i in expected], atol=1e-4)
            assert [item.fields for item in answer.items] == [item.fields for item in expected]
            assert [item.rank for item in answer.items] == list(range(1, len(expected) + 1))


def test_answers_are_those_of_scoring_every_item(client: Client, bundle: Path, ids: list[str]) -> None:
    recommender = Recommender.load(bundle)
    for history in ([], ids[:3], ids[20:31]):
        [answer] = client.recommend([history], k=10, beam_width=90, where="price < 20")
        truth = best_by_brute_force(recommender, history, 10, lambda fields: (fields["price"] or 99) < 20)
        assert [item.item_id for item in answer.items] == truth


def test_an_encoder_decoder_is_served_like_a_decoder(
    start: Callable[..., Running], encoder_decoder_bundle: Path, ids: list[str]
) -> None:
    recommender = Recommender.load(encoder_decoder_bundle)
    histories = [ids[:3], [], ids[10:30]]
    server = start(bundles={"t5": encoder_decoder_bundle})
    with Client(server.url) as client:
        answers = client.recommend(histories, k=5, where="price < 30", explain=True)
    for answer, expected in zip(answers, recommender.recommend(histories, k=5, where="price < 30", explain=True), strict=True):
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        for item, other in zip(answer.items, expected, strict=True):
            assert item.score == pytest.approx(other.score, abs=1e-4)
            assert item.explanation["score"] == pytest.approx(other.explanation.score, abs=1e-4)
    assert httpx.get(f"{server.url}/v1/models").json()[0]["architecture"] == "T5ForConditionalGeneration"


def test_a_model_with_user_tokens_is_told_who_asks(
    start: Callable[..., Running], shop: tuple[Catalogue, Interactions], ids: list[str], tmp_path: Path
) -> None:
    users = {"model.architecture": "encoder-decoder", "model.user_tokens": 50, "training.epochs": 1}
    folder = fit(shop[0].table, shop[1].table, tmp_path / "users", load_recipe(overrides=QUICK | users))
    recommender = Recommender.load(folder)
    with Client(start(bundles={"users": folder}).url) as client:
        client.send_events([{"user_id": "u", "item_id": item_id} for item_id in ids[:3]])
        [named] = client.recommend(user_ids=["u"], k=5, explain=True)
        [nameless] = client.recommend([ids[:3]], k=5)
    for answer, user_ids in ((named, ["u"]), (nameless, None)):
        [expected] = recommender.recommend([ids[:3]], k=5, user_ids=user_ids)
        assert [item.item_id for item in answer.items] == [item.item_id for item in expected]
        np.testing.assert_allclose([i.score for i in answer.items], [i.score for i in expected], atol=1e-4)
    assert named.items[0].score != nameless.items[0].score
    assert named.items[0].explanation["score"] == pytest.approx(named.items[0].score, abs=1e-4)


def test_an_answer_names_the_bundle_and_the_version_that_it_came_from(server: Running, bundle: Path) -> None:
    answer = post(server, "/v1/recommendations", {"histories": [[]], "k": 1}).json()
    assert answer["bundle"] == read_bundle(bundle).hash == httpx.get(f"{server.url}/v1/models").json()[0]["bundle"]
    assert answer["catalogue"]["number"] == 0


def test_texts_that_look_like_tokens_stay_texts(start: Callable[..., Running], bundle: Path, ids: list[str]) -> None:
    recommender = Recommender.load(bundle)
    looks = ["<start>", "<pad>", "<c0_0>", "<c0_0> <c1_1> <c2_2>", "<|endoftext|>", "</s>"]
    assert {"<start>", "<c0_0>"} <= set(AutoTokenizer.from_pretrained(bundle).get_vocab())
    with Client(start().url) as client:
        [new] = client.recommend([[]], k=5)
        for text in looks:
            with pytest.raises(ServerError, match="not in the catalogue"):
                client.recommend([[text]])
            client.send_events([{"user_id": text, "item_id": ids[0]}])
            assert client.recommend(user_ids=[text + " "], k=5)[0].items == new.items
        twins = recommender.catalogue.current.fields(np.arange(len(looks)))
        added = [fields | {"item_id": text, "title": text} for fields, text in zip(twins, looks, strict=True)]
        client.add_items(added)
        recommender.catalogue.add(pa.Table.from_pylist(added, recommender.catalogue.current.table.schema))
        for history in (looks, [looks[0], ids[3]]):
            [answer] = client.recommend([history], k=10, beam_width=90)
            truth = best_by_brute_force(recommender, history, 10, lambda fields: True)
            assert [item.item_id for item in answer.items] == truth


def test_events_are_read_by_the_next_request_and_forgotten_on_demand(client: Client, ids: list[str]) -> None:
    [new] = client.recommend(user_ids=["anna"], k=5)
    assert client.send_events([{"user_id": "anna", "item_id": item_id} for item_id in ids[:3]]) == 3
    [known] = client.recommend(user_ids=["anna"], k=5)
    assert known.user_id == "anna"
    assert [i.item_id for i in known.items] == [i.item_id for i in client.recommend([ids[:3]], k=5)[0].items]
    assert [i.item_id for i in known.items] != [i.item_id for i in new.items]
    assert not {i.item_id for i in known.items} & set(ids[:3])
    assert client.send_events([{"user_id": "anna", "item_id": ids[0], "event_id": "e"}] * 2) == 1
    assert client.forget_user("anna") == 4
    assert [i.item_id for i in client.recommend(user_ids=["anna"], k=5)[0].items] == [i.item_id for i in new.items]


def test_prepared_filters_columns_and_reasons(client: Client, ids: list[str]) -> None:
    [answer] = client.recommend([ids[:2]], k=4, filters=["cheap"], explain=True, fields=["title"])
    for item in answer.items:
        assert set(item.fields) == {"title"}
        assert item.explanation is not None
        logs = sum(np.log(level["probability"]) for level in item.explanation["levels"])
        assert logs == pytest.approx(item.score, abs=1e-3)
    assert all(fields["price"] < 15 for fields in client.items([item.item_id for item in answer.items]))


def test_the_catalogue_changes_over_http_and_back(start: Callable[..., Running], ids: list[str]) -> None:
    with Client(start().url) as client:
        [fields] = client.items([ids[0]])
        assert client.add_items([fields | {"item_id": "new"}]) == 1
        assert [i.item_id for i in client.recommend([[]], k=1, only_item_ids=["new"])[0].items] == ["new"]
        assert client.add_items([{"item_id": "new", "price": 1.25}], replace=True) == 2
        assert client.items(["new"])[0]["price"] == 1.25
        assert client.remove_items(["new", ids[1]]) == 3
        assert client.items(["new", ids[1], ids[2]]) == client.items([ids[2]])
        assert [version["number"] for version in client.versions()] == [0, 1, 2, 3]
        assert client.rollback(2) == 4
        assert client.items(["new"])[0]["price"] == 1.25
        [answer] = client.recommend([[]], k=1)
        assert answer.version == 4


def test_pages_walk_through_the_whole_catalogue(client: Client, server: Running, ids: list[str]) -> None:
    found, after = [], None
    while True:
        page = httpx.get(f"{server.url}/v1/catalog/items", params={"limit": 33} | ({"after": after} if after else {})).json()
        found += [item["item_id"] for item in page["items"]]
        after = page.get("next")
        if after is None:
            break
    assert found == ids


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("recommendations", {"histories": [["nope"]]}, 422, "'nope'"),
        ("recommendations", {}, 422, "give either histories or user_ids"),
        ("recommendations", {"histories": [["a"]], "user_ids": ["b"]}, 422, "give either histories or user_ids"),
        ("recommendations", {"histories": ["a"]}, 422, "histories.0"),
        ("recommendations", {"histories": [[1]]}, 422, "histories.0.0"),
        ("recommendations", {"histories": [[""]]}, 422, "histories.0.0"),
        ("recommendations", {"histories": []}, 422, "histories"),
        ("recommendations", {"histories": [[]], "k": 0}, 422, "k: "),
        ("recommendations", {"histories": [[]], "k": "5"}, 422, "k: "),
        ("recommendations", {"histories": [[]], "k": 30, "beam_width": 20}, 422, "k must be at most the smallest beam_width"),
        ("recommendations", {"histories": [[]], "kk": 5}, 422, "kk: Extra inputs are not permitted"),
        ("recommendations", {"histories": [[]], "where": "pric < 5"}, 422, "Did you mean 'price'"),
        ("recommendations", {"histories": [[]], "where": "__import__('os')"}, 422, "is not allowed"),
        ("recommendations", {"histories": [[]], "filters": ["chep"]}, 422, "Did you mean 'cheap'"),
        ("recommendations", {"histories": [[]], "max_per": {"brnd": 1}}, 422, "Did you mean 'brand'"),
        ("recommendations", {"histories": [[]], "max_per_prefix": {"9": 1}}, 422, "max_per_prefix"),
        ("recommendations", {"histories": [[]], "fields": ["colour"]}, 422, "fields names 'colour'"),
        ("recommendations", {"histories": [[]], "model": "shp"}, 404, "Did you mean 'shop'"),
        ("events", {"events": []}, 422, "events"),
        ("events", {"events": [{"user_id": "u", "item_id": "nope"}]}, 422, "for example 'nope'"),
        ("events", {"events": [{"user_id": "u"}]}, 422, "events.0.item_id: Field required"),
        ("events", {"events": [{"user_id": "u", "item_id": "a", "timestamp": -1}]}, 422, "timestamp"),
        ("events", {"events": [{"user_id": "u" * 600, "item_id": "a"}]}, 422, "user_id"),
        ("catalog/items", {"items": [{"title": "x"}]}, 422, "item_id"),
        ("catalog/items", {"items": [{"item_id": "x", "titel": "y"}]}, 422, "Did you mean 'title'"),
        ("catalog/items", {"items": [{"item_id": "x", "price": "dear"}]}, 422, "do not fit the catalogue's columns"),
        ("catalog/items", {"items": [{"item_id": "x", "title": {"a": 1}}]}, 422, "do not fit the catalogue's columns"),
        ("catalog/items", {"items": [{}]}, 422, "item_id"),
        ("catalog/items", {"items": [{"item_id": "x"}], "replace": True}, 422, "unknown ids"),
        ("catalog/versions/rollback", {"to": 99}, 422, r"one of [0], got 99"),
        ("models/shp/reload", None, 404, "Did you mean 'shop'"),
    ],
)
def test_bad_requests_get_a_reason_and_change_nothing(server: Running, path: str, body: Any, status: int, message: str) -> None:
    response = post(server, f"/v1/{path}", body)
    assert response.status_code == status, response.text
    assert message in response.json()["error"]["message"]
    assert httpx.get(f"{server.url}/v1/models").json()[0]["catalogue"]["number"] == 0


BAD_INPUT: dict[tuple[str, str], dict[str, Any]] = {
    ("post", "/v1/chat/completions"): {"json": {"messages": []}},
    ("post", "/v1/recommendations"): {"json": {"histories": "B001"}},
    ("post", "/v1/events"): {"json": {"events": [{"user_id": 7, "item_id": "a"}]}},
    ("delete", "/v1/events"): {"params": {"user_id": ""}},
    ("get", "/v1/catalog/items"): {"params": {"limit": "many"}},
    ("get", "/v1/catalog/columns"): {"params": {"model": "nope"}},
    ("post", "/v1/catalog/items"): {"json": {"items": "B001"}},
    ("delete", "/v1/catalog/items"): {"params": {"item_id": "nope"}},
    ("post", "/v1/catalog/items/remove"): {"json": {"item_ids": ["nope"]}},
    ("get", "/v1/catalog/versions"): {"params": {"model": "nope"}},
    ("post", "/v1/catalog/versions/rollback"): {"json": {"to": "the first"}},
    ("post", "/v1/models/{name}/reload"): {},
    # These take no input: what is wrong with them can only be the key.
    ("get", "/v1/models"): {"headers": {"Authorization": "Bearer gr-wrong"}},
    ("get", "/metrics"): {"headers": {"Authorization": "Bearer gr-wrong"}},
    ("get", "/healthz"): {},
    ("get", "/readyz"): {},
}


def test_every_route_refuses_bad_input_with_a_reason(start: Callable[..., Running], tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    key = make_key(path, "all", ("recommend", "events", "catalog", "admin"))
    server = start(keys=path)
    routes = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {(method, route) for route, methods in routes.items() for method in methods} == set(BAD_INPUT)
    for (method, route), bad in BAD_INPUT.items():
        request = {"headers": {"Authorization": f"Bearer {key}"}} | bad
        response = httpx.request(method, server.url + route.replace("{name}", "nope"), **request)
        if route in ("/healthz", "/readyz"):
            assert response.status_code == 200
            continue
        assert response.status_code in (401, 404, 422), (method, route, response.text)
        assert response.json()["error"]["message"]


def test_what_is_no_request_at_all_gets_a_reason_too(server: Running) -> None:
    url = f"{server.url}/v1/recommendations"
    assert httpx.post(url, content=b"{no json").status_code == 422
    assert httpx.post(url, content=b"\xff\xfe").status_code in (400, 422)
    assert httpx.get(url).json() == {"error": {"type": "HTTPError", "message": "Method Not Allowed"}}
    assert httpx.get(f"{server.url}/nowhere").status_code == 404
    assert httpx.delete(f"{server.url}/v1/catalog/items").status_code == 422
    assert httpx.delete(f"{server.url}/v1/catalog/items", params={"item_id": "nope"}).status_code == 422
    assert httpx.get(f"{server.url}/v1/catalog/items", params={"after": "nope"}).status_code == 422
    assert httpx.get(f"{server.url}/v1/catalog/items", params={"limit": 0}).status_code == 422
    assert httpx.delete(f"{server.url}/v1/events").status_code == 422


def test_a_request_that_is_too_large_is_not_read(start: Callable[..., Running]) -> None:
    server = start(most_bytes=1000)
    assert post(server, "/v1/recommendations", {"histories": [["a" * 2000]]}).status_code == 413

    def endless():  # noqa: ANN202
        for _ in range(100):
            yield b" " * 100

    assert httpx.post(f"{server.url}/v1/recommendations", content=endless()).status_code == 413
    assert post(server, "/v1/recommendations", {"histories": [[]]}).status_code == 200


def test_keys_say_who_may_what(start: Callable[..., Running], tmp_path: Path, ids: list[str]) -> None:
    path = tmp_path / "keys.json"
    web, shop = make_key(path, "web", ("recommend", "events")), make_key(path, "shop", ("recommend", "catalog"), rate=0.001)
    server = start(keys=path, host="0.0.0.0")
    assert post(server, "/v1/recommendations", {"histories": [[]]}).status_code == 401
    assert httpx.get(f"{server.url}/metrics").status_code == 401
    assert httpx.get(f"{server.url}/healthz").status_code == httpx.get(f"{server.url}/readyz").status_code == 200
    with Client(server.url, web) as client:
        assert client.recommend([[]])
        with pytest.raises(ServerError, match="this needs 'catalog'") as caught:
            client.remove_items([ids[0]])
        assert (caught.value.status, caught.value.kind) == (403, "DeniedError")
    statuses = [post(server, "/v1/recommendations", {"histories": [[]]}, Authorization=f"Bearer {shop}") for _ in range(3)]
    assert [response.status_code for response in statuses] == [200, 429, 429], "one each thousand seconds, on any machine"
    assert int(statuses[-1].headers["Retry-After"]) >= 1


def test_a_full_server_says_when_to_come_back(start: Callable[..., Running]) -> None:
    server = start(most_waiting=2)
    engine = next(iter(server.app.state.server.models)).engine
    hold = threading.Event()
    engine.call(hold.wait)
    engine.call(hold.wait)
    refused = post(server, "/v1/recommendations", {"histories": [[]]})
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "BusyError"
    assert int(refused.headers["Retry-After"]) >= 1
    threading.Timer(0.5, hold.set).start()
    with Client(server.url) as client:
        assert client.recommend([[]], k=1), "the client waits and comes back"


def test_an_answer_that_takes_too_long_is_given_up(start: Callable[..., Running]) -> None:
    server = start(timeout=0.2)
    engine = next(iter(server.app.state.server.models)).engine
    hold = threading.Event()
    engine.call(hold.wait)
    late = post(server, "/v1/recommendations", {"histories": [[]]})
    assert late.status_code == 504
    assert "within 0.2 s" in late.json()["error"]["message"]
    hold.set()
    assert post(server, "/v1/recommendations", {"histories": [[]]}).status_code == 200


def test_several_models_and_a_swap_under_load(start: Callable[..., Running], bundle: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(bundle, tmp_path / "books")
    server = start(bundles={"shop": bundle, "books": folder})
    assert "Say which model: shop, books" in post(server, "/v1/recommendations", {"histories": [[]]}).text
    stop, problems, answered = threading.Event(), [], []

    def ask() -> None:
        with Client(server.url, model="books") as client:
            while not stop.is_set():
                try:
                    answered.append(len(client.recommend([[]], k=3)[0].items))
                except Exception as error:
                    problems.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    with Client(server.url, model="books") as client:
        for k in (3, 4):
            serving = json.loads((folder / "serving.json").read_text()) | {"k": k}
            (folder / "serving.json").write_text(json.dumps(serving))
            assert client.reload("books")["k"] == k
        assert [model["name"] for model in client.models()] == ["shop", "books"]
        assert len(client.recommend([[]])[0].items) == 4
    stop.set()
    for thread in threads:
        thread.join()
    assert not problems
    assert answered
    assert set(answered) == {3}


def test_servers_that_share_a_store_follow_one_another(
    start: Callable[..., Running], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.serving.app.FOLLOW_SECONDS", 0.05)
    one, other = start(), start()
    with Client(one.url) as first, Client(other.url) as second:
        first.remove_items([ids[0]])
        while second.versions()[-1]["number"] < 1:
            time.sleep(0.02)
        assert second.items([ids[0]]) == []
        assert second.versions()[-1]["hash"] == first.versions()[-1]["hash"]


def test_no_change_is_refused_or_lost_while_the_bundle_is_swapped(start: Callable[..., Running], ids: list[str]) -> None:
    server = start()
    stop, versions = threading.Event(), []

    def change() -> None:
        with Client(server.url) as client:
            while not stop.is_set():
                price = len(versions) + 0.5
                versions.append(client.add_items([{"item_id": ids[0], "price": price}], replace=True))

    thread = threading.Thread(target=change)
    thread.start()
    with Client(server.url) as client:
        for _ in range(6):
            client.reload("shop")
        stop.set()
        thread.join()
        assert versions == list(range(1, len(versions) + 1))
        assert len(versions) > 6
        assert client.items([ids[0]])[0]["price"] == len(versions) - 0.5


def test_servers_that_change_one_catalogue_at_once_lose_nothing(
    start: Callable[..., Running], ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genrec.serving.app.FOLLOW_SECONDS", 1000)
    servers = [start(), start()]
    versions: list[int] = []
    refused: list[int] = []

    def remove(server: Running, item_ids: list[str]) -> None:
        with Client(server.url) as client:
            for item_id in item_ids:
                while True:
                    try:
                        versions.append(client.remove_items([item_id]))
                        break
                    except ServerError as error:  # the other was faster, several times in a row
                        refused.append(error.status)

    threads = [
        threading.Thread(target=remove, args=(server, ids[n : n + 15])) for n, server in zip((0, 15), servers, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(1, 31))
    assert set(refused) <= {409}
    for server in servers:
        with Client(server.url) as client:
            client.add_items([{"item_id": ids[0], "title": "Back again"}])  # catches up with all before it
            assert [item["title"] for item in client.items([ids[0]])] == ["Back again"]
            client.remove_items([ids[0]])
            assert [item["item_id"] for item in client.items(ids[:31])] == [ids[30]]


def test_metrics_count_what_happened(start: Callable[..., Running], ids: list[str]) -> None:
    server = start()
    with Client(server.url) as client:
        client.recommend([ids[:2], []], k=3, where="price < 15")
        client.recommend([ids[:2]], k=1, where="price < 15")
        client.send_events([{"user_id": "u", "item_id": ids[0]}])
        client.remove_items([ids[5]])
    text = httpx.get(f"{server.url}/metrics").text
    for line in (
        'genrec_requests_total{route="/v1/recommendations",status="200"} 2.0',
        'genrec_batch_size_count{model="shop"} 2.0',
        'genrec_returned_items_total{model="shop"} 7.0',
        'genrec_rules_total{cache="miss",model="shop"} 1.0',
        'genrec_rules_total{cache="hit",model="shop"} 1.0',
        'genrec_catalogue_version{model="shop"} 1.0',
        'genrec_catalogue_items{model="shop"} 79.0',
        'genrec_events_total{model="shop"} 1.0',
        'genrec_stage_seconds_count{model="shop",stage="search"} 2.0',
    ):
        assert line in text
    assert "u1" not in text


def test_the_log_says_what_happened_and_to_nobody(server: Running, ids: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "genrec.access"), Client(server.url) as client:
        client.send_events([{"user_id": "secret-person", "item_id": ids[3]}])
        client.recommend(user_ids=["secret-person"], k=1)
        client.forget_user("secret-person")
        while sum(record.name == "genrec.access" for record in caplog.records) < 3:  # written after the answer went out
            time.sleep(0.01)
    lines = [json.loads(record.message) for record in caplog.records if record.name == "genrec.access"]
    assert [line["route"] for line in lines] == ["/v1/events", "/v1/recommendations", "/v1/events"]
    assert all(line["status"] < 300 and line["ms"] > 0 for line in lines)
    assert "secret-person" not in caplog.text
    assert ids[3] not in caplog.text


@pytest.mark.anyio
async def test_the_async_client_does_the_same(server: Running, client: Client, ids: list[str]) -> None:
    async with AsyncClient(server.url) as other:
        assert await other.recommend([ids[:2]], k=3) == client.recommend([ids[:2]], k=3)
        assert await other.send_events([{"user_id": "x", "item_id": ids[0]}]) == 1
        with pytest.raises(ServerError, match="nope"):
            await other.recommend([["nope"]])
    client.forget_user("x")


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
