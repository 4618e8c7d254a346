"""Click-through metrics: how well scores order, and probabilities fit, what was clicked.

In: one label (0 or 1) and one score or probability per shown item [M]. Out: one number for all of them. AUC is the chance
that a clicked item scores above one that was not, ties counting half. Source of the user-grouped AUC: DIN (arXiv 1706.06978).

Legend: `M` shown items (impressions).
"""

import numpy as np
from sklearn.metrics import log_loss, roc_auc_score

from genrec.errors import DataError

__all__ = ["auc", "gauc", "log_loss"]


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """See the module. Raises `DataError` where all labels are the same."""
    if labels.min(initial=1) == labels.max(initial=0):
        raise DataError("AUC needs clicked and unclicked items, got one kind only. Check the labels, or use more data.")
    return float(roc_auc_score(labels, scores))


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Mean over users of the AUC among a user's own items, weighted by how many were shown. users: whose impression each is
    [M]. Users who clicked all or nothing have no AUC and are left out. Raises `DataError` where no user is left.
    """
    _, owner = np.unique(users, return_inverse=True)
    order = np.argsort(owner.reshape(-1), kind="stable")
    cuts = np.flatnonzero(np.diff(owner.reshape(-1)[order])) + 1
    both = [part for part in np.split(order, cuts) if labels[part].min() != labels[part].max()]
    if not both:
        raise DataError("AUC needs clicked and unclicked items of the same user, got none. Check the labels, or use more data.")
    return float(np.average([auc(labels[part], scores[part]) for part in both], weights=[len(part) for part in both]))
