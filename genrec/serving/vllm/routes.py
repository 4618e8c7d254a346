"""genrec's API inside stock vLLM's own server: an endpoint plugin that vLLM loads by entry point, where VLLM_PLUGINS names it.

In: vLLM's server around a bundle (serving/vllm.sh starts one). Out: all routes of `genrec serve` beside vLLM's; of paths that
both have (/metrics, /v1/models) vLLM's come first, and genrec's counts are in its /metrics. Settings are environment variables,
because vLLM's command line takes none: GENREC_STORE (database URL), GENREC_KEYS (key file).
"""

import asyncio
import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import REGISTRY
from starlette.datastructures import State
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from genrec.errors import SettingError
from genrec.recommender import Recommender
from genrec.serving.app import follow
from genrec.serving.engine import Engine
from genrec.serving.security import DeniedError, Gate, TooFastError
from genrec.serving.server import ServerSettings, build_app
from genrec.serving.vllm.engine import VllmEngine

OWN = ("/v1/recommendations", "/v1/events", "/v1/catalog")  # genrec's: they ask for the scope that each needs
OPEN = ("/", "/health", "/healthz", "/readyz", "/ping")
PAGE = "/page."  # the files of the web page at /, which hold nothing of the catalogue


class GateMiddleware:
    """vLLM's own routes know no keys: with a key file they ask for one of scope "recommend"."""

    def __init__(self, app: ASGIApp, routes: "Routes") -> None:
        self.app, self.routes = app, routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gate, path = self.routes.gate, scope.get("path", "")
        if scope["type"] == "http" and gate is not None and not path.startswith((*OWN, PAGE)) and path not in OPEN:
            headers = dict(scope["headers"])
            try:
                gate.enter(headers.get(b"authorization", b"").decode("latin-1") or None, "recommend")
            except (DeniedError, TooFastError) as error:
                problem = {"error": {"type": type(error).__name__, "message": str(error)}}
                await JSONResponse(problem, 401 if isinstance(error, DeniedError) else 429)(scope, receive, send)
                return
        await self.app(scope, receive, send)


class Routes:
    """vLLM's `EndpointPlugin`."""

    name = "genrec"
    app: FastAPI
    gate: Gate | None
    required_tasks = ("token_embed",)

    def attach_router(self, app: FastAPI) -> None:
        self.app, self.gate = app, None
        app.add_middleware(GateMiddleware, routes=self)

    async def init_state(self, engine_client: Any, state: State, args: Namespace) -> None:
        """The engine runs: load the catalogue and answer. Raises `SettingError` where everybody would be let in."""
        loop = asyncio.get_running_loop()
        loaded = 0

        def attach(name: str, recommender: Recommender) -> Engine:
            nonlocal loaded
            loaded += 1
            if loaded > 1:
                raise SettingError("vLLM's own server holds one bundle from start to end. Start it again, or use genrec serve.")
            return VllmEngine.attach(engine_client, loop)

        name = (args.served_model_name or [Path(args.model).resolve().name])[0]
        keys = os.environ.get("GENREC_KEYS")
        settings = ServerSettings(
            {name: Path(args.model)},
            os.environ.get("GENREC_STORE", ServerSettings.store),
            None if keys is None else Path(keys),
            # With --api-key vLLM itself lets nobody in without it.
            "127.0.0.1" if args.api_key else args.host or "0.0.0.0",
            engine="vllm",
            allow_hosts=("*",) if args.api_key else (),
        )
        app = await asyncio.to_thread(build_app, settings, attach, REGISTRY)
        self.gate = app.state.server.gate
        self.app.mount("/", app)
        self.following = asyncio.create_task(follow(app.state.server))
