"""Explanations that can be checked: why an item got its score.

In: a history and an item. Out: the probability of each of its codes, what each code means in this catalogue, and how the score
changes when each item of the history is left out. Nothing is estimated: the probabilities multiply to the score, and the
influence of an item is the score with it minus the score without it.

Legend: `L` levels, `H` history items that the model reads.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from genrec.columns import ITEM_ID
from genrec.decoding.answers import QueryRanker
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query, Snapshot
from genrec.embedding.text import title_column
from genrec.errors import DataError
from genrec.models.tokens import TokenLayout

SAMPLE = 20_000  # items whose words are counted: enough to know what is usual


@dataclass(frozen=True)
class CodeMeaning:
    """One code of an item. name: e.g. `<c1_37>`. probability: of this code after the history and the codes before it.
    items: how many items of the catalogue begin with the codes so far. words: what their titles say more often than others.
    titles: of the items that are most typical of them.
    """

    name: str
    probability: float
    items: int
    words: list[str]
    titles: list[str]


@dataclass(frozen=True)
class Influence:
    """One item of the history. change: log P of the item with it minus without it; above 0 it spoke for the item."""

    item_id: str
    title: str
    change: float


@dataclass(frozen=True)
class Explanation:
    """score: log P(codes | history), the sum of the logarithms of the levels' probabilities. history: strongest first."""

    item_id: str
    title: str
    score: float
    levels: list[CodeMeaning]
    history: list[Influence]

    def __str__(self) -> str:
        lines = [f"{self.title[:90]} ({self.item_id}), score {self.score:.3f}"]
        for level in self.levels:
            words = ", ".join(level.words) or "-"
            lines.append(f"  {level.name:<10} p = {level.probability:.4f}  {level.items} items: {words}")
            lines += [f"{'':>14}e.g. {title[:90]}" for title in level.titles]
        lines += [f"  {item.change:+.3f}  because of {item.title[:90]} ({item.item_id})" for item in self.history]
        return "\n".join(lines)


def weigh(ranker: QueryRanker, snapshot: Snapshot, history: np.ndarray, row: int, user: str | None = None) -> np.ndarray:
    """What the model says about item `row` after the `history` of `user` (catalogue rows, oldest first): float32 [L + H].

    First log P of each code, then for each of the H history items that the model reads (the last `max_history`) the score with
    it minus the score without it, in what is read and in the user index alike.
    """
    older = np.asarray(history[: -ranker.max_history], np.int64)
    read = np.asarray(history[-ranker.max_history :], np.int64)
    without = [np.delete(read, place) for place in range(len(read))]
    log_probs = ranker.code_log_probs([read, *without], np.full(len(read) + 1, row), snapshot, user, older)
    scores = log_probs.sum(axis=1)
    return np.concatenate([log_probs[0], scores[0] - scores[1:]])


def weigh_all(
    ranker: QueryRanker, snapshot: Snapshot, queries: Sequence[Query], found: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[list[np.ndarray]]:
    """`weigh` for every row that was found for every query."""
    return [
        [weigh(ranker, snapshot, query.history, int(row), query.user) for row in rows]
        for query, (rows, _) in zip(queries, found, strict=True)
    ]


def explain(
    version: CatalogueVersion, layout: TokenLayout, history: np.ndarray, row: int, weights: np.ndarray, most: int = 5
) -> Explanation:
    """What `weigh` found, in the words of the catalogue; no model is needed. most: history items named."""
    log_probs, changes = np.split(weights, [layout.levels])
    read = np.asarray(history, np.int64)[len(history) - len(changes) :]
    titles = _titles(version)
    ids = version.table.column(ITEM_ID)
    strongest = np.argsort(-np.abs(changes), kind="stable")[:most]
    influences = [Influence(ids[int(read[p])].as_py(), _title(titles, int(read[p])), float(changes[p])) for p in strongest]
    levels = [
        CodeMeaning(layout.name(level, int(version.snapshot.codes[row, level])), float(np.exp(log_probs[level])), *meaning)
        for level, meaning in enumerate(_meanings(version, row))
    ]
    return Explanation(ids[row].as_py(), _title(titles, row), float(log_probs.sum()), levels, influences)


def _meanings(version: CatalogueVersion, row: int) -> list[tuple[int, list[str], list[str]]]:
    """Per level: number of items, characteristic words, typical titles of what begins with the row's codes."""
    index = version.snapshot.index
    if not len(index):
        raise DataError("An empty catalogue explains nothing.")
    path = index.walk(torch.from_numpy(version.snapshot.codes[row : row + 1].astype(np.int64)).to(index.device))[0].tolist()
    titles = _titles(version)
    found = []
    for level, node in enumerate(path):
        # The last level's prefixes are single items: those that share all codes are siblings with the same code.
        rows = index.rows_below(node, level).cpu().numpy() if node >= 0 else np.array([row])
        if level == index.levels - 1:
            rows = rows[:0] if node < 0 else _same_codes(version, row)
        rows = rows[version.live[rows]]
        found.append((len(rows), *_typical(version, titles, rows[:SAMPLE])))
    return found


def _same_codes(version: CatalogueVersion, row: int) -> np.ndarray:
    codes = version.snapshot.codes
    return np.flatnonzero((codes == codes[row]).all(axis=1))


def _typical(version: CatalogueVersion, titles: pa.ChunkedArray, rows: np.ndarray) -> tuple[list[str], list[str]]:
    """The 5 words most over-represented in the titles of `rows`, and the 3 titles that hold most of them."""
    usual, total = _usual_words(version, titles)
    texts = [str(text) for text in titles.take(pa.array(rows)).to_pylist() if text]
    words = [set(_words(text)) for text in texts]
    here = Counter(word for some in words for word in some)
    # Share here over share everywhere, both smoothed, times how much of this group it covers: rare words explain nothing.
    weight = {
        word: count / len(words) * np.log(((count + 1) / (len(words) + 2)) / ((usual[word] + 1) / (total + 2)))
        for word, count in here.items()
        if count > 1 or len(words) == 1
    }
    best = [word for word, value in sorted(weight.items(), key=lambda pair: (-pair[1], pair[0])) if value > 0][:5]
    fit = [sum(weight.get(word, 0.0) for word in some) for some in words]
    order = sorted(range(len(texts)), key=lambda place: (-fit[place], place))
    return best, list(dict.fromkeys(texts[place] for place in order))[:3]


def _usual_words(version: CatalogueVersion, titles: pa.ChunkedArray) -> tuple[Counter[str], int]:
    """In how many titles of a sample of the catalogue each word is."""

    def counted() -> tuple[Counter[str], int]:
        step = max(1, len(titles) // SAMPLE)
        texts = titles.take(pa.array(np.arange(0, len(titles), step))).to_pylist()
        return Counter(word for text in texts if text for word in set(_words(str(text)))), len(texts)

    return version.kept("usual words", counted)


def _words(text: str) -> list[str]:
    return [word for word in re.findall(r"[^\W_]+", text.lower()) if len(word) > 1 and not word.isdigit()]


def _titles(version: CatalogueVersion) -> pa.ChunkedArray:
    return version.table.column(title_column(version.table.schema))


def _title(titles: pa.ChunkedArray, row: int) -> str:
    return str(titles[row].as_py() or "")
