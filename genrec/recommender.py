"""The facade: a bundle in, histories in, items out.

recommender = Recommender.load("runs/shop")
[items] = recommender.recommend([["B001", "B002"]], k=10, where='price < 20 and brand != "Acme"', max_per={"brand": 2})
items[0].item_id, items[0].score, items[0].fields["title"]

table = recommender.recommend_df(events, k=10)      # pandas or Arrow in, the same kind out
print(recommender.explain(["B001", "B002"], items[0].item_id))
recommender.catalogue.remove(["B001"])              # see genrec.decoding.live
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from numbers import Integral, Number
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.bundle import FUSION, INDEX, ITEM_ENCODER, SCORER, USER_ADAPTER, USER_INDEX, Bundle, read_bundle
from genrec.columns import ITEM_ID, RANK, SCORE, USER_ID
from genrec.data.interactions import Histories, Interactions
from genrec.decoding.diversity import Cap
from genrec.decoding.explain import Explanation, explain, weigh, weigh_all
from genrec.decoding.filters import Filter, PreparedFilter, RecentRules, intersection
from genrec.decoding.fusion import Fusion
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.live import CatalogueVersion, LiveCatalogue
from genrec.decoding.one_pass import OnePassRanker
from genrec.decoding.ranker import BeamRanker, checked_widths
from genrec.decoding.scorer import load_scorer
from genrec.decoding.snapshot import Query, Rules
from genrec.decoding.user_index import UserIndex
from genrec.errors import DataError, SettingError, UnknownItemError, check_choice, check_integer, nearest
from genrec.models.item_encoder import ItemEncoder
from genrec.models.user_adapter import UserAdapter

log = logging.getLogger(__name__)

Unsupported = Literal["raise", "warn", "ignore"]
BeamWidth = int | Sequence[int]


@dataclass(frozen=True)
class Recommendation:
    """One recommended item. rank: 1 is best. score: log P(codes | history), natural logarithm, never above 0 (a
    one-pass model that is asked for whole items gives log P(item | history)).
    fields: the catalogue's columns for this item, without the id. explanation: why, where it was asked for."""

    item_id: str
    rank: int
    score: float
    fields: dict[str, Any]
    explanation: Explanation | None = None


