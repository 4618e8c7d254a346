"""Recommend inside a dialogue: every item of the catalogue ranked by what has been said so far.

In: turns of dialogues with the items that were recommended in them. Out: a `DialogueRanker`: messages in, log-probabilities of
all items out. No language model is needed: each signal is a number for every item that can be looked at, and conditional logits
(McFadden 1974) weigh them. A name may be asked about or be a wish for others like it ("who directed Alien?", "more like
Alien"), so there are two: one among the items named so far, one among all others, each with weights of its own:

    P(item | messages) = p * P(item | named)  or  (1 - p) * P(item | not named)
    log P(item | named or not) = sum over signals of weight * signal(messages, item), up to a constant

p, how likely the answer is an item already named, is read from the words around the names by a logistic regression. It and the
signals are counted on training turns, the weights learned on other dialogues, so that a signal which only remembers what it was
made of earns no weight.

    ranker = DialogueRanker(table).fit(train, validation)
    ranker.rank([["I loved Alien. Anything like it?"]], k=10)

Legend: `M` turns, `B` of a batch, `N` items, `S` signals, `V` values of the catalogue, `D` width of a vector.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa
import scipy.sparse as sp
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from genrec.chat.link import Linker
from genrec.chat.mentions import Mention, Mentions
from genrec.chat.vocabulary import Vocabulary
from genrec.errors import DataError, SettingError

log = logging.getLogger(__name__)

TOGETHER = 64  # turns whose signals are held at once, [64, N, S]
SMOOTHING = 2.0  # meetings that a name without any is credited with: keeps one chance meeting from being a rule
NEIGHBOURS = 100  # nearest training turns that vote
RIDGE = 1e-3  # of the weights, on signals scaled to one deviation
LEAST = -40.0  # log of a chance that is as good as none
MOST_FOUND = 50_000  # messages whose names are remembered
MOST_STEPS, CLOSE = 30, 1e-6  # of Newton's method
ITEM, VALUE = " anitem ", " avalue "  # what names become before the words around them are read

Messages = Sequence[str]  # of one dialogue, oldest first; the last one is to be answered
Questions = list[tuple[np.ndarray, np.ndarray]]  # signals of the items in question [n, S], and which of them are targets
Vote = Callable[[Sequence[Messages]], np.ndarray]  # [B, N]


@dataclass(frozen=True, eq=False)
class Turns:
    """Turns of dialogues. contexts: the messages before each. targets: catalogue rows recommended in it, at least one each.
    dialogues: which dialogue it is of, [M]. Raises `DataError` where they do not fit together."""

    contexts: list[list[str]]
    targets: list[np.ndarray]
    dialogues: np.ndarray

    def __post_init__(self) -> None:
        if not len(self.contexts) == len(self.targets) == len(self.dialogues):
            raise DataError(
                f"Every turn needs messages, targets and a dialogue, got {len(self.contexts)}, {len(self.targets)} and "
                f"{len(self.dialogues)} of them."
            )
        empty = next((n for n, rows in enumerate(self.targets) if not len(rows)), None)
        if empty is not None:
            raise DataError(f"Turn {empty} recommends no item of the catalogue. Leave such turns out.")

    def __len__(self) -> int:
        return len(self.contexts)


@dataclass(eq=False)
class DialogueRanker:
    """table: the catalogue. texts: one per item, None for its title and all its values. votes: further signals by name, as
    functions of a batch of contexts, such as a language model's log P or the cosine of text vectors. about: what it is made of,
    kept where it is saved (`saved_ranker.py`)."""

    table: pa.Table
    texts: list[str] | None = None
    votes: Mapping[str, Vote] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        vocabulary = Vocabulary(self.table)
        self.mentions = Mentions(Linker(self.table, vocabulary))
        self.values, self.people, self.has = _values(self.table, vocabulary)
        if self.texts is None:
            self.texts = item_texts(self.table)
        if len(self.texts) != self.table.num_rows:
            raise DataError(f"texts must be one for each of {self.table.num_rows} items, got {len(self.texts)}.")
        self.found: dict[str, list[Mention]] = {}  # the turns of a dialogue repeat its messages

    def fit(self, train: Turns, validation: Turns) -> Self:
        """Count on `train`, weigh on `validation`. Raises `DataError` without turns, or where a dialogue is in both."""
        if not len(train) or not len(validation):
            raise DataError("A dialogue ranker needs training turns and others to learn its weights from.")
        both = set(train.dialogues.tolist()) & set(validation.dialogues.tolist())
        if both:
            raise DataError(
                f"{len(both)} dialogues are in training and validation (e.g. {sorted(both, key=str)[0]!r}), so the weights "
                "would be learned on what the counts have seen. Split by dialogue, not by turn."
            )
        self._count(train)
        signals, named = self.signals(validation.contexts), self.named(validation.contexts, "all").toarray() > 0
        self.weights = {}
        for case, among in (("named", named), ("not named", ~named)):
            targets = [rows[among[turn, rows]] for turn, rows in enumerate(validation.targets)]
            self.weights[case] = learn_weights(signals, targets, among)
            log.info("Weights, %s: %s", case, dict(zip(self.names, self.weights[case].round(3).tolist(), strict=True)))
        return self

    def scores(self, contexts: Sequence[Messages]) -> np.ndarray:
        """log P of every item: float32 [M, N]. An item that nothing speaks for stands by its popularity."""
        parts = [np.zeros((0, self.table.num_rows), np.float32)]
        for start in range(0, len(contexts), TOGETHER):
            some = contexts[start : start + TOGETHER]
            parts.append(self.mixed(self.signals(some), self.named(some, "all").toarray() > 0, self.chance_of_named(some)))
        return np.concatenate(parts)

    def mixed(self, signals: np.ndarray, named: np.ndarray, chances: np.ndarray) -> np.ndarray:
        """log P of every item: float32 [B, N]. signals: [B, N, S]; named: bool [B, N]; chances: of a named one, [B]."""
        scores = np.full(named.shape, -np.inf)
        for case, among, chance in (("named", named, chances), ("not named", ~named, 1 - chances)):
            own = np.where(among, signals @ self.weights[case], -np.inf)
            shares = own - np.logaddexp.reduce(own, axis=1, keepdims=True, where=among, initial=LEAST)
            scores = np.where(among, shares + np.log(np.maximum(chance, np.exp(LEAST)))[:, None], scores)
        return scores.astype(np.float32)

    def chance_of_named(self, contexts: Sequence[Messages]) -> np.ndarray:
        """How likely the answer is an item that was named: float64 [M], 0 where none was."""
        if not len(contexts):
            return np.zeros(0)
        there = np.asarray(self.named(contexts, "all").sum(axis=1)).ravel() > 0
        return there * self.repeats.predict_proba(self.around.transform(self._around(contexts)))[:, 1]

    def rank(self, contexts: Sequence[Messages], k: int) -> tuple[np.ndarray, np.ndarray]:
        """The `k` best rows of each, int64 [M, k], and their log P; equal ones in the order of the catalogue."""
        scores = self.scores(contexts)
        if not 1 <= k <= scores.shape[1]:
            raise SettingError(f"k must be 1 to {scores.shape[1]}, the number of items, got {k}.")
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return order, np.take_along_axis(scores, order, axis=1)

    def signals(self, contexts: Sequence[Messages]) -> np.ndarray:
        """What each signal says of every item: float32 [M, N, S], in the order of `names`."""
        latest, answers, earlier = (self.named(contexts, part) for part in ("latest", "answers", "earlier"))
        named = latest.maximum(answers).maximum(earlier)
        values, latest_values = self.named_values(contexts, latest=False), self.named_values(contexts, latest=True)
        people = sp.diags(self.people.astype(np.float32))
        words, last_words = self.words.transform(map(_joined, contexts)), self.words.transform([_last(c) for c in contexts])
        alike = (named @ self.has).multiply(self.rarity)
        found: dict[str, sp.spmatrix | np.ndarray] = {
            "popularity": np.tile(self.popularity, (len(contexts), 1)),
            "named in the latest message": latest,
            "named by the other before": answers,
            "named before": earlier,
            "recommended with these items": named @ self.with_items,
            "recommended with these values": values @ self.with_values,
            "recommended with the latest values": latest_values @ self.with_values,
            "people in the latest message": latest_values @ people @ self.has.T,
            "people": values @ people @ self.has.T,
            "other values": values @ sp.diags(1 - people.diagonal()) @ self.has.T,
            "people of the named items": alike @ people @ self.has.T,
            "other values of the named items": _unit(alike @ sp.diags(1 - people.diagonal())) @ self.kinds.T,
            "words of the item": words @ self.item_words.T,
            "words of the item, latest": last_words @ self.item_words.T,
            "recommended after such words": nearest(words @ self.turn_words.T, NEIGHBOURS) @ self.taken,
        }
        dense = [part if isinstance(part, np.ndarray) else part.toarray() for part in found.values()]
        dense += [vote(contexts) for vote in self.votes.values()]
        self.names = [*found, *self.votes]
        return np.stack(dense, axis=-1).astype(np.float32)

    def _count(self, train: Turns) -> None:
        """All that is counted on training turns."""
        items = self.table.num_rows
        self.taken = indicator(train.targets, items)
        counts = np.asarray(self.taken.sum(axis=0)).ravel()
        self.popularity = np.log1p(counts).astype(np.float32)
        named = self.named(train.contexts, "all")
        self.with_items = confidence(named, self.taken)
        self.with_values = confidence(self.named_values(train.contexts, latest=False), self.taken)
        self.words = of_words()
        assert self.texts is not None
        self.words.fit([*self.texts, *map(_joined, train.contexts)])
        self.item_words, self.turn_words = self.words.transform(self.texts), self.words.transform(map(_joined, train.contexts))
        self.around = of_words_around_names()
        around = self.around.fit_transform(self._around(train.contexts))
        there = np.asarray(named.sum(axis=1)).ravel() > 0
        repeated = np.asarray(named.multiply(self.taken).sum(axis=1)).ravel()[there] > 0
        if repeated.all() or not repeated.any():
            raise DataError(
                "All or none of the training turns recommend an item that was named before them, so nothing can be learned "
                "about when they do. Check that the catalogue's titles are spelled as in the messages."
            )
        self.repeats = LogisticRegression(C=3.0, max_iter=300).fit(around[there], repeated)

    def _mentions(self, message: str) -> list[Mention]:
        found = self.found.get(message)
        if found is None:
            if len(self.found) >= MOST_FOUND:
                self.found.clear()
            found = self.found[message] = self.mentions.find(message)
        return found

    def named(self, contexts: Sequence[Messages], part: str) -> sp.csr_matrix:
        """Items named in the latest message, by its writer's partner ("answers"), in the writer's earlier ones, or in "all";
        a name of n items counts 1 / n for each: float32 [M, N]."""
        entries: list[tuple[int, int, float]] = []
        for number, messages in enumerate(contexts):
            for place, message in enumerate(messages):
                age = len(messages) - 1 - place
                here = "latest" if age == 0 else "answers" if age % 2 else "earlier"
                if part in (here, "all"):
                    entries += [(number, row, 1 / len(m.rows)) for m in self._mentions(message) for row in m.rows]
        return largest(entries, (len(contexts), self.table.num_rows))

    def named_values(self, contexts: Sequence[Messages], latest: bool) -> sp.csr_matrix:
        """Values named in the context or its latest message: float32 [M, V]."""
        entries = [
            (number, self.values[value], 1.0)
            for number, messages in enumerate(contexts)
            for message in (messages[-1:] if latest else messages)
            for mention in self._mentions(message)
            for _, value in mention.values
            if value in self.values
        ]
        return largest(entries, (len(contexts), len(self.values)))

    def _around(self, contexts: Sequence[Messages]) -> list[str]:
        """The latest messages with their names taken out."""
        texts = []
        for messages in contexts:
            text, shift = _last(messages), 0
            for mention in self._mentions(text):
                name = ITEM if mention.rows else VALUE
                text = text[: mention.start + shift] + name + text[mention.end + shift :]
                shift += len(name) - (mention.end - mention.start)
            texts.append(text)
        return texts

    @property
    def rarity(self) -> np.ndarray:
        """log(N / items that have it) of each value: [1, V]."""
        return np.log(self.table.num_rows / np.maximum(np.asarray(self.has.sum(axis=0)), 1)).astype(np.float32)

    @property
    def kinds(self) -> sp.csr_matrix:
        """Values of each item but people, weighed by rarity, rows of length 1: float32 [N, V]."""
        return _unit(self.has.multiply(self.rarity * ~self.people))


def of_words(terms: list[str] | None = None) -> TfidfVectorizer:
    """Words of messages and items as numbers. terms: those that were learned."""
    return TfidfVectorizer(sublinear_tf=True, dtype=np.float32, vocabulary=terms)


def of_words_around_names(terms: list[str] | None = None) -> TfidfVectorizer:
    """Words and pairs of words around names as numbers."""
    return TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"\w+|\?", vocabulary=terms)


def learn_weights(signals: np.ndarray, targets: Sequence[np.ndarray], among: np.ndarray) -> np.ndarray:
    """The weights under which the targets are likeliest among the items in question: float64 [S]. signals: [M, N, S]; targets:
    rows of each turn, a turn without any teaches nothing and the others count once; among: bool [M, N].

    Newton's method: the likelihood is concave, and with so few weights its second derivatives cost hardly more than its first.
    """
    questions: Questions = []
    for given, rows, there in zip(signals, targets, among, strict=True):
        if len(rows):
            own = np.flatnonzero(there)
            questions.append((given if len(own) == len(given) else given[own], np.searchsorted(own, rows)))
    scale = np.sqrt(
        np.mean([given.var(axis=0, dtype=np.float64) for given, _ in questions] or [np.ones(signals.shape[-1])], axis=0)
    )
    scale[scale < 1e-9] = 1.0
    weights = np.zeros(signals.shape[-1])
    value, gradient, curvature = _likelihood(questions, weights, scale)
    for _ in range(MOST_STEPS):
        step = np.linalg.solve(curvature, gradient)
        if gradient @ step < CLOSE:
            break
        size, better = 1.0, _likelihood(questions, weights + step, scale)
        while better[0] < value and size > CLOSE:
            size /= 2
            better = _likelihood(questions, weights + size * step, scale)
        if better[0] <= value:  # nothing is left to gain but the rounding of float32
            break
        weights = weights + size * step
        value, gradient, curvature = better
    return weights / scale


def _likelihood(questions: Questions, weights: np.ndarray, scale: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
    """Mean log-likelihood less the ridge, its gradient [S], and its second derivatives with the sign turned [S, S]."""
    value, gradient, curvature = 0.0, np.zeros(len(weights)), np.zeros((len(weights), len(weights)))
    for given, rows in questions:
        scores = given @ (weights / scale).astype(np.float32)
        total = np.logaddexp.reduce(scores)
        chances = np.exp(scores - total)
        mean = chances @ given
        value += float((scores[rows] - total).mean())
        gradient += given[rows].mean(axis=0) - mean
        curvature += (given * chances[:, None]).T @ given - np.outer(mean, mean)
    turns, ridge = max(len(questions), 1), 2 * RIDGE
    gradient, curvature = gradient / scale / turns - ridge * weights, curvature / np.outer(scale, scale) / turns
    return value / turns - RIDGE * float(weights @ weights), gradient, curvature + ridge * np.eye(len(weights))


def confidence(named: sp.csr_matrix, taken: sp.csr_matrix, smoothing: float = SMOOTHING) -> sp.csr_matrix:
    """How often an item was recommended where a name was said, as an association rule's confidence, smoothed: [names, N]."""
    times = np.asarray(named.sum(axis=0)).ravel()
    return (sp.diags(1 / np.maximum(times + smoothing, 1e-12)) @ (named.T @ taken)).tocsr().astype(np.float32)


