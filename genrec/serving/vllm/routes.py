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

from genrec.errors import SettingError
from genrec.recommender import Recommender
from genrec.serving.app import follow
from genrec.serving.engine import Engine
from genrec.serving.server import ServerSettings, build_app
from genrec.serving.vllm.engine import VllmEngine


class Routes:
    """vLLM's `EndpointPlugin`."""

    name = "genrec"
    required_tasks = ("token_embed",)

    def attach_router(self, app: FastAPI) -> None:
        self.app = app

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
        )
        app = await asyncio.to_thread(build_app, settings, attach, REGISTRY)
        self.app.mount("/", app)
        self.following = asyncio.create_task(follow(app.state.server))
