"""Evaluate a ranker on questions: Recall, NDCG and the like with intervals, seen items masked and unmasked.

In: a `Ranker` and `Targets`. Out: a `Result` whose numbers are means over questions with 95 % bootstrap intervals over users.

    result = evaluate(ranker, split.test)
    print(report_table([result]))

Legend: `M` questions, `K` the largest of `ks`.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_choice, check_integer
from genrec.evaluation.base import Ranker
from genrec.evaluation.metrics import METRICS, hit_positions
from genrec.evaluation.statistics import Estimate, bootstrap

MASKED, UNMASKED = "masked", "unmasked"
REPEATS_BATCH = 2**16  # questions whose histories are searched at once


@dataclass(frozen=True, eq=False)
class Result:
    """What was measured for one ranker.

    users: whose question each is, object [M]. rows: protocol -> the longest lists, catalogue rows int32 [M, K], -1 for an empty
    place. positions: protocol -> place of each target, 0 at the top, -1 below the longest list [M]. All three are kept for
    paired tests, slices and the quality of lists.
    metrics: protocol -> metric ("ndcg@10") -> Estimate. repeated_targets: questions whose answer is in the history, which
    masking turns into sure misses. seconds: protocol -> time to rank all questions. illegal_rate: share of the sequences that
    spell no item when the model decodes without the catalogue (None: not asked for); no list ever holds one.
    """

    name: str
    ks: tuple[int, ...]
    users: np.ndarray
    rows: dict[str, np.ndarray]
    positions: dict[str, np.ndarray]
    metrics: dict[str, dict[str, Estimate]]
    repeated_targets: int
    seconds: dict[str, float]
    illegal_rate: float | None = None

    @property
    def questions(self) -> int:
        return len(next(iter(self.positions.values())))

    def per_question(self, protocol: str, metric: str, k: int) -> np.ndarray:
        """`metric` (a name of `METRICS`) at `k` (at most the largest of `ks`) of every question [M], for paired tests."""
        check_choice("protocol", protocol, self.positions)
        check_choice("metric", metric, METRICS)
        check_integer("k", k, 1, max(self.ks))  # nothing is known below the longest list
        return METRICS[metric](self.positions[protocol], k)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the per-question arrays."""
        return {
            "name": self.name,
            "ks": list(self.ks),
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
    lists, positions, metrics, seconds = {}, {}, {}, {}
    asking = questions.histories.user_ids
    for masked in exclude_seen:
        protocol = MASKED if masked else UNMASKED
        started = time.perf_counter()
        found = np.empty(len(questions), np.int64)
        kept = np.empty((len(questions), max(ks)), np.int32)
        bar = tqdm(total=len(questions), desc=f"{ranker.name}, {protocol}", disable=not progress, leave=False)
        for start in range(0, len(questions), batch_size):
            users = np.arange(start, min(start + batch_size, len(questions)))
            rows, _ = ranker.rank(questions.histories.select(users), max(ks), masked)
            if rows.shape != (len(users), max(ks)):
                raise SettingError(
                    f"Ranker {ranker.name!r} must return rows of shape {(len(users), max(ks))} (histories, k), "
                    f"got {rows.shape}. Fill places without an item with -1."
                )
            kept[users] = rows
            found[users] = hit_positions(rows, questions.items[users])
            bar.update(len(users))
        bar.close()
        seconds[protocol] = time.perf_counter() - started
        lists[protocol], positions[protocol] = kept, found
        measured = {(metric, k): metric(found, k) for k in ks for metric in METRICS.values()}  # each once: some have two names
        estimates = bootstrap(measured, seed, users=asking)
        metrics[protocol] = {f"{name}@{k}": estimates[metric, k] for k in ks for name, metric in METRICS.items()}
    return Result(ranker.name, tuple(ks), asking, lists, positions, metrics, int(repeated_targets(questions).sum()), seconds)


def repeated_targets(questions: Targets) -> np.ndarray:
    """Whether the answer of each question is in its own history: bool [M]."""
    repeated = np.zeros(len(questions), bool)
    for start in range(0, len(questions), REPEATS_BATCH):  # the histories of a million questions are long
        bounds = questions.histories.indptr[start : start + REPEATS_BATCH + 1]
        owner = np.repeat(np.arange(start, start + len(bounds) - 1), np.diff(bounds))
        repeated[owner[questions.histories.items[bounds[0] : bounds[-1]] == questions.items[owner]]] = True
    return repeated


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
    return markdown_table(header, rows)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown, aligned for a terminal."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
