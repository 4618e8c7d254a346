"""Leak checks: what a model, its codes or its questions could know and must not.

In: a `Split`, and the hashes of the events that the model and its codes learned from. Out: a `Leak` for each kind that was
found. `genrec fit` and `genrec evaluate` run them by themselves.

    report_leaks(check_leaks(split))

Training events are read in stretches and only those that look like a question are kept, so memory does not grow with them:
the one sorted copy of their times is on disk where it is long. That other users' training events may be later than a question,
in every protocol without a common cut in time, is the finding of Ji et al. (arXiv 2010.11060).

Legend: `E` training events, `M` questions of one part, `P` people in all parts together.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from genrec.data.interactions import Histories
from genrec.data.mapped import large_array, parts
from genrec.data.splits import GLOBAL_TIME, USER_HOLDOUT, Split, Targets
from genrec.errors import DataError

log = logging.getLogger(__name__)

BATCH = 4096  # suspicious histories looked at together

# Kind -> (what is counted, what to do).
KINDS = {
    "other-events": (
        "questions may be among the training data",
        "Give the interactions of the fit, or fit again on these.",
    ),
    "target-in-training": (
        "questions have their own target event in training",
        "Cut the histories again, and train again what was trained on them.",
    ),
    "own-future-in-training": (
        "questions have later events of the same user in training",
        "Cut the histories again, and train again what was trained on them.",
    ),
    "future-in-training": (
        "questions are older than some training events, though the split is by time",
        "Cut all users at the same moments, as data.split: global-time does.",
    ),
    "user-in-training": (
        "questions are about held-out users who train too, or are in both held-out parts",
        "Keep all events of a user in one part.",
    ),
    "event-twice": (
        "questions have a training event of the same user, item and time",
        "Drop duplicate rows; `genrec validate` names them.",
    ),
    "not-in-time-order": (
        "histories have an event, or a target, that is older than the one before it",
        "Sort each user's events by time. Readers do, but for users with a missing timestamp: fill it, or drop the row.",
    ),
    "future-of-others": (
        "questions are older than some training events of other users",
        "This belongs to the protocol; only data.split: global-time is without it.",
    ),
    "tied-times": (
        "test targets have the very time of the event before them: time did not choose them",
        "Bring finer timestamps or a `position` column; without them the order of the file decides.",
    ),
}
INHERENT = frozenset({"future-of-others", "tied-times"})


@dataclass(frozen=True)
class Leak:
    """kind: one of `KINDS`. count: found, of so many looked at. example: one of them. advice: what to do."""

    kind: str
    count: int
    of: int
    example: str
    advice: str

    @property
    def inherent(self) -> bool:
        """Whether it belongs to the protocol or to the data: good to know, but no mistake."""
        return self.kind in INHERENT

    def __str__(self) -> str:
        return f"{self.kind}: {self.count} of {self.of} {KINDS[self.kind][0]} ({self.example}). {self.advice}"


def check_leaks(split: Split, events: str = "", learned_from: Mapping[str, str | None] | None = None) -> list[Leak]:
    """What is wrong with a split and with what learned on it, in the order of `KINDS`; an empty list where nothing is.

    events: hash of the interactions that were split. learned_from: who learned ("model", "codes") -> hash of the interactions
    it learned from, None where it learned from none. What is inherent in the protocol is told too: see `Leak.inherent`.
    """
    parts = {"validation": split.validation, "test": split.test}
    people, *asked_people = _number([split.train.user_ids, *(asked.histories.user_ids for asked in parts.values())])
    training = _Training.of(split.train, people, 1 + max((int(p.max(initial=-1)) for p in (people, *asked_people)), default=0))
    found = {
        part: _suspects(split.name, asked, people, training)
        for (part, asked), people in zip(parts.items(), asked_people, strict=True)
    }
    if split.name == USER_HOLDOUT:
        for part, own, other in zip(parts, asked_people, asked_people[::-1], strict=True):
            found[part]["user-in-training"] = (training.events[own] > 0) | np.isin(own, other)
    found["test"]["tied-times"] = _times_before(split.test) == _times(split.test)
    found["training"] = {"not-in-time-order": _backward(split.train)}

    leaks = _other_events(sum(map(len, parts.values())), events, learned_from or {})
    for kind, (_, advice) in KINDS.items():
        masks = {part: kinds[kind] for part, kinds in found.items() if kind in kinds}
        count = sum(int(mask.sum()) for mask in masks.values())
        if not count:
            continue
        part = next(part for part, mask in masks.items() if mask.any())
        example = _describe(split, part, int(masks[part].argmax()))
        if kind in ("future-in-training", "future-of-others"):
            example += f"; {training.share_later(parts):.1%} of the training events are later than a question on average"
        leaks.append(Leak(kind, count, sum(map(len, masks.values())), example, advice))
    return leaks


def report_leaks(leaks: Sequence[Leak], strict: bool = False) -> None:
    """Log each leak: a warning, or for an inherent one a note. strict: raise `DataError` where one is not inherent."""
    for leak in leaks:
        log.log(logging.INFO if leak.inherent else logging.WARNING, "%s", leak)
    mistakes = [str(leak) for leak in leaks if not leak.inherent]
    if strict and mistakes:
        raise DataError("The evaluation leaks, so it was not run:\n" + "\n".join(mistakes))


@dataclass(frozen=True, eq=False)
class _Training:
    """Training histories with `people` [U], whose each is; events: of each person, int64 [P]; last: the latest time of each,
    float64 [P], -inf where none is known; times: all known ones in order, float64 [at most E]."""

    histories: Histories
    people: np.ndarray
    events: np.ndarray
    last: np.ndarray
    times: np.ndarray

    @classmethod
    def of(cls, histories: Histories, people: np.ndarray, count: int) -> "_Training":
        last = np.full(count, -np.inf)
        filled = histories.lengths > 0
        if filled.any():
            latest = np.fmax.reduceat(histories.times, histories.indptr[:-1][filled])  # NaN only where all are
            np.fmax.at(last, people[filled], latest)
        events = np.bincount(people, histories.lengths, count).astype(np.int64)
        times, known = large_array(len(histories.times), np.float64), 0
        for stretch in parts(len(times)):
            part = histories.times[stretch]
            part = part[~np.isnan(part)]
            times[known : known + len(part)] = part
            known += len(part)
        times = times[:known]
        times.sort()
        return cls(histories, people, events, last, times)

    def later_than(self, times: np.ndarray) -> np.ndarray:
        """Training events after each time [M], 0 for an unknown one: int64 [M]."""
        later = len(self.times) - np.searchsorted(self.times, times, "right")
        return np.where(np.isnan(times), 0, later)

    def share_later(self, parts: Mapping[str, Targets]) -> float:
        """Share of the training events that are later than a question, mean over the questions whose time is known."""
        times = np.concatenate([_times(asked) for asked in parts.values()])
        return float(self.later_than(times[~np.isnan(times)]).mean() / len(self.times))

    def like(self, asked: Targets, people: np.ndarray) -> np.ndarray:
        """Training events of the same person, item and time as each question: int64 [M]. Without times, those do not count."""
        width = 1 + max(int(self.histories.items.max(initial=0)), int(asked.items.max(initial=0)))
        wanted = people * width + asked.items
        once = np.unique(wanted)
        keys, times = [np.zeros(0, np.int64)], [np.zeros(0)]
        for stretch in parts(len(self.histories.items)):
            history = np.searchsorted(self.histories.indptr, np.arange(stretch.start, stretch.stop), "right") - 1
            key = self.people[history] * width + self.histories.items[stretch]
            near = np.isin(key, once)
            keys.append(key[near])
            times.append(self.histories.times[stretch][near])
        seen = sum(map(len, keys))
        when = np.concatenate([*times, _times(asked)])
        if asked.times is None:
            when[:] = np.nan
        _, moment = np.unique(when, return_inverse=True)  # all NaN are one moment
        _, pair = np.unique(np.concatenate([*keys, wanted]), return_inverse=True)
        _, event = np.unique(pair * (1 + int(moment.max(initial=0))) + moment, return_inverse=True)
        return np.bincount(event[:seen], minlength=1 + int(event.max(initial=0)))[event[seen:]]


def _suspects(protocol: str, asked: Targets, people: np.ndarray, training: _Training) -> dict[str, np.ndarray]:
    """Kind -> which questions [M] it holds for."""
    times, trained = _times(asked), training.like(asked, people)
    past = np.zeros(len(asked), np.int64)
    for rows in np.array_split(np.flatnonzero(trained), 1 + np.count_nonzero(trained) // BATCH):
        past[rows] = _past_like(asked.select(rows))
    target = trained > past  # the past does not explain that many events like the target: one of them is the target
    goes_on = (training.last[people] > times) | (training.events[people] > asked.histories.lengths)
    return {
        "target-in-training": target,
        "own-future-in-training": goes_on & ~target,
        "future-in-training" if protocol == GLOBAL_TIME else "future-of-others": training.later_than(times) > 0,
        "event-twice": (trained > 0) & ~target & ~np.isnan(times),
        "not-in-time-order": _backward(asked.histories) | (_times_before(asked) > times),
    }


def _past_like(asked: Targets) -> np.ndarray:
    """Events of each question's history with the item and the time of its target: int64 [M]."""
    owner = np.repeat(np.arange(len(asked)), asked.histories.lengths)
    alike = asked.histories.items == asked.items[owner]
    if asked.times is not None:
        then, now = asked.histories.times, asked.times[owner]
        alike &= (then == now) | (np.isnan(then) & np.isnan(now))
    return np.bincount(owner[alike], minlength=len(asked))


