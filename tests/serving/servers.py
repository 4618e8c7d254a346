"""Real servers for the tests: on a free port, in this process (counted by coverage) or in one of their own (to be killed)."""

import contextlib
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import uvicorn

from genrec.serving.server import ServerSettings, build_app


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@dataclass
class Running:
    """url of a server; app: of one in this process."""

    url: str
    app: object


@contextlib.contextmanager
def serving(settings: ServerSettings) -> Iterator[Running]:
    app = build_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, settings.host, settings.port, access_log=False, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield Running(f"http://127.0.0.1:{settings.port}", app)
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Process:
    """`genrec serve` as a process of its own."""

    process: subprocess.Popen
    url: str
