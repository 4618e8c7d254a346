"""Collision policies: what to do with items whose codes are the same.

In: item ids and tokenizer codes [N, L]. Out: a `CodeTable`. By name:

- "suffix": one more level holds the item's ordinal inside its group (0, 1, 2, ...; TIGER, arXiv 2305.05065). Ordinals go
  by item id at first; an appended item takes the next free one.
- "popular-suffix": the same, but ordinals go by how often training met an item, so that the first ones are the likeliest
  (MMGRec, arXiv 2404.16555).
- "shared": items keep the same codes; a decoder returns all of them, ordered by its tie rule.
- "knn-5", "random-5" (any number), "sinkhorn": the last code moves until no tuple has more items than that; see last_code.py.
- "id", "hash-1024" (any number): one more level names the item itself, by a number of its own or by a hash of its id, beside
  semantic codes that may be shared (dual hash and semantic IDs: H2Rec, arXiv 2512.10388; ActionPiece, arXiv 2502.13581).

None depends on row order. Appending never moves a code that exists, and new items keep the same promise.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from genrec.codes import CodeTable
from genrec.errors import DataError, SettingError, nearest
from genrec.tokenizers import last_code
from genrec.tokenizers.base import ItemTokenizer

POLICIES = ("suffix", "popular-suffix", "shared", "knn-5", "random-5", "sinkhorn", "id", "hash-1024")

MOVING = ("knn", "random", "sinkhorn")  # they choose another last code

# Suffix rows kept free for items that arrive later. A row that training never saw cannot score well, but an item without a
# row could not exist at all; 8 rows cost 8 vectors.
SPARE_SUFFIXES = 8
MOST_TRIED = 1024  # last codes that may be decoded one by one
SPARE_IDS = 0.1  # of the catalogue, for the policy "id"


def check_policy(name: str, value: str) -> tuple[str, int]:
    """A policy's kind and number (0 where it has none). Raises `SettingError` for one that is none."""
    found = re.fullmatch(r"(suffix|popular-suffix|shared|sinkhorn|id)|(knn|random|hash)-([1-9]\d{0,8})", str(value))
    if found is None:
        hint = nearest(str(value), POLICIES)
        raise SettingError(f"{name} must be one of {list(POLICIES)} (numbers are examples), got {value!r}.{hint}")
    return (found[1], 0) if found[1] else (found[2], int(found[3]))


@dataclass(frozen=True)
class Published:
    """Codes that items have already and that never move. sizes: of the levels, after the policy. below: how many items have
    each last code below the codes before it, int64 [K]. next_id: above every last code in use.
    """

    sizes: tuple[int, ...]
    below: Callable[[tuple[int, ...]], np.ndarray]
    next_id: int


def assign(
    item_ids: Sequence[str],
    codes: np.ndarray,
    tokenizer: ItemTokenizer,
    policy: str = "suffix",
    vectors: np.ndarray | None = None,
    counts: np.ndarray | None = None,
) -> CodeTable:
    """The first code table of a catalogue. `codes` is what `tokenizer.encode` gave: [N, L]; `vectors` [N, D] are needed where
    last codes move by distance; `counts` [N], how often training met each item, where ordinals go by it.
    """
    codes, sizes = resolve(item_ids, codes, tokenizer, policy, vectors, counts=counts)
    return CodeTable(np.array(list(item_ids), object), codes, sizes, policy, tokenizer.fingerprint)


def append(
    table: CodeTable, item_ids: Sequence[str], codes: np.ndarray, tokenizer: ItemTokenizer, vectors: np.ndarray | None = None
) -> CodeTable:
    """`table` and new items, under the table's own policy. Raises `DataError` when a level is full."""
    if table.tokenizer != tokenizer.fingerprint:
        raise DataError(
            "Items can only be appended with the tokenizer that made the table: "
            f"it has fingerprint {table.tokenizer[:12]}, got {tokenizer.fingerprint[:12]}."
        )
    ids = list(item_ids)
    if len(set(ids)) != len(ids):
        raise DataError("append takes every new item once, got an item id more than once.")
    added, _ = resolve(ids, codes, tokenizer, table.policy, vectors, _published(table))
    return table.append(ids, added)