def _backward(histories: Histories) -> np.ndarray:
    """Which histories have an event that is older than the one before it: bool [U]."""
    falls = np.flatnonzero(histories.times[1:] < histories.times[:-1]) + 1
    owner = np.searchsorted(histories.indptr, falls, "right") - 1
    inside = falls > histories.indptr[owner]
    return np.bincount(owner[inside], minlength=len(histories)) > 0


def _times(asked: Targets) -> np.ndarray:
    """Times of the targets, NaN where unknown: float64 [M]."""
    return np.full(len(asked), np.nan) if asked.times is None else asked.times


def _times_before(asked: Targets) -> np.ndarray:
    """Time of the last event of each history, NaN where unknown or where there is none: float64 [M]."""
    histories, before = asked.histories, np.full(len(asked), np.nan)
    filled = histories.lengths > 0
    before[filled] = histories.times[histories.indptr[1:][filled] - 1]
    return before


def _number(user_ids: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Whose each history is, as a number that is the same in all parts: int64 [len] for each list of ids."""
    numbers = pa.array(np.concatenate(user_ids)).dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    return np.split(numbers, np.cumsum([len(ids) for ids in user_ids])[:-1])


def _other_events(questions: int, events: str, learned_from: Mapping[str, str | None]) -> list[Leak]:
    others = {who: seen for who, seen in learned_from.items() if seen is not None and seen != events}
    if not others:
        return []
    names = " and ".join(f"the {who} (hash {seen[:12]})" for who, seen in others.items())
    example = f"these interactions, hash {events[:12]}, are not the ones of the fit of {names}"
    return [Leak("other-events", questions, questions, example, KINDS["other-events"][1])]


def _describe(split: Split, part: str, row: int) -> str:
    if part == "training":
        return f"for example the training history of user {split.train.user_ids[row]!r}"
    asked: Targets = getattr(split, part)
    time = "" if asked.times is None or np.isnan(asked.times[row]) else f" at time {asked.times[row]:.15g}"
    return f"for example {part} question {row}: user {asked.histories.user_ids[row]!r}, catalogue row {asked.items[row]}{time}"
