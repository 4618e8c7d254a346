"""CodeTable: which codes spell which item. The one thing that tokenizer, model, decoder and evaluation share.

In: item ids and their code tuples. Out: an immutable, hashed table on disk (Parquet) that others can refuse on mismatch.

Legend: `N` items, `L` levels, `K_l` codes of level l.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from genrec.errors import BundleError, DataError

FORMAT = 1


@dataclass(frozen=True, eq=False)
class CodeTable:
    """item_ids: object [N]; codes: int32 [N, L]; sizes: L numbers, codes per level; policy: the collision policy's name;
    tokenizer: fingerprint of the item tokenizer; generation: 0 at first, +1 per append; parent: hash of the table before.

    Raises `DataError` for tables that cannot be (a code out of range, an item twice).
    """

    item_ids: np.ndarray
    codes: np.ndarray
    sizes: tuple[int, ...]
    policy: str
    tokenizer: str
    generation: int = 0
    parent: str | None = None

    def __post_init__(self) -> None:
        codes = np.ascontiguousarray(self.codes, np.int32)
        if codes.ndim != 2 or codes.shape != (len(self.item_ids), len(self.sizes)):
            raise DataError(
                f"codes must be [items, levels] = [{len(self.item_ids)}, {len(self.sizes)}], got shape {list(codes.shape)}."
            )
        if len(codes) == 0:
            raise DataError("A code table needs at least one item, got 0.")
        too_big = np.argwhere((codes < 0) | (codes >= np.array(self.sizes, np.int64)))
        if len(too_big):
            row, level = too_big[0]
            raise DataError(
                f"Code {codes[row, level]} of item {self.item_ids[row]!r} at level {level} is out of range: "
                f"level {level} has codes 0 to {self.sizes[level] - 1}."
            )
        if len(set(self.item_ids.tolist())) != len(self.item_ids):
            raise DataError("A code table must name every item once, got an item id more than once.")
        codes.setflags(write=False)
        object.__setattr__(self, "codes", codes)
        object.__setattr__(self, "sizes", tuple(int(s) for s in self.sizes))

    def __len__(self) -> int:
        return len(self.item_ids)

    @property
    def levels(self) -> int:
        return len(self.sizes)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything that the table means, in row order: 64 hex digits."""
        digest = hashlib.sha256()
        digest.update(json.dumps(self._header(), sort_keys=True).encode())
        digest.update(self.codes.astype("<i4").tobytes())
        digest.update("\0".join(self.item_ids.tolist()).encode())
        return digest.hexdigest()

    def _header(self) -> dict:
        return {
            "format": FORMAT,
            "sizes": list(self.sizes),
            "policy": self.policy,
            "tokenizer": self.tokenizer,
            "generation": self.generation,
            "parent": self.parent,
        }

    def append(self, item_ids: Sequence[str], codes: np.ndarray) -> "CodeTable":
        """A new table with more items; no existing code moves. Raises `DataError` for an item that is there already."""
        here = set(self.item_ids.tolist())
        twice = [i for i in item_ids if i in here]
        if twice:
            raise DataError(f"append takes new items only, got {len(twice)} that have codes already, for example {twice[0]!r}.")
        return replace(
            self,
            item_ids=np.concatenate([self.item_ids, np.array(list(item_ids), object)]),
            codes=np.concatenate([self.codes, np.asarray(codes, np.int32).reshape(-1, self.levels)]),
            generation=self.generation + 1,
            parent=self.hash,
        )

    def save(self, path: Path) -> None:
        """Write one Parquet file."""
        columns = {"item_id": pa.array(self.item_ids.tolist(), pa.string())}
        columns |= {f"code_{level}": pa.array(self.codes[:, level]) for level in range(self.levels)}
        header = json.dumps({**self._header(), "hash": self.hash})
        pq.write_table(pa.table(columns).replace_schema_metadata({"genrec.codes": header}), path)

    @classmethod
    def load(cls, path: Path) -> "CodeTable":
        """Read what `save` wrote. Raises `BundleError` when the content does not have the hash it was saved with."""
        try:
            table = pq.read_table(path)
            header = json.loads(table.schema.metadata[b"genrec.codes"])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
            raise BundleError(f"{path} is not a code table that genrec wrote ({error}). Copy its folder again.") from None
        if header["format"] != FORMAT:
            raise BundleError(f"{path} has code table format {header['format']}; this genrec reads format {FORMAT}.")
        loaded = cls(
            table.column("item_id").to_numpy(),
            np.stack([table.column(f"code_{level}").to_numpy() for level in range(len(header["sizes"]))], axis=1),
            tuple(header["sizes"]),
            header["policy"],
            header["tokenizer"],
            header["generation"],
            header["parent"],
        )
        if loaded.hash != header["hash"]:
            raise BundleError(
                f"{path} was edited: its content has hash {loaded.hash[:12]}, it was saved with {header['hash'][:12]}."
            )
        return loaded


@dataclass(frozen=True)
class CodeDiff:
    """How two tables differ, in items: `changed` have other codes, `added` and `removed` are in one only. together: of the
    pairs of items that shared their first code before, the share that still do, whatever that code is called now; None where
    no pair did. moved: a row per item that is not unchanged, with `item_id`, `change` ("changed", "added", "removed"), `before`
    and `after` (codes with dashes between them) and `kept` (codes that are the same from the first on).
    """

    unchanged: int
    changed: int
    added: int
    removed: int
    together: float | None
    moved: pa.Table


def diff(old: CodeTable, new: CodeTable) -> CodeDiff:
    """Compare two code tables by item id; tables with different numbers of levels share no code."""
    before = dict(zip(old.item_ids.tolist(), map(tuple, old.codes.tolist()), strict=True))
    after = dict(zip(new.item_ids.tolist(), map(tuple, new.codes.tolist()), strict=True))
    rows = []
    for item in before | after:
        a, b = before.get(item, ()), after.get(item, ())
        if a != b:
            change = "changed" if a and b else "added" if b else "removed"
            kept = next((level for level, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
            rows.append((item, change, "-".join(map(str, a)), "-".join(map(str, b)), kept))
    names = ["item_id", "change", "before", "after", "kept"]
    columns = [pa.array(column, kind) for column, kind in zip(
        zip(*rows, strict=True) if rows else [[]] * len(names), [pa.string()] * 4 + [pa.int64()], strict=True
    )]  # fmt: skip
    count = {kind: sum(row[1] == kind for row in rows) for kind in ("changed", "added", "removed")}
    common = [item for item in before if item in after]
    first = np.array([(before[item][0], after[item][0]) for item in common], np.int64).reshape(-1, 2)
    groups, stayed = _pairs_alike(first[:, :1]), _pairs_alike(first)
    return CodeDiff(
        len(common) - count["changed"], count["changed"], count["added"], count["removed"],
        stayed / groups if groups else None, pa.table(columns, names=names),
    )  # fmt: skip


def _pairs_alike(rows: np.ndarray) -> int:
    """How many pairs of rows are equal."""
    counts = np.unique(rows, axis=0, return_counts=True)[1]
    return int((counts * (counts - 1) // 2).sum())
