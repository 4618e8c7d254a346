"""Offers: recommended items with reasons that can be checked in the catalogue.

In: a `Recommendation`, the rules in force. Out: an `Offer`: its title and fields, what of it obeys each rule, and what else
spoke for it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from genrec.chat.rules import Rule
from genrec.chat.vocabulary import Vocabulary
from genrec.chat.words import printable
from genrec.recommender import Recommendation


@dataclass(frozen=True)
class Offer:
    """A recommended item. reasons: (rule's number, what of the item obeys it). because: the history item that spoke most for it
    (title, change of the score), where explanations were asked for. ordered: what put it in its place, where a dialogue ranker
    did."""

    item_id: str
    rank: int
    title: str
    score: float
    fields: dict[str, Any]
    reasons: tuple[tuple[int, str], ...] = ()
    because: tuple[str, float] | None = None
    ordered: str = ""

    def why(self) -> str:
        """The reasons in one line."""
        parts = [f"{reason} (rule {number})" for number, reason in self.reasons]
        if self.because is not None:
            parts.append(f"goes with {self.because[0]} ({self.because[1]:+.2f})")
        return "; ".join([*parts, *([self.ordered] if self.ordered else [])])


def offer_of(item: Recommendation, rules: Sequence[Rule], vocabulary: Vocabulary, ordered: str = "") -> Offer:
    """An item as it is shown, with its reasons. ordered: see `Offer`."""
    title = printable(item.fields.get(vocabulary.title) or item.item_id)
    reasons = tuple((number, _obeys(rule, item.fields)) for number, rule in enumerate(rules, 1))
    spoke = max(item.explanation.history, key=lambda one: one.change, default=None) if item.explanation else None
    because = (printable(spoke.title or spoke.item_id), spoke.change) if spoke is not None and spoke.change > 0 else None
    return Offer(item.item_id, item.rank, title, item.score, item.fields, reasons, because, printable(ordered, 200))


def _obeys(rule: Rule, fields: Mapping[str, Any]) -> str:
    """What of an item obeys a rule, as the catalogue has it."""
    if rule.kind == "seen":
        return "you have not had it"
    if rule.kind == "range":
        value = fields[rule.column or ""]
        return printable(f"{rule.column} {value:g}" if isinstance(value, float) else f"{rule.column} {value}")
    if rule.negative:
        return printable(rule.text())
    found = []
    for name, values in rule.choices.items():
        has = fields[name] if isinstance(fields[name], list) else [fields[name]]
        found += [f"{name} {value}" for value in has if value in values]
    return printable(", ".join(found))
