"""Around every request: a limit on its size, one line in the log, one count in the metrics.

The log line is JSON and says what was asked for and how it went, never who or what: no ids, no bodies, no query strings.
"""

import contextlib
import json
import logging
import time
from typing import Any

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genrec.serving.metrics import Metrics

access = logging.getLogger("genrec.access")


class _TooLargeError(Exception):
    pass


class LimitsMiddleware:
    """most_bytes: of a body, counted as it comes, whatever the header says."""

    def __init__(self, app: ASGIApp, most_bytes: int, metrics: Metrics) -> None:
        self.app, self.most_bytes, self.metrics = app, most_bytes, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status, size, refusing = time.perf_counter(), 500, 0, False

        async def counted() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > self.most_bytes:
                raise _TooLargeError  # the app makes a general 400 of it, which `noted` holds back
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if size > self.most_bytes and not refusing:
                return
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            with contextlib.suppress(_TooLargeError):
                await self.app(scope, counted, noted)
            if size > self.most_bytes:
                refusing = True
                problem = {"type": "TooLarge", "message": f"A request may have {self.most_bytes} bytes."}
                await JSONResponse({"error": problem}, 413, {"Connection": "close"})(scope, receive, noted)
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.latency.labels(route).observe(seconds)
            if route not in ("/healthz", "/readyz", "/metrics"):
                line: dict[str, Any] = {"route": route, "method": scope["method"], "status": status, "bytes": size}
                line |= {"ms": round(1000 * seconds, 2), "key": scope.get("state", {}).get("key")}
                access.info(json.dumps(line))


def _route(scope: Scope) -> str:
    """The route's template, such as /v1/models/{name}/reload; all unknown paths are one."""
    return getattr(scope.get("route"), "path", "unknown")
