"""genrec behind Ray Serve: the same API and engines as `genrec serve`, in replicas on many machines, scaled by Ray.

    serve run genrec.serving.ray:application bundle=runs/shop store=postgresql+psycopg://db/genrec keys=keys.json

A replica is a whole server of its own: bundle, engine, API. What replicas share is the store, so events are read by the next
request wherever it lands, and a change of the catalogue is everywhere within two seconds. Bundles and keys must be readable
under the same path on every machine; on more than one machine the store is PostgreSQL.
"""

from pathlib import Path
from typing import Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, field_validator
from ray import serve
from ray.serve import Deployment

from genrec.serving.engine import ClosedError
from genrec.serving.server import ServerSettings, build_app


class ReplicaSettings(BaseModel):
    """What `serve run` and a Serve config file may say; see `ServerSettings`."""

    model_config = ConfigDict(extra="forbid")

    bundle: str | None = Field(None, description="One bundle's folder; the model is named after it.")
    bundles: dict[str, str] = Field({}, description="Several: model name -> folder.")
    store: str = Field(ServerSettings.store, description="Database URL.")
    keys: str | None = Field(None, description="Key file. Without one everybody who reaches Ray's proxy may ask.")
    engine: str = ServerSettings.engine
    device: str | None = None
    batch: int = ServerSettings.batch
    most_waiting: int = ServerSettings.most_waiting
    timeout: float = ServerSettings.timeout
    most_bytes: int = ServerSettings.most_bytes
    filters: dict[str, str] = {}
    allow_hosts: tuple[str, ...] = Field(
        (), description="Names answered to without keys, beside localhost and addresses; * is any."
    )
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(4, ge=1)
    requests_per_replica: int = Field(16, ge=1, description="Under way on average; above it Ray starts another replica.")

    @field_validator("allow_hosts", mode="before")
    @classmethod
    def _split(cls, names: Any) -> Any:
        """On the command line: allow_hosts=shop.local,shop.example"""
        return [name.strip() for name in names.split(",")] if isinstance(names, str) else names

    def server(self) -> ServerSettings:
        folders = {name: Path(folder) for name, folder in self.bundles.items()}
        if self.bundle is not None:
            folders[Path(self.bundle).resolve().name] = Path(self.bundle)
        shared = self.model_dump(exclude={"bundle", "bundles", "keys", "min_replicas", "max_replicas", "requests_per_replica"})
        return ServerSettings(folders, keys=None if self.keys is None else Path(self.keys), **shared)


@serve.deployment(name="genrec", ray_actor_options={"num_cpus": 1})
@serve.ingress()
class Replica:
    """One server. Ray asks `check_health` now and then, and puts another replica in the place of one that keeps raising."""

    def __init__(self, settings: ServerSettings) -> None:
        self.server = build_app(settings)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self.server

    def check_health(self) -> None:
        for model in self.server.state.server.models:
            if not model.engine.ready:
                raise ClosedError(f"The engine of {model.name} is not ready.")


def application(settings: ReplicaSettings) -> Any:
    """A Ray Serve application. A config file's `deployments` part overrides what is said here about replicas."""
    wanted = settings.server()  # a mistake is told here, before anything is started
    replicas = cast(Deployment, Replica).options(
        autoscaling_config={
            "min_replicas": settings.min_replicas,
            "max_replicas": settings.max_replicas,
            "target_ongoing_requests": settings.requests_per_replica,
        },
        max_ongoing_requests=256,  # a replica turns away what its engine cannot take, with 429; beyond this the proxy waits
        graceful_shutdown_timeout_s=wanted.drain,
    )
    return replicas.bind(wanted)
