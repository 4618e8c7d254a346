"""Everything at once for half an hour, on a real server: recommendations, events, catalogue changes, bundle swaps, and kill -9
of the server and of vLLM's process. Then every answer is computed again from the written record and compared.

    python benchmarks/mixed_load.py runs/shop                          # torch, 30 minutes
    python benchmarks/mixed_load.py runs/shop --engine vllm --minutes 5

Loopback only. The bundle should have an encoder that is quick (`--text.encoder tfidf-svd`): new items are encoded on the way.
What is promised: no wrong answer, no acknowledged event or change lost, and errors only while nothing is up, that is from a
kill until `/readyz` says yes again. Exit status 1 if a promise is broken. Events and changes are sent until acknowledged.
"""

import argparse
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from transformers import AutoModelForCausalLM

from genrec.bundle import read_bundle, write_bundle
from genrec.manifest import MANIFEST
from genrec.recommender import Recommender
from genrec.serving.store import Store

MODEL = "shop"
RULES: list[dict[str, Any]] = [{}, {"k": 5, "beam_width": 20}, {"k": 20, "beam_width": 64}, {"exclude_seen": False}]


@dataclass
class Seen:
    """An answer as it came. rules: of the request; items, scores: best first."""

    bundle: str
    version: int
    history: list[str]
    rules: dict[str, Any]
    items: list[str]
    scores: list[float]


@dataclass
class Record:
    """All that happened. Lists are appended to by many threads, which Python makes safe."""

    answers: list[Seen] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    errors: list[tuple[float, float, str]] = field(default_factory=list)  # from, to, what
    away: list[list[float]] = field(default_factory=list)  # [from, to] while nothing was up
    events: dict[str, list[str]] = field(default_factory=dict)  # user -> acknowledged item ids
    versions: dict[int, str] = field(default_factory=dict)  # acknowledged changes: number -> hash
    added: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    done: Counter = field(default_factory=Counter)


