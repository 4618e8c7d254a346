"""Queries as what travels to an engine in another process: plain numbers, texts and bytes.

In: a query and the version of the catalogue it was made for. Out: a dict, and the same query from it over there. Rules travel
as a set of rows, not of positions: two processes may merge their catalogues at different times, but rows are the same.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from genrec.decoding.diversity import Cap
from genrec.decoding.live import CatalogueVersion
from genrec.decoding.snapshot import Query, Rules
from genrec.errors import DataError

STALE, FAILED = -1, -2  # in the place of rows: the version is gone; the search failed, and the log says why


class UnknownVersionError(DataError):
    """The catalogue moved on by more versions than are kept."""


def pack(query: Query, version: CatalogueVersion, weigh: np.ndarray | None = None) -> dict[str, Any]:
    """A query as msgpack and JSON-like values (bytes included). weigh: rows to explain, instead of a search."""
    rules = query.rules
    mask = None if rules.bitmap is None else np.packbits(version.snapshot.mask_of(rules.bitmap)).tobytes()
    return {
        "version": version.hash,
        "history": query.history.astype("<i4").tobytes(),
        "user": query.user,
        "k": int(query.k),
        "widths": list(query.widths),
        "exclude_seen": bool(query.exclude_seen),
        "excluded": rules.excluded.astype("<i4").tobytes(),
        "mask": mask,
        "caps": [[cap.label, int(cap.most)] for cap in rules.caps],
        "weigh": None if weigh is None else weigh.astype("<i4").tobytes(),
    }


def unpack(
    data: Mapping[str, Any], versions: Mapping[str, CatalogueVersion]
) -> tuple[Query, CatalogueVersion, np.ndarray | None]:
    """What was packed. versions: by hash. Raises `UnknownVersionError` for a version that is not among them."""
    version = versions.get(data["version"])
    if version is None:
        raise UnknownVersionError(f"Catalogue version {data['version'][:12]} is not known here; {len(versions)} others are.")
    bitmap = None
    if data["mask"] is not None:
        bits = np.unpackbits(np.frombuffer(data["mask"], np.uint8), count=len(version.live)).astype(bool)
        bitmap = version.snapshot.bitmap(bits)
    caps = [Cap(version.groups(label), most, label) for label, most in data["caps"]]
    rules = Rules(bitmap, np.frombuffer(data["excluded"], "<i4").astype(np.int64), caps)
    history = np.frombuffer(data["history"], "<i4").astype(np.int64)
    weigh = None if data["weigh"] is None else np.frombuffer(data["weigh"], "<i4").astype(np.int64)
    return Query(history, data["k"], tuple(data["widths"]), data["exclude_seen"], rules, data["user"]), version, weigh
