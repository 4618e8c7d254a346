"""The linear models behind probes.py, fitted on one half of the users and scored on the other.

In: inputs [U, d], answers [U], and who is learned from: bool [U]. Out: (score on the others, floor, how many were scored), NaN
where there are too few users or only one answer. Inputs are standardised on the half that is learned from; of a few penalties
the one stays that does best on a fifth of that half. Everything is convex, so the seed only orders the batches of the bilinear
model.

Legend: `U` users, `d` width of user vectors, `N` items, `e` width of item vectors, `C` candidates.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from genrec.evaluation.ranking import places
from genrec.networks import seeded, train_on

PENALTIES = (0.3, 0.03, 0.003)  # of squared weights beside a mean loss per user, strongest first
LEAST = 10  # users of a half, below which nothing is asked
BATCH, EPOCHS, LEAST_STEPS, MOST_STEPS, LEARNING_RATE = 128, 20, 200, 3000, 1e-2  # of the bilinear model

# (score, floor, users scored)
Answer = tuple[float, float, int]


class _Bilinear(nn.Module):
    """A matrix W [d, e], started at zero: x W v scores item v for user x."""

    def __init__(self, width: int, item_width: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(width, item_width))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Scores [B, C] of users [B, d] for their candidates [B, C, e]."""
        return torch.einsum("be,bce->bc", users @ self.weights, items)


def classified(vectors: np.ndarray, answers: np.ndarray, learns: np.ndarray) -> Answer:
    """Accuracy of a logistic regression on the scored half, that of the commonest answer, users scored."""
    from sklearn.linear_model import LogisticRegression

    asked = answers != ""
    known, wanted = answers[asked & learns], answers[asked & ~learns]
    if min(len(known), len(wanted)) < LEAST:
        return np.nan, np.nan, len(wanted)
    names, counts = np.unique(known, return_counts=True)
    floor = float((wanted == names[counts.argmax()]).mean())
    x, other = _standardised(vectors[asked], learns[asked])
    if len(np.unique(known[~_fifth(len(known))])) < 2:
        return np.nan, floor, len(wanted)

    def make(penalty: float, users: int) -> LogisticRegression:
        return LogisticRegression(C=1 / (penalty * users), max_iter=1000)

    found = _best(make, x, known, lambda right, said: float((right == said).mean())).predict(other)
    return float((found == wanted).mean()), floor, len(wanted)


def regressed(vectors: np.ndarray, answers: np.ndarray, learns: np.ndarray) -> Answer:
    """Correlation of a ridge regression with the truth on the scored half, 0, users scored."""
    from sklearn.linear_model import Ridge

    known, wanted = answers[learns], answers[~learns]
    if min(len(known), len(wanted)) < LEAST or np.ptp(known) == 0 or np.ptp(wanted) == 0:
        return np.nan, 0.0, len(wanted)
    x, other = _standardised(vectors, learns)
    found = _best(lambda penalty, users: Ridge(penalty * users), x, known, _correlation).predict(other)
    return _correlation(wanted, found), 0.0, len(wanted)


def chosen(
    vectors: np.ndarray,
    targets: np.ndarray,
    candidates: np.ndarray,
    item_vectors: np.ndarray,
    popularity: np.ndarray,
    learns: np.ndarray,
    seed: int,
) -> Answer:
    """How often a bilinear score puts the target first among its candidates, how often popularity does, users scored."""
    asked = candidates[:, 0] >= 0
    candidates, learns = candidates[asked], learns[asked]
    right = (candidates == targets[asked][:, None]).argmax(axis=1)
    scored = int((~learns).sum())
    if min(scored, int(learns.sum())) < LEAST:
        return np.nan, np.nan, scored
    floor = float((places(popularity[candidates[~learns]], right[~learns]) == 0).mean())
    x, other = _standardised(vectors[asked], learns)
    items, _ = _standardised(item_vectors.astype(np.float64), np.ones(len(item_vectors), bool))
    known, answers = candidates[learns], right[learns]
    held = _fifth(len(known))

    def hits(penalty: float, fitted: np.ndarray, x_of: np.ndarray, of: np.ndarray, right_of: np.ndarray) -> float:
        weights = _bilinear(x[fitted], items, known[fitted], answers[fitted], penalty, seed)
        first = [
            places(np.einsum("ue,uce->uc", x_of[part] @ weights, items[of[part]]), right_of[part]) == 0
            for part in np.array_split(np.arange(len(of)), -(-len(of) // BATCH))
        ]
        return float(np.concatenate(first).mean())

    penalty = max(PENALTIES, key=lambda tried: hits(tried, ~held, x[held], known[held], answers[held]))
    return hits(penalty, np.ones_like(held), other, candidates[~learns], right[~learns]), floor, scored


def _bilinear(
    x: np.ndarray, items: np.ndarray, candidates: np.ndarray, right: np.ndarray, penalty: float, seed: int
) -> np.ndarray:
    """The matrix [d, e] under which the right candidate is the likeliest: softmax over each user's candidates."""
    module = _Bilinear(x.shape[1], items.shape[1])
    users, known = torch.from_numpy(x.astype(np.float32)), torch.from_numpy(items.astype(np.float32))

    def loss(batch: Tensor) -> Tensor:
        rows = batch.cpu()
        shown = known[torch.from_numpy(candidates[rows.numpy()])].to(batch.device)
        scores = module(users[rows].to(batch.device), shown)
        answers = torch.from_numpy(right[rows.numpy()]).to(batch.device)
        return cross_entropy(scores, answers) + penalty / 2 * (module.weights**2).sum()

    steps = int(np.clip(EPOCHS * len(x) / BATCH, LEAST_STEPS, MOST_STEPS))
    seeded(seed, lambda: train_on(
        np.arange(len(x)), module, loss, steps=steps, batch_size=BATCH, learning_rate=LEARNING_RATE, desc="Bilinear probe"
    ))  # fmt: skip
    return module.weights.detach().numpy().astype(np.float64)


def _best(
    make: Callable[[float, int], Any], x: np.ndarray, answers: np.ndarray, score: Callable[[np.ndarray, np.ndarray], float]
) -> Any:
    """The model fitted on all of x, with the penalty that does best on a fifth when fitted on the rest (of equals, the
    strongest)."""
    held = _fifth(len(x))
    tried = [make(penalty, int((~held).sum())).fit(x[~held], answers[~held]) for penalty in PENALTIES]
    scores = [score(answers[held], model.predict(x[held])) for model in tried]
    return make(PENALTIES[int(np.argmax(scores))], len(x)).fit(x, answers)


def _fifth(count: int) -> np.ndarray:
    return np.arange(count) % 5 == 0


def _standardised(vectors: np.ndarray, learns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves, by the mean and spread of the one that is learned from; what never varies there is left out of both."""
    mean, spread = vectors[learns].mean(axis=0), vectors[learns].std(axis=0)
    varies = spread > 1e-9 * np.maximum(np.abs(mean), 1e-3)
    scaled = (vectors[:, varies] - mean[varies]) / spread[varies] if varies.any() else np.zeros((len(vectors), 1))
    return scaled[learns], scaled[~learns]


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if np.ptp(a) > 0 and np.ptp(b) > 0 else 0.0