def nearest(similar: sp.spmatrix, most: int) -> sp.csr_matrix:
    """Squares of the `most` highest of each row, as shares of their sum: float32, of the same shape."""
    dense = similar.toarray()
    if dense.shape[1] > most:
        edge = np.partition(dense, dense.shape[1] - most, axis=1)[:, dense.shape[1] - most, None]
        dense[dense < edge] = 0
    dense *= dense
    return sp.csr_matrix(dense / np.maximum(dense.sum(axis=1, keepdims=True), 1e-12))


def indicator(rows: Sequence[np.ndarray], width: int) -> sp.csr_matrix:
    """1 where a row is among those of a turn: float32 [M, width]."""
    return largest([(number, int(row), 1.0) for number, some in enumerate(rows) for row in some], (len(rows), width))


def largest(entries: list[tuple[int, int, float]], shape: tuple[int, int]) -> sp.csr_matrix:
    """A matrix of entries (row, column, value above 0), the largest where there are several: float32."""
    kept: dict[tuple[int, int], float] = {}
    for row, column, value in entries:
        kept[row, column] = max(value, kept.get((row, column), 0.0))
    places = np.array(list(kept), np.int64).reshape(-1, 2)
    return sp.csr_matrix((np.fromiter(kept.values(), np.float32), (places[:, 0], places[:, 1])), shape)


