"""Where a ranker is good: its metrics on parts of the questions, beside the whole.

    slices = slices_of(questions, counts, categories)
    print(slices_markdown(slice_table(result, slices)))

In: questions and what training knew; a `Result`. Out: named masks over questions; one row per slice with intervals over users.
A slice is chosen by what was known before the answer was ranked, never by the ranking.

Legend: `M` questions, `N` items, `V` slices.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_choice
from genrec.evaluation.evaluate import Result, markdown_table, repeated_targets
from genrec.evaluation.fairness import known_groups
from genrec.evaluation.statistics import Estimate, by_user, resampled, user_numbers

FIFTHS = (
    "head: the most popular items, one fifth of events",
    "second fifth",
    "third fifth",
    "fourth fifth",
    "tail: last fifth",
)
LARGEST = 10  # categories with a slice of their own
FEWEST_USERS = 30  # below it the interval itself cannot be trusted


@dataclass(frozen=True, eq=False)
class Slice:
    """Part of the questions. group: what they were divided by ("training"); name: which part ("cold"); mask: bool [M]."""

    name: str
    group: str
    mask: np.ndarray


@dataclass(frozen=True)
class SliceRow:
    """A metric on one slice. gap: mean of the slice minus that of all questions. too_small: fewer than `FEWEST_USERS` users,
    not to be read.
    """

    group: str
    name: str
    questions: int
    users: int
    metric: Estimate
    gap: Estimate
    too_small: bool


def slices_of(
    questions: Targets,
    counts: np.ndarray,
    categories: np.ndarray | None = None,
    first_times: np.ndarray | None = None,
    cut: float | None = None,
) -> list[Slice]:
    """Slices by target and history; parts without a question are left out.

    counts: training events per item [N]. categories: text [N], "" where unknown. first_times [N] with `cut`, for a split in
    time: when each item was first met by anyone, and when training ended. The groups:
    training: cold targets (no training event) and warm ones.
    popularity: warm targets by fifths of training events, not of items: the head is the few items that have the first fifth of
    all events. An item is where its first event falls; items with as many events go by catalogue row.
    age: targets new since training, first met at `cut` or later; without times, never met in training, the same as cold.
    history: by number of events, about a quarter of the questions in each part.
    category: of the target, the `LARGEST` by questions, then "other" and "unknown".
    repeat: whether the target is in the history.
    Raises `SettingError` for one of `first_times` and `cut` without the other, `DataError` for arrays of other catalogues.
    """
    if (first_times is None) != (cut is None):
        raise SettingError("first_times and cut belong together: give both for a split in time, or none.")
    highest = int(questions.items.max(initial=-1))
    for name, array in (("counts", counts), ("categories", categories), ("first_times", first_times)):
        if array is not None and (len(array) != len(counts) or highest >= len(array)):
            raise DataError(
                f"{name} must have one value per catalogue row, got {len(array)} beside {len(counts)} counts "
                f"and target row {highest}. Give arrays of the catalogue that was evaluated."
            )
    cold = counts[questions.items] == 0
    new = cold if first_times is None else first_times[questions.items] >= cut
    repeated = repeated_targets(questions)
    found = [
        Slice("cold", "training", cold),
        Slice("warm", "training", ~cold),
        *_by_number("popularity", FIFTHS, fifths(counts)[questions.items]),
        Slice("new since training", "age", new),
        Slice("known in training", "age", ~new),
        *_by_length(questions.histories.lengths),
        *([] if categories is None else _by_category(categories, questions.items)),
        Slice("in the history", "repeat", repeated),
        Slice("first time", "repeat", ~repeated),
    ]
    return [part for part in found if part.mask.any()]


def fifths(counts: np.ndarray) -> np.ndarray:
    """Which fifth of all training events each item belongs to, 0 for the most popular, -1 without events: int64 [N]."""
    order = np.argsort(-counts, kind="stable")
    events = counts[order].astype(np.int64)
    before = np.cumsum(events) - events
    number = np.empty(len(counts), np.int64)
    number[order] = np.where(events > 0, 5 * before // max(1, int(events.sum())), -1)
    return number


def slice_table(
    result: Result, slices: Sequence[Slice], protocol: str = "masked", metric: str = "ndcg", k: int | None = None, seed: int = 0
) -> list[SliceRow]:
    """`metric` at `k` (None: the largest measured) on each slice, and how far it is from all questions.

    Intervals: 95 %, users drawn with all their questions; a draw gives the slice and the whole at once, so the gap's interval
    knows that one is part of the other. Raises `DataError` for a slice without questions or of other questions.
    """
    check_choice("protocol", protocol, result.positions)
    values = result.per_question(protocol, metric, max(result.ks) if k is None else k)
    for part in slices:
        if part.mask.shape != values.shape or not part.mask.any():
            raise DataError(
                f"Slice {part.name!r} must be a mask over the {len(values)} questions of the result with at least one of them, "
                f"got shape {part.mask.shape} with {int(part.mask.sum())}. Make slices from the questions that were evaluated."
            )
    owner = user_numbers(result.users)
    everyone = by_user([values], owner)
    sums = np.empty((2 + 2 * len(slices), everyone.shape[1]))  # of values and of questions: of all, then of each slice
    sums[:2] = everyone
    for place, part in enumerate(slices, 1):
        sums[2 * place : 2 * place + 2] = by_user([np.where(part.mask, values, 0), part.mask], owner)[:2]
    drawn = resampled(sums, seed)
    overall = drawn[:, 0] / drawn[:, 1]
    rows = []
    for place, part in enumerate(slices, 1):
        total, asked = drawn[:, 2 * place], drawn[:, 2 * place + 1]
        there = asked > 0  # a tiny slice is missing from some draws
        means = total[there] / asked[there]
        mean, users = float(values[part.mask].mean()), int((sums[2 * place + 1] > 0).sum())
        rows.append(
            SliceRow(
                part.group,
                part.name,
                int(part.mask.sum()),
                users,
                _estimate(mean, means),
                _estimate(mean - float(values.mean()), means - overall[there]),
                users < FEWEST_USERS,
            )
        )
    return rows


def largest_gaps(rows: Sequence[SliceRow]) -> dict[str, float]:
    """By group: the mean of its best slice less that of its worst, for groups with at least two that are not too small.

    So "history" tells how far apart long-time users and new ones are served, "category" what is found best and worst.
    """
    means: dict[str, list[float]] = {}
    for row in rows:
        if not row.too_small:
            means.setdefault(row.group, []).append(row.metric.mean)
    return {group: max(found) - min(found) for group, found in means.items() if len(found) > 1}


def slices_markdown(rows: Sequence[SliceRow]) -> str:
    """Markdown, aligned for a terminal: one row per slice, those too small to read marked as such."""
    header = ["by", "slice", "questions", "users", "mean", "95 %", "gap to all", "95 % of the gap", "note"]
    cells = [
        [
            row.group, row.name, f"{row.questions}", f"{row.users}",
            f"{row.metric.mean:.4f}", f"{row.metric.low:.4f} to {row.metric.high:.4f}",
            f"{row.gap.mean:+.4f}", f"{row.gap.low:+.4f} to {row.gap.high:+.4f}",
            "too small to read" if row.too_small else "",
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(header, cells)


def _by_number(group: str, names: Sequence[str], number: np.ndarray) -> list[Slice]:
    return [Slice(name, group, number == place) for place, name in enumerate(names)]


def _by_length(lengths: np.ndarray) -> list[Slice]:
    """Parts between the quartiles of the lengths; fewer where many lengths are the same."""
    if not len(lengths):
        return []
    ends = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75, 1], method="inverted_cdf"))
    number = np.searchsorted(ends, lengths)
    names = []
    for place, end in enumerate(ends):
        start = int(lengths[number == place].min())
        span = f"{start}" if start == end else f"{start} to {int(end)}"
        names.append(f"{span} event" if span == "1" else f"{span} events")
    return _by_number("history", names, number)


def _by_category(categories: np.ndarray, targets: np.ndarray) -> list[Slice]:
    names, number = known_groups(categories)
    own = number[targets]
    questions = np.bincount(own[own >= 0], minlength=len(names))
    largest = np.argsort(-questions, kind="stable")[:LARGEST]  # equal ones by name
    found = [Slice(names[category], "category", own == category) for category in largest]
    return [
        *found,
        Slice("other", "category", (own >= 0) & ~np.isin(own, largest)),
        Slice("unknown", "category", own < 0),
    ]


def _estimate(mean: float, drawn: np.ndarray) -> Estimate:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(mean, float(low), float(high))
