"""`genrec serve`: settings in, a running server out.

    genrec serve runs/shop
    genrec serve shop=runs/shop books=runs/books --host 0.0.0.0 --keys keys.json --store postgresql+psycopg://db/genrec

Without a key file it listens on loopback only.
"""

import ipaddress
import logging
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from genrec.chat.speaker import Speaker
from genrec.errors import SettingError, check_choice, check_integer
from genrec.recommender import Recommender
from genrec.serving.app import make_app
from genrec.serving.engine import Engine, TorchEngine
from genrec.serving.hosts import check_hosts
from genrec.serving.metrics import Metrics
from genrec.serving.models import Models, ServedModel
from genrec.serving.security import Gate, read_keys
from genrec.serving.shared import Server
from genrec.serving.store import Store


@dataclass(frozen=True)
class ServerSettings:
    """bundles: model name -> folder. store: database URL. keys: key file (None: everybody may, on loopback). batch: histories
    searched together at most. most_waiting: histories that may wait; beyond it requests get 429. timeout: seconds for an
    answer. engine: "torch" searches in this process, "vllm" in vLLM's. most_bytes: of a request. drain: seconds that requests
    under way get when the server is told to stop. filters: rules prepared for every model, name -> `where`. voice: who speaks
    in the chat, a "template" or the bundle's own "model", which needs the engine "torch". allow_hosts: names that it answers to
    without keys, beside localhost and addresses ("*": any).
    """

    bundles: dict[str, Path]
    store: str = "sqlite:///serving.db"
    keys: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    device: str | None = None
    batch: int = 64
    most_waiting: int = 1024
    timeout: float = 30.0
    engine: Literal["torch", "vllm"] = "torch"
    most_bytes: int = 4 * 2**20
    drain: int = 30
    filters: dict[str, str] = field(default_factory=dict)
    voice: Literal["template", "model"] = "template"
    allow_hosts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_choice("engine", self.engine, ["torch", "vllm"])
        check_choice("voice", self.voice, ["template", "model"])
        check_integer("port", self.port, 0, 65_535)
        check_integer("most_bytes", self.most_bytes, 1)
        check_hosts(self.allow_hosts)
        if not self.timeout > 0:
            raise SettingError(f"timeout must be above 0 seconds, got {self.timeout}.")
        for name in self.bundles:
            if not re.fullmatch(r"[\w.-]{1,64}", name):
                raise SettingError(f"A model's name is of letters, digits, '.', '-' and '_', at most 64, got {name!r}.")
        if self.keys is None and not _is_loopback(self.host):
            raise SettingError(
                f"Listening on {self.host} without API keys would let everybody in. Make a key file "
                "(`genrec keys add keys.json NAME`) and pass --keys, or listen on 127.0.0.1."
            )


MakeEngine = Callable[[str, Recommender], Engine]


def build_app(
    settings: ServerSettings, make_engine: MakeEngine | None = None, registry: CollectorRegistry | None = None
) -> FastAPI:
    """The app with everything loaded. make_engine: what searches for a model (default: what the settings say). registry: where
    the metrics are counted (default: one of the app's own).
    """
    metrics = Metrics(registry)
    gate = Gate(None if settings.keys is None else read_keys(settings.keys))
    store = Store(settings.store)

    def usual(name: str, recommender: Recommender) -> Engine:
        if settings.engine == "vllm":
            from genrec.serving.vllm.engine import VllmEngine  # an extra of its own

            bundle = recommender.bundle
            return VllmEngine(bundle.folder, settings.batch, settings.most_waiting, bundle.hash)
        return TorchEngine(recommender.ranker, settings.batch, settings.most_waiting, partial(metrics.observe, name))

    def load(name: str, folder: Path) -> ServedModel:
        # A link is followed once: whoever points it elsewhere meanwhile changes nothing of what is being loaded.
        recommender = Recommender.load(folder.resolve(), settings.device, load_model=settings.engine == "torch")
        recommender.recent_rules.observe = partial(metrics.count_rule, name)
        for label, where in settings.filters.items():
            recommender.prepare_filter(label, where=where)
        speaker = Speaker(recommender) if settings.voice == "model" else None
        model = ServedModel(name, recommender, store, (make_engine or usual)(name, recommender), speaker)
        metrics.watch(
            name, lambda: model.engine.waiting, lambda: model.engine.ready, lambda: model.live.current.number,
            lambda: len(model.live.current),
        )  # fmt: skip
        return model

    models = Models(load, settings.bundles)
    return make_app(Server(models, store, gate, metrics, settings.timeout), settings.most_bytes, settings.allow_hosts)


def run(settings: ServerSettings) -> None:
    """Serve until SIGTERM or SIGINT; then take nothing new, answer what is under way, and stop."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access = logging.getLogger("genrec.access")
    access.addHandler(handler)
    access.setLevel(logging.INFO)
    access.propagate = False
    app = build_app(settings)
    config = uvicorn.Config(
        app, settings.host, settings.port, access_log=False, log_level="info", timeout_graceful_shutdown=settings.drain,
        server_header=False,
    )  # fmt: skip
    uvicorn.Server(config).run()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
