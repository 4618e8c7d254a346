"""The live catalogue: items come, change and go while the recommender runs, without a new fit.

    live = recommender.catalogue
    live.add(pa.table({"item_id": ["B900"], "title": ["Night cream"]}))   # text -> vector -> codes -> can be found
    live.replace(pa.table({"item_id": ["B900"], "price": [12.5]}))         # columns not named stay
    live.remove(["B001"])                                                  # still fine inside histories
    live.rollback(to=0)

Every change makes a version, all of it or nothing; a search keeps the version it started with. Rows are only ever appended: a
removed item keeps its row, so histories that hold it are read as before, and a replaced one gets a new row under its old id.
What can be found is a set of rows. Those that the base index does not have are put into a small overlay, and `merge` builds a
new base, in the background, once there are many.

Legend: `R` rows so far, `n` new items, `L` levels, `D` vector width.
"""

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import torch

from genrec.codes import CodeTable
from genrec.columns import ITEM_ID
from genrec.data.catalogue import Catalogue, conform, require_columns
from genrec.data.where import where_mask
from genrec.decoding.changes import Change
from genrec.decoding.diversity import Groups
from genrec.decoding.index import CatalogueIndex
from genrec.decoding.overlay import Overlay
from genrec.decoding.snapshot import Snapshot
from genrec.embedding.fused import ItemEmbedder
from genrec.embedding.text import render
from genrec.errors import DataError, SettingError, UnknownItemError
from genrec.tokenizers.base import ItemTokenizer
from genrec.tokenizers.collisions import MOVING, Published, check_policy, resolve

log = logging.getLogger(__name__)

Made = TypeVar("Made")


