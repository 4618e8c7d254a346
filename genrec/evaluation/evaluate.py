"""Evaluate a ranker on questions: Recall and NDCG with intervals, seen items masked and unmasked.

In: a `Ranker` and `Targets`. Out: a `Result` whose numbers are means over questions with 95 % bootstrap intervals.

    result = evaluate(ranker, split.test)
    print(report_table([result]))
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from genrec.data.splits import Targets
from genrec.errors import DataError, check_integer
from genrec.evaluation.base import Ranker
from genrec.evaluation.metrics import hit_positions, ndcg_at, recall_at

MASKED, UNMASKED = "masked", "unmasked"
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and its 95 % interval (percentile bootstrap over questions)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured for one ranker.

    positions: protocol -> place of each target, 0 at the top, -1 below the longest list [M], kept for paired tests.
    metrics: protocol -> metric ("ndcg@10") -> Estimate. repeated_targets: questions whose answer is in the history, which
    masking turns into sure misses. seconds: protocol -> time to rank all questions.
    """

    name: str
    ks: tuple[int, ...]
    positions: dict[str, np.ndarray]
    metrics: dict[str, dict[str, Estimate]]
    repeated_targets: int
    seconds: dict[str, float]

    @property
    def questions(self) -> int:
        return len(next(iter(self.positions.values())))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the per-question arrays."""
        return {
            "name": self.name,
            "questions": self.questions,
            "repeated_targets": self.repeated_targets,
            "metrics": {p: {m: vars(e) for m, e in found.items()} for p, found in self.metrics.items()},
            "seconds": self.seconds,
        }


def evaluate(
    ranker: Ranker,
    questions: Targets,
    ks: Sequence[int] = (5, 10),
    exclude_seen: Sequence[bool] = (True, False),
    batch_size: int = 1024,
    seed: int = 0,
    progress: bool = True,
) -> Result:
    """Rank the full catalogue for every question. `seed` draws the bootstrap. Raises `DataError` without questions."""
    if not len(questions):
        raise DataError("There is nothing to evaluate: the split has no questions in this part.")
    for k in ks:
        check_integer("ks", k, 1)
    positions, metrics, seconds = {}, {}, {}
    for masked in exclude_seen:
        protocol = MASKED if masked else UNMASKED
        started = time.perf_counter()
        found = np.empty(len(questions), np.int64)
        bar = tqdm(total=len(questions), desc=f"{ranker.name}, {protocol}", disable=not progress, leave=False)
        for start in range(0, len(questions), batch_size):
            users = np.arange(start, min(start + batch_size, len(questions)))
            rows, _ = ranker.rank(questions.histories.select(users), max(ks), masked)
            found[users] = hit_positions(rows, questions.items[users])
            bar.update(len(users))
        bar.close()
        seconds[protocol] = time.perf_counter() - started
        positions[protocol] = found
        values = {f"{name}@{k}": metric(found, k) for k in ks for name, metric in (("recall", recall_at), ("ndcg", ndcg_at))}
        metrics[protocol] = bootstrap(values, seed)
    return Result(ranker.name, tuple(ks), positions, metrics, repeated_targets(questions), seconds)


def bootstrap(values: dict[str, np.ndarray], seed: int, resamples: int = RESAMPLES) -> dict[str, Estimate]:
    """Mean and 95 % interval of each per-question array [M], all on the same resampled questions."""
    matrix = np.stack(list(values.values()))  # metrics x questions
    random = np.random.default_rng(seed)
    questions = matrix.shape[1]
    means = np.stack(
        [matrix @ np.bincount(random.integers(0, questions, questions), minlength=questions) for _ in range(resamples)]
    )
    low, high = np.quantile(means / questions, [0.025, 0.975], axis=0)
    return {
        name: Estimate(float(array.mean()), float(low[i]), float(high[i])) for i, (name, array) in enumerate(values.items())
    }


def repeated_targets(questions: Targets) -> int:
    """Questions whose answer the user had before."""
    histories = questions.histories
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    return len(np.unique(owner[histories.items == questions.items[owner]]))


def report_table(results: Sequence[Result]) -> str:
    """Markdown, aligned for a terminal: one row per ranker and protocol."""
    names = [f"{metric}@{k}" for metric in ("recall", "ndcg") for k in results[0].ks]
    longest = f"ndcg@{max(results[0].ks)}"
    header = ["model", "seen items", *names, f"95 % of {longest}", "seconds"]
    rows = []
    for result in results:
        for protocol, metrics in result.metrics.items():
            interval = metrics[longest]
            rows.append([
                result.name, protocol, *(f"{metrics[name].mean:.4f}" for name in names),
                f"{interval.low:.4f} to {interval.high:.4f}", f"{result.seconds[protocol]:.1f}",
            ])  # fmt: skip
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
