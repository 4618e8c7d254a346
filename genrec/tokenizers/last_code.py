"""Policies that tell items apart by choosing another last code: the codes before stay, the last one moves to a free neighbour.

In: codes [N, L], the items' vectors and how many items may share a tuple. Out: codes in which no tuple is over-full. Three ways
to choose (`assign` calls one, by name):

- "knn-5": the nearest last code that has room, those who are nearest to theirs first (FORGE's KNN-5, arXiv 2509.20904);
- "random-5": a last code drawn from the item's id, then the next one that has room (FORGE's Random-5);
- "sinkhorn": within a group of items with equal codes, last codes are spread evenly by optimal transport (LC-Rec's uniform
  semantic mapping, arXiv 2311.09049), in rounds; who still shares a tuple afterwards goes to the nearest free code.

Everything is decided by item ids and vectors, never by row order. Codes that are published already only take room away.

Legend: `N` items, `L` levels, `K` codes of the last level.
"""

import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from genrec.errors import DataError

Distances = Callable[[np.ndarray], np.ndarray]  # rows [n] -> how far each is from each of its last codes, [n, K]
Room = Callable[[tuple[int, ...]], np.ndarray]  # codes before the last -> items that have each last code already, [K]

EPSILON, SPREADING, ROUNDS = 0.003, 50, 20  # LC-Rec's


def nearest_free(ids: np.ndarray, codes: np.ndarray, room: Room, size: int, cap: int, distances: Distances) -> np.ndarray:
    """ "knn": last codes, int32 [N]. Items in the order of how near they are to their own code."""
    last = codes[:, -1].copy()
    for rows, taken in _groups(ids, codes, room):
        if _fits(codes[rows, -1], taken, size, cap):
            continue
        _check_room(ids, rows, taken, size, cap)
        far = distances(rows)
        own = far[np.arange(len(rows)), codes[rows, -1]]
        taken = taken.copy()
        nearest_first = np.lexsort((ids[rows].astype(str), own))
        seated = np.zeros(len(rows), bool)
        for place in nearest_first:  # nobody loses a code that has room for all who want it
            code = codes[rows[place], -1]
            if taken[code] < cap:
                taken[code] += 1
                seated[place] = True
        for place in nearest_first[~seated[nearest_first]]:
            order = np.argsort(far[place], kind="stable")
            chosen = order[np.argmax(taken[order] < cap)]
            last[rows[place]] = chosen
            taken[chosen] += 1
    return last


def by_id(ids: np.ndarray, codes: np.ndarray, room: Room, size: int, cap: int) -> np.ndarray:
    """ "random": last codes, int32 [N], from a hash of the id."""
    last = codes[:, -1].copy()
    for rows, taken in _groups(ids, codes, room):
        _check_room(ids, rows, taken, size, cap)
        taken = taken.copy()
        for row in rows:
            order = (hashed(ids[row], size) + np.arange(size)) % size
            last[row] = order[np.argmax(taken[order] < cap)]
            taken[last[row]] += 1
    return last


def spread_evenly(ids: np.ndarray, codes: np.ndarray, room: Room, size: int, distances: Distances) -> np.ndarray:
    """ "sinkhorn": last codes, int32 [N], one item per tuple."""
    last = codes[:, -1].astype(np.int32).copy()
    order = np.argsort(ids.astype(str), kind="stable")
    stuck: set[bytes] = set()  # items with one vector never part this way
    for _ in range(ROUNDS):
        tuples = np.column_stack([codes[:, :-1], last])
        _, group, counts = np.unique(tuples[order], axis=0, return_inverse=True, return_counts=True)
        group = group.reshape(-1)
        crowded = np.flatnonzero(counts > 1)
        if not len(crowded):
            break
        by_group = np.argsort(group, kind="stable")
        starts = np.r_[0, np.cumsum(counts)]
        for number in crowded:
            rows = order[by_group[starts[number] : starts[number + 1]]]
            if rows.tobytes() in stuck:
                continue
            last[rows] = sinkhorn(distances(rows)).argmax(axis=1)
            if len(set(last[rows].tolist())) == 1:
                stuck.add(rows.tobytes())
    return nearest_free(ids, np.column_stack([codes[:, :-1], last]), room, size, 1, distances)


def sinkhorn(distances: np.ndarray, epsilon: float = EPSILON, rounds: int = SPREADING) -> np.ndarray:
    """Transport [B, K] that costs little distance and uses every column alike: rows sum to 1, columns to B / K.

    In float64, with distances centred to [-1, 1]: at this epsilon anything else overflows.
    """
    distances = distances.astype(np.float64)
    middle = (distances.max() + distances.min()) / 2
    centred = (distances - middle) / (distances.max() - middle + 1e-5)
    items, codes = distances.shape
    plan = np.exp(-centred / epsilon)
    plan /= plan.sum()
    for _ in range(rounds):
        plan /= np.maximum(plan.sum(axis=1, keepdims=True), 1e-300) * items
        plan /= np.maximum(plan.sum(axis=0, keepdims=True), 1e-300) * codes
    return plan * items


def _groups(ids: np.ndarray, codes: np.ndarray, room: Room) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows with the same codes before the last, by item id, and what of their last codes is taken."""
    order = np.argsort(ids.astype(str), kind="stable")
    before, group = np.unique(codes[order, :-1], axis=0, return_inverse=True)
    group = group.reshape(-1)
    by_group = order[np.argsort(group, kind="stable")]
    parts = np.split(by_group, np.cumsum(np.bincount(group, minlength=len(before)))[:-1])
    for prefix, rows in zip(before.tolist(), parts, strict=True):
        yield rows, room(tuple(prefix))


def _fits(last: np.ndarray, taken: np.ndarray, size: int, cap: int) -> bool:
    return bool((taken + np.bincount(last, minlength=size) <= cap).all() or not len(last))


def _check_room(ids: np.ndarray, rows: np.ndarray, taken: np.ndarray, size: int, cap: int) -> None:
    free = int(np.maximum(cap - taken, 0).sum())
    if len(rows) > free:
        raise DataError(
            f"{len(rows)} items begin with the same codes, for example {ids[rows[0]]!r}, and their last level has room for "
            f"{free}. Fit with more levels or a larger codebook, allow more items per code tuple, or use the policy 'suffix'."
        )


def hashed(item_id: str, buckets: int) -> int:
    """A number below `buckets` that depends on the id alone, on every machine."""
    return int.from_bytes(hashlib.blake2b(str(item_id).encode(), digest_size=8).digest(), "little") % buckets
