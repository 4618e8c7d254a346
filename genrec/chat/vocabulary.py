"""What a catalogue's columns let people say: values, numbers and years, found by the columns' types.

In: an Arrow table. Out: a `Vocabulary`: which columns can be spoken of, and which values a word means. No column is known
by its name; names only help to choose where a word fits several columns ("director").

- values: lists, and text that repeats (at most half of the rows have a value of their own) and is short.
- numbers: numeric columns, and text that is nearly always a number. Numbers that name an item (whole and all different)
are none.
- dates: compared by year.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.chat.words import key
from genrec.columns import ITEM_ID
from genrec.data.catalogue import is_text
from genrec.embedding.text import title_column

MOST_VALUES = 50_000  # different values of a column that can be spoken of
LONGEST_VALUE = 40  # characters, of the middle value: longer is a description
MONEY = ("price", "cost", "amount")
# Words of one meaning, for telling columns apart. They choose between columns that a word fits; none is needed.
SAME = (
    ("category", "genre", "kind", "type", "subject"), ("brand", "maker", "manufacturer", "label"), (*MONEY, "budget"),
    ("year", "date", "released", "release"), ("director", "directed", "direct"),
    ("actor", "actress", "starring", "star", "cast"),
    ("writer", "author", "written"), ("language", "spoken"), ("colour", "color"),
)  # fmt: skip

NOUNS = {"film", "movie", "book", "game", "show"}  # "Action Film" is meant by "action", where there is "Action" too

Kind = Literal["values", "number", "date"]


@dataclass(frozen=True, eq=False)
class Column:
    """One column that can be spoken of.

    values: key -> the spellings in the table that it means. numbers: spelling -> number, where a text column holds numbers.
    low, high: of the numbers. year: whether the numbers are years. many: an item may have several values. shared: how
    likely two random items are to share a value.
    """

    name: str
    kind: Kind
    values: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: dict[str, float] | None = None
    low: float = 0.0
    high: float = 0.0
    year: bool = False
    many: bool = False
    shared: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def words(self) -> set[str]:
        """What people may call the column: the words of its name and those of the same meaning."""
        own = {key(word) for word in re.split(r"[\W_]+", self.name) if word}
        return own.union(*(group for group in ({key(word) for word in same} for same in SAME) if own & group))

    @property
    def money(self) -> bool:
        return self.kind == "number" and not self.year and bool(self.words & set(MONEY))


class Vocabulary:
    """The columns of a table that can be spoken of, in its order."""

    def __init__(self, table: pa.Table) -> None:
        self.title = title_column(table.schema)
        self.columns: dict[str, Column] = {}
        for name in table.column_names:
            if name in (ITEM_ID, self.title) or "`" in name:
                continue
            found = _column(name, table.column(name))
            if found is not None:
                self.columns[name] = found
        self.by_key: dict[str, dict[str, tuple[str, ...]]] = {}  # key -> column -> spellings
        for column in self.columns.values():
            for words, spellings in column.values.items():
                self.by_key.setdefault(words, {})[column.name] = spellings
        self.longest = min(8, max((words.count(" ") + 1 for words in self.by_key), default=0))

    def values(self, words: str) -> dict[str, tuple[str, ...]]:
        """Column -> spellings that `words` mean; empty where they mean no value."""
        return self.by_key.get(key(words), {})

    def called(self, word: str) -> list[Column]:
        """Columns that people may call so."""
        wanted = key(word)
        return [column for column in self.columns.values() if wanted in column.words]

    @property
    def year(self) -> Column | None:
        """The column of years or dates, the fullest where there are several."""
        return next((column for column in self.columns.values() if column.year or column.kind == "date"), None)

    @property
    def money(self) -> Column | None:
        """The column of prices: by its name, else the only column of numbers that are no years."""
        plain = [column for column in self.columns.values() if column.kind == "number" and not column.year]
        return next((column for column in plain if column.money), plain[0] if len(plain) == 1 else None)

    @property
    def likeness(self) -> Column | None:
        """The column by which items are called alike: the broadest one in which two random items still seldom meet."""
        fit = [column for column in self.columns.values() if column.kind == "values" and 0 < column.shared <= 0.5]
        return max(fit, key=lambda column: column.shared, default=None)


def _column(name: str, column: pa.ChunkedArray) -> Column | None:
    kind = column.type
    if pa.types.is_temporal(kind) and not pa.types.is_time(kind) and not pa.types.is_duration(kind):
        return Column(name, "date")
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        numbers = column.cast(pa.float64()).drop_null().to_numpy()
        return _number(name, numbers[np.isfinite(numbers)], None)
    if is_text(kind):
        return _numbers_in_text(name, column) or _values(name, column, len(column) - column.null_count, many=False)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and is_text(kind.value_type):
        return _values(name, pc.list_flatten(column), len(column), many=True)
    return None


def _number(name: str, numbers: np.ndarray, spelled: dict[str, float] | None) -> Column | None:
    if not len(numbers):
        return None
    whole = bool((numbers == np.floor(numbers)).all())
    if whole and len(numbers) > 20 and len(np.unique(numbers)) > 0.9 * len(numbers):
        return None  # it names the item
    year = whole and bool(np.mean((numbers >= 1500) & (numbers <= 2100)) > 0.95)
    return Column(name, "number", numbers=spelled, low=float(numbers.min()), high=float(numbers.max()), year=year)


def _numbers_in_text(name: str, column: pa.ChunkedArray) -> Column | None:
    counts = {row["values"]: row["counts"] for row in column.drop_null().value_counts().to_pylist()}
    if not counts or len(counts) > 2_000:
        return None  # more spellings than a rule can list
    spelled = {text: float(text) for text in counts if re.fullmatch(r"-?\d{1,12}(\.\d+)?", text)}
    if sum(counts[text] for text in spelled) < 0.95 * sum(counts.values()):
        return None
    return _number(name, np.repeat(list(spelled.values()), [counts[text] for text in spelled]), spelled)


def _values(name: str, column: pa.ChunkedArray, items: int, many: bool) -> Column | None:
    """items: how many have a value."""
    counts = {row["values"]: row["counts"] for row in column.drop_null().value_counts().to_pylist() if row["values"]}
    total = sum(counts.values())
    if not counts or len(counts) > MOST_VALUES or np.median([len(text) for text in counts]) > LONGEST_VALUE:
        paths = bool(counts) and sum(" > " in text for text in counts) > 0.5 * len(counts)
        if not paths or len(counts) > MOST_VALUES:
            return None
    if len(counts) > 1 and len(counts) > (0.95 if many else 0.5) * total and len(counts) > 10:
        return None  # nearly every item has its own: a description
    chances = np.minimum(np.array(list(counts.values())) / max(items, 1), 1.0)
    shared = 1.0 - float(np.prod(1.0 - chances**2))
    return Column(name, "values", _keys(name, counts), many=many, shared=shared, counts=counts)


def _keys(name: str, spellings: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Key -> spellings. A path "Beauty > Skin Care" is also meant by each of its parts; a value of two words that ends in the
    column's name, or in one of `NOUNS` after another value, by its first word ("Spanish Language", "Action Film")."""
    found: dict[str, set[str]] = {}
    plain = {text: key(text) for text in spellings}
    known, own = set(plain.values()), {key(name)}
    for text, whole in plain.items():
        names = {whole}
        if " > " in text:
            names |= {key(part) for part in text.split(" > ")}
        first, _, last = whole.rpartition(" ")
        if first and " " not in first and (last in own or (last in NOUNS and first in known)):
            names.add(first)
        for words in filter(None, names):
            found.setdefault(words, set()).add(text)
    return {words: tuple(sorted(texts)) for words, texts in found.items()}


def spoken(values: Sequence[Any], most: int = 3) -> str:
    """A few values in words: "A", "A or B", "A, B or 3 others"."""
    shown = [str(value) for value in values]
    if len(shown) > most:
        return f"{', '.join(shown[:2])} or {len(shown) - 2} others"
    return " or ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
