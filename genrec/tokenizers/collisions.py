"""Collision policies: what to do with items whose codes are the same.

In: item ids and tokenizer codes [N, L]. Out: a `CodeTable`. Two policies so far:

- "suffix": one more level holds the item's ordinal inside its group (0, 1, 2, ...; TIGER, arXiv 2305.05065). Ordinals go
  by item id at first, so row order does not matter; an appended item takes the next free one.
- "shared": items keep the same codes; a decoder returns all of them, ordered by its tie rule.

Appending never moves a code that exists.
"""

from collections.abc import Sequence

import numpy as np

from genrec.codes import CodeTable
from genrec.errors import DataError, check_choice
from genrec.tokenizers.base import ItemTokenizer

POLICIES = ("suffix", "shared")

# Suffix rows kept free for items that arrive later. A row that training never saw cannot score well, but an item without a
# row could not exist at all; 8 rows cost 8 vectors.
SPARE_SUFFIXES = 8


def assign(item_ids: Sequence[str], codes: np.ndarray, tokenizer: ItemTokenizer, policy: str = "suffix") -> CodeTable:
    """The first code table of a catalogue. `codes` is what `tokenizer.encode` gave: [N, L]."""
    check_choice("collision_policy", policy, POLICIES)
    ids = np.array(list(item_ids), object)
    sizes = tokenizer.sizes
    if policy == "suffix":
        suffix = _ordinals(ids, codes)
        codes = np.column_stack([codes, suffix])
        sizes = (*sizes, int(suffix.max()) + 1 + SPARE_SUFFIXES)
    return CodeTable(ids, codes, sizes, policy, tokenizer.fingerprint)


def append(table: CodeTable, item_ids: Sequence[str], codes: np.ndarray, tokenizer: ItemTokenizer) -> CodeTable:
    """`table` and new items, under the table's own policy. Raises `DataError` when a suffix level is full."""
    if table.tokenizer != tokenizer.fingerprint:
        raise DataError(
            "Items can only be appended with the tokenizer that made the table: "
            f"it has fingerprint {table.tokenizer[:12]}, got {tokenizer.fingerprint[:12]}."
        )
    ids = np.array(list(item_ids), object)
    if len(set(ids.tolist())) != len(ids):
        raise DataError("append takes every new item once, got an item id more than once.")
    if table.policy == "suffix":
        taken = _group_sizes(table.codes[:, :-1], table.codes[:, -1] + 1, codes)
        suffix = taken + _ordinals(ids, codes)
        full = np.flatnonzero(suffix >= table.sizes[-1])
        if len(full):
            raise DataError(
                f"Item {ids[full[0]]!r} would be number {suffix[full[0]] + 1} with the same codes; the suffix level holds "
                f"{table.sizes[-1]}. Fit again with more levels or a larger codebook, or use collision_policy='shared'."
            )
        codes = np.column_stack([codes, suffix])
    return table.append(ids.tolist(), codes)


def _ordinals(ids: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Rank of each item among those with the same codes, by item id: int64 [N]."""
    by_id = np.argsort(ids.astype(str), kind="stable")
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = group.reshape(-1)
    order = by_id[np.argsort(group[by_id], kind="stable")]
    sorted_groups = group[order]
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    ranks = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    result = np.empty(len(order), np.int64)
    result[order] = ranks
    return result


def _group_sizes(known: np.ndarray, ordinal_end: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """First free ordinal of each wanted code tuple, given the known tuples and one past their ordinals: int64 [n]."""
    both = np.concatenate([known, np.asarray(wanted, known.dtype)])
    _, group = np.unique(both, axis=0, return_inverse=True)
    group = group.reshape(-1)
    end = np.zeros(int(group.max()) + 1, np.int64)
    np.maximum.at(end, group[: len(known)], ordinal_end)
    return end[group[len(known) :]]
