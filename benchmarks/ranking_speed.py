"""How long ranking and metrics take beside RecBole's evaluator and ranx, and whether the numbers are the same; memory.

    pip install -c constraints.txt ranx==0.3.21 recbole==1.2.0
    OMP_NUM_THREADS=1 python benchmarks/ranking_speed.py

Three tables. Ranking: dense scores of random vectors, seen items masked, the best 20 of each user by the code that the
baselines use, beside RecBole's collector on the same scores. Metrics: all of ours at three cuts, beside RecBole's evaluator and
ranx, which first needs its own objects made of the lists. Memory: `evaluate` with a ranker that costs nothing, each number of
users in a process of its own. Times are medians over `--repeats`; ranx compiles itself before it is timed.
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
GENREC, RECBOLES = "genrec", "RecBole's evaluator"
RECBOLE = {
    "metrics": ["Recall", "NDCG", "MRR", "MAP", "Hit"], "topk": list(KS), "metric_decimal_place": 15,
    "eval_args": {"mode": "full"}, "device": "cpu",
}  # fmt: skip


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
    setattr(np, "float", float)  # noqa: B010  RecBole 1.2.0 installs beside NumPy 2, but asks for a name that went in 1.24
    asked = questions(arguments.users, arguments.items, arguments.seed)
    rows = ranking(asked, arguments.items, arguments.repeats, arguments.seed)
    metrics(rows, asked.items, arguments.repeats, arguments.seed)
    print("\n| users | histories, MB | more at the peak, MB | seconds |\n| --- | --- | --- | --- |")
    found = []
    for users in arguments.many:
        command = [sys.executable, __file__, "--items", str(arguments.items), "--memory-of", str(users)]
        found.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
        print(f"| {users} | {found[-1]['histories']:.0f} | {found[-1]['more']:.0f} | {found[-1]['seconds']:.1f} |")
    if len(found) > 1:
        each = [1e6 * (found[-1][of] - found[0][of]) / (arguments.many[-1] - arguments.many[0]) for of in ("histories", "more")]
        print(f"\nA further user adds {each[0]:.0f} bytes of history and {each[1]:.0f} more")


def questions(users: int, items: int, seed: int) -> Targets:
    """Histories of 5 to 15 random items."""
    random = np.random.default_rng(seed)
    indptr = np.concatenate([[0], np.cumsum(random.integers(5, 16, users))])
    names = np.array([f"user {number}" for number in range(users)], object)
    histories = Histories(names, indptr, random.integers(0, items, indptr[-1]), np.full(indptr[-1], np.nan))
    return Targets(histories, random.integers(0, items, users))


def ranking(asked: Targets, items: int, repeats: int, seed: int) -> np.ndarray:
    """Print the table; the ranked rows [U, K]."""
    from recbole.evaluator import Collector

    random = np.random.default_rng(seed)
    catalogue = random.standard_normal((WIDTH, items), np.float32)
    tastes = random.standard_normal((items, WIDTH), np.float32)

    def score(batch: Histories) -> np.ndarray:
        return tastes[batch.items[batch.indptr[:-1]]] @ catalogue

    def collected() -> np.ndarray:
        collector = Collector(RECBOLE)
        for users in batches(len(asked), items):
            batch = asked.histories.select(users)
            scores = torch.from_numpy(masked(score(batch), batch))
            collector.eval_batch_collect(scores, None, torch.arange(len(users)), torch.from_numpy(asked.items[users]))
        return collector.get_data_struct().get("rec.topk")[:, :K].numpy()

    ways: dict[str, Callable[[], Any]] = {
        "scores alone": lambda: [score(asked.histories.select(users))[0, 0] for users in batches(len(asked), items)],
        GENREC: lambda: rank_batches(asked.histories, K, True, score, items)[0],
        "RecBole's collector": collected,
    }
    times, found = timed(ways, repeats)
    same = ((found[GENREC] == asked.items[:, None]) == found["RecBole's collector"]).all(axis=1).mean()
    print(f"{len(asked)} users x {items} items; the answers stand where RecBole has them in {same:.4%} of the lists")
    show("ranking", times)
    return found[GENREC]


def metrics(rows: np.ndarray, targets: np.ndarray, repeats: int, seed: int) -> None:
    """Print the table for these lists, a part of them cut short."""
    import ranx
    from recbole.evaluator import Evaluator

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
    hits = torch.from_numpy(np.column_stack([rows == targets[:, None], np.ones(len(rows), bool)]).astype(np.int32))
    ways: dict[str, Callable[[], Any]] = {
        GENREC: ours,
        "genrec, with intervals (1000 draws)": lambda: bootstrap(ours(), seed),
        "ranx": lambda: ranx.evaluate(answers, run, names, return_mean=False),
        "ranx, making its objects": objects,
        RECBOLES: lambda: Evaluator(RECBOLE).evaluate({"rec.topk": hits}),
    }
    ways["ranx"]()  # compiles
    times, found = timed(ways, repeats)
    means = {name.replace("hit_rate", "hit"): values.mean() for name, values in found[GENREC].items()}
    from_ranx = max(np.abs(found[GENREC][name] - found["ranx"][name]).max() for name in names)
    from_recbole = max(abs(means[name] - value) for name, value in found[RECBOLES].items())
    print(f"\n{len(names)} metrics of {len(rows)} lists; largest difference to ranx, question by question: {from_ranx:.1e}; "
          f"to RecBole, of a mean: {from_recbole:.1e}")  # fmt: skip
    show("metrics", times)


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


def show(what: str, times: dict[str, float]) -> None:
    """A table of medians."""
    print(f"\n| {what} | seconds | beside genrec |\n| --- | --- | --- |")
    for name, seconds in times.items():
        print(f"| {name} | {seconds:.3f} | {seconds / times[GENREC]:.2f} |")


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
