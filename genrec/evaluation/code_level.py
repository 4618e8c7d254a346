"""Code-level hits: an item with the codes of the target counts as a hit. Shown beside item-level numbers, never instead.

In: ranked rows, targets and codes. Out: the place of the first item that has the target's codes. Whoever decodes codes and
compares codes measures this without saying so, and it is inflated: one tuple may stand for many items, and any of them counts.
On codes that are all different it equals the item level, so the gap says how much collisions would have given away.

Legend: `M` questions, `k` places, `N` items, `L` levels.
"""

from collections.abc import Sequence

import numpy as np

from genrec.codes import CodeTable
from genrec.errors import check_integer
from genrec.evaluation.metrics import hit_positions, ndcg_at, recall_at
from genrec.tokenizers.collisions import check_policy

ADDED = ("suffix", "popular-suffix", "id", "hash")  # policies whose last code tells alike items apart


def tokenizer_codes(table: CodeTable) -> np.ndarray:
    """Codes [N, L] without the code that a collision policy added; whole tuples where it added none."""
    added = check_policy("collision_policy", table.policy)[0] in ADDED
    return table.codes[:, :-1] if added else table.codes


def code_hit_positions(rows: np.ndarray, targets: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Place of the first item with the target's codes, 0 for the top; -1 where there is none: int64 [M].

    rows: [M, k], -1 in empty places. targets: [M], catalogue rows. codes: [N, L], see `tokenizer_codes`.
    """
    _, group = np.unique(codes, axis=0, return_inverse=True)
    group = np.append(group.reshape(-1), -1)  # row -1, an empty place, is of no group
    return hit_positions(group[rows], group[targets])


def code_level(rows: np.ndarray, targets: np.ndarray, codes: np.ndarray, ks: Sequence[int] = (5, 10)) -> dict[str, float]:
    """Means over the questions, item level ("ndcg@10") and code level ("code_ndcg@10") side by side.

    Raises `SettingError` for `ks` beyond the lists' `k`: nothing is known there.
    """
    for k in ks:
        check_integer("ks", k, 1, np.shape(rows)[1])
    places = {"": hit_positions(rows, targets), "code_": code_hit_positions(rows, targets, codes)}
    metrics = {"recall": recall_at, "ndcg": ndcg_at}
    return {
        f"{level}{name}@{k}": float(metric(found, k).mean())
        for k in ks
        for name, metric in metrics.items()
        for level, found in places.items()
    }
