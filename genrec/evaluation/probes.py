"""Probes: what a linear model can read from user vectors.

In: one vector per user, the question that the user's history asks, and what is known of items. Out: one `Probe` per question,
the score beside that of somebody who never looked at the vectors. The three groups are UQABench's (arXiv 2502.19178), which
puts the questions to a language model; here a linear model answers, so that nothing but the vectors is measured.

- sequence understanding: the category of the last item and of the third from the end; how many events there were.
- action prediction: the category of the next item; the next item among 99 others drawn by popularity. That one is named
  sampled99, because ranks among sampled items say nothing about ranks among all (Krichene & Rendle, KDD 2020).
- interest perception: the commonest category of the history, and of what the user did later where that is known.

A probe learns from one half of the users, by a hash of the user id, and is scored on the other. How: probe_models.py.

    print(probe_table(probe_model(recommender.ranker, split.test, labels, vectors, counts)))

Legend: `U` users, `d` width of user vectors, `N` items, `e` width of item vectors, `C` candidates.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.evaluate import markdown_table
from genrec.evaluation.probe_models import chosen, classified, regressed
from genrec.evaluation.user_vectors import last_item, random_vectors, user_vectors_of
from genrec.tokenizers.das import user_vectors

SEQUENCE, ACTION, INTEREST = "sequence understanding", "action prediction", "interest perception"
OTHERS = 99
CELLS = 2**23  # numbers drawn at once for the candidates


@dataclass(frozen=True)
class Probe:
    """vectors: whose they are. group and question: see the module. metric: "accuracy" or "correlation" (Pearson's). value: on
    the scored half; NaN where there were too few users or only one answer. floor: of the commonest answer, for the next item
    of the most popular candidate, for a correlation 0. users: how many were scored.
    """

    vectors: str
    group: str
    question: str
    metric: str
    value: float
    floor: float
    users: int


def probe(
    name: str,
    vectors: np.ndarray,
    questions: Targets,
    labels: np.ndarray,
    item_vectors: np.ndarray,
    popularity: np.ndarray,
    future: Histories | None = None,
    seed: int = 0,
) -> list[Probe]:
    """Ask everything of `vectors` [U, d], one per question, one question per user.

    labels: category of each item [N], "" where unknown: who would be asked for it is not asked. item_vectors: [N, e].
    popularity: training events per item [N]. future: what each user did from the question on, [U]; users with a single event
    there are not asked for its commonest category. seed: of the candidates and of the bilinear probe.
    Raises `DataError` where the arrays do not belong together.
    """
    check_integer("seed", seed, 0, 2**31 - 1)
    _check(vectors, questions, labels, item_vectors, popularity, future)
    users = questions.histories.user_ids.astype(str)
    order = np.argsort(users, kind="stable")  # sums in another order are other floats, and draws go by place
    vectors, histories, targets = vectors[order].astype(np.float64), questions.histories.select(order), questions.items[order]
    learns = np.array([learns_from(user) for user in users[order]], bool)
    labels = labels.astype(str)

    def category(group: str, question: str, answers: np.ndarray) -> Probe:
        return Probe(name, group, question, "accuracy", *classified(vectors, answers, learns))

    candidates = draw_others(histories, targets, popularity, seed)
    found = [
        category(SEQUENCE, "category of the last item", label_from_end(histories, labels, 1)),
        category(SEQUENCE, "category of the third item from the end", label_from_end(histories, labels, 3)),
        Probe(name, SEQUENCE, "logarithm of the number of events", "correlation", *regressed(
            vectors, np.log1p(histories.lengths), learns)),
        category(ACTION, "category of the next item", labels[targets]),
        Probe(name, ACTION, f"next item (sampled{OTHERS})", "accuracy", *chosen(
            vectors, targets, candidates, item_vectors, popularity, learns, seed)),
        category(INTEREST, "commonest category of the history", commonest_label(histories, labels)),
    ]  # fmt: skip
    if future is not None and (future.lengths > 1).any():
        later = future.select(order)
        answers = np.where(later.lengths > 1, commonest_label(later, labels), "")
        found.append(category(INTEREST, "commonest category of the future", answers))
    return found


def probe_model(
    ranker: BeamRanker | OnePassRanker,
    questions: Targets,
    labels: np.ndarray,
    item_vectors: np.ndarray,
    popularity: np.ndarray,
    most_users: int = 0,
    seed: int = 0,
) -> list[Probe]:
    """Ask everything of the model's user vectors, and of what could stand in for them: the mean of the history's item vectors,
    the vector of its last item, and random numbers.

    questions: of a split; each user's first one is asked, and the others are what the user did later. most_users: draw so many
    of the users, 0 for all. The rest: see `probe`, which it raises like.
    """
    first, future = first_questions(questions)
    if most_users:
        first = first.sample(most_users, seed)
        future = future.select(np.flatnonzero(np.isin(future.user_ids.astype(str), first.histories.user_ids.astype(str))))
    histories = first.histories
    vectors = {
        "model": user_vectors_of(ranker, histories),
        "mean item": user_vectors(item_vectors, histories),
        "last item": last_item(histories, item_vectors),
        "random": random_vectors(histories, item_vectors.shape[1], seed),
    }
    return [
        found
        for name, of_users in vectors.items()
        for found in probe(name, of_users, first, labels, item_vectors, popularity, future, seed)
    ]


def by_question(probes: Sequence[Probe]) -> tuple[list[str], list[list[str]]]:
    """(kinds of vectors, a row of texts per question: group, question, metric, users, floor, then the value of each kind).

    What could not be asked is "-". Raises `SettingError` where kinds were asked other things.
    """
    names = list(dict.fromkeys(found.vectors for found in probes))
    asked: dict[tuple, dict[str, float]] = {}
    for found in probes:
        key = (found.group, found.question, found.metric, str(found.users), f"{found.floor:.3f}")
        asked.setdefault(key, {})[found.vectors] = found.value
    if any(list(values) != names for values in asked.values()):
        raise SettingError(f"A table needs the same questions, put to the same users, for all of {names}. Probe them alike.")
    rows = [[*key, *(f"{values[name]:.3f}" for name in names)] for key, values in asked.items()]
    return names, [["-" if cell == "nan" else cell for cell in row] for row in rows]


def probe_table(probes: Sequence[Probe]) -> str:
    """Markdown, aligned for a terminal: a row per question, a column per kind of vectors. Raises as `by_question`."""
    names, rows = by_question(probes)
    return markdown_table(["group", "question", "metric", "users", "floor", *names], rows)


def first_questions(questions: Targets) -> tuple[Targets, Histories]:
    """Each user's first question, and all items that the user's questions ask for, oldest first: ([U], [U]).

    With leave-one-out that is one item per user; with a cut in time, what the user did from the cut on.
    """
    names, owner = np.unique(questions.histories.user_ids.astype(str), return_inverse=True)
    order = np.lexsort((questions.histories.lengths, owner))
    first = np.searchsorted(owner[order], np.arange(len(names)))
    later = np.split(questions.items[order], first[1:]) if len(names) else []
    return (
        Targets(questions.histories.select(order[first]), questions.items[order[first]]),
        Histories.from_lists(later, names.tolist()),
    )


def learns_from(user_id: str) -> bool:
    """Whether a probe learns from this user or is scored on it: half of all users each, the same in every process."""
    return bool(hashlib.sha256(user_id.encode()).digest()[0] & 1)


def label_from_end(histories: Histories, labels: np.ndarray, steps: int) -> np.ndarray:
    """The label of the item that stands `steps` from the end (1: the last): str [U], "" for shorter histories."""
    long_enough = histories.lengths >= steps
    found = np.full(len(histories), "", labels.dtype)
    found[long_enough] = labels[histories.items[histories.indptr[1:][long_enough] - steps]]
    return found


def commonest_label(histories: Histories, labels: np.ndarray) -> np.ndarray:
    """The label that most items of each history have, of equal ones the latest met; "" counts for nothing: str [U]."""
    names, numbers = np.unique(labels, return_inverse=True)
    event = numbers.reshape(-1)[histories.items]
    key = np.repeat(np.arange(len(histories)), histories.lengths) * len(names) + event
    named = np.flatnonzero(names[event] != "")
    pairs, where, counts = np.unique(key[named], return_inverse=True, return_counts=True)
    latest = np.zeros(len(pairs), np.int64)
    np.maximum.at(latest, where.reshape(-1), named)
    user = pairs // max(1, len(names))
    order = np.lexsort((latest, counts, user))
    last = np.flatnonzero(np.diff(user[order], append=-1))  # the best pair of a user stands last
    found = np.full(len(histories), "", labels.dtype)
    found[user[order][last]] = names[pairs[order][last] % len(names)]
    return found


def draw_others(
    histories: Histories, targets: np.ndarray, popularity: np.ndarray, seed: int, others: int = OTHERS
) -> np.ndarray:
    """The target and `others` different items drawn by popularity, as catalogue rows in ascending order: int64 [U, C].

    Items of the history are not drawn, unless the target is one itself: else it would be the only old one. All -1 for a
    user for whom training has too few items.
    """
    random = np.random.default_rng(seed)
    found = np.full((len(targets), others + 1), -1, np.int64)
    with np.errstate(divide="ignore"):
        chance = np.log(popularity.astype(np.float64))
    size = max(1, CELLS // len(chance))
    for begin in range(0, len(targets), size):
        users = np.arange(begin, min(begin + size, len(targets)))
        batch = histories.select(users)
        # The largest of log-chances with Gumbel noise are a draw without replacement.
        keys = chance - np.log(random.standard_exponential((len(users), len(chance))))
        owner = np.repeat(np.arange(len(users)), batch.lengths)
        repeats = np.zeros(len(users), bool)
        repeats[owner[batch.items == targets[users][owner]]] = True
        masked = ~repeats[owner]
        keys[owner[masked], batch.items[masked]] = -np.inf
        keys[np.arange(len(users)), targets[users]] = np.inf
        enough = (keys > -np.inf).sum(axis=1) > others
        if enough.any():
            drawn = np.argpartition(-keys[enough], others, axis=1)[:, : others + 1]
            found[users[enough]] = np.sort(drawn, axis=1)
    return found


def _check(
    vectors: np.ndarray,
    questions: Targets,
    labels: np.ndarray,
    item_vectors: np.ndarray,
    popularity: np.ndarray,
    future: Histories | None,
) -> None:
    """Refuse arrays that do not belong together. Raises `DataError`."""
    users = len(questions)
    if vectors.ndim != 2 or len(vectors) != users or not np.isfinite(vectors).all():
        raise DataError(f"User vectors must be finite numbers of shape [{users}, d], got {list(vectors.shape)}.")
    if len(set(questions.histories.user_ids.tolist())) != users:
        raise DataError("A probe needs one question per user, got a user more than once. Take `first_questions` of them.")
    if not len(labels) == len(item_vectors) == len(popularity):
        raise DataError(
            "labels, item_vectors and popularity must have one row per catalogue row, got "
            f"{len(labels)}, {len(item_vectors)} and {len(popularity)}."
        )
    if future is not None and future.user_ids.tolist() != questions.histories.user_ids.tolist():
        raise DataError("future must have the users of the questions in the same order. Take both from `first_questions`.")
