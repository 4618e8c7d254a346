"""What a reader is given and what it gives back: the contract of `read_rules.py` (a grammar) and `ask_rules.py` (a chat model).

In: a message and a `Context` (catalogue words, links, the rules in force, what was shown). Out: a `Reading`: rules to add
and to remove, items that the user named, and every part of the message that meant nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from genrec.chat.link import Link, Linker
from genrec.chat.rules import Rule
from genrec.chat.vocabulary import Vocabulary

LONGEST_MESSAGE = 1_000  # characters


@dataclass(frozen=True, eq=False)
class Context:
    """What a message is read in. rules: in force, in the order of their numbers. shown: ids of the items last shown, best
    first. focus: the item that was last spoken of."""

    vocabulary: Vocabulary
    linker: Linker
    rules: Sequence[Rule] = ()
    shown: Sequence[str] = ()
    focus: str | None = None

    def value(self, item_id: str, column: str) -> Any:
        """What the catalogue says of an item."""
        row = self.linker.row_of.get(item_id)
        return None if row is None else self.linker.table.column(column)[row].as_py()

    def title(self, item_id: str) -> str:
        row = self.linker.row_of.get(item_id)
        return item_id if row is None else self.linker.titles[row]


@dataclass
class Reading:
    """add: new rules. remove: places of rules in force, from 0. clear: forget everything. liked, seen, rejected: items named,
    with how sure their links are (one with candidates is to be asked back). alike: items that others are to be like.
    notes: what to say about what was understood.
    unknown: parts of the message that meant nothing here. more: others than those shown. include_seen: what the user had may
    come again. wants: whether recommendations are asked for at all. greeting: "hello" or "thanks" alone."""

    add: list[Rule] = field(default_factory=list)
    remove: list[int] = field(default_factory=list)
    clear: bool = False
    liked: list[Link] = field(default_factory=list)
    seen: list[Link] = field(default_factory=list)
    rejected: list[Link] = field(default_factory=list)
    alike: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)
    more: bool = False
    include_seen: bool = False
    wants: bool = False
    greeting: str = ""

    @property
    def understood(self) -> bool:
        """Whether anything in the message meant something."""
        named = self.liked or self.seen or self.rejected
        return bool(self.add or self.remove or self.clear or named or self.more or self.include_seen or self.notes)


class Reader(Protocol):
    """Reads a message. Raises nothing for what a user may write."""

    def __call__(self, message: str, context: Context) -> Reading: ...


def like_rule(context: Context, item_id: str) -> Rule | None:
    """ "More like this one" as a rule: at least one value in common in the column by which items are called alike."""
    column = context.vocabulary.likeness
    if column is None:
        return None
    value = context.value(item_id, column.name)
    values = tuple(v for v in (value if isinstance(value, list) else [value]) if v in column.counts)
    return Rule("values", {column.name: values}, note=f"like {context.title(item_id)}") if values else None
