"""A small chat-completions server for tests: it answers what it was told to, and keeps what it was sent."""

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


class FakeModel(HTTPServer):
    """answer: the content of every message (JSON unless a text). messages: whole messages instead, in turn."""

    answer: Any = None
    status = 200
    messages: list[dict[str, Any]]
    asked: list[dict[str, Any]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeModel

    def do_POST(self) -> None:
        self.server.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
        content = self.server.answer if isinstance(self.server.answer, str) else json.dumps(self.server.answer)
        message = self.server.messages.pop(0) if self.server.messages else {"content": content}
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": message}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def fake_model() -> Iterator[FakeModel]:
    server = FakeModel(("127.0.0.1", 0), _Handler)
    server.asked, server.messages = [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
