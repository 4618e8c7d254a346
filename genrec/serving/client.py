"""A small typed client of the HTTP API, sync and async.

    with Client("http://localhost:8000", key="gr-...") as client:
        client.send_events([{"user_id": "u1", "item_id": "B001"}])
        [answer] = client.recommend(user_ids=["u1"], k=10, where="price < 20")
        answer.items[0].item_id, answer.items[0].fields["title"]

    async with AsyncClient("http://localhost:8000") as client:
        [answer] = await client.recommend([["B001"]])

Both raise `ServerError` with what the server said. Requests that did not get through (no connection, 429, 503) are sent again a
few times, after the pause that the server asks for; events carry an id, so that none counts twice.
"""

import asyncio
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import httpx

from genrec.errors import GenrecError

AGAIN = (429, 503)  # the server was full or starting: nothing was done
TRIES = 4
LONGEST_PAUSE = 30.0  # seconds
IN_QUERY = 100  # ids asked for at once


class ServerError(GenrecError):
    """What the server said. status: of HTTP; kind: the error's type, such as "UnknownItemError"."""

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(f"{message} ({kind}, HTTP {status})")
        self.status, self.kind = status, kind


@dataclass(frozen=True)
class Recommended:
    """One item. explanation: see `genrec.decoding.explain.Explanation`, as a dict."""

    item_id: str
    rank: int
    score: float
    fields: dict[str, Any]
    explanation: dict[str, Any] | None = None


@dataclass(frozen=True)
class Answer:
    """What one history got. version: number of the catalogue's version that it was answered from."""

    items: list[Recommended]
    version: int
    user_id: str | None = None


@dataclass(frozen=True)
class _Call:
    """One request: what is sent, however it is sent."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    query: dict[str, Any] | None = None
    twice: bool = False  # whether sending it twice does no harm

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """After which it is sent again: no connection at all; else only if it may have got through and that does no harm."""
        return (httpx.ConnectError, httpx.TransportError) if self.twice else (httpx.ConnectError,)


def _recommend(model: str | None, histories: Any, user_ids: Any, rules: dict[str, Any]) -> _Call:
    body: dict[str, Any] = {"model": model, **rules}
    if histories is not None:
        body["histories"] = [list(history) for history in histories]
    if user_ids is not None:
        body["user_ids"] = list(user_ids)
    if rules.get("max_per_prefix"):
        body["max_per_prefix"] = {str(length): most for length, most in rules["max_per_prefix"].items()}
    return _Call("POST", "/v1/recommendations", body, twice=True)


def _answers(data: dict[str, Any]) -> list[Answer]:
    version = data["catalogue"]["number"]
    return [
        Answer([Recommended(**item) for item in answer["items"]], version, answer.get("user_id")) for answer in data["answers"]
    ]


def _events(model: str | None, events: Iterable[Mapping[str, Any]], unknown_items: str) -> _Call:
    named = [{"event_id": uuid.uuid4().hex, **event} for event in events]
    return _Call("POST", "/v1/events", {"model": model, "events": named, "unknown_items": unknown_items}, twice=True)


def _items(model: str | None, items: Sequence[Mapping[str, Any]], replace: bool) -> _Call:
    return _Call("POST", "/v1/catalog/items", {"model": model, "items": [dict(item) for item in items], "replace": replace})


def _remove(model: str | None, item_ids: Sequence[str]) -> _Call:
    return _Call("POST", "/v1/catalog/items/remove", {"model": model, "item_ids": list(item_ids)})


def _given(**query: Any) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}


def _read(response: httpx.Response) -> Any:
    if response.is_success:
        return response.json()
    try:
        error = response.json()["error"]
        raise ServerError(response.status_code, error["type"], error["message"])
    except (ValueError, KeyError, TypeError):
        raise ServerError(response.status_code, "HTTPError", response.text[:200]) from None


def _pause(response: httpx.Response | None, attempt: int) -> float:
    asked = None if response is None else response.headers.get("Retry-After")
    return min(float(asked), LONGEST_PAUSE) if asked and asked.isdecimal() else 0.1 * 2**attempt


class Client:
    """model: whose answers, where the server has several."""

    def __init__(self, url: str, key: str | None = None, model: str | None = None, timeout: float = 60.0) -> None:
        self.model = model
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=_headers(key))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def recommend(
        self, histories: Iterable[Sequence[str]] | None = None, *, user_ids: Iterable[str] | None = None, **rules: Any
    ) -> list[Answer]:
        """One answer per history, or per user id. rules: k, where, max_per, explain and the others of the API."""
        return _answers(self._send(_recommend(self.model, histories, user_ids, rules)))

    def send_events(self, events: Iterable[Mapping[str, Any]], unknown_items: str = "raise") -> int:
        """Events as dicts with user_id, item_id and, if known, timestamp and event_id. Returns how many were new."""
        return self._send(_events(self.model, events, unknown_items))["new"]

    def forget_user(self, user_id: str) -> int:
        """Delete all events of a user. Returns how many there were."""
        return self._send(_Call("DELETE", "/v1/events", query=_given(model=self.model, user_id=user_id)))["deleted"]

    def items(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Fields of items; those that cannot be found are left out."""
        found = []
        for start in range(0, len(item_ids), IN_QUERY):
            query = _given(model=self.model, item_id=list(item_ids[start : start + IN_QUERY]))
            found += self._send(_Call("GET", "/v1/catalog/items", query=query, twice=True))["items"]
        return found

    def add_items(self, items: Sequence[Mapping[str, Any]], *, replace: bool = False) -> int:
        """Returns the number of the version that has them."""
        return self._send(_items(self.model, items, replace))["number"]

    def remove_items(self, item_ids: Sequence[str]) -> int:
        """Returns the number of the version without them."""
        return self._send(_remove(self.model, item_ids))["number"]

    def versions(self) -> list[dict[str, Any]]:
        """Versions of the catalogue that can be rolled back to, the current one last."""
        return self._send(_Call("GET", "/v1/catalog/versions", query=_given(model=self.model)))

    def rollback(self, to: int) -> int:
        """Returns the number of the new version, which has the content of version `to`."""
        return self._send(_Call("POST", "/v1/catalog/versions/rollback", {"model": self.model, "to": to}))["number"]

    def models(self) -> list[dict[str, Any]]:
        return self._send(_Call("GET", "/v1/models"))

    def reload(self, name: str) -> dict[str, Any]:
        """Swap in what the model's folder holds now."""
        return self._send(_Call("POST", f"/v1/models/{name}/reload"))

    def _send(self, call: _Call) -> Any:
        for attempt in range(TRIES):
            try:
                response = self._http.request(call.method, call.path, json=call.body, params=call.query)
            except call.errors:
                if attempt + 1 == TRIES:
                    raise
                response = None
            if response is not None and (response.status_code not in AGAIN or attempt + 1 == TRIES):
                return _read(response)
            time.sleep(_pause(response, attempt))
        raise AssertionError("the last try returns or raises")


