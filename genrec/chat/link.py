"""Links: items that a user names, as rows of the catalogue, with how sure it is.

In: words such as "home alone (1990)". Out: a `Link`: the item and how it was found, or the items it may be, to ask back.

1. exact: the title's key (`genrec.chat.words.key`), with or without what stands in brackets;
2. fuzzy: titles that share pieces of three letters, from an index, compared by rapidfuzz (extra `chat`);
3. vector: the titles nearest by the bundle's own item vectors, where `encode` is given. These are only ever offered, not
taken.

A year or a value of the catalogue ("the Nintendo one") decides between items of one title. Two that fit alike are asked back.

    linker = Linker(version.table, vocabulary)
    linker.link("Hom Alone").item_id
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from sklearn.feature_extraction.text import TfidfVectorizer

from genrec.chat.vocabulary import Vocabulary, spoken
from genrec.chat.words import key, printable
from genrec.columns import ITEM_ID
from genrec.errors import MissingDependencyError

SURE, POSSIBLE = 0.87, 0.72  # of a fuzzy match, 0 to 1: taken from here on, offered from here on
NEAR = 0.5  # cosine from which an item is offered by its vector
MARGIN = 0.03  # a match must be so much better than the next one
CANDIDATES = 60  # titles that are compared letter by letter
MOST_ASKED = 4  # items named in a question back
MOST_ENCODED = 50_000  # items; more would take a text encoder minutes: then there is no vector matching
LONGEST_MENTION = 200  # characters

Encode = Callable[[pa.Table], np.ndarray]


@dataclass(frozen=True)
class Link:
    """What a mention is. item_id, title, how, sure (0 to 1): set where it is one item. candidates: (item_id, title) of what
    it may be, where it is not clear."""

    mention: str
    item_id: str | None = None
    title: str = ""
    how: Literal["exact", "fuzzy", "vector", "none"] = "none"
    sure: float = 0.0
    candidates: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        if self.candidates:
            return f'"{printable(self.mention)}" may be {spoken([title for _, title in self.candidates], most=MOST_ASKED)}'
        if self.item_id is None:
            return f'"{printable(self.mention)}" is no item that I know'
        return f'"{printable(self.mention)}" is {printable(self.title)} ({self.how} match, {self.sure:.0%} sure)'

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class Linker:
    """The titles of a table, ready to be looked up. live: bool [N], which rows may be named (None: all)."""

    def __init__(
        self, table: pa.Table, vocabulary: Vocabulary, encode: Encode | None = None, live: np.ndarray | None = None
    ) -> None:
        self.table, self.vocabulary, self.live = table, vocabulary, live
        self.encode = encode if table.num_rows <= MOST_ENCODED else None
        self.titles = [str(title or "") for title in table.column(vocabulary.title).to_pylist()]
        self.keys = [key(title) for title in self.titles]
        self.rows: dict[str, list[int]] = {}
        for row, title in enumerate(self.titles):
            if title and (live is None or live[row]):
                for name in {self.keys[row], *_without_brackets(title)} - {""}:
                    self.rows.setdefault(name, []).append(row)
        self.longest = min(12, max((name.count(" ") + 1 for name in self.rows), default=0))

    def exact(self, words: str) -> bool:
        """Whether `words` are a title."""
        return key(words) in self.rows

    def label(self, row: int) -> str:
        """The title with what tells it from others: its year or first value."""
        extra = self._hint(row)
        return printable(f"{self.titles[row]} ({extra})" if extra else self.titles[row])

    def link(self, mention: str) -> Link:
        """The item that `mention` names, or the items that it may name."""
        mention = mention.strip()[:LONGEST_MENTION]
        words, year = _split_year(mention)
        rows = self.rows.get(key(mention)) or self.rows.get(key(words)) or []
        if rows:
            same = [row for row in rows if key(self.titles[row], singular=False) in (key(mention, False), key(words, False))]
            return self._decide(mention, [(row, 1.0) for row in self._narrow(same or rows, year, "")], "exact")
        plain, hints = self._split_hints(words)
        if hints and (rows := self.rows.get(key(plain), [])):
            return self._decide(mention, [(row, 1.0) for row in self._narrow(rows, year, hints)], "exact")
        if len(key(words)) < 3:
            return Link(mention)
        found = self._fuzzy(key(words))
        if year is not None and found:
            kept = set(self._narrow([row for row, _ in found], year, ""))
            found = [(row, score) for row, score in found if row in kept]
        if found:
            return self._decide(mention, found, "fuzzy")
        return self._decide(mention, self._by_vector(mention), "vector")

    def choose(self, candidates: Sequence[str], reply: str) -> str | None:
        """Which of the asked items (ids) a reply means: by year, value or title; None where it means none or several."""
        rows = self._rows_of(candidates)
        _, year = _split_year(reply)
        kept = self._narrow(rows, year, reply)
        if len(kept) != 1:
            kept = [row for row in rows if self.keys[row] == key(reply)]
        return str(self.table.column(ITEM_ID)[kept[0]].as_py()) if len(kept) == 1 and (len(rows) > 1 or year) else None

    def _rows_of(self, item_ids: Sequence[str]) -> list[int]:
        return [self.row_of[item_id] for item_id in item_ids if item_id in self.row_of]

    @cached_property
    def row_of(self) -> dict[str, int]:
        """Item id -> row; the last one where an item was replaced."""
        return {item_id: row for row, item_id in enumerate(self.table.column(ITEM_ID).to_pylist())}

    def _decide(self, mention: str, found: Sequence[tuple[int, float]], how: Literal["exact", "fuzzy", "vector"]) -> Link:
        found = sorted(found, key=lambda pair: -pair[1])
        if not found:
            return Link(mention)
        best, score = found[0]
        alike = [row for row, other in found if other > score - MARGIN]
        taken = how == "exact" or (how == "fuzzy" and score >= SURE)
        ids = self.table.column(ITEM_ID)
        if taken and len(alike) == 1:
            return Link(mention, ids[best].as_py(), self.titles[best], how, round(score, 3))
        asked = alike if taken else [row for row, _ in found]
        candidates = tuple((ids[row].as_py(), self.label(row)) for row in asked[:MOST_ASKED])
        return Link(mention, how=how, sure=round(score, 3), candidates=candidates)

    def _narrow(self, rows: list[int], year: int | None, hints: str) -> list[int]:
        """Rows that fit a year and the values named in `hints`; all of them where none does."""
        column = self.vocabulary.year
        if year is not None and column is not None:
            years = [str(value or "")[:4] for value in self.table.column(column.name).take(pa.array(rows)).to_pylist()]
            rows = [row for row, value in zip(rows, years, strict=True) if value == str(year)] or rows
        for name, spellings in self._meant(hints):
            values = self.table.column(name).take(pa.array(rows)).to_pylist()
            fit = [row for row, v in zip(rows, values, strict=True) if set(v if isinstance(v, list) else [v]) & spellings]
            rows = fit or rows
        return rows

    def _meant(self, words: str) -> list[tuple[str, set[str]]]:
        parts = key(words).split()
        spans = [" ".join(parts[a:b]) for a in range(len(parts)) for b in range(a + 1, min(a + 5, len(parts)) + 1)]
        return [(name, set(spellings)) for span in spans for name, spellings in self.vocabulary.values(span).items()]

    def _split_hints(self, words: str) -> tuple[str, str]:
        """ "Tetris by Nintendo" -> the title and what else was said, where such an end is a value of the catalogue."""
        for match in re.finditer(r"\s+(?:by|from|with|for|in|on|directed by|the)\s+|\s*[,(]\s*", words):
            plain, rest = words[: match.start()], words[match.end() :].rstrip(" )")
            if rest and self._meant(rest) and key(plain) in self.rows:
                return plain, rest
        return words, ""

    @cached_property
    def _pieces(self) -> tuple[TfidfVectorizer, Any]:
        """Weights of three-letter pieces, [pieces, N]: a mention reads only the rows of its own pieces."""
        texts = [name if self.live is None or self.live[row] else "" for row, name in enumerate(self.keys)]
        vectorizer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 3), dtype=np.float32)
        return vectorizer, vectorizer.fit_transform(texts).T.tocsr()

    def _fuzzy(self, words: str) -> list[tuple[int, float]]:
        try:
            from rapidfuzz import fuzz
        except ModuleNotFoundError:
            raise MissingDependencyError(
                "Matching misspelled titles needs the extra `chat` (rapidfuzz is missing): pip install 'genrec[chat]'"
            ) from None
        if not any(self.keys):
            return []
        vectorizer, pieces = self._pieces
        row = vectorizer.transform([words])
        near = (row @ pieces).tocoo()
        order = np.lexsort((near.col, -near.data))[:CANDIDATES]
        found = []
        for place in near.col[order]:
            title = self.keys[place]
            score = max(fuzz.ratio(words, title), fuzz.token_sort_ratio(words, title) * 0.98)
            if words.count(" ") >= 1 and len(words) >= 8:  # a part of a long product name, in any order
                score = max(score, 0.93 * fuzz.token_set_ratio(words, title) if len(title) > len(words) else 0.0)
            if score >= 100 * POSSIBLE:
                found.append((int(place), score / 100))
        return found

    @cached_property
    def _vectors(self) -> np.ndarray:
        assert self.encode is not None
        return _unit(self.encode(self.table))

    def _by_vector(self, mention: str) -> list[tuple[int, float]]:
        if self.encode is None or not self.table.num_rows:
            return []
        columns = [pa.array(["?"])] if self.vocabulary.title == ITEM_ID else [pa.array(["?"]), pa.array([mention])]
        names = [ITEM_ID] if self.vocabulary.title == ITEM_ID else [ITEM_ID, self.vocabulary.title]
        asked = pa.table(columns, names)
        rest = [field for field in self.table.schema if field.name not in names]
        for field in rest:
            asked = asked.append_column(field, pa.nulls(1, field.type))
        near = self._vectors @ _unit(self.encode(asked.select(self.table.column_names)))[0]
        if self.live is not None:
            near = np.where(self.live, near, -1.0)
        best = np.argsort(-near, kind="stable")[:MOST_ASKED]
        return [(int(row), min(1.0, float(near[row]))) for row in best if near[row] >= NEAR]

    def _hint(self, row: int) -> str:
        column = self.vocabulary.year
        value = None if column is None else self.table.column(column.name)[row].as_py()
        if value is not None:
            return f"{value:g}" if isinstance(value, float) else str(value)[:4]
        single = [column for column in self.vocabulary.columns.values() if column.kind == "values" and not column.many]
        values = [self.table.column(column.name)[row].as_py() for column in single]
        return next((str(value) for value in values if value), "")


def _without_brackets(title: str) -> set[str]:
    """Keys of a title without what stands in brackets, and of that alone where it is another title."""
    plain = re.sub(r"\s*[(\[][^)\]]*[)\]]", "", title)
    if plain == title:
        return set()
    inside = {key(part) for part in re.findall(r"[(\[]([^)\]]{4,})[)\]]", title) if not part.strip().isdigit()}
    return {key(plain), *(part for part in inside if " " in part)}


def _split_year(mention: str) -> tuple[str, int | None]:
    """ "Sabrina (1954)", "Sabrina from 1954" -> the words and the year. "Blade Runner 2049" is looked up whole before this."""
    match = re.search(
        r"[\s,(\[]*(?:(?:from|of|in|the)\s+)*\(?\b(1[5-9]\d\d|20\d\d)\b\)?(?:\s+(?:one|version|film|movie))?\W*$", mention
    )
    if match is None:
        return mention, None
    return mention[: match.start()].strip() or mention, int(match[1])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
