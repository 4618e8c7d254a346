"""Compare rankers on the same questions: who is better, how sure that is, and what it costs.

In: results of one set of questions. Out: one row per ranker, best first, with the paired difference to a reference, p-values
corrected for the number of tests, the smallest difference that so many users could show, and milliseconds per question.
Results of one name are fits of one model with several seeds: one row, of their mean question by question.

    print(comparison_table(compare([ours, easier, popular])))
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.errors import DataError, SettingError, check_choice
from genrec.evaluation.evaluate import MASKED, Result, markdown_table
from genrec.evaluation.statistics import (
    Difference,
    Pooled,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    permutation_test,
    pool_seeds,
)

LEVEL = 0.05


@dataclass(frozen=True)
class Compared:
    """One ranker beside the reference. estimate: of the metric, over its seeds. difference: to the reference, paired; None for
    itself. p: of a paired permutation test, Holm-corrected over the rankers; like the interval it is about these fits and other
    users, not about other seeds. detectable: the true difference that such a test would find with a chance of 80 %.
    milliseconds: per question. best_trade: no other ranker is both better and quicker.
    """

    name: str
    estimate: Pooled
    difference: Difference | None
    p: float | None
    detectable: float | None
    milliseconds: float
    best_trade: bool

    @property
    def verdict(self) -> str:
        """In words: "better", "worse" or "no difference shown", beside the reference."""
        if self.difference is None or self.p is None:
            return "reference"
        if self.p > LEVEL:
            return "no difference shown"
        return "better" if self.difference.mean > 0 else "worse"


def compare(
    results: Sequence[Result],
    metric: str = "ndcg",
    k: int = 10,
    protocol: str = MASKED,
    reference: str | None = None,
    seed: int = 0,
) -> list[Compared]:
    """Best first. reference: the name of the ranker that all others are tested against; None for the first.

    Raises `DataError` for results of different questions, `SettingError` for a reference that is not there.
    """
    if not results:
        raise SettingError("There is nothing to compare: give at least one result.")
    fits: dict[str, list[Result]] = {}
    for result in results:
        fits.setdefault(result.name, []).append(result)
    reference = results[0].name if reference is None else reference
    check_choice("reference", reference, fits)
    base = fits[reference][0]
    for result in results:
        if not np.array_equal(result.users, base.users):
            raise DataError(
                f"{result.name!r} and {reference!r} were not asked the same questions: {result.questions} and {base.questions} "
                "of them, or other users. Evaluate both on the same events, split and part."
            )
    seeds = {name: [result.per_question(protocol, metric, k) for result in found] for name, found in fits.items()}
    values = {name: np.mean(found, axis=0) for name, found in seeds.items()}
    own = values[reference]
    others = [name for name in fits if name != reference]
    p_values = holm([permutation_test(values[name], own, base.users, seed) for name in others])
    corrected = dict(zip(others, p_values.tolist(), strict=True))
    costs = [1000 * float(np.mean([one.seconds[protocol] for one in found])) / base.questions for found in fits.values()]
    trades = best_trades([value.mean() for value in values.values()], costs)
    rows = []
    for name, cost, best_trade in zip(fits, costs, trades, strict=True):
        same = name == reference
        rows.append(Compared(
            name, pool_seeds(seeds[name], base.users, seed),
            None if same else paired_bootstrap(values[name], own, base.users, seed),
            corrected.get(name),
            None if same else minimum_detectable_difference(values[name], own, base.users),
            cost, best_trade,
        ))  # fmt: skip
    return sorted(rows, key=lambda row: -row.estimate.mean)


def best_trades(quality: Sequence[float], cost: Sequence[float]) -> list[bool]:
    """Which points are on the Pareto front: nobody else has at least their quality at a lower cost, or more at the same."""
    points = list(zip(quality, cost, strict=True))
    return [not any((q >= a and c < b) or (q > a and c <= b) for q, c in points) for a, b in points]


def comparison_table(rows: Sequence[Compared], metric: str = "ndcg@10") -> str:
    """Markdown, aligned for a terminal. Where a ranker has several seeds, their number and deviation are two columns more."""
    header = ["model", metric, "95 %", "difference", "95 %", "p (Holm)", "verdict", "detectable", "ms", "best trade"]
    cells = [_cells(row) for row in rows]
    if any(row.estimate.seeds > 1 for row in rows):
        header += ["seeds", "over seeds"]
        cells = [[*line, *_seeds(row)] for line, row in zip(cells, rows, strict=True)]
    return markdown_table(header, cells)


def _cells(row: Compared) -> list[str]:
    estimate, difference = row.estimate, row.difference
    return [
        row.name, f"{estimate.mean:.4f}", f"{estimate.low:.4f} to {estimate.high:.4f}",
        "" if difference is None else f"{difference.mean:+.4f}",
        "" if difference is None else f"{difference.low:+.4f} to {difference.high:+.4f}",
        "" if row.p is None else f"{row.p:.4f}", row.verdict,
        "" if row.detectable is None else f"{row.detectable:.4f}",
        f"{row.milliseconds:.2f}", "yes" if row.best_trade else "",
    ]  # fmt: skip


def _seeds(row: Compared) -> list[str]:
    deviation = row.estimate.seed_deviation
    return [f"{row.estimate.seeds}", "" if deviation is None else f"± {deviation:.4f}"]
