"""Bring events that come in the order of a file into the order of histories, by user, however many they are.

In: of each event its user's number, its item and what it is sorted by. Out: items and times, user after user, in order.

What is longer than a stretch is sorted as data bases do it: the events of as many users as fit into one stretch are brought
together on disk, in one pass, and then each such range of users is sorted in memory.

Legend: `E` events, `U` users.
"""

import numpy as np

from genrec.data.mapped import large_array, parts, stretches


def in_order(
    users: np.ndarray, items: np.ndarray, keys: list[np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Items, times, and where the events of each user begin: int64 [U + 1].

    users: int [E], below `count`; items: int64 [E]; keys: what events are sorted by inside a user, float64 [E] each, NaN where
    unknown, the times first; equal ones stay as they came. A key that a user lacks anywhere does not count for that user. All
    arrays may be overwritten.
    """
    lengths, lacking = np.zeros(count, np.int64), np.zeros((len(keys), count), bool)
    for part in parts(len(users)):
        np.add.at(lengths, users[part], 1)
        for lacks, key in zip(lacking, keys, strict=True):
            lacks[users[part][np.isnan(key[part])]] = True
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    users, items, *keys = _together(indptr, [users, items, *keys])
    for first, last in stretches(indptr):
        part = slice(indptr[first], indptr[last])
        who = users[part]
        by = [np.where(lacks[who], 0.0, key[part]) for lacks, key in zip(lacking, keys, strict=True)]
        order = np.lexsort((*by[::-1], who))
        items[part], keys[0][part] = items[part][order], keys[0][part][order]
    return items, keys[0], indptr


def _together(indptr: np.ndarray, columns: list[np.ndarray]) -> list[np.ndarray]:
    """The columns, of which the first says whose each event is, with the events of each stretch of users together, in the
    order in which they came."""
    ranges = np.array(list(stretches(indptr)))
    if len(ranges) == 1:
        return columns
    range_of = np.repeat(np.arange(len(ranges)), ranges[:, 1] - ranges[:, 0])
    filled = indptr[ranges[:, 0]]  # up to where each range has its events
    together = [large_array(len(column), column.dtype) for column in columns]
    for part in parts(len(columns[0])):
        belongs = range_of[columns[0][part]]
        order, counts = np.argsort(belongs, kind="stable"), np.bincount(belongs, minlength=len(ranges))
        places = np.repeat(filled - np.cumsum(counts) + counts, counts) + np.arange(len(order))
        for column, out in zip(columns, together, strict=True):
            out[places] = column[part][order]
        filled = filled + counts
    return together
