"""What all rankers share: what is asked of one, caps on its answers, and answers as arrays.

In: queries and a search for a batch of them. Out: rows and scores of each, best first. `BeamRanker` and `OnePassRanker` differ
in the search alone.

Legend: `U` histories, `B` queries searched together, `E` rows kept out, `n` rows found, `L` levels.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from genrec.data.interactions import Histories
from genrec.decoding.diversity import Selection
from genrec.decoding.snapshot import Query, Snapshot
from genrec.errors import SettingError
from genrec.models.tokens import TokenLayout

Answer = tuple[np.ndarray, np.ndarray]
Search = Callable[[list[int], list[np.ndarray]], Sequence[Answer]]


class QueryRanker(Protocol):
    """What the facade, the server's engines and explanations need of a ranker. max_history: items of a history it reads."""

    name: str
    layout: TokenLayout
    snapshot: Snapshot
    max_history: int

    def answer(self, queries: Sequence[Query], snapshot: Snapshot | None = None, progress: bool = False) -> list[Answer]:
        """Each query's best min(k, allowed) rows and scores. snapshot: version of the catalogue (default: the ranker's)."""
        ...

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> Answer:
        """See `genrec.evaluation.base.Ranker.rank`."""
        ...

    def code_log_probs(
        self,
        histories: Sequence[np.ndarray],
        rows: np.ndarray,
        snapshot: Snapshot,
        user: str | None = None,
        older: np.ndarray | None = None,
    ) -> np.ndarray:
        """log P of each code of item `rows[b]` after history `histories[b]`, given the codes before it: float32 [B, L]; they
        sum to the item's score. older: what all of them had before, for a model that reads more than the latest items."""
        ...


def under_caps(queries: Sequence[Query], search: Search) -> list[Answer]:
    """Answer queries under their caps: ask again, without what is full, while fewer than k are chosen and others are left.

    search: for some of the queries, by number, and the rows [E] kept out of each: rows and scores, best first, -1 where nothing
    is left. It may find fewer than are left only where it gives at least `k`.
    """
    selections = [Selection(query.rules.caps) for query in queries]
    go_on_under_caps(queries, search, selections, list(range(len(queries))))
    return [selection.result() for selection in selections]


def go_on_under_caps(queries: Sequence[Query], search: Search, selections: list[Selection], waiting: list[int]) -> None:
    """The same for the queries `waiting`, by number, which may have chosen some items already."""
    while waiting:
        kept_out = [np.concatenate([queries[n].excluded, selections[n].closed()]) for n in waiting]
        answered = zip(waiting, search(waiting, kept_out), strict=True)
        waiting = [n for n, (rows, scores) in answered if not selections[n].take(rows, scores, queries[n].k)]


def check_sizes(catalogue: Sequence[int], model: Sequence[int]) -> None:
    """Raise `SettingError` unless both have as many codes per level [L]."""
    if tuple(catalogue) != tuple(model):
        raise SettingError(f"The catalogue has codes per level {catalogue}, the model {model}: they do not fit.")


def as_arrays(answers: Sequence[Answer], k: int) -> Answer:
    """(rows int64 [U, k], -1 where fewer are left; scores float32 [U, k], -inf there)."""
    rows = np.full((len(answers), k), -1, np.int64)
    scores = np.full((len(answers), k), -np.inf, np.float32)
    for user, (its_rows, its_scores) in enumerate(answers):
        rows[user, : len(its_rows)], scores[user, : len(its_rows)] = its_rows, its_scores
    return rows, scores