class AsyncClient:
    """The same for asyncio: recommend, send_events."""

    def __init__(self, url: str, key: str | None = None, model: str | None = None, timeout: float = 60.0) -> None:
        self.model = model
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=_headers(key))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def recommend(
        self, histories: Iterable[Sequence[str]] | None = None, *, user_ids: Iterable[str] | None = None, **rules: Any
    ) -> list[Answer]:
        """As `Client.recommend`."""
        return _answers(await self._send(_recommend(self.model, histories, user_ids, rules)))

    async def send_events(self, events: Iterable[Mapping[str, Any]], unknown_items: str = "raise") -> int:
        """As `Client.send_events`."""
        return (await self._send(_events(self.model, events, unknown_items)))["new"]

    async def add_items(self, items: Sequence[Mapping[str, Any]], *, replace: bool = False) -> int:
        """As `Client.add_items`."""
        return (await self._send(_items(self.model, items, replace)))["number"]

    async def remove_items(self, item_ids: Sequence[str]) -> int:
        """As `Client.remove_items`."""
        return (await self._send(_remove(self.model, item_ids)))["number"]

    async def _send(self, call: _Call) -> Any:
        for attempt in range(TRIES):
            try:
                response = await self._http.request(call.method, call.path, json=call.body, params=call.query)
            except call.errors:
                if attempt + 1 == TRIES:
                    raise
                response = None
            if response is not None and (response.status_code not in AGAIN or attempt + 1 == TRIES):
                return _read(response)
            await asyncio.sleep(_pause(response, attempt))
        raise AssertionError("the last try returns or raises")


def _headers(key: str | None) -> dict[str, str]:
    return {} if key is None else {"Authorization": f"Bearer {key}"}
