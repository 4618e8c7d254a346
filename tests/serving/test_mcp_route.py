"""/mcp of a real server with the SDK's own, unmodified client: both eras of the protocol, keys, several models, no log."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from mcp import Client as Assistant
from mcp.client.streamable_http import streamable_http_client
from servers import Running

from genrec.bundle import read_bundle
from genrec.serving.client import Client
from genrec.serving.security import make_key

PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
ASKS = {"Accept": "application/json, text/event-stream"}


def assistant(url: str, talk: Callable[[Assistant], Awaitable[Any]], key: str = "", mode: str = "auto") -> Any:
    """What `talk` gives, with a client of `url`."""

    async def connected() -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Assistant(streamable_http_client(url, http_client=http), mode=mode) as client,
        ):
            return await talk(client)

    return anyio.run(connected)


async def recommend(client: Assistant) -> dict[str, Any]:
    return (await client.call_tool("recommend", {"wish": "under $40"})).structured_content


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_mcp_client_holds_a_conversation_with_the_server(server: Running, bundle: Path, mode: str) -> None:
    rows = {row["item_id"]: row for row in read_bundle(bundle).catalogue.table.to_pylist()}

    async def talk(client: Assistant) -> None:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["recommend", "refine", "explain", "compare"]
        wish = {"wish": "under $60, not Lumen", "history": [next(iter(rows))]}
        first = (await client.call_tool("recommend", wish)).structured_content
        found = [rows[item["item_id"]] for item in first["items"]]
        assert found
        assert all(row["price"] < 60 and row["brand"] != "Lumen" for row in found)
        named = {"conversation": first["conversation"]}
        second = (await client.call_tool("refine", named | {"wish": "not the second"})).structured_content
        assert found[1]["item_id"] not in {item["item_id"] for item in second["items"]}
        assert len(second["items"]) > 1
        assert len(second["rules"]) == 2
        why = (await client.call_tool("explain", named | {"item": "#1"})).structured_content
        assert why["codes"][0]["code"].startswith("<c0_")
        assert len(why["history"]) == 1
        both = await client.call_tool("compare", named | {"items": ["#1", found[1]["title"]]})
        assert {item["item_id"] for item in both.structured_content["items"]} == {
            second["items"][0]["item_id"], found[1]["item_id"],
        }  # fmt: skip
        wrong = await client.call_tool("recommend", {"wish": 3})
        assert wrong.is_error
        assert "type string, got int" in wrong.content[0].text

    assistant(f"{server.url}/mcp", talk, mode=mode)


def test_more_calls_at_once_than_the_server_has_threads_are_all_answered(server: Running) -> None:
    wish = {"name": "recommend", "arguments": {"wish": "under $40"}}
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": wish}

    async def ask_all() -> list[int]:
        async with httpx.AsyncClient(timeout=300, limits=httpx.Limits(max_connections=60)) as http:
            calls = [http.post(f"{server.url}/mcp", json=asked, headers=ASKS) for _ in range(60)]
            answers = await asyncio.gather(*calls)
            return [len(answer.json()["result"]["structuredContent"]["items"]) for answer in answers]

    assert asyncio.run(ask_all()) == [5] * 60, "each waits for a search, which needs a thread too"


def test_keys_scopes_and_rates_hold_and_a_conversation_is_its_keys_alone(start: Callable[..., Running], tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    anna, bert = make_key(keys, "anna"), make_key(keys, "bert")
    writer, slow = make_key(keys, "writer", ("events",)), make_key(keys, "slow", rate=0.001)
    server = start(keys=keys)

    def post(key: str) -> int:
        headers = ASKS | ({"Authorization": f"Bearer {key}"} if key else {})
        return httpx.post(f"{server.url}/mcp", json=PING, headers=headers).status_code

    assert [post(key) for key in ("", "gr-wrong", writer, anna, slow, slow)] == [401, 401, 403, 200, 200, 429]
    named = assistant(f"{server.url}/mcp", recommend, anna)["conversation"]

    async def refine(client: Assistant) -> Any:
        return await client.call_tool("refine", {"conversation": named, "wish": "not Lumen"})

    assert assistant(f"{server.url}/mcp", refine, anna).structured_content["rules"] == ["price: below 40", "brand: not Lumen"]
    stranger = assistant(f"{server.url}/mcp", refine, bert)
    assert stranger.is_error
    assert "no conversation" in stranger.content[0].text


def test_several_models_are_named_in_the_path(start: Callable[..., Running], bundle: Path) -> None:
    server = start(bundles={"one": bundle, "two": bundle})
    assert httpx.post(f"{server.url}/mcp", json=PING, headers=ASKS).status_code == 404
    assert httpx.post(f"{server.url}/mcp/three", json=PING, headers=ASKS).status_code == 404
    assert assistant(f"{server.url}/mcp/two", recommend)["items"]


def test_strangers_pages_large_bodies_and_odd_requests_are_refused(start: Callable[..., Running]) -> None:
    server = start(most_bytes=20_000)
    url = f"{server.url}/mcp"
    assert httpx.post(url, json=PING, headers=ASKS | {"Origin": "http://evil.example"}).status_code == 403
    assert httpx.post(url, json=PING, headers=ASKS | {"Host": "evil.example"}).status_code == 421
    assert httpx.post(url, json=PING | {"params": {"x": "y" * 30_000}}, headers=ASKS).status_code == 413
    assert httpx.post(url, content=b"{", headers=ASKS | {"Content-Type": "application/json"}).status_code == 400
    with Client(server.url) as client:
        counted = client.metrics() if hasattr(client, "metrics") else httpx.get(f"{server.url}/metrics").text
    assert 'route="/mcp"' in counted


def test_nothing_that_is_wished_is_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    async def talk(client: Assistant) -> None:
        first = (await client.call_tool("recommend", {"wish": "my secret rash, under $20"})).structured_content
        await client.call_tool("refine", {"conversation": first["conversation"], "wish": "secret two"})
        await client.call_tool("recommend", {"secret": "x"})
        caplog.titles = [item["title"] for item in first["items"]]

    with caplog.at_level(logging.DEBUG):
        assistant(f"{server.url}/mcp", talk)
    logged = "".join(record.getMessage() for record in caplog.records if not record.name.startswith(("mcp.client", "client")))
    assert '"route": "/mcp"' in logged
    for word in ("secret", *caplog.titles):
        assert word not in logged
