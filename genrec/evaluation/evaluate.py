"""Evaluate a ranker on questions: Recall and NDCG with intervals, seen items masked and unmasked.

In: a `Ranker` and `Targets`. Out: a `Result` whose numbers are means over questions with 95 % bootstrap intervals over users.

    result = evaluate(ranker, split.test)
    print(report_table([result]))
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from tqdm.auto import tqdm

from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_choice, check_integer
from genrec.evaluation.base import Ranker
from genrec.evaluation.metrics import hit_positions, ndcg_at, recall_at

MASKED, UNMASKED = "masked", "unmasked"
METRICS = {"recall": recall_at, "ndcg": ndcg_at}
RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and its 95 % interval (percentile bootstrap over users)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured for one ranker.

    positions: protocol -> place of each target, 0 at the top, -1 below the longest list [M], kept for paired tests.
    metrics: protocol -> metric ("ndcg@10") -> Estimate. repeated_targets: questions whose answer is in the history, which
    masking turns into sure misses. seconds: protocol -> time to rank all questions. illegal_rate: share of the sequences that
    spell no item when the model decodes without the catalogue (None: not asked for); no list ever holds one.
    """

    name: str
    ks: tuple[int, ...]
    positions: dict[str, np.ndarray]
    metrics: dict[str, dict[str, Estimate]]
    repeated_targets: int
    seconds: dict[str, float]
    illegal_rate: float | None = None

    @property
    def questions(self) -> int:
        return len(next(iter(self.positions.values())))

    def per_question(self, protocol: str, metric: str, k: int) -> np.ndarray:
        """`metric` ("recall" or "ndcg") at `k` (at most the largest of `ks`) of every question [M], for paired tests."""
        check_choice("protocol", protocol, self.positions)
        check_choice("metric", metric, METRICS)
        check_integer("k", k, 1, max(self.ks))  # nothing is known below the longest list
        return METRICS[metric](self.positions[protocol], k)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the per-question arrays."""
        return {
            "name": self.name,
            "questions": self.questions,
            "repeated_targets": self.repeated_targets,
            "metrics": {p: {m: vars(e) for m, e in found.items()} for p, found in self.metrics.items()},
            "seconds": self.seconds,
            "illegal_rate": self.illegal_rate,
        }


def evaluate(
    ranker: Ranker,
    questions: Targets,
    ks: Sequence[int] = (5, 10),
    exclude_seen: Sequence[bool] = (True, False),
    batch_size: int = 1024,
    seed: int = 0,
    progress: bool = True,
    sampled_negatives: int | None = None,
) -> Result:
    """Rank the full catalogue for every question, masked (True) and/or unmasked (False).

    Masking takes every item of the history out, the target too if it is a repeat. `batch_size`: questions per call of the
    ranker. `seed` draws the bootstrap. `sampled_negatives` is refused: see below. Raises `DataError` without questions,
    `SettingError` for impossible settings.
    """
    if sampled_negatives is not None:
        # Krichene & Rendle, KDD 2020 (doi 10.1145/3394486.3403226): sampled metrics do not keep the order of two models, not
        # even in expectation. And a ranker here gives the best items, not scores of items drawn for it.
        raise SettingError(
            f"sampled_negatives is not offered, got {sampled_negatives!r}: metrics among sampled items can put the worse model "
            "first and compare with no other number. The full catalogue is ranked; leave it out."
        )
    if not len(questions):
        raise DataError("There is nothing to evaluate: the split has no questions in this part.")
    check_integer("batch_size", batch_size, 1)
    for name, values, example in (("ks", ks, "(5, 10)"), ("exclude_seen", exclude_seen, "(True, False)")):
        if not isinstance(values, Sequence) or not len(values):
            raise SettingError(f"{name} must be a list of at least one value, such as {example}, got {values!r}.")
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
            if rows.shape != (len(users), max(ks)):
                raise SettingError(
                    f"Ranker {ranker.name!r} must return rows of shape {(len(users), max(ks))} (histories, k), "
                    f"got {rows.shape}. Fill places without an item with -1."
                )
            found[users] = hit_positions(rows, questions.items[users])
            bar.update(len(users))
        bar.close()
        seconds[protocol] = time.perf_counter() - started
        positions[protocol] = found
        per_question = {f"{name}@{k}": metric(found, k) for k in ks for name, metric in METRICS.items()}
        metrics[protocol] = bootstrap(per_question, seed, users=questions.histories.user_ids)
    return Result(ranker.name, tuple(ks), positions, metrics, repeated_targets(questions), seconds)


def bootstrap(
    values: dict[str, np.ndarray], seed: int, resamples: int = RESAMPLES, users: np.ndarray | None = None
) -> dict[str, Estimate]:
    """Mean and 95 % interval of each per-question array [M], all on the same resamples.

    users: whose question each is [M]. Users are drawn, with all their questions: those of one user are no independent
    evidence. None: every question is a user's only one.
    """
    matrix = np.stack(list(values.values()))  # metrics x questions
    sizes = np.ones(matrix.shape[1], np.int64)  # questions per user
    if users is not None:
        owner = pa.array(users).dictionary_encode().indices.to_numpy()
        sizes = np.bincount(owner).astype(np.int64)
        matrix = np.stack([np.bincount(owner, line) for line in matrix])  # metrics x users
    random = np.random.default_rng(seed)
    drawn = (np.bincount(random.integers(0, len(sizes), len(sizes)), minlength=len(sizes)) for _ in range(resamples))
    means = np.stack([matrix @ times / (sizes @ times) for times in drawn])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return {
        name: Estimate(float(array.mean()), float(low[i]), float(high[i])) for i, (name, array) in enumerate(values.items())
    }


def repeated_targets(questions: Targets) -> int:
    """Questions whose answer the user had before."""
    histories = questions.histories
    owner = np.repeat(np.arange(len(histories)), histories.lengths)
    return len(np.unique(owner[histories.items == questions.items[owner]]))


def report_table(results: Sequence[Result]) -> str:
    """Markdown, aligned for a terminal: one row per ranker and protocol. Raises `SettingError` for different `ks`."""
    if len({result.ks for result in results}) != 1:
        raise SettingError(f"A table needs results with the same ks, got {[result.ks for result in results]}.")
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