@dataclass(frozen=True, eq=False)
class CatalogueVersion:
    """One state of the catalogue. number: 0 at first, +1 per change. table: [R] rows, also those removed. live: bool [R], what
    can be found. moved: ids whose row is not the one of the first catalogue. hash: names the content and how it came about.
    about: what the change was, for people.
    """

    number: int
    table: pa.Table
    snapshot: Snapshot
    live: np.ndarray
    moved: dict[str, int]
    first_rows: dict[str, int]
    hash: str
    about: str
    time: float

    def __len__(self) -> int:
        """Items that can be found."""
        return self._count

    @cached_property
    def _count(self) -> int:
        return int(self.live.sum())

    def rows(self, item_ids: Iterable[str] | pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Row numbers of ids, removed items included: int64 [n], -1 for ids that never were."""
        if isinstance(item_ids, (pa.Array, pa.ChunkedArray)):
            coded = item_ids.cast(pa.string()).dictionary_encode()
            coded = coded.combine_chunks() if isinstance(coded, pa.ChunkedArray) else coded
            return self.rows(coded.dictionary.to_pylist())[coded.indices.to_numpy(zero_copy_only=False)]
        return np.array([self._row(str(item_id)) for item_id in item_ids], np.int64)

    def _row(self, item_id: str) -> int:
        row = self.moved.get(item_id)
        return self.first_rows.get(item_id, -1) if row is None else row

    def fields(self, rows: np.ndarray) -> list[dict[str, Any]]:
        """The items' fields (id included) as dicts, one per row number."""
        return self.table.take(pa.array(rows, pa.int64())).to_pylist()

    def where(self, expression: str) -> np.ndarray:
        """Rows that satisfy an expression, removed ones included: bool [R] (see `genrec.data.where`)."""
        return where_mask(self.table, expression, self.caches.setdefault("texts", {}))

    def groups(self, label: str | int) -> Groups:
        """Which items count together: by the values of a column, or by so many first codes. Kept with the version."""
        if isinstance(label, int):
            return self.kept(("groups", label), lambda: Groups.of_prefix(self.snapshot.codes, label))
        return self.kept(("groups", label), lambda: Groups.of_column(self.table.column(label)))

    def kept(self, name: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` gives, made once for this version and kept with it under `name`."""
        if name not in self.caches:
            self.caches[name] = make()
        made: Made = self.caches[name]
        return made

    @cached_property
    def caches(self) -> dict[Any, Any]:
        """What was prepared for this version (filters, groups), by whoever prepared it."""
        return {}


class LiveCatalogue:
    """The current version and the few before it. Reading `current` is all a search needs; changes wait for one another."""

    def __init__(
        self,
        catalogue: Catalogue,
        codes: CodeTable,
        tie_rank: np.ndarray,
        load_encoders: Callable[[], tuple[ItemEmbedder, ItemTokenizer]] | None = None,
        index: CatalogueIndex | None = None,
        vectors: np.ndarray | None = None,
        *,
        keep: int = 10,
        merge_after: int = 10_000,
        journal: Callable[[Change], None] = lambda change: None,
    ) -> None:
        """tie_rank: [R], order among items with the same codes; items added later come after them, in order of arrival.
        load_encoders: what gives new items their codes, called when the first one comes. index: of this catalogue, if there
        is one already. vectors: float32 [R, D], kept for new items too, for a model that reads them (None: not kept). keep:
        versions to roll back to. merge_after: rows in the overlay, or removed from the base, after which a new base is built in
        the background. journal: told every change before it happens; if it raises, nothing does.
        """
        self.journal = journal
        self.sizes, self.policy = codes.sizes, codes.policy
        self._load_encoders, self.keep, self.merge_after = load_encoders, keep, merge_after
        self._lock, self._merging = threading.RLock(), threading.Lock()
        # Append-only and shared by all versions: a row never changes once it is written.
        self._codes = np.ascontiguousarray(codes.codes, np.int32)
        self._ranks = np.asarray(tie_rank, np.int64)
        self._vectors, self._fitted = vectors, np.arange(len(codes))
        self._base = index or CatalogueIndex.build(codes.codes, codes.sizes, tie_rank)
        self._in_base = np.ones(len(codes), bool)
        live = np.ones(len(codes), bool)
        snapshot = Snapshot(self._base, self._codes, None, vectors, self._fitted)
        self._first_rows = dict(zip(catalogue.item_ids.tolist(), range(len(catalogue)), strict=True))
        first = CatalogueVersion(
            0, catalogue.table, snapshot, live, {}, self._first_rows, codes.hash, "as it was fitted", time.time()
        )
        self._versions = {0: first}
        self.current = first

    def versions(self) -> list[CatalogueVersion]:
        """The versions that can be rolled back to, oldest first, the current one last."""
        return list(self._versions.values())

    def add(self, items: pa.Table, vectors: np.ndarray | None = None) -> CatalogueVersion:
        """New items: a table with `item_id` and any of the catalogue's columns. An id that was removed may come back.

        vectors: float32 [n, D], what the item tokenizer takes (default: made from the text). Raises `DataError`: ids that are
        there already or named twice, columns that the catalogue does not have, no free code.
        """
        items = self._conform(items)
        ids = items.column(ITEM_ID).to_pylist()
        codes, vectors = self._encode(items, vectors)
        with self._lock:
            now = self.current
            here = now.rows(ids)
            taken = [i for i, row in zip(ids, here, strict=True) if row >= 0 and now.live[row]]
            if taken:
                raise DataError(
                    f"add takes new items, got {len(taken)} that the catalogue has, for example {taken[0]!r}. Use replace."
                )
            return self._apply(Change(f"{len(ids)} added", (), items, self._resolve(ids, codes, vectors), self._kept(vectors)))

    def vectors(self, items: pa.Table) -> np.ndarray:
        """What `add` would make of the items' texts: float32 [n, D]. It takes as long as the text encoder does."""
        embedder, _ = self._encoders
        return embedder.encode(Catalogue(self._conform(items)))

    def remove(self, item_ids: Sequence[str]) -> CatalogueVersion:
        """Never return these items again; histories that hold them are read as before. One removed already stays removed.

        Raises `UnknownItemError` for ids that never were in the catalogue.
        """
        if isinstance(item_ids, str) or not isinstance(item_ids, Iterable):
            hint = f" Write [{item_ids!r}]." if isinstance(item_ids, str) else ""
            raise SettingError(f"remove takes a list of item ids, got {item_ids!r}.{hint}")
        ids = list(item_ids)
        with self._lock:
            self._known(ids, "remove")
            return self._apply(Change(f"{len(ids)} removed", tuple(map(str, ids))))

    def replace(self, items: pa.Table) -> CatalogueVersion:
        """New fields for items that are there; columns that `items` does not have keep their values.

        An item whose text stays the same keeps its codes; another text may mean other codes.
        """
        conformed = self._conform(items)
        given, items = [name for name in items.column_names if name != ITEM_ID], conformed
        ids = items.column(ITEM_ID).to_pylist()
        with self._lock:
            now = self.current
            rows = self._known(ids, "replace")
            gone = [i for i, row in zip(ids, rows, strict=True) if not now.live[row]]
            if gone:
                raise DataError(f"replace takes items that are in the catalogue, got {gone[0]!r}, which was removed. Use add.")
            before = now.table.take(pa.array(rows))
            after = before
            for name in given:
                after = after.set_column(after.column_names.index(name), name, items.column(name))
            codes = self._codes[rows].copy()
            told = None if self._vectors is None else self._vectors[rows]
            moved = self._retold(before, after)
            if len(moved):
                encoded, vectors = self._encode(after.take(pa.array(moved)), None)
                if told is not None:
                    told[moved] = vectors
                other = self._elsewhere(codes[moved], encoded)
                moved, encoded, vectors = moved[other], encoded[other], vectors[other]
                if len(moved):
                    codes[moved] = self._resolve([ids[place] for place in moved], encoded, vectors)
            about = f"{len(ids)} replaced, {len(moved)} of them with other codes"
            return self._apply(Change(about, tuple(ids), after, codes, told))

    def rollback(self, to: int) -> CatalogueVersion:
        """The content of an earlier version, as a new version. Raises `SettingError` for one that is not kept."""
        with self._lock:
            if to not in self._versions:
                raise SettingError(f"rollback takes a version that is kept, one of {list(self._versions)}, got {to!r}.")
            return self._apply(Change(f"rolled back to {to}", rollback=self._versions[to].hash))

    def replay(self, change: Change) -> CatalogueVersion:
        """Do a change again that was made here before a restart. It is not written to the journal a second time."""
        if change.items is not None and change.items.schema != self.current.table.schema:
            # Of a bundle with the same codes and other columns: those that are not here are left out, new ones are empty.
            kept = [name for name in change.items.column_names if name in self.current.table.column_names]
            change = replace(change, items=self._conform(change.items.select(kept)))
        with self._lock:
            return self._apply(change, record=False)

    def merge(self) -> None:
        """Build a new base index of what can be found now. What is recommended does not change; changes meanwhile are kept."""
        with self._merging:
            now = self.current
            rows = np.flatnonzero(now.live)
            base = CatalogueIndex.build(now.snapshot.codes[rows], self.sizes, self._ranks[rows], rows)
            table = now.table.combine_chunks()  # every change left a piece
            with self._lock:
                latest = self.current
                table = pa.concat_tables([table, latest.table.slice(len(now.live))])
                in_base = np.zeros(len(latest.live), bool)
                in_base[rows] = True
                self._base, self._in_base = base, in_base
                self._keep(self._version(latest.number, table, latest.live, latest.moved, latest.hash, latest.about))
        log.info("Catalogue version %d merged: %d items in the base index", latest.number, len(base))

    def _known(self, ids: list[str], verb: str) -> np.ndarray:
        rows = self.current.rows(ids)
        unknown = [i for i, row in zip(ids, rows, strict=True) if row < 0]
        if unknown:
            raise UnknownItemError(
                f"{verb} takes items of the catalogue, got {len(unknown)} unknown ids, for example {unknown[0]!r}."
            )
        if len(set(ids)) != len(ids):
            raise DataError(f"{verb} takes every item once, got an item id more than once.")
        return rows

    def _conform(self, items: pa.Table) -> pa.Table:
        """`items` with exactly the catalogue's columns and types; missing columns are empty."""
        if not isinstance(items, pa.Table):
            raise DataError(
                f"items must be an Arrow table, got {type(items).__name__}. pyarrow.Table has from_pylist and from_pandas."
            )
        require_columns(items, [ITEM_ID], "items")
        if not items.num_rows:
            raise DataError("items must have at least one row, got 0.")
        if len(set(items.column_names)) != len(items.column_names):
            raise DataError(f"items must have every column once, got {items.column_names}.")
        return conform(items, self.current.table.schema)

    def _retold(self, before: pa.Table, after: pa.Table) -> np.ndarray:
        """Places where the text that codes come from differs: int64."""
        embedder, _ = self._encoders
        texts = [render(Catalogue(table), embedder.template) for table in (before, after)]
        return np.flatnonzero(np.array(texts[0], object) != np.array(texts[1], object))

    def _encode(self, items: pa.Table, vectors: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        """Codes before the collision policy, int32 [n, levels of the tokenizer], and the vectors they were made of."""
        embedder, tokenizer = self._encoders
        if vectors is None:
            vectors = embedder.encode(Catalogue(items))
        vectors = np.asarray(vectors)
        if vectors.ndim != 2 or len(vectors) != items.num_rows or vectors.dtype.kind not in "fiu":
            raise DataError(
                f"vectors must be numbers with one row per item, [{items.num_rows}, width], got {vectors.dtype} "
                f"{list(vectors.shape)}."
            )
        return tokenizer.encode(vectors), vectors

    @cached_property
    def _encoders(self) -> tuple[ItemEmbedder, ItemTokenizer]:
        if self._load_encoders is None:
            raise SettingError("This catalogue was opened without item tokenizer and embedder, so items get no new codes.")
        return self._load_encoders()

    def _resolve(self, ids: list[str], codes: np.ndarray, vectors: np.ndarray) -> np.ndarray:
        """Codes under the collision policy, beside those that items of the current version have."""
        _, tokenizer = self._encoders
        published = Published(self.sizes, self._below, int(self._codes[: len(self.current.live), -1].max()) + 1)
        return resolve(ids, codes, tokenizer, self.policy, vectors, published)[0]

    def _elsewhere(self, codes: np.ndarray, encoded: np.ndarray) -> np.ndarray:
        """Which items [n] would get other codes, as far as the collision policy leaves them where they are: bool [n]."""
        kept = encoded.shape[1] - (check_policy("collision_policy", self.policy)[0] in MOVING)
        kept = kept or 1  # one level that the policy moves is all there is to see
        return (codes[:, :kept] != encoded[:, :kept]).any(axis=1)

    def _below(self, prefix: tuple[int, ...]) -> np.ndarray:
        """How many items have each last code below a prefix: int64 [K]."""
        index = self.current.snapshot.index
        node = torch.zeros(1, dtype=torch.int64)
        if prefix:
            node = index.walk(torch.tensor([[*prefix, 0]]), len(prefix))[:, -1]
        if int(node) < 0:
            return np.zeros(self.sizes[-1], np.int64)
        _, last, exists = index.expand(node.unsqueeze(0), len(prefix))
        return np.bincount(last[exists].numpy(), minlength=self.sizes[-1])

    def _kept(self, vectors: np.ndarray) -> np.ndarray | None:
        """Vectors of new items where vectors are kept, checked: float32 [n, D]."""
        if self._vectors is None:
            return None
        if vectors.shape[1] != self._vectors.shape[1]:
            raise DataError(
                f"vectors must be {self._vectors.shape[1]} wide, as those of the catalogue, got {vectors.shape[1]}."
            )
        return vectors.astype(np.float32)

    def _apply(self, change: Change, record: bool = True) -> CatalogueVersion:
        """Make the version that `change` leads to the current one. What the journal cannot take does not happen."""
        if self._vectors is not None and change.items is not None and change.vectors is None:
            change = replace(change, vectors=self.vectors(change.items))  # written by a server that keeps none
        now = self.current
        table, live, moved = now.table, now.live.copy(), now.moved
        if change.rollback is not None:
            old = next((version for version in self._versions.values() if version.hash == change.rollback), None)
            if old is None:
                raise SettingError(f"Version {change.rollback[:12]} is not among the {len(self._versions)} that are kept.")
            live[:], moved = False, old.moved
            live[: len(old.live)] = old.live
        live[now.rows(change.gone)] = False
        if record:
            self.journal(change)
        if change.items is not None and change.codes is not None:
            rows, items = len(live), change.items.cast(table.schema)
            ids = items.column(ITEM_ID).to_pylist()
            self._append(change.codes, rows, change.vectors, ids)
            live = np.concatenate([live, np.ones(len(ids), bool)])
            moved = moved | {item_id: rows + place for place, item_id in enumerate(ids)}
            table = pa.concat_tables([table, items])
        name = hashlib.sha256(f"{now.hash}\0{change.spelled}".encode()).hexdigest()
        self._in_base = np.concatenate([self._in_base, np.zeros(len(live) - len(self._in_base), bool)])
        version = self._version(now.number + 1, table, live, moved, name, change.about)
        self._keep(version)
        overlay = int((live & ~self._in_base).sum()) + int((self._in_base & ~live).sum())
        if overlay > self.merge_after and not self._merging.locked():
            threading.Thread(target=self.merge, name="genrec-merge", daemon=True).start()
        return version

    def _append(self, codes: np.ndarray, rows: int, vectors: np.ndarray | None, ids: list[str]) -> None:
        """Write rows behind the `rows` in use. The buffers double when full; versions hold views of what they know."""
        needed = rows + len(codes)
        if needed > len(self._codes):
            room = max(needed, 2 * rows) - len(self._codes)
            self._codes = np.concatenate([self._codes, np.zeros((room, codes.shape[1]), np.int32)])
            self._ranks = np.concatenate([self._ranks, np.zeros(room, np.int64)])
            self._fitted = np.concatenate([self._fitted, np.zeros(room, np.int64)])
            if self._vectors is not None:
                self._vectors = np.concatenate([self._vectors, np.zeros((room, self._vectors.shape[1]), np.float32)])
        self._codes[rows:needed] = codes
        self._ranks[rows:needed] = np.arange(rows, needed)
        self._fitted[rows:needed] = [self._first_rows.get(item_id, -1) for item_id in ids]
        if self._vectors is not None and vectors is not None:
            self._vectors[rows:needed] = vectors

    def _version(
        self, number: int, table: pa.Table, live: np.ndarray, moved: dict[str, int], name: str, about: str
    ) -> CatalogueVersion:
        rows = np.flatnonzero(live & ~self._in_base)
        index: CatalogueIndex | Overlay = self._base
        if len(rows):
            delta = CatalogueIndex.build(self._codes[rows], self.sizes, self._ranks[rows], rows)
            index = Overlay.join(self._base, delta) if len(self._base) else delta
        some_gone = bool((self._in_base & ~live).any())
        vectors = None if self._vectors is None else self._vectors[: len(live)]
        gone = live if some_gone else None
        snapshot = Snapshot(index, self._codes[: len(live)], gone, vectors, self._fitted[: len(live)])
        return CatalogueVersion(number, table, snapshot, live, moved, self._first_rows, name, about, time.time())

    def _keep(self, version: CatalogueVersion) -> None:
        """Make `version` the current one: one assignment, so that a reader sees the old one or the new one."""
        kept = {**self._versions, version.number: version}
        for number in list(kept)[: -self.keep]:
            del kept[number]
        self._versions = kept
        self.current = version
