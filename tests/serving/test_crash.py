"""Killed at any moment, a server comes back with all that it acknowledged; told to stop, it answers what is under way first."""

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable

import httpx
import pytest
from servers import Process

from genrec.serving.client import Client, ServerError


def test_kill_9_during_events_and_changes_loses_nothing_acknowledged(
    launch: Callable[..., Process], ids: list[str], url: str
) -> None:
    chance = random.Random(1)
    sent, price, there, gone = 0, 0.0, set(), set()
    for turn in range(4):
        server = launch("--store", url)
        with Client(server.url) as client:
            [fields] = client.items([ids[10 + turn]])
        killer = threading.Timer(chance.uniform(0.05, 0.6), server.process.send_signal, [signal.SIGKILL])
        if turn < 3:  # the last time not before an event is written, however slow the machine
            killer.start()
        catalogue = f"{server.url}/v1/catalog/items"
        with contextlib.suppress(httpx.TransportError):
            new = {"items": [fields | {"item_id": f"new {turn}"}]}
            httpx.post(catalogue, json=new).raise_for_status()
            there.add(f"new {turn}")
            httpx.delete(catalogue, params={"item_id": ids[20 + turn]}).raise_for_status()
            gone.add(ids[20 + turn])
            while True:
                event = {"user_id": "u", "item_id": ids[0]}
                httpx.post(f"{server.url}/v1/events", json={"events": [event]}).raise_for_status()
                sent += 1
                if killer.ident is None:
                    killer.start()
                changed = {"items": [{"item_id": ids[1], "price": price + 1}], "replace": True}
                httpx.post(catalogue, json=changed).raise_for_status()
                price += 1
        server.process.wait()
    server = launch("--store", url)
    with Client(server.url) as client:
        assert {item["item_id"] for item in client.items(sorted(there))} == there
        assert client.items(sorted(gone)) == []
        assert client.items([ids[1]])[0]["price"] in (price, price + 1), "the last one, or one more that was not acknowledged"
        assert sent <= client.forget_user("u") <= sent + 4
        assert sent > 0


def taken(server: Process) -> int:
    """Histories that the server has begun to answer, by its own count."""
    lines = httpx.get(f"{server.url}/metrics", timeout=60).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("genrec_beam_width_count{"))


def test_told_to_stop_it_answers_what_is_under_way_and_takes_nothing_new(
    launch: Callable[..., Process], ids: list[str]
) -> None:
    server = launch()
    answers: list[int] = []
    errors: list[Exception] = []

    def ask() -> None:
        try:
            body = {"histories": [ids[:10]] * 200, "k": 20, "beam_width": 80, "explain": False}
            answers.append(httpx.post(f"{server.url}/v1/recommendations", json=body, timeout=60).status_code)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    while taken(server) < 600:  # all three were taken before the signal, on a slow machine too
        assert not errors
        time.sleep(0.01)
    server.process.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.join()
    assert server.process.wait(timeout=60) in (0, -signal.SIGTERM)
    assert not errors
    assert answers == [200] * 3
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/healthz")


def test_a_server_that_cannot_start_says_why(launch: Callable[..., Process]) -> None:
    for arguments, message in (
        (["--host", "0.0.0.0"], "without API keys would let everybody in"),
        (["--keys", "nowhere.json"], "There is no key file"),
        (["--filter", "cheap=pric < 5"], "Did you mean 'price'"),
        (["--store", "nowhere"], "must be a database URL"),
        (["--port", "99999"], "port must be an integer from 0 to 65535"),
    ):
        with pytest.raises(AssertionError, match=message):
            launch(*arguments)


def test_errors_of_the_client_are_errors(launch: Callable[..., Process]) -> None:
    server = launch()
    with Client(server.url) as client, pytest.raises(ServerError, match="HTTP 422"):
        client.recommend([["nope"]])
    server.process.kill()
    server.process.wait()
    with Client(server.url) as client, pytest.raises(httpx.ConnectError):
        client.models()
