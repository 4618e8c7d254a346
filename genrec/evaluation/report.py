"""Everything that `genrec evaluate` tells, put together: table with tests, slices, lists, leaks, examples.

In: results on the same questions and what is known about the items. Out: a `Report`, which page.py draws and `to_dict` writes.

Legend: `M` questions, `N` items, `D` vector width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from genrec.data.splits import Targets
from genrec.evaluation.code_level import code_level
from genrec.evaluation.compare import Compared, compare
from genrec.evaluation.evaluate import Result
from genrec.evaluation.fairness import GroupGaps
from genrec.evaluation.leaks import Leak
from genrec.evaluation.lists import ListContext, ListQuality, measure_lists
from genrec.evaluation.probes import Probe
from genrec.evaluation.saved import Evaluation
from genrec.evaluation.slices import SliceRow, largest_gaps, slice_table, slices_of

EXAMPLES = 4  # of each kind
GROUPS = 20  # categories, and providers, that are named in the numbers
LATEST, SHOWN = 6, 5  # items of a history, and of a list, that an example shows


@dataclass(frozen=True)
class Example:
    """One question in words. history: titles, the latest last; place: of the answer in the list, 0 at the top, -1 not in it."""

    user: str
    history: list[str]
    earlier: int
    answer: str
    list: list[str]
    place: int


@dataclass(frozen=True)
class Report:
    """protocol: "masked" or "unmasked", of everything but the results themselves. slices and lists: by ranker; slices of the
    model and of the best other one. code_level: the model's NDCG if any item with the answer's codes were a hit. probes: of
    user vectors, none where they were not asked for.
    """

    evaluation: Evaluation
    protocol: str
    compared: list[Compared]
    slices: dict[str, list[SliceRow]]
    lists: dict[str, ListQuality]
    code_level: float | None
    leaks: list[Leak]
    good: list[Example]
    bad: list[Example]
    probes: Sequence[Probe] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the examples, which name people."""
        return {
            "protocol": self.protocol,
            "compared": [asdict(row) | {"verdict": row.verdict} for row in self.compared],
            "slices": {name: [asdict(row) for row in rows] for name, rows in self.slices.items()},
            "largest_gaps": {name: largest_gaps(rows) for name, rows in self.slices.items()},
            "lists": {name: asdict(_shortened(found)) for name, found in self.lists.items()},
            "code_level_ndcg": self.code_level,
            "leaks": [asdict(leak) for leak in self.leaks],
            "probes": [{name: _known(value) for name, value in asdict(found).items()} for found in self.probes],
        }


def _known(value: Any) -> Any:
    """None for NaN, which JSON does not have."""
    return None if value != value else value


def _shortened(found: ListQuality) -> ListQuality:
    """Of single categories and providers only the most shown ones: a catalogue has thousands."""

    def most_shown(gaps: GroupGaps | None) -> GroupGaps | None:
        return gaps and replace(gaps, groups=tuple(sorted(gaps.groups, key=lambda group: -group.exposure)[:GROUPS]))

    return replace(found, category_gaps=most_shown(found.category_gaps), provider_gaps=most_shown(found.provider_gaps))


def full_report(
    evaluation: Evaluation,
    questions: Targets,
    context: ListContext,
    titles: Sequence[str],
    codes: np.ndarray | None,
    leaks: Sequence[Leak],
    protocol: str,
    seed: int = 0,
) -> Report:
    """protocol: which lists are looked at closely. titles and codes: of the items, [N] and [N, L] (None: the model has none).
    context: what else is known about them.
    """
    results = evaluation.results
    model, *others = results
    slices = slices_of(questions, context.counts, context.categories)
    k = max(model.ks)
    best = max(others, key=lambda result: result.metrics[protocol][f"ndcg@{k}"].mean, default=None)
    return Report(
        evaluation,
        protocol,
        compare(results, k=k, protocol=protocol, seed=seed),
        {result.name: slice_table(result, slices, protocol, k=k, seed=seed) for result in (model, best) if result is not None},
        {
            result.name: measure_lists(
                result.rows[protocol], questions.histories, context, questions.items,
                result.per_question(protocol, "ndcg", k),
            )
            for result in results
        },
        None if codes is None else code_level(model.rows[protocol], questions.items, codes, [k])[f"code_ndcg@{k}"],
        list(leaks),
        examples(model, questions, titles, protocol, hit=True, seed=seed),
        examples(model, questions, titles, protocol, hit=False, seed=seed),
    )  # fmt: skip


def examples(
    result: Result, questions: Targets, titles: Sequence[str], protocol: str, hit: bool, seed: int = 0, many: int = EXAMPLES
) -> list[Example]:
    """Questions drawn at random among those whose answer came first (hit) or was not in the list; histories of three or more
    are the first choice."""
    positions = result.positions[protocol]
    chosen = np.flatnonzero(positions == 0 if hit else positions < 0)
    told = chosen[questions.histories.lengths[chosen] >= 3]  # a history of one or two says little to a reader
    chosen = told if len(told) >= many else chosen
    chosen = np.sort(np.random.default_rng(seed).permutation(chosen)[:many])
    found = []
    for row in chosen:
        history = questions.histories[row]
        shown = [item for item in result.rows[protocol][row][:SHOWN] if item >= 0]
        found.append(Example(
            str(result.users[row]), [titles[item] for item in history[-LATEST:]], max(0, len(history) - LATEST),
            titles[questions.items[row]], [titles[item] for item in shown], int(positions[row]),
        ))  # fmt: skip
    return found