def item_texts(table: pa.Table) -> list[str]:
    """Title and all values of each item, for comparing words."""
    vocabulary = Vocabulary(table)
    names = [name for name in table.column_names if name == vocabulary.title or name in vocabulary.columns]
    texts = []
    for row in table.select(names).to_pylist():
        values = [value if isinstance(value, list) else [value] for value in row.values()]
        texts.append(". ".join(" ".join(map(str, some)) for some in values if some and some[0] is not None))
    return texts


def _values(table: pa.Table, vocabulary: Vocabulary) -> tuple[dict[str, int], np.ndarray, sp.csr_matrix]:
    """Number of each value, whether it is a person's (or anything else that few items have), and who has it: bool [V],
    float32 [N, V]."""
    numbers: dict[str, int] = {}
    entries, broad = [], set()
    for column in vocabulary.columns.values():
        if column.kind != "values":
            continue
        # The columns by which any two items may meet (genres, languages) say less of an item than its people, brands, authors.
        is_broad = column.shared > BROAD
        for row, value in enumerate(table.column(column.name).to_pylist()):
            for one in value if isinstance(value, list) else [value]:
                if one:
                    number = numbers.setdefault(one, len(numbers))
                    entries.append((row, number, 1.0))
                    if is_broad:
                        broad.add(number)
    people = np.ones(len(numbers), bool)
    people[sorted(broad)] = False
    return numbers, people, largest(entries, (table.num_rows, len(numbers)))


BROAD = 0.05  # chance that two items share a value of the column


def _unit(matrix: sp.spmatrix) -> sp.csr_matrix:
    length = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sp.diags(1 / np.maximum(length, 1e-12)) @ matrix).tocsr().astype(np.float32)


def _joined(messages: Messages) -> str:
    return "\n".join(messages)


def _last(messages: Messages) -> str:
    return messages[-1] if len(messages) else ""
