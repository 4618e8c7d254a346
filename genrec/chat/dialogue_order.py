"""The dialogue ranker inside a conversation: allowed items in the order of what has been said.

In: a fitted `DialogueRanker`, the messages that a state remembers, a prepared query. Out: catalogue rows with log P(item |
messages), best first, and what of the dialogue spoke for each. Rules, exclusions and removed items are those of the query; the
ranker only puts in order what they leave. An item that came after the ranker was fitted stands behind all others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from genrec.chat.dialogue_ranker import DialogueRanker, Messages
from genrec.chat.saved_ranker import check_catalogue
from genrec.columns import ITEM_ID
from genrec.data.catalogue import Catalogue
from genrec.data.hashing import table_hash
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query
from genrec.errors import SettingError

MOST_REASONS = 2  # of the dialogue, for an item
LEAST_REASON = 0.005  # what would be printed as 0.00 is no reason
BY = "dialogue ranker"


@dataclass(frozen=True, eq=False)
class Ordered:
    """rows: int64 [n], best first. scores: log P of each, float32 [n]. reasons: in words, [n]."""

    rows: np.ndarray
    scores: np.ndarray
    reasons: list[str]


class DialogueOrder:
    """A ranker for the catalogue of a recommender. Raises `SettingError` for a ranker that is not fitted, `BundleError` for one
    of another catalogue."""

    def __init__(self, ranker: DialogueRanker, catalogue: Catalogue) -> None:
        if not hasattr(ranker, "weights"):
            raise SettingError("This dialogue ranker has learned nothing yet. Fit it, or load one that was saved.")
        if ranker.table is not catalogue.table:
            check_catalogue(table_hash(ranker.table), catalogue)
        self.ranker, self.ids = ranker, ranker.table.column(ITEM_ID)

    def best(self, told: Messages, query: Query, version: CatalogueVersion) -> Ordered:
        """The best min(k, allowed) items after some messages, the user's last; equal ones in the order of the catalogue."""
        if query.rules.caps:
            raise SettingError("The dialogue ranker keeps no limits per value. Leave max_per and max_per_prefix out.")
        signals, named = self.ranker.signals([told]), self.ranker.named([told], "all").toarray() > 0
        known = self.ranker.mixed(signals, named, self.ranker.chance_of_named([told]))[0]
        scores, fitted = self._by_version(known, version)
        bitmap = version.snapshot.everything if query.rules.bitmap is None else query.rules.bitmap
        allowed = version.snapshot.mask_of(bitmap)
        allowed[query.excluded] = False
        may = np.flatnonzero(allowed)
        rows = may[np.argsort(-scores[may], kind="stable")[: query.k]]
        reasons = [
            self._reason(signals[0, place], "named" if named[0, place] else "not named")
            if place >= 0
            else f"{BY}: new, not yet in any dialogue"
            for place in fitted[rows]
        ]
        return Ordered(rows, scores[rows], reasons)

    def _by_version(self, known: np.ndarray, version: CatalogueVersion) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the rows of a version, float32 [R], and the ranker's own rows of them, int64 [R], -1 for new ones."""
        rows = version.kept("dialogue order", lambda: version.rows(self.ids))
        fitted = np.full(version.table.num_rows, -1, np.int64)
        fitted[rows] = np.arange(len(rows))
        return np.where(fitted >= 0, known[fitted], known.min() - 1).astype(np.float32), fitted

    def _reason(self, signals: np.ndarray, case: str) -> str:
        """The signals that add most to the score of an item, and how much to its logarithm. signals: [S]."""
        added = signals * self.ranker.weights[case]
        most = np.argsort(-added, kind="stable")[:MOST_REASONS]
        parts = [f"{self.ranker.names[one]} ({added[one]:+.2f})" for one in most if added[one] > LEAST_REASON]
        return f"{BY}: {', '.join(parts) or 'nothing that was said speaks for it'}"


def listed(items: Sequence[object]) -> list[str | int]:
    """An answer that only lists items, as parts of a message."""
    return [part for place in range(len(items)) for part in (place, ",")][:-1]
