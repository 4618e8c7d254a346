"""Click-through metrics: how well scores order, and probabilities fit, what was clicked.

In: one label (0 or 1) and one score or probability per shown item [E]. Out: one number for all of them.
AUC is the share of (clicked, not clicked) pairs that the scores order rightly, ties counting half: exact, by ranks.
Source of the user-grouped AUC: DIN (arXiv 1706.06978).

Legend: `E` shown items (impressions).
"""

import numpy as np
from scipy.special import xlog1py, xlogy

from genrec.errors import DataError
from genrec.evaluation.statistics import user_numbers


def auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """The chance that a clicked item scores above one that was not, ties counting half.

    Raises `DataError` where all labels are the same or a score is not a number.
    """
    return gauc(labels, scores, np.zeros(len(scores), np.int64))


def gauc(labels: np.ndarray, scores: np.ndarray, users: np.ndarray) -> float:
    """Mean over users of the AUC among a user's own items, weighted by how many were shown.

    Users who clicked all or nothing have no AUC and are left out. users: whose impression each is [E].
    Raises `DataError` where no user is left or a score is not a number.
    """
    labels, scores = _checked(labels, scores)
    if len(users) != len(labels):
        raise DataError(f"users must name the user of each of {len(labels)} shown items, got {len(users)} names.")
    if np.isnan(scores).any():
        raise DataError(f"Scores must be numbers, got {int(np.isnan(scores).sum())} that are not (NaN).")
    owner = user_numbers(users)
    order = np.lexsort((scores, owner))
    labels, scores, owner = labels[order], scores[order], owner[order]
    shown = np.bincount(owner)
    clicked = np.bincount(owner, labels)
    # Rank from 1 inside the user, and the mean rank where scores tie. Ranks of clicked items say how many pairs are in order.
    fresh = (owner[1:] != owner[:-1]) | (scores[1:] != scores[:-1])
    starts = np.concatenate([[0], np.flatnonzero(fresh) + 1])
    lengths = np.diff(np.append(starts, len(scores)))
    rank = np.repeat(starts + (lengths + 1) / 2, lengths) - np.repeat(np.cumsum(shown) - shown, shown)
    pairs = clicked * (shown - clicked)
    both = pairs > 0
    if not both.any():
        raise DataError("AUC needs clicked and unclicked items of the same user, got none. Check the labels, or use more data.")
    right = (np.bincount(owner, rank * labels) - clicked * (clicked + 1) / 2)[both] / pairs[both]
    return float((right * shown[both]).sum() / shown[both].sum())


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Mean of -log P(label), in nats. Infinite where something that was held for sure did not happen: nothing is clipped.

    Raises `DataError` for probabilities outside 0 to 1.
    """
    labels, probabilities = _checked(labels, probabilities)
    if not ((probabilities >= 0) & (probabilities <= 1)).all():
        raise DataError(
            f"Probabilities must be from 0 to 1, got {np.nanmin(probabilities)} to {np.nanmax(probabilities)}. "
            "Pass scores through a sigmoid first."
        )
    return float(-(xlogy(labels, probabilities) + xlog1py(1 - labels, -probabilities)).mean())


def _checked(labels: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both as float64 [E]."""
    labels, scores = np.asarray(labels, np.float64), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1 or not len(labels):
        raise DataError(f"Labels and scores must be of the same items, got shapes {labels.shape} and {scores.shape}.")
    if not np.isin(labels, (0, 1)).all():
        raise DataError(f"Labels must be 0 or 1, got {labels[~np.isin(labels, (0, 1))][0]}.")
    return labels, scores