@dataclass(frozen=True)
class Request:
    """What every way of asking takes.

    k, beam_width, exclude_seen: the bundle's serving settings where None; beam_width may be a list, one number per level.
    where: an expression over catalogue columns, `price < 20 and "Skin Care" in categories` (see `genrec.data.where`).
    exclude_item_ids: never returned. only_item_ids: nothing else is returned (an empty list: nothing at all).
    filters: names of filters prepared with `prepare_filter`. All rules together must hold.
    max_per: at most so many items of one value of a column, {"brand": 2}; items without a value are not limited.
    max_per_prefix: at most so many items whose first codes are the same, {1: 3}: at most 3 with the same first code.
    unsupported: what to do with ids that are not in the catalogue: "raise", or leave them out with a warning ("warn") or
    silently ("ignore").
    """

    k: int | None = None
    beam_width: BeamWidth | None = None
    exclude_seen: bool | None = None
    where: str | None = None
    exclude_item_ids: Sequence[str] = ()
    only_item_ids: Sequence[str] | None = None
    filters: Sequence[str] = ()
    max_per: Mapping[str, int] | None = None
    max_per_prefix: Mapping[int, int] | None = None
    unsupported: Unsupported = "raise"

    def __post_init__(self) -> None:
        check_choice("unsupported", self.unsupported, ["raise", "warn", "ignore"])
        if self.exclude_seen not in (None, True, False):
            raise SettingError(f"exclude_seen must be True, False or None, got {self.exclude_seen!r}.")
        for name, example in (("max_per", {"brand": 2}), ("max_per_prefix", {1: 3})):
            caps = getattr(self, name)
            if caps is not None and not isinstance(caps, Mapping):
                raise SettingError(f"{name} must be a mapping such as {example}, got {caps!r}.")
            for key, most in (caps or {}).items():
                check_integer(f"{name}[{key!r}]", most, 1)
        if isinstance(self.filters, str):
            raise SettingError(f"filters must be a list of names, got the text {self.filters!r}. Write [{self.filters!r}].")
        if not isinstance(self.filters, Sequence) or not all(isinstance(name, str) for name in self.filters):
            raise SettingError(f"filters must be a list of names, got {self.filters!r}.")


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request as the search takes it: the version of the catalogue it is answered from, and a query per history."""

    version: CatalogueVersion
    queries: list[Query]


class Recommender:
    """A loaded bundle that answers. catalogue: what can be recommended, which may change while it runs."""

    def __init__(self, bundle: Bundle, device: str | None = None, *, load_model: bool = True, width: int | None = None) -> None:
        """load_model: False where an engine in another process searches: then only `prepare` and `finish` are used here. width:
        how many numbers of a vector a one-pass model looks at (None: what `serving.json` says)."""
        self.bundle = bundle
        self.width = bundle.serving.width if width is None else width
        if self.width is not None and not bundle.one_pass:
            raise SettingError(
                f"width is of one-pass models fitted with one_pass.widths, and {bundle.folder} holds a language model. Leave "
                f"it out (here and in serving.json), got {self.width}."
            )
        codes = bundle.codes
        index = CatalogueIndex.load(bundle.folder / INDEX, codes.hash)
        self.catalogue = LiveCatalogue(bundle.catalogue, codes, bundle.tie_rank, bundle.load_encoders, index, bundle.vectors)
        self.prepared: dict[str, PreparedFilter] = {}
        self.recent_rules = RecentRules()
        if load_model:
            self.ranker = self._make_ranker(device)

    def _make_ranker(self, device: str | None) -> BeamRanker | OnePassRanker:
        bundle, snapshot = self.bundle, self.catalogue.current.snapshot
        layout = bundle.settings.layout
        # Before the model, which looks whether the bundle has changed meanwhile.
        scorer = load_scorer(bundle.folder / SCORER, device) if (bundle.folder / SCORER).exists() else None
        fusion = Fusion.load(bundle.folder / FUSION, scorer) if bundle.fused else None
        if bundle.one_pass:
            model = bundle.load_one_pass(device)
            return OnePassRanker(model, layout, snapshot, bundle.train_counts, width=self.width, fusion=fusion)
        width, history = bundle.serving.beam_width, bundle.settings.max_history
        user_index = UserIndex.load(bundle.folder / USER_INDEX) if layout.index else None
        user_adapter = UserAdapter.load(bundle.folder / USER_ADAPTER) if layout.soft else None
        item_encoder = ItemEncoder.load(bundle.folder / ITEM_ENCODER) if layout.queries else None
        language_model = bundle.load_model(device)
        for maker in filter(None, (user_adapter, item_encoder)):
            maker.to(language_model.device)
        return BeamRanker(
            language_model, layout, snapshot, width, history, fusion=fusion, user_index=user_index, user_adapter=user_adapter,
            item_encoder=item_encoder,
        )  # fmt: skip

    @classmethod
    def load(
        cls,
        path: str | Path,
        device: str | None = None,
        verify: Literal["full", "size"] = "full",
        *,
        load_model: bool = True,
        width: int | None = None,
    ) -> Self:
        """Open the bundle at `path`. The rest as in `__init__`. Raises `BundleError` naming the file that is missing, truncated
        or edited, and `SettingError` for a width that was not trained."""
        return cls(read_bundle(path, verify), device, load_model=load_model, width=width)

    def recommend(
        self,
        histories: Sequence[Sequence[str]],
        k: int | None = None,
        *,
        explain: bool = False,
        user_ids: Sequence[str] | None = None,
        **request: Any,
    ) -> list[list[Recommendation]]:
        """The best items for each history (item ids, oldest first; an empty one is a new user).

        request: the fields of `Request`, such as where, exclude_item_ids or max_per. explain: say why, at the cost of one more
        reading of the history per item in it. user_ids: whose histories they are, which only a model fitted with
        `model.user_tokens` reads.

        Exactly min(k, allowed items) recommendations come back per history (with caps: as many as fit under them). Raises
        `UnknownItemError`, `SettingError`.
        """
        prepared = self.prepare(histories, _request(k, request), user_ids)
        found = self.ranker.answer(prepared.queries, prepared.version.snapshot, progress=len(prepared.queries) > 1000)
        snapshot = prepared.version.snapshot
        return self.finish(prepared, found, weigh_all(self.ranker, snapshot, prepared.queries, found) if explain else None)

    def prepare(self, histories: Sequence[Sequence[str]], asked: Request, user_ids: Sequence[str] | None = None) -> "Prepared":
        """Ids and rules as what a search takes. Raises as `recommend`."""
        version = self.catalogue.current
        known = [self._rows(version, h, f"history {i}", asked.unsupported) for i, h in enumerate(_checked(histories))]
        users = [None] * len(known) if user_ids is None else [str(user) for user in _ids(user_ids, "user_ids")]
        if len(users) != len(known):
            raise SettingError(f"user_ids must name one user per history, got {len(users)} for {len(known)} histories.")
        return self._prepared(version, known, asked, users)

    def finish(
        self,
        prepared: "Prepared",
        found: Sequence[tuple[np.ndarray, np.ndarray]],
        weights: Sequence[Sequence[np.ndarray]] | None = None,
    ) -> list[list[Recommendation]]:
        """What a search found (rows and scores, one pair per query) as items, explained where given what `weigh` says."""
        version, layout = prepared.version, self.bundle.settings.layout
        answers = []
        for number, (query, (rows, scores)) in enumerate(zip(prepared.queries, found, strict=True)):
            items = [
                Recommendation(values.pop(ITEM_ID), rank, float(score), values)
                for rank, (values, score) in enumerate(zip(version.fields(rows), scores, strict=True), start=1)
            ]
            if weights is not None:
                items = [
                    replace(item, explanation=explain(version, layout, query.history, int(row), weight))
                    for item, row, weight in zip(items, rows, weights[number], strict=True)
                ]
            answers.append(items)
        return answers

    def explain(
        self, history: Sequence[str], item_id: str, unsupported: Unsupported = "raise", user_id: str | None = None
    ) -> Explanation:
        """Why `item_id` got its score after `history`: see `Explanation`. It need not be one of the best items. user_id: whose
        history it is, as in `recommend`."""
        check_choice("unsupported", unsupported, ["raise", "warn", "ignore"])
        version = self.catalogue.current
        [row] = self._rows(version, [item_id], "item_id", "raise")
        rows = self._rows(version, history, "history", unsupported)
        weights = weigh(self.ranker, version.snapshot, rows, int(row), user_id)
        return explain(version, self.ranker.layout, rows, int(row), weights)

    def prepare_filter(
        self,
        name: str,
        where: str | None = None,
        only_item_ids: Sequence[str] | None = None,
        exclude_item_ids: Sequence[str] = (),
    ) -> None:
        """Compute a filter once and reuse it: `recommend(..., filters=[name])`. It follows the catalogue as it changes."""
        if not isinstance(name, str) or not name:
            raise SettingError(f"A filter's name must be a text, got {name!r}.")
        version = self.catalogue.current
        only = None if only_item_ids is None else _ids(only_item_ids, "only_item_ids")
        excluded = _ids(exclude_item_ids, "exclude_item_ids")
        for ids, argument in ((only or [], "only_item_ids"), (excluded, "exclude_item_ids")):
            self._rows(version, ids, argument, "raise")
        rule = Filter(where, None if only is None else tuple(map(str, only)), tuple(map(str, excluded)))
        self.prepared[name] = PreparedFilter(rule, version)

    def recommend_df(self, events: Any, k: int | None = None, **request: Any) -> Any:
        """Recommendations for every user of an event table with `user_id`, `item_id` and, optionally, `timestamp`.

        `events`: a pandas DataFrame or an Arrow table. Returns the same kind: user_id, rank, item_id, score and the
        catalogue's columns, best first; users in order of first appearance (one whose items are all unknown and left out is
        answered like a new user). Other arguments: the fields of `Request`.
        """
        asked = _request(k, request)
        arrow = isinstance(events, pa.Table)
        if not arrow and not hasattr(events, "columns"):
            raise SettingError(f"events must be a pandas DataFrame or an Arrow table, got {type(events).__name__}.")
        interactions = Interactions.from_table(events if arrow else pa.Table.from_pandas(events, preserve_index=False))
        version = self.catalogue.current
        unknown = version.rows(interactions.table.column(ITEM_ID)) < 0
        left_out = interactions.table.column(ITEM_ID).filter(pa.array(unknown)).to_pylist()
        _report_unknown(version, left_out, "events", asked.unsupported)
        if unknown.all():
            raise DataError("No event names an item of the catalogue. Check that the table uses the catalogue's item ids.")
        histories = _with_everyone(interactions.histories(version, unknown_items="drop"), interactions)
        prepared = self._prepared(version, histories.to_lists(), asked, histories.user_ids)
        found = self.ranker.answer(prepared.queries, version.snapshot, progress=len(histories) > 1000)
        table = _table(version, histories.user_ids, found)
        return table if arrow else table.to_pandas()

    def _prepared(
        self, version: CatalogueVersion, histories: Sequence[np.ndarray], asked: Request, users: Iterable[str | None]
    ) -> "Prepared":
        serving, rules = self.bundle.serving, self._rules(version, asked)
        k = serving.k if asked.k is None else asked.k
        if self.bundle.one_pass and asked.beam_width is not None:
            raise SettingError(
                f"beam_width is of the beam search, and this bundle scores every item: leave it out, got {asked.beam_width!r}."
            )
        seen = serving.exclude_seen if asked.exclude_seen is None else asked.exclude_seen
        widths = checked_widths(asked.beam_width, k, serving.beam_width, self.bundle.settings.layout.levels)
        return Prepared(version, [Query(h, k, widths, seen, rules, user) for h, user in zip(histories, users, strict=True)])

    def _rules(self, version: CatalogueVersion, asked: Request) -> Rules:
        only = None
        if asked.only_item_ids is not None:
            only = self._rows(version, asked.only_item_ids, "only_item_ids", asked.unsupported)
        excluded = self._rows(version, asked.exclude_item_ids, "exclude_item_ids", asked.unsupported)
        bitmaps = []
        for name in asked.filters:
            if name not in self.prepared:
                raise SettingError(
                    f"There is no filter {name!r}.{nearest(str(name), self.prepared)} Prepared are {sorted(self.prepared)}; "
                    f"prepare_filter({name!r}, where=...) makes one."
                )
            bitmaps.append(self.prepared[name].bitmap(version))
        if asked.where is not None:
            bitmaps.append(self.recent_rules.bitmap(asked.where, version))
        lists = Rules.of(version.snapshot, only, excluded)
        if lists.bitmap is not None:
            bitmaps.append(lists.bitmap)
        return Rules(intersection(bitmaps), lists.excluded, self._caps(version, asked))

    def _caps(self, version: CatalogueVersion, asked: Request) -> list[Cap]:
        caps = []
        for name, most in (asked.max_per or {}).items():
            if name not in version.table.column_names:
                columns = version.table.column_names
                raise SettingError(
                    f"max_per names the column {name!r}.{nearest(str(name), columns)} The catalogue has {columns}."
                )
            caps.append(Cap(version.groups(name), most, name))
        for length, most in (asked.max_per_prefix or {}).items():
            check_integer("max_per_prefix (codes)", length, 1, self.bundle.settings.layout.levels)
            caps.append(Cap(version.groups(int(length)), most, int(length)))
        return caps

    def _rows(self, version: CatalogueVersion, item_ids: Sequence[str], where: str, unsupported: Unsupported) -> np.ndarray:
        """Catalogue rows of ids, unknown ones handled: int64 [n]."""
        ids = _ids(item_ids, where)
        rows = version.rows(ids)
        _report_unknown(version, [i for i, row in zip(ids, rows, strict=True) if row < 0], where, unsupported)
        return rows[rows >= 0]


def _request(k: int | None, request: dict[str, Any]) -> Request:
    """A `Request` from keyword arguments, with a hint for a mistyped one."""
    known = [field.name for field in fields(Request)]
    for name in request:
        if name not in known:
            raise SettingError(f"There is no argument {name!r}.{nearest(name, known)} A request takes {', '.join(known)}.")
    return Request(k, **request)


def _ids(item_ids: Iterable[Any], where: str) -> list[Any]:
    """A list of ids from what a caller gave, with a reason for what is none."""
    if isinstance(item_ids, str):
        raise SettingError(f"{where} must be a list of item ids, got the text {item_ids!r}. Write [{item_ids!r}].")
    try:
        ids = list(item_ids)
    except TypeError:
        raise SettingError(f"{where} must be a list of item ids, got {item_ids!r}.") from None
    for item_id in ids:
        if isinstance(item_id, (str, Integral)):
            continue
        if item_id is None or item_id != item_id or str(item_id) == "<NA>":
            raise SettingError(f"{where} must hold item ids, got an empty one (None or NaN). Remove it.")
        raise SettingError(f"{where} must hold item ids, each a text or a whole number, got {item_id!r}.")
    return ids


def _report_unknown(version: CatalogueVersion, unknown: list[str], where: str, unsupported: Unsupported) -> None:
    if not unknown or unsupported == "ignore":
        return
    message = f"{where}: {len(unknown)} ids are not in the catalogue of {len(version)} items, for example {unknown[0]!r}."
    if unsupported == "raise":
        raise UnknownItemError(f'{message} Fix them, or pass unsupported="warn" or "ignore" to leave them out.')
    log.warning("%s They are left out.", message)


def _table(version: CatalogueVersion, user_ids: np.ndarray, found: Sequence[tuple[np.ndarray, np.ndarray]]) -> pa.Table:
    lengths = [len(rows) for rows, _ in found]
    rows, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    items = version.table.take(pa.array(rows, pa.int64()))
    columns = {
        USER_ID: pa.array(np.repeat(user_ids, lengths), pa.string()),
        RANK: pa.array(np.concatenate([np.arange(1, length + 1) for length in lengths])),
        ITEM_ID: items.column(ITEM_ID),
        SCORE: pa.array(scores),
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
        if isinstance(history, (str, int, float, Number)) or history is None:
            raise SettingError(
                f"histories must be a list of histories, each a list of item ids, got {history!r} inside the list. "
                "For one user write recommend([[...]])."
            )
    return as_list
