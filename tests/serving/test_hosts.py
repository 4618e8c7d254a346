"""Without API keys no web page can ask the server: not by a name of its own that it points at loopback, nor across sites."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from servers import Running

from genrec.errors import SettingError
from genrec.serving.security import make_key
from genrec.serving.server import ServerSettings

ROUTES = (
    "/",
    "/page.js",
    "/v1/models",
    "/v1/catalog/items",
    "/docs",
    "/openapi.json",
    "/healthz",
    "/metrics",
    "/mcp",
    "/nothing",
)


def ask(server: Running, path: str = "/v1/models", **headers: str) -> httpx.Response:
    return httpx.get(server.url + path, headers=headers)


@pytest.mark.parametrize("path", ROUTES)
def test_a_page_whose_name_was_pointed_here_gets_nothing(server: Running, path: str) -> None:
    for name in ("evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "notlocalhost", ""):
        answer = ask(server, path, Host=name)
        assert answer.status_code == 421, name
        assert answer.json()["error"]["type"] == "HostError"
    assert "--allow-host evil.example" in ask(server, path, Host="evil.example:1").json()["error"]["message"]


@pytest.mark.parametrize(
    "name", ["localhost", "LOCALHOST:9", "localhost.", "127.0.0.1:80", "[::1]:8000", "[::1]", "192.168.1.5:8000"]
)
def test_localhost_and_addresses_are_answered(server: Running, name: str) -> None:
    assert ask(server, Host=name).status_code == 200


def test_what_pages_of_other_sites_send_is_refused(server: Running) -> None:
    body = {"events": [{"user_id": "u", "item_id": "none"}]}
    for origin in (
        "http://evil.example",
        "https://evil.example:8000",
        "http://203.0.113.7",
        "null",
        "file://",
        "http://[",
        "http://[x]",
    ):
        answer = httpx.post(server.url + "/v1/events", json=body, headers={"Origin": origin})
        assert (answer.status_code, answer.json()["error"]["type"]) == (403, "OriginError"), origin
    for origin in (server.url, "http://localhost:3000", "http://[::1]:1"):
        assert ask(server, Origin=origin).status_code == 200, origin
    assert ask(server, Host="192.168.1.5:8000", Origin="http://192.168.1.5:8000").status_code == 200, "a page of its own"


def test_names_can_be_allowed_and_keys_stand_in_for_names(start: Callable[..., Running], tmp_path: Path) -> None:
    named = start(allow_hosts=("Genrec.local",))
    assert ask(named, Host="genrec.local:8000", Origin="http://genrec.local:8000").status_code == 200
    assert ask(named, Host="evil.example").status_code == 421
    assert ask(start(allow_hosts=("*",)), Host="evil.example").status_code == 200
    secret = make_key(tmp_path / "keys.json", "web")
    keyed = start(keys=tmp_path / "keys.json")
    assert ask(keyed, Host="shop.example").status_code == 401
    assert ask(keyed, Host="shop.example", Authorization=f"Bearer {secret}").status_code == 200


def test_names_beyond_ascii_are_allowed_as_browsers_send_them(start: Callable[..., Running]) -> None:
    named = start(allow_hosts=("Bücher.example",))
    assert ask(named, Host="xn--bcher-kva.example:8000", Origin="http://xn--bcher-kva.example:8000").status_code == 200
    assert ask(named, Host="bucher.example").status_code == 421
    with pytest.raises(SettingError, match="begins with xn--"):
        ServerSettings({}, allow_hosts=("straße.example",))  # not strasse.example, which may be a stranger's


def test_one_name_without_a_list_is_told_at_the_start() -> None:
    settings: dict[str, Any] = {"allow_hosts": "genrec.local"}
    with pytest.raises(SettingError, match="several names"):
        ServerSettings({}, **settings)


@pytest.mark.parametrize("name", ["http://genrec.local", "genrec.local:8000", "", "a b", "*.local"])
def test_what_is_no_name_is_told_at_the_start(name: str) -> None:
    settings: dict[str, Any] = {"allow_hosts": (name,)}
    with pytest.raises(SettingError, match="without scheme and port"):
        ServerSettings({}, **settings)
