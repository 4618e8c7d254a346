"""The facade: a bundle in, histories in, items out.

recommender = Recommender.load("runs/shop")
[items] = recommender.recommend([["B001", "B002"]], k=10)
items[0].item_id, items[0].score, items[0].fields["title"]

table = recommender.recommend_df(events, k=10)      # pandas or Arrow in, the same kind out
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.bundle import Bundle, read_bundle
from genrec.columns import ITEM_ID, RANK, SCORE, USER_ID
from genrec.data.interactions import Histories, Interactions
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.ranker import BeamRanker
from genrec.errors import DataError, SettingError, UnknownItemError, check_choice

log = logging.getLogger(__name__)

Unsupported = Literal["raise", "warn", "ignore"]


@dataclass(frozen=True)
class Recommendation:
    """One recommended item. rank: 1 is best. score: log P(codes | history), natural logarithm, never above 0.
    fields: the catalogue's columns for this item, without the id."""

    item_id: str
    rank: int
    score: float
    fields: dict[str, Any]


class Recommender:
    """A loaded bundle that answers."""

    def __init__(self, bundle: Bundle, device: str | None = None) -> None:
        self.bundle = bundle
        layout = bundle.settings.layout
        self.ranker = BeamRanker(
            bundle.load_model(device),
            layout,
            CatalogueIndex.build(bundle.codes.codes, bundle.codes.sizes, bundle.tie_rank),
            layout.to_tokens(bundle.codes.codes),
            bundle.serving.beam_width,
            bundle.settings.max_history,
        )

    @classmethod
    def load(cls, path: str | Path, device: str | None = None, verify: Literal["full", "size"] = "full") -> Self:
        """Open the bundle at `path`. Raises `BundleError` naming the file that is missing, truncated or edited."""
        return cls(read_bundle(path, verify), device)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int | None = None,
        *,
        beam_width: int | None = None,
        exclude_seen: bool | None = None,
        exclude_item_ids: Sequence[str] = (),
        only_item_ids: Sequence[str] | None = None,
        unsupported: Unsupported = "raise",
    ) -> list[list[Recommendation]]:
        """The best items for each history (item ids, oldest first; an empty one is a new user).

        k, beam_width, exclude_seen: the bundle's serving settings where None. exclude_item_ids: never returned.
        only_item_ids: nothing else is returned (an empty list: nothing at all). unsupported: what to do with ids that are
        not in the catalogue: "raise", or leave them out with a warning ("warn") or silently ("ignore").

        Exactly min(k, allowed items) recommendations come back per history. Raises `UnknownItemError`, `SettingError`.
        """
        check_choice("unsupported", unsupported, ["raise", "warn", "ignore"])
        known = Histories.from_lists([self._rows(h, f"history {i}", unsupported) for i, h in enumerate(_checked(histories))])
        rows, scores = self._rank(known, k, beam_width, exclude_seen, exclude_item_ids, only_item_ids, unsupported)
        return [self._answer(*answer) for answer in zip(rows, scores, strict=True)]

    def recommend_df(
        self,
        events: Any,
        k: int | None = None,
        *,
        beam_width: int | None = None,
        exclude_seen: bool | None = None,
        exclude_item_ids: Sequence[str] = (),
        only_item_ids: Sequence[str] | None = None,
        unsupported: Unsupported = "raise",
    ) -> Any:
        """Recommendations for every user of an event table with `user_id`, `item_id` and, optionally, `timestamp`.

        `events`: a pandas DataFrame or an Arrow table. Returns the same kind: user_id, rank, item_id, score and the
        catalogue's columns, best first; users in order of first appearance (one whose items are all unknown and left out is
        answered like a new user). Other arguments as in `recommend`.
        """
        check_choice("unsupported", unsupported, ["raise", "warn", "ignore"])
        arrow = isinstance(events, pa.Table)
        if not arrow and not hasattr(events, "columns"):
            raise SettingError(f"events must be a pandas DataFrame or an Arrow table, got {type(events).__name__}.")
        interactions = Interactions.from_table(events if arrow else pa.Table.from_pandas(events, preserve_index=False))
        catalogue = self.bundle.catalogue
        unknown = catalogue.rows(interactions.table.column(ITEM_ID)) < 0
        self._report_unknown(interactions.table.column(ITEM_ID).filter(pa.array(unknown)).to_pylist(), "events", unsupported)
        if unknown.all():
            raise DataError("No event names an item of the catalogue. Check that the table uses the catalogue's item ids.")
        histories = _with_everyone(interactions.histories(catalogue, unknown_items="drop"), interactions)
        rows, scores = self._rank(histories, k, beam_width, exclude_seen, exclude_item_ids, only_item_ids, unsupported)
        table = self._table(histories.user_ids, rows, scores)
        return table if arrow else table.to_pandas()

    def _rank(
        self,
        histories: Histories,
        k: int | None,
        beam_width: int | None,
        exclude_seen: bool | None,
        exclude_item_ids: Sequence[str],
        only_item_ids: Sequence[str] | None,
        unsupported: Unsupported,
    ) -> tuple[np.ndarray, np.ndarray]:
        serving = self.bundle.serving
        return self.ranker.rank(
            histories,
            serving.k if k is None else k,
            serving.exclude_seen if exclude_seen is None else exclude_seen,
            None if only_item_ids is None else self._rows(only_item_ids, "only_item_ids", unsupported),
            self._rows(exclude_item_ids, "exclude_item_ids", unsupported),
            beam_width,
            progress=len(histories) > 1000,
        )

    def _rows(self, item_ids: Sequence[str], where: str, unsupported: Unsupported) -> np.ndarray:
        """Catalogue rows of ids, unknown ones handled: int64 [n]."""
        if isinstance(item_ids, str):
            raise SettingError(f"{where} must be a list of item ids, got the text {item_ids!r}. Write [{item_ids!r}].")
        ids = list(item_ids)
        if any(i is None or i != i for i in ids):
            raise SettingError(f"{where} must hold item ids, got an empty one (None or NaN). Remove it.")
        rows = self.bundle.catalogue.rows(ids)
        self._report_unknown([i for i, row in zip(ids, rows, strict=True) if row < 0], where, unsupported)
        return rows[rows >= 0]

    def _report_unknown(self, unknown: list[str], where: str, unsupported: Unsupported) -> None:
        if not unknown or unsupported == "ignore":
            return
        message = (
            f"{where}: {len(unknown)} ids are not in the catalogue of {len(self.bundle.catalogue)} items, "
            f"for example {unknown[0]!r}."
        )
        if unsupported == "raise":
            raise UnknownItemError(f'{message} Fix them, or pass unsupported="warn" or "ignore" to leave them out.')
        log.warning("%s They are left out.", message)

    def _answer(self, rows: np.ndarray, scores: np.ndarray) -> list[Recommendation]:
        found = rows >= 0
        fields = self.bundle.catalogue.fields(rows[found])
        return [
            Recommendation(values.pop(ITEM_ID), rank, float(score), values)
            for rank, (values, score) in enumerate(zip(fields, scores[found], strict=True), start=1)
        ]

    def _table(self, user_ids: np.ndarray, rows: np.ndarray, scores: np.ndarray) -> pa.Table:
        found = rows >= 0
        users, places = np.nonzero(found)
        items = self.bundle.catalogue.table.take(pa.array(rows[found]))
        columns = {
            USER_ID: pa.array(user_ids[users], pa.string()),
            RANK: pa.array(places + 1),
            ITEM_ID: items.column(ITEM_ID),
            SCORE: pa.array(scores[found]),
        }
        return pa.table(columns | {name: items.column(name) for name in items.column_names if name not in columns})


def _with_everyone(histories: Histories, interactions: Interactions) -> Histories:
    """`histories` with an empty one for every user whose items are all unknown: they are answered like new users."""
    users = interactions.table.column(USER_ID).unique()
    places = pc.fill_null(pc.index_in(users, value_set=pa.array(histories.user_ids, pa.string())), -1).to_numpy()
    if (places >= 0).all():
        return histories
    return Histories.from_lists([histories[place] if place >= 0 else () for place in places], users.to_pylist())


def _checked(histories: Sequence[Sequence[str]]) -> list[Sequence[str]]:
    """Catch the two mistakes everybody makes once: one flat history, or a text where a list belongs."""
    if isinstance(histories, str) or not hasattr(histories, "__iter__"):
        raise SettingError(f"histories must be a list of histories, each a list of item ids, got {histories!r}.")
    as_list = list(histories)
    for history in as_list:
        if isinstance(history, (str, int, float)) or history is None:
            raise SettingError(
                f"histories must be a list of histories, each a list of item ids, got {history!r} inside the list. "
                "For one user write recommend([[...]])."
            )
    return as_list
