"""Rules of a conversation: what the items must be, shown in words, removable one by one, and turned into the decoder's filter.

In: rules as readers make them (`read_rules.py`, `ask_rules.py`) or as JSON. Out: sentences, JSON, and a `where` expression
(`genrec.data.where`). A rule holds column names and values of the catalogue only: nothing that a user typed goes into an
expression unless the catalogue has it.

    rule = Rule.values_of({"categories": ["Comedy"]})
    rule.text()        'categories: Comedy'
    rule.where(vocabulary)
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from genrec.chat.vocabulary import Vocabulary, spoken
from genrec.chat.words import printable
from genrec.data.where import LONGEST
from genrec.errors import SettingError, check_choice

KINDS = ("values", "range", "seen")
MOST_RULES = 20
LONGEST_PART = 4_000  # characters of one rule's expression; `where` takes 10,000 in all

RULE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "kind": {"enum": list(KINDS)},
        "choices": {"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string"}, "minItems": 1}},
        "negative": {"type": "boolean"},
        "column": {"type": ["string", "null"]},
        "low": {"type": ["number", "null"]},
        "high": {"type": ["number", "null"]},
        "low_open": {"type": "boolean"},
        "high_open": {"type": "boolean"},
        "note": {"type": "string"},
    },
    "required": ["kind"],
    "additionalProperties": False,
}


@dataclass(frozen=True)
class Rule:
    """One thing that every item must be.

    kind: "values": one of `choices` (column -> spellings; several columns: any of them), or none of them where `negative`.
    "range": the number in `column` lies between `low` and `high` (or not, where `negative`); open bounds are left out.
    "seen": nothing that the user had. note: what it was made of, for people ("like Home Alone").
    """

    kind: Literal["values", "range", "seen"]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    negative: bool = False
    column: str | None = None
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False
    note: str = ""

    def __post_init__(self) -> None:
        check_choice("kind of a rule", self.kind, KINDS)
        if self.kind == "values" and not (self.choices and all(self.choices.values())):
            raise SettingError("A rule of values needs choices: {column: [value, ...]}.")
        if self.kind == "range" and (self.column is None or (self.low is None and self.high is None)):
            raise SettingError("A rule of a range needs a column, and low or high.")

    @classmethod
    def from_json(cls, data: Mapping[str, Any], vocabulary: Vocabulary) -> "Rule":
        """A rule from its JSON. Raises `SettingError` for what the catalogue does not have."""
        try:
            rule = cls(**data)
        except TypeError as error:
            raise SettingError(f"This is no rule ({error}). A rule has {', '.join(RULE_SCHEMA['properties'])}.") from None
        rule.where(vocabulary)
        return rule

    def to_json(self) -> dict[str, Any]:
        """Plain JSON: what `RULE_SCHEMA` describes."""
        return asdict(self) | {"choices": {name: list(values) for name, values in self.choices.items()}}

    @property
    def columns(self) -> list[str]:
        return [self.column] if self.column is not None else list(self.choices)

    def text(self) -> str:
        """The rule in words, without its note."""
        if self.kind == "seen":
            return "nothing that you had"
        if self.kind == "values":
            parts = [f"{name}: {'not ' if self.negative else ''}{_values(values)}" for name, values in self.choices.items()]
            return (" and " if self.negative else " or ").join(parts)
        low, high = (None if x is None else f"{x:.10g}" for x in (self.low, self.high))
        name = f"{self.column}:{' not' if self.negative else ''}"
        if low == high and not (self.low_open or self.high_open):
            return f"{name} {low}"
        parts = [f"{'above' if self.low_open else 'from'} {low}"] if low is not None else []
        parts += [f"{'below' if self.high_open else 'up to'} {high}"] if high is not None else []
        return f"{name} {' '.join(parts)}"

    def __str__(self) -> str:
        return printable(f"{self.text()} ({self.note})" if self.note else self.text(), 200)

    def where(self, vocabulary: Vocabulary) -> str | None:
        """The rule as an expression; None where it is none of columns. Raises `SettingError` for what the catalogue has not."""
        if self.kind == "seen":
            return None
        for name in self.columns:
            if name not in vocabulary.columns:
                raise SettingError(f"There is no column {name!r} that a rule can be about; there are {[*vocabulary.columns]}.")
        if self.kind == "range":
            return f"not ({self._range(vocabulary)})" if self.negative else self._range(vocabulary)
        parts = [self._choice(vocabulary, name, values) for name, values in self.choices.items()]
        whole = " or ".join(f"({part})" for part in parts)
        return f"not ({whole})" if self.negative else f"({whole})"

    def _choice(self, vocabulary: Vocabulary, name: str, values: Sequence[str]) -> str:
        column = vocabulary.columns[name]
        strange = [value for value in values if value not in column.counts]
        if strange:
            raise SettingError(f"Column {name!r} has no value {strange[0]!r}.")
        quoted = [json.dumps(value, ensure_ascii=False) for value in values]
        listed = (
            " or ".join(f"{value} in `{name}`" for value in quoted) if column.many else f"`{name}` in [{', '.join(quoted)}]"
        )
        if len(listed) <= LONGEST_PART and len(values) <= 40:
            return listed
        short = _common_part(values, column.counts)
        if short is None:
            raise SettingError(f"{len(values)} values of {name!r} are meant, too many for one rule. Name a narrower one.")
        return f"contains(`{name}`, {json.dumps(short, ensure_ascii=False)})"

    def _range(self, vocabulary: Vocabulary) -> str:
        column = vocabulary.columns[self.column or ""]
        if column.kind == "values":
            raise SettingError(f"Column {self.column!r} holds words, not numbers.")
        if column.numbers is not None:
            fit = [json.dumps(spelled) for spelled, number in column.numbers.items() if self.holds(number)]
            return f"`{column.name}` in [{', '.join(fit)}]" if fit else "1 > 2"  # no item has such a number
        parts = []
        for bound, low, is_open in ((self.low, True, self.low_open), (self.high, False, self.high_open)):
            if bound is None:
                continue
            if column.kind == "date":
                # Years: above 1999 begins with 2000, up to 1999 ends before 2000.
                year = int(bound) + (1 if is_open == low else 0)
                parts.append(f'`{column.name}` {">=" if low else "<"} "{year:04d}-01-01"')
            else:
                parts.append(f"`{column.name}` {'>' if low else '<'}{'' if is_open else '='} {bound!r}")
        return " and ".join(parts)

    def holds(self, number: float) -> bool:
        """Whether a number lies between the bounds."""
        below = self.low is not None and (number <= self.low if self.low_open else number < self.low)
        above = self.high is not None and (number >= self.high if self.high_open else number > self.high)
        return not below and not above


def where_of(rules: Sequence[Rule], vocabulary: Vocabulary) -> str | None:
    """All rules as one expression, None where none is about columns."""
    parts = [part for rule in rules if (part := rule.where(vocabulary)) is not None]
    return " and ".join(f"({part})" for part in parts) or None


def with_rule(rules: Sequence[Rule], new: Rule, vocabulary: Vocabulary) -> tuple[list[Rule], list[Rule]]:
    """The rules with a new one, and those that it replaces: an older bound on the same side, another value of a column that has
    one value per item, the same value the other way round, the same rule."""
    replaced = [old for old in rules if _replaces(new, old, vocabulary)]
    kept = [old for old in rules if old not in replaced]
    if len(kept) >= MOST_RULES:
        raise SettingError(f"There are {MOST_RULES} rules already. Remove one first.")
    if len(where_of([*kept, new], vocabulary) or "") > LONGEST:
        raise SettingError("The rules together are too long. Remove one first.")
    return [*kept, new], replaced


def _replaces(new: Rule, old: Rule, vocabulary: Vocabulary) -> bool:
    if new.kind != old.kind:
        return False
    if new.kind == "seen" or new.text() == old.text():
        return True
    if new.kind == "range":
        same = new.column == old.column and new.negative == old.negative
        return same and bool((new.low is not None and old.low is not None) or (new.high is not None and old.high is not None))
    if new.negative != old.negative:
        return {k: sorted(v) for k, v in new.choices.items()} == {k: sorted(v) for k, v in old.choices.items()}
    single = all(name in vocabulary.columns and not vocabulary.columns[name].many for name in new.columns)
    return not new.negative and single and new.columns == old.columns


def _values(values: Sequence[str]) -> str:
    return spoken([printable(value, 60) for value in values])


def _common_part(values: Sequence[str], every: Mapping[str, int]) -> str | None:
    """A text that is a part of exactly these values of the column, ignoring case; None where there is none."""
    wanted = set(values)
    for part in sorted(set(min(values, key=len).split(" > ")), key=len, reverse=True):
        if part and {value for value in every if part.lower() in value.lower()} == wanted:
            return part
    return None