def resolve(
    item_ids: Sequence[str],
    codes: np.ndarray,
    tokenizer: ItemTokenizer,
    policy: str,
    vectors: np.ndarray | None = None,
    published: Published | None = None,
    counts: np.ndarray | None = None,
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Codes [N, L] of items under the policy, int32 [N, L or L + 1], and the sizes of their levels.

    Raises `DataError` when a level is full, `SettingError` for a policy that needs vectors or counts and got none.
    """
    kind, number = check_policy("collision_policy", policy)
    ids, levels = np.array(list(item_ids), object), tokenizer.sizes
    if kind == "shared":
        return codes, levels
    if kind == "hash":
        return _with_last(codes, np.array([last_code.hashed(item, number) for item in ids])), (*levels, number)
    if kind == "id":
        own = (published.next_id if published else 0) + np.argsort(np.argsort(ids.astype(str), kind="stable"))
        size = published.sizes[-1] if published else len(ids) + max(SPARE_SUFFIXES, int(SPARE_IDS * len(ids)))
        if own.max(initial=0) >= size:
            raise DataError(
                f"The level of item numbers holds {size}, and {own.max() + 1} items want one. Nothing was changed. Fit again, "
                "or use collision_policy='hash-1024', which never fills up."
            )
        return _with_last(codes, own), (*levels, size)
    if kind.endswith("suffix"):
        if kind == "suffix":
            counts = np.zeros(len(ids))
        elif counts is None and published is None:
            raise SettingError("collision_policy 'popular-suffix' needs training interactions: pass counts=.")
        suffix = _ordinals(ids, codes, counts) if published is None else _free_ordinals(ids, codes, published)
        size = published.sizes[-1] if published else int(suffix.max()) + 1 + SPARE_SUFFIXES
        full = np.flatnonzero(suffix >= size)
        if len(full):
            raise DataError(
                f"Item {ids[full[0]]!r} would be number {suffix[full[0]] + 1} with the same codes; the suffix level holds "
                f"{size}. Nothing was changed. Fit again with more levels or a larger codebook, or with "
                "collision_policy='shared'."
            )
        return _with_last(codes, suffix), (*levels, size)
    return _with_last(codes[:, :-1], _moved(ids, codes, tokenizer, kind, number, vectors, published)), levels


def _moved(
    ids: np.ndarray,
    codes: np.ndarray,
    tokenizer: ItemTokenizer,
    kind: str,
    number: int,
    vectors: np.ndarray | None,
    published: Published | None,
) -> np.ndarray:
    """Last codes [N] under the policies that choose another one."""
    size = tokenizer.sizes[-1]
    nothing = np.zeros(size, np.int64)
    below = published.below if published else lambda _: nothing
    if kind == "random":
        return last_code.by_id(ids, codes, below, size, number)
    if size > MOST_TRIED and type(tokenizer).last_distances is ItemTokenizer.last_distances:
        raise SettingError(
            f"collision_policy {kind!r} would try each of {size} last codes of {tokenizer.family!r} for every crowded item. "
            "Use "
            "'random-5', 'suffix' or 'shared'."
        )
    if vectors is None:
        raise SettingError(f"collision_policy {kind!r} needs the items' vectors: pass vectors=.")
    known = np.asarray(vectors)

    def distances(rows: np.ndarray) -> np.ndarray:
        return tokenizer.last_distances(known[rows], codes[rows])

    if kind == "knn":
        return last_code.nearest_free(ids, codes, below, size, number, distances)
    return last_code.spread_evenly(ids, codes, below, size, distances)


def _published(table: CodeTable) -> Published:
    """A table's codes by their prefixes."""
    order = np.lexsort(table.codes[:, :-1].T[::-1]) if table.levels > 1 else np.arange(len(table))
    codes = table.codes[order]
    starts = np.flatnonzero(np.r_[True, (codes[1:, :-1] != codes[:-1, :-1]).any(axis=1)])
    ends = np.r_[starts[1:], len(codes)]
    ranges = dict(zip(map(tuple, codes[starts, :-1].tolist()), zip(starts.tolist(), ends.tolist(), strict=True), strict=True))

    def below(prefix: tuple[int, ...]) -> np.ndarray:
        start, end = ranges.get(prefix, (0, 0))
        return np.bincount(codes[start:end, -1], minlength=table.sizes[-1])

    return Published(table.sizes, below, int(codes[:, -1].max()) + 1)


def _with_last(codes: np.ndarray, last: np.ndarray) -> np.ndarray:
    return np.column_stack([codes, last]).astype(np.int32)


def _ordinals(ids: np.ndarray, codes: np.ndarray, counts: np.ndarray | None) -> np.ndarray:
    """Rank of each item among those with the same codes, by falling count, then by item id: int64 [N]."""
    assert counts is not None  # `resolve` saw to it
    first = np.lexsort((ids.astype(str), -counts))
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = first[np.argsort(group[first], kind="stable")]
    sorted_groups = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    result = np.empty(len(order), np.int64)
    result[order] = ranks
    return result


def _free_ordinals(ids: np.ndarray, codes: np.ndarray, published: Published) -> np.ndarray:
    """The smallest number that nobody with the same codes has, by item id: int64 [n]."""
    suffix = np.empty(len(ids), np.int64)
    taken: dict[tuple[int, ...], set[int]] = {}
    for row in np.argsort(ids.astype(str), kind="stable"):
        own = tuple(codes[row].tolist())
        if own not in taken:
            taken[own] = set(np.flatnonzero(published.below(own)).tolist())
        suffix[row] = next(number for number in range(len(taken[own]) + 1) if number not in taken[own])
        taken[own].add(int(suffix[row]))
    return suffix
