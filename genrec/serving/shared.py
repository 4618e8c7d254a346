"""What the routes of the HTTP API share."""

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from typing import Any

import numpy as np
from fastapi import HTTPException

from genrec.decoding.live import CatalogueVersion
from genrec.errors import UnknownItemError
from genrec.serving.metrics import Metrics
from genrec.serving.models import Models
from genrec.serving.security import Gate
from genrec.serving.store import Store


class Server:
    """timeout: seconds that a search may take with its waiting."""

    def __init__(self, models: Models, store: Store, gate: Gate, metrics: Metrics, timeout: float) -> None:
        self.models, self.store, self.gate, self.metrics, self.timeout = models, store, gate, metrics, timeout
        self.draining = threading.Event()


async def in_time(server: Server, work: Awaitable[Any]) -> Any:
    """What `work` gives, or 504 where that takes longer than the server's timeout."""
    try:
        return await asyncio.wait_for(work, server.timeout)
    except TimeoutError:
        raise HTTPException(504, f"There was no answer within {server.timeout:g} s.") from None


def check_known(name: str, item_ids: Sequence[str], version: CatalogueVersion) -> None:
    """Raises `UnknownItemError` where one is not, and never was, in the catalogue."""
    known = version.rows(item_ids) >= 0
    if not known.all():
        strange = next(item_id for item_id, is_known in zip(item_ids, known, strict=True) if not is_known)
        raise UnknownItemError(f"{name}: {int((~known).sum())} items are not in the catalogue, for example {strange!r}.")


def plain(fields: dict[str, Any]) -> dict[str, Any]:
    """Values that JSON has: no NaN, no infinity, bytes as text."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and not np.isfinite(value):
            return None
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        if isinstance(value, list):
            return [plain(part) for part in value]
        if isinstance(value, dict):
            return {name: plain(part) for name, part in value.items()}
        return value

    return {name: plain(value) for name, value in fields.items()}
