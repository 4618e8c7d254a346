"""Real servers for the tests: on a free port, in this process (counted by coverage) or in one of their own (to be killed)."""

import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from worlds import brute_force, make_model

from genrec.bundle import read_bundle, write_bundle
from genrec.manifest import MANIFEST
from genrec.recommender import Recommender
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


def seq2seq_bundle(bundle: Path, folder: Path) -> Path:
    """A copy of a bundle with a random T5 in the place of its language model."""
    shutil.copytree(bundle, folder)
    read = read_bundle(folder)
    embedder, tokenizer = read.load_encoders()
    (folder / MANIFEST).unlink()
    make_model("t5", read.settings.layout.vocabulary_size, seed=0).save_pretrained(folder)
    write_bundle(
        folder, settings=read.settings, serving=read.serving, catalogue=read.catalogue, codes=read.codes,
        train_counts=read.train_counts, tokenizer=tokenizer, embedder=embedder, metrics={"weights": 1}, about={}, card="",
    )  # fmt: skip
    return folder


def best_by_brute_force(recommender: Recommender, history: list[str], k: int, keep: Callable[[dict], bool]) -> list[str]:
    """The ids of the `k` best items by one full forward pass each, with no code of the search."""
    version = recommender.catalogue.current
    rows = version.rows(history)
    scores = brute_force(recommender.ranker, rows, version.snapshot.codes)
    allowed = [
        row for row, fields in enumerate(version.table.to_pylist())
        if version.live[row] and row not in rows and keep(fields)
    ]  # fmt: skip
    best = sorted(allowed, key=lambda row: -scores[row])[:k]
    return [version.table.column("item_id")[row].as_py() for row in best]


@dataclass
class Process:
    """`genrec serve` as a process of its own."""

    process: subprocess.Popen
    url: str
