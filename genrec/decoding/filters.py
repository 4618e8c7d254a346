"""Filters: what a request says about items, as a bitmap over one version of the catalogue.

In: a `Filter` in words. Out: which rows it keeps. A named filter is computed once per version; because rows are only ever
appended, a new version costs the rows it added.

Legend: `R` catalogue rows.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from genrec.columns import ITEM_ID
from genrec.data.where import where_mask
from genrec.decoding.allowed import Bitmap
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Snapshot
from genrec.errors import SettingError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Filter:
    """where: an expression over catalogue columns (see `genrec.data.where`). only_item_ids: nothing else may be returned.
    exclude_item_ids: never returned. All that are given must hold."""

    where: str | None = None
    only_item_ids: tuple[str, ...] | None = None
    exclude_item_ids: tuple[str, ...] = ()

    def mask(self, version: CatalogueVersion, start: int = 0) -> np.ndarray:
        """Which rows from `start` on it keeps: bool [R - start]."""
        table = version.table.slice(start)
        keep = np.ones(table.num_rows, bool)
        # By the id that stands in each row: which row an id means differs between versions, what a row says never does.
        if self.only_item_ids is not None:
            keep &= _named(table, self.only_item_ids)
        if self.exclude_item_ids:
            keep &= ~_named(table, self.exclude_item_ids)
        if self.where is not None:
            keep &= where_mask(table, self.where)
        return keep


def _named(table: pa.Table, item_ids: Sequence[str]) -> np.ndarray:
    """Rows of any of these items: bool [rows]."""
    ids = table.column(ITEM_ID)
    return pc.is_in(ids, value_set=pa.array(item_ids, ids.type)).to_numpy(zero_copy_only=False).astype(bool)


class PreparedFilter:
    """A filter whose bitmap is kept from request to request, and brought up to date when the catalogue changed."""

    def __init__(self, rule: Filter, version: CatalogueVersion) -> None:
        self.rule = rule
        self._mask = rule.mask(version)

    def bitmap(self, version: CatalogueVersion) -> Bitmap:
        """The live rows of `version` that the filter keeps."""
        if self not in version.caches:
            mask = self._mask
            if len(mask) < len(version.live):
                mask = np.concatenate([mask, self._new(version, len(mask))])
                self._mask = mask  # one assignment: another thread sees the old mask or the new one
            version.caches[self] = version.snapshot.bitmap(mask[: len(version.live)])
        return version.caches[self]

    def _new(self, version: CatalogueVersion, start: int) -> np.ndarray:
        """Which new rows it keeps. One that it cannot judge (a number too large) is left out, and spoils nobody's request."""
        try:
            return self.rule.mask(version, start)
        except SettingError as error:
            log.warning("New items are left out of a prepared filter: %s", error)
            return np.zeros(len(version.live) - start, bool)


class RecentRules:
    """The bitmaps of the last `most` `where` expressions. observe: told for each use whether its bitmap was there."""

    def __init__(self, most: int = 32, observe: Callable[[bool], None] = lambda hit: None) -> None:
        self.most, self.observe = most, observe
        self._kept: OrderedDict[str, tuple[Snapshot, Bitmap]] = OrderedDict()
        self._lock = threading.Lock()

    def bitmap(self, where: str, version: CatalogueVersion) -> Bitmap:
        """The live rows of `version` that `where` keeps."""
        with self._lock:
            snapshot, bitmap = self._kept.get(where, (None, None))
            hit = snapshot is version.snapshot
        self.observe(hit)
        if bitmap is None or not hit:
            bitmap = version.snapshot.bitmap(version.where(where))
        with self._lock:
            self._kept[where] = version.snapshot, bitmap
            self._kept.move_to_end(where)
            if len(self._kept) > self.most:
                self._kept.popitem(last=False)
        return bitmap


def intersection(bitmaps: Sequence[Bitmap]) -> Bitmap | None:
    """Positions that are in all of them, None where there is none to intersect."""
    result = None
    for bitmap in bitmaps:
        result = bitmap if result is None else result & bitmap
    return result