class Load:
    """The server with its supervisor, and everybody who wants something of it."""

    def __init__(self, folder: Path, bundles: list[Path], engine: str, store: str, seed: int) -> None:
        self.folder, self.bundles, self.engine, self.store, self.seed = folder, bundles, engine, store, seed
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.link = folder / MODEL
        self.link.symlink_to(bundles[0])
        self.record, self.stop = Record(), threading.Event()
        self.ids = read_bundle(bundles[0]).catalogue.item_ids.tolist()
        self.process = self.start()

    def start(self) -> subprocess.Popen:
        command = [sys.executable, "-m", "genrec.cli", "serve", f"{MODEL}={self.link}", "--engine", self.engine]
        command += ["--store", self.store, "--port", str(self.port), "--timeout", "120"]
        with (self.folder / "server.log").open("a") as out:
            return subprocess.Popen(command, stdout=out, stderr=out)

    def supervise(self) -> None:
        """Start the server again when it ended, and note when nothing is up."""
        down: list[float] | None = None
        while not self.stop.is_set():
            if self.process.poll() is not None:
                self.process = self.start()
            up = self.is_up()
            if not up and down is None:
                down = [time.time(), float("inf")]
                self.record.away.append(down)
            elif up and down is not None:
                down[1], down = time.time(), None
            time.sleep(0.02)

    def ask(self, http: httpx.Client, method: str, path: str, **arguments: Any) -> dict[str, Any] | None:
        """The answer, or None after an error, which is noted."""
        begun = time.time()
        try:
            response = http.request(method, self.url + path, **arguments)
            if response.is_success:
                return response.json()
            what = f"{response.status_code} {response.text[:200]}"
        except httpx.TransportError as error:
            what = type(error).__name__
        self.record.errors.append((begun, time.time(), f"{method} {path.split('?')[0]}: {what}"))
        time.sleep(0.1)
        return None

    def customer(self, number: int) -> None:
        """Asks for any history and for the own one, and sends events until each is acknowledged."""
        random = np.random.default_rng([self.seed, number])
        user, record = f"user {number}", self.record
        own = record.events[user] = []
        with httpx.Client(timeout=150) as http:
            while not self.stop.is_set():
                rules = RULES[random.integers(len(RULES))]
                by_id = bool(random.random() < 0.5)
                history = list(own) if by_id else random.choice(self.ids, random.integers(0, 20)).tolist()
                body = {"user_ids": [user]} if by_id else {"histories": [history]}
                begun = time.time()
                answer = self.ask(http, "POST", "/v1/recommendations", json={**body, **rules, "fields": []})
                if answer is not None:
                    record.seconds.append(time.time() - begun)
                    [one] = answer["answers"]
                    items, scores = [item["item_id"] for item in one["items"]], [item["score"] for item in one["items"]]
                    record.answers.append(Seen(answer["bundle"], answer["catalogue"]["number"], history, rules, items, scores))
                if random.random() < 0.2:
                    item = str(random.choice(self.ids))
                    event = {"user_id": user, "item_id": item, "event_id": uuid.uuid4().hex}
                    while self.ask(http, "POST", "/v1/events", json={"events": [event], "unknown_items": "ignore"}) is None:
                        if self.stop.is_set():
                            return  # not acknowledged: it may be there or not
                    own.append(item)

    def shopkeeper(self) -> None:
        """Adds items, takes some out again, changes titles: one change after the other, each until it is acknowledged."""
        random, turn, record = np.random.default_rng([self.seed, 999]), 0, self.record
        with httpx.Client(timeout=150) as http:
            while not self.stop.wait(0.5):
                turn += 1
                old, new = str(random.choice(self.ids[: len(self.ids) // 2])), f"new {turn}"
                if turn % 3 == 2 and record.added - record.removed:
                    gone = sorted(record.added - record.removed)[0]
                    answer = self.until_done(http, "/v1/catalog/items/remove", {"item_ids": [gone]}, gone, there=False)
                    record.removed |= {gone} if answer else set()
                elif turn % 3 == 1:
                    found = self.ask(http, "GET", "/v1/catalog/items", params={"item_id": old})
                    if found is None or not found["items"]:
                        continue
                    body = {"items": [found["items"][0] | {"item_id": new}]}
                    answer = self.until_done(http, "/v1/catalog/items", body, new, there=True)
                    record.added |= {new} if answer else set()
                else:
                    body = {"items": [{"item_id": old, "title": f"Title {turn}"}], "replace": True}
                    answer = self.ask(http, "POST", "/v1/catalog/items", json=body)
                if answer:
                    record.versions[answer["number"]] = answer["hash"]

    def until_done(self, http: httpx.Client, path: str, body: dict, item: str, there: bool) -> dict[str, Any] | None:
        """A change may have happened though its answer was lost: look, before it is sent again."""
        while not self.stop.is_set():
            answer = self.ask(http, "POST", path, json=body)
            if answer is not None:
                return answer
            found = None
            while found is None and not self.stop.is_set():
                found = self.ask(http, "GET", "/v1/catalog/items", params={"item_id": item})
            if found is not None and bool(found["items"]) == there:
                versions = self.ask(http, "GET", "/v1/catalog/versions")
                return None if versions is None else versions[-1]
        return None

    def swapper(self, every: float) -> None:
        """Puts the other bundle in the place of the one that is served."""
        turn = 0
        with httpx.Client(timeout=300) as http:
            while not self.stop.wait(every):
                turn += 1
                partial = self.folder / "partial"
                partial.symlink_to(self.bundles[turn % 2])
                partial.replace(self.link)
                if self.ask(http, "POST", f"/v1/models/{MODEL}/reload") is not None:
                    self.record.done["bundle swaps"] += 1

    def killer(self, every: float) -> None:
        """kill -9, of vLLM's process and of the server in turn, after it was up for a while."""
        turn = 0
        while not self.stop.wait(every):
            turn += 1
            workers = engine_processes(self.process.pid)
            vllm = bool(workers) and turn % 2 == 1
            process, away = self.process, [time.time() - 0.05, float("inf")]  # joined with what the supervisor sees
            self.record.away.append(away)
            for victim in workers if vllm else [process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            self.record.done["kills of vLLM's process" if vllm else "kills of the server"] += 1
            while not vllm and process.poll() is None:  # so that who answers next is the next one
                time.sleep(0.01)
            while not self.stop.wait(0.2) and not self.is_up():
                pass
            away[1] = time.time()

    def is_up(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10).status_code == 200
        except httpx.TransportError:
            return False

    def run(
        self,
        minutes: float,
        customers: int,
        kill_every: float,
        swap_every: float,
        enough: Callable[[Record], bool] = lambda record: False,
    ) -> Record:
        """enough: ends it before the time is over."""
        threads = [threading.Thread(target=self.supervise)]
        threads[0].start()
        while not self.record.away or self.record.away[0][1] == float("inf"):
            time.sleep(0.1)
            if self.process.poll() is not None:
                self.stop.set()
                sys.exit((self.folder / "server.log").read_text()[-3000:])
        self.record.away.clear()
        threads += [threading.Thread(target=self.customer, args=(number,)) for number in range(customers)]
        threads += [threading.Thread(target=self.shopkeeper)]
        threads += [threading.Thread(target=self.swapper, args=(swap_every,))]
        threads += [threading.Thread(target=self.killer, args=(kill_every,))]
        for thread in threads[1:]:
            thread.start()
        end = time.time() + 60 * minutes
        said = time.time()
        while time.time() < end and not enough(self.record):
            time.sleep(0.1)
            if time.time() - said > 60:
                said = time.time()
                print(f"  {len(self.record.answers)} answers, {dict(self.record.done)}", file=sys.stderr)
        self.stop.set()
        for thread in threads:
            thread.join()
        self.process.kill()
        self.process.wait()
        return self.record


def engine_processes(server: int) -> list[int]:
    """vLLM's processes below a server."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (
                int((path / "stat").read_text().rsplit(")", 1)[1].split()[1]) == server
                and b"EngineCore" in (path / "cmdline").read_bytes()
            ):
                found.append(int(path.name))
    return found


def twin(bundle: Path, folder: Path, seed: int) -> Path:
    """A copy of a bundle with other weights and the same codes: its answers differ from the first one's."""
    shutil.copytree(bundle, folder)
    read = read_bundle(folder)
    embedder, tokenizer = read.load_encoders()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", local_files_only=True)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * parameter.std() * torch.randn_like(parameter)) if parameter.ndim > 1 else None
    (folder / MANIFEST).unlink()
    model.save_pretrained(folder)
    write_bundle(
        folder, settings=read.settings, serving=read.serving, catalogue=read.catalogue, codes=read.codes,
        train_counts=read.train_counts, tokenizer=tokenizer, embedder=embedder, metrics=read.metrics, about={}, card="",
    )  # fmt: skip
    return folder


def wrong_answers(record: Record, bundles: list[Path], store: str) -> tuple[int, list[str], list[str]]:
    """How many answers were computed again, what was wrong, and which acknowledged changes are not there."""
    wrong: list[str] = []
    lost: list[str] = []
    checked = 0
    answers: dict[tuple[str, int, str], list[Seen]] = {}
    for answer in record.answers:
        answers.setdefault((answer.bundle, answer.version, str(answer.rules)), []).append(answer)
    for bundle in bundles:
        recommender = Recommender.load(bundle)
        live, name = recommender.catalogue, recommender.bundle.hash
        changes = Store(store).changes(MODEL, recommender.bundle.codes.hash)
        while True:
            version = live.current
            if record.versions.get(version.number, version.hash) != version.hash:
                lost.append(f"version {version.number} has other content")
            for rules in RULES:
                asked = answers.get((name, version.number, str(rules)), [])
                if asked:
                    found = recommender.recommend([a.history for a in asked], **rules)
                    checked += len(asked)
                    for answer, items in zip(asked, found, strict=True):
                        ids, scores = [i.item_id for i in items], [i.score for i in items]
                        if not same(answer, ids, scores):
                            wrong.append(f"{answer} should have {ids} with {scores}")
            change = next(changes, None)
            if change is None:
                break
            live.replay(change[1])
        there = set(live.current.table.column("item_id").filter(live.current.live).to_pylist())
        lost += [f"{item} is not there" for item in record.added - record.removed - there]
        lost += [f"{item} is there" for item in record.removed & there]
        lost += [f"version {number} is not there" for number in record.versions if number > live.current.number]
    return checked, wrong, lost


def users_with_a_lost_event(record: Record, store: Store) -> list[str]:
    """Users whose history is not what was acknowledged, in order; one more, the last one sent, may be there as well."""
    kept = dict(zip(record.events, store.histories(MODEL, list(record.events), most=10**9), strict=True))
    return [user for user, sent in record.events.items() if kept[user][: len(sent)] != sent or len(kept[user]) > len(sent) + 1]


def errors_at_other_times(record: Record) -> list[str]:
    """What failed while the server was up from the request to the error."""
    return [what for begun, ended, what in record.errors if not any(a <= ended and begun <= b for a, b in record.away)]


def same(answer: Seen, items: list[str], scores: list[float]) -> bool:
    """The same scores and the same items, but for the order of equal ones (up to rounding, the first left out too)."""
    if len(set(answer.items)) != len(items) or not np.allclose(scores, answer.scores, atol=1e-3):
        return False
    expected = dict(zip(items, scores, strict=True))
    edge = min(scores, default=0.0) + 2e-3
    return all(
        score <= edge or abs(expected.get(item, np.inf) - score) < 2e-3
        for item, score in zip(answer.items, scores, strict=True)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine", choices=["torch", "vllm"], default="torch")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--customers", type=int, default=6)
    parser.add_argument("--kill-every", type=float, default=60.0, metavar="S")
    parser.add_argument("--swap-every", type=float, default=45.0, metavar="S")
    parser.add_argument("--store", help="database URL (default: a SQLite file)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        store = arguments.store or f"sqlite:///{folder}/store.db"
        bundles = [
            Path(shutil.copytree(arguments.bundle, folder / "first")),
            twin(arguments.bundle, folder / "second", arguments.seed),
        ]
        load = Load(folder, bundles, arguments.engine, store, arguments.seed)
        record = load.run(arguments.minutes, arguments.customers, arguments.kill_every, arguments.swap_every)
        checked, wrong, lost = wrong_answers(record, bundles, store)
        missing = users_with_a_lost_event(record, Store(store))
    strange = errors_at_other_times(record)
    away = sum(min(b, record.errors[-1][1] if record.errors else b) - a for a, b in record.away)
    p50, p99 = (1000 * float(np.quantile(record.seconds, q)) for q in (0.5, 0.99))
    print(f"engine {arguments.engine}, {arguments.minutes:g} minutes, {arguments.customers} customers, seed {arguments.seed}\n")
    print("| what | |\n| --- | --- |")
    for what, count in {
        "answers": len(record.answers), "computed again": checked, "wrong answers": len(wrong), **record.done,
        "catalogue changes acknowledged": len(record.versions), "changes lost": len(lost),
        "events acknowledged": sum(map(len, record.events.values())), "users with an event lost": len(missing),
        "errors while nothing was up": len(record.errors) - len(strange), "errors at other times": len(strange),
        "seconds with nothing up": round(away), "p50 ms": round(p50), "p99 ms": round(p99),
    }.items():  # fmt: skip
        print(f"| {what} | {count} |")
    for line in [*wrong[:5], *lost[:5], *strange[:5]]:
        print(line, file=sys.stderr)
    return int(bool(wrong or lost or missing or strange or checked < len(record.answers)))


if __name__ == "__main__":
    sys.exit(main())
