"""The voice: the words around the items. A plain function by default; anything with its shape may take its place.

In: `Said`, what was understood and found, in words that are safe to print. Out: what is said before the items and after
them. The items themselves are always written by `written`, from the catalogue, whoever speaks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from genrec.chat.words import printable

HELP = "Tell me what you liked, or what it must be: a category, a brand, a price, a year, or what it must not be."


@dataclass(frozen=True)
class Said:
    """links: named items and how sure they are. rules: in force. removed: gone with this message. unknown: the user's words
    that meant nothing. question: to ask back ("" for none). searched: whether items were looked for; found: how many there are.
    changed: whether this message changed what is looked for. understood: whether anything in it meant something."""

    links: list[str]
    rules: list[str]
    removed: list[str]
    notes: list[str]
    unknown: list[str]
    question: str
    searched: bool
    found: int
    greeting: str
    changed: bool
    understood: bool


class Line(Protocol):
    """What is written of an item."""

    @property
    def rank(self) -> int: ...

    @property
    def title(self) -> str: ...

    def why(self) -> str: ...


class Voice(Protocol):
    """Says something before and after the items. It is never given their titles to repeat."""

    def __call__(self, said: Said) -> tuple[str, str]: ...


class TemplateVoice:
    """Fixed sentences: short, and every one of them checkable."""

    def __call__(self, said: Said) -> tuple[str, str]:
        if said.greeting and not said.understood:
            return (f"Hello! {HELP}" if said.greeting == "hello" else "You are welcome. Say `something else` for more."), ""
        missed = ", ".join(f'"{printable(part)}"' for part in said.unknown)
        if not said.searched and not said.understood:
            what = f" I did not understand: {missed}." if missed else ""
            return f"I can only help you to choose items of this catalogue.{what} {HELP}", ""
        before = [f"{link}." for link in said.links] + [printable(note, 400) for note in said.notes]
        if said.removed:
            before.append(f"No longer a rule: {'; '.join(said.removed)}.")
        if said.rules and (said.changed or said.searched):
            before.append("Rules: " + "; ".join(f"{number}. {rule}" for number, rule in enumerate(said.rules, 1)) + ".")
        if missed:
            before.append(f"I did not understand: {missed}.")
        if said.searched and not said.found:
            before.append(
                ("No item obeys all rules. Take one back, such as `forget rule 1`.")
                if said.rules
                else "There is nothing left to show."
            )
        return "\n".join(before), said.question


def written(before: str, items: Sequence[Line], after: str) -> str:
    """The whole answer: the voice's words, and the items as the catalogue has them."""
    return "\n".join(part for part in (before, *map(_line, items), after) if part)


def interleaved(before: str, spoken: Sequence[str | Line], after: str) -> str:
    """The whole answer of a speaker: what was understood, then its words and the items as they came, each item on a line."""
    lines = [part if isinstance(part, str) else _line(part) for part in spoken]
    # A full stop or a comma behind an item has nothing to say on a line of its own.
    return "\n".join(line for line in (before, *lines, after) if any(map(str.isalnum, line)))


def _line(item: Line) -> str:
    return f"{item.rank}. {item.title}{f' — {why}' if (why := item.why()) else ''}"
