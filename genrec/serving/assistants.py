"""`/mcp`: the tools for assistants over HTTP, behind the same API keys and limits as every route.

In: MCP's streamable HTTP, stateless: each POST stands alone, and a conversation is found by its name and the API key. Out: the
answers of `mcp_server.py`, searched by the server's engines. `/mcp` is the only model's, `/mcp/NAME` that of one
among several.
"""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from genrec.chat.tools import Toolbox
from genrec.errors import GenrecError
from genrec.recommender import Prepared, Recommendation
from genrec.recommender import Request as Rules
from genrec.serving.engine import ClosedError
from genrec.serving.mcp_server import make_server
from genrec.serving.models import ServedModel
from genrec.serving.security import TooFastError
from genrec.serving.shared import Server
from genrec.serving.store import Store

PATH = "/mcp"
Search = Callable[[Server, ServedModel, Prepared, bool], Coroutine[Any, Any, list[list[Recommendation]]]]


class StoredSessions:
    """Conversations of one API key about one model, in the server's store."""

    def __init__(self, store: Store, model: str, key: str) -> None:
        self.store, self.model, self.key = store, model, key

    def _digest(self, name: str) -> str:
        return hashlib.sha256(json.dumps([self.key, None, ["tool", name]]).encode()).hexdigest()

    def get(self, name: str) -> str | None:
        return self.store.session(self.model, self._digest(name))

    def put(self, name: str, state: str) -> None:
        self.store.save_session(self.model, self._digest(name), state)


class Assistants:
    """The ASGI app behind the route. Run it (`running`) before the first request."""

    def __init__(self, server: Server, search: Search, most_bytes: int) -> None:
        self.server, self.search = server, search
        self.loop: asyncio.AbstractEventLoop | None = None  # that of the server, while it runs
        # `hosts.py` looks at Host and Origin of every route, this one too; with keys a stranger's page has none.
        security = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        self.manager = StreamableHTTPSessionManager(
            make_server(self.toolbox), json_response=True, stateless=True, security_settings=security,
            max_request_body_size=most_bytes,
        )  # fmt: skip

    def routes(self) -> list[Route]:
        return [Route(PATH, self), Route(PATH + "/{model}", self)]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with self.manager.run():
            self.loop = asyncio.get_running_loop()
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a key in, and hand the request on. Raises `DeniedError`, `TooFastError`, `UnknownModelError`."""
        name = scope["path_params"].get("model")
        scope["route"] = Route(PATH if name is None else PATH + "/{model}", self)  # what logs and metrics call it
        state = scope.setdefault("state", {})
        authorization = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1") or None
        try:
            state["key"] = self.server.gate.enter(authorization, "recommend")
        except TooFastError as error:
            state["key"] = error.name
            raise
        if self.loop is None:
            raise HTTPException(404, "vLLM's own server has no /mcp. `genrec serve --engine vllm` has.")
        self.server.models.get(name)
        await self.manager.handle_request(scope, receive, send)

    def toolbox(self, request: Request) -> Toolbox:
        """The tools of the request's model and key."""
        model = self.server.models.get(request.path_params.get("model"))
        loop = self.loop
        assert loop is not None, "requests come after `running`"
        sessions = StoredSessions(self.server.store, model.name, request.state.key)

        def search(history: Sequence[str], rules: Rules) -> list[Recommendation]:
            """In the server's event loop; this is one of its worker threads."""
            for attempt in (1, 2):
                now = self.server.models.get(model.name)
                try:
                    prepared = now.recommender.prepare([history], rules)
                    found = self.search(self.server, now, prepared, True)
                    return asyncio.run_coroutine_threadsafe(found, loop).result()[0]
                except ClosedError:
                    if attempt == 2 or self.server.draining.is_set():
                        raise  # else the model was swapped between two lines: ask the new one
                except HTTPException as error:
                    raise SearchError(str(error.detail)) from None
            raise AssertionError("a search answers or raises")

        return Toolbox(model.recommender, sessions, search, vectors=False)


class SearchError(GenrecError):
    """There was no answer in time."""
