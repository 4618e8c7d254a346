"""How long ranking and metrics take, beside torch.topk and ranx on the same scores and rankings; and the memory of many users.

pip install -c constraints.txt ranx==0.3.21
OMP_NUM_THREADS=1 python benchmarks/ranking_speed.py

Three tables. Ranking: dense scores of random vectors, seen items masked, the best 20 of each user by the code that the
baselines use, beside torch.topk, which RecBole's collector uses. Metrics: all of ours at three cuts, beside ranx, which first
needs its own objects made of the lists; and the largest difference of any question. Memory: `evaluate` with a ranker that costs
nothing, each number of users in a process of its own. Times are medians over `--repeats`; ranx compiles itself before it is
timed.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.evaluation.evaluate import evaluate
from genrec.evaluation.metrics import METRICS, hit_positions
from genrec.evaluation.ranking import batches, masked, rank_batches
from genrec.evaluation.statistics import bootstrap

WIDTH, K, KS = 64, 20, (5, 10, 20)


class Free:
    """Ranks the items that follow the last one in the catalogue: costs nothing, so that the rest is measured."""

    name = "free"

    def __init__(self, items: int) -> None:
        self.items = items

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        last = histories.items[histories.indptr[1:] - 1]
        rows = (last[:, None] + 1 + np.arange(k)) % self.items
        return rows, np.zeros(rows.shape, np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=22_000)
    parser.add_argument("--items", type=int, default=12_000)
    parser.add_argument("--many", type=int, nargs="+", default=[250_000, 1_000_000], help="users of the memory table")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)  # in a process of its own
    arguments = parser.parse_args()
    if arguments.memory_of:
        print(json.dumps(memory_of(arguments.memory_of, arguments.items, arguments.seed)))
        return
    asked = questions(arguments.users, arguments.items, arguments.seed)
    rows = ranking(asked, arguments.items, arguments.repeats, arguments.seed)
    metrics(rows, asked.items, arguments.repeats, arguments.seed)
    print("\n| users | histories, MB | more at the peak, MB | bytes a user | seconds |\n| --- | --- | --- | --- | --- |")
    for users in arguments.many:
        command = [sys.executable, __file__, "--items", str(arguments.items), "--memory-of", str(users)]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(f"| {users} | {found['histories']:.0f} | {found['more']:.0f} | {1e6 * found['more'] / users:.0f} "
              f"| {found['seconds']:.1f} |")  # fmt: skip


def questions(users: int, items: int, seed: int) -> Targets:
    """Histories of 5 to 15 random items."""
    random = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(random.integers(5, 16, users))])
    names = np.array([f"user {number}" for number in range(users)], object)
    histories = Histories(names, indptr, random.integers(0, items, indptr[-1]), np.full(indptr[-1], np.nan))
    return Targets(histories, random.integers(0, items, users))


def ranking(asked: Targets, items: int, repeats: int, seed: int) -> np.ndarray:
    """Print the table; the ranked rows [U, K]."""
    random = np.random.default_rng(seed)
    catalogue = random.standard_normal((WIDTH, items), np.float32)
    tastes = random.standard_normal((items, WIDTH), np.float32)

    def score(batch: Histories) -> np.ndarray:
        return tastes[batch.items[batch.indptr[:-1]]] @ catalogue

    def by_topk() -> np.ndarray:
        found = []
        for users in batches(len(asked), items):
            batch = asked.histories.select(users)
            found.append(torch.from_numpy(masked(score(batch), batch)).topk(K).indices.numpy())
        return np.concatenate(found)

    ways: dict[str, Callable[[], Any]] = {
        "scores alone": lambda: [score(asked.histories.select(users))[0, 0] for users in batches(len(asked), items)],
        "scores, mask, torch.topk": by_topk,
        f"scores, mask, best {K}": lambda: rank_batches(asked.histories, K, True, score, items)[0],
    }
    times, found = timed(ways, repeats)
    rows, theirs = found[f"scores, mask, best {K}"], found["scores, mask, torch.topk"]
    print(
        f"{len(asked)} users x {items} items, {(rows == theirs).all(axis=1).mean():.4%} of the lists the same as torch.topk's"
    )
    print("\n| ranking | seconds | beside torch.topk |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.2f} | {seconds / times['scores, mask, torch.topk']:.2f} |")
    return rows


def metrics(rows: np.ndarray, targets: np.ndarray, repeats: int, seed: int) -> None:
    """Print the table for these lists, a part of them cut short."""
    import ranx

    random = np.random.default_rng(seed)
    rows, targets = rows.copy(), targets.copy()
    targets[::3] = rows[np.arange(0, len(rows), 3), random.integers(0, K, len(rows[::3]))]  # random lists hold few answers
    rows[np.arange(K) >= random.integers(0, 4 * K, len(rows))[:, None]] = -1
    names = [f"{name}@{k}" for k in KS for name in METRICS]

    def ours() -> dict[str, np.ndarray]:
        positions = hit_positions(rows, targets)
        return {f"{name}@{k}": metric(positions, k) for k in KS for name, metric in METRICS.items()}

    def objects() -> tuple[Any, Any]:
        # Scores fall strictly, so ties are no question. Ids sort as numbers do, since ranx sorts them. An item of no catalogue
        # stands in for an empty list.
        ids = [f"q{number:09}" for number in range(len(rows))]
        lists = [{f"i{row}": -float(place) for place, row in enumerate(line) if row >= 0} or {"none": 0.0} for line in rows]
        answers = {name: {f"i{target}": 1} for name, target in zip(ids, targets, strict=True)}
        return ranx.Qrels(answers), ranx.Run(dict(zip(ids, lists, strict=True)))

    answers, run = objects()
    ways: dict[str, Callable[[], Any]] = {
        "genrec, from the lists": ours,
        "genrec, intervals (1000 draws)": lambda: bootstrap(ours(), seed),
        "ranx, from its objects": lambda: ranx.evaluate(answers, run, names, return_mean=False),
        "ranx, making its objects": objects,
    }
    ways["ranx, from its objects"]()  # compiles
    times, found = timed(ways, repeats)
    theirs = found["ranx, from its objects"]
    apart = max(float(np.abs(values - theirs[name]).max()) for name, values in found["genrec, from the lists"].items())
    print(f"\n{len(names)} metrics of {len(rows)} lists, largest difference of a question {apart:.1e}")
    print("\n| metrics | seconds | beside genrec |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.3f} | {seconds / times['genrec, from the lists']:.1f} |")


def memory_of(users: int, items: int, seed: int) -> dict[str, float]:
    """Megabytes: of the histories and questions, and how much more the process had at its peak; seconds of `evaluate`."""
    before = resident("VmRSS")
    asked = questions(users, items, seed)
    with_data = resident("VmRSS")
    started = time.perf_counter()
    evaluate(Free(items), asked, progress=False)
    seconds = time.perf_counter() - started
    return {"histories": with_data - before, "more": resident("VmHWM") - with_data, "seconds": seconds}


def resident(what: str) -> float:
    """Megabytes of this process (Linux): now ("VmRSS") or at its peak ("VmHWM")."""
    with open("/proc/self/status") as file:
        return float(next(line.split()[1] for line in file if line.startswith(what))) / 1e3


def timed(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """Name -> median seconds, and what the last call gave; in turns, so that a busy moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    found = {}
    for _ in range(repeats):
        for name, way in ways.items():
            started = time.perf_counter()
            found[name] = way()
            times[name].append(time.perf_counter() - started)
    return {name: median(seconds) for name, seconds in times.items()}, found


if __name__ == "__main__":
    main()
