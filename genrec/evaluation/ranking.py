"""What the baselines share: counts, queries, batches of dense scores, the best of them, and the choice of settings.

In: histories and a function that scores them. Out: ranked rows, as `Ranker.rank` gives them. Equal scores are ordered by
catalogue row, everywhere.

Legend: `U` histories, `N` items.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from tqdm.auto import tqdm

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError, check_integer
from genrec.evaluation.metrics import ndcg_at

BATCH = 256  # rows of dense scores held at once, fewer where they would pass the next line
BATCH_CELLS = 2**25  # 128 MB per float32 [rows, N] array, of which about four live at once
DECAYS = (0.3, 0.5, 0.7, 0.85, 1.0)  # weights of a step back in time that tuning tries; 1 forgets the order


def item_counts(train: Histories, items: int) -> np.ndarray:
    """Training events per catalogue row: float32 [N]. Raises `DataError` when the histories name a row beyond `items`."""
    highest = int(train.items.max(initial=-1))
    if highest >= items:
        raise DataError(
            f"Training histories must name rows of the catalogue, 0 to {items - 1}, got row {highest}. "
            "Give one text per catalogue row, in the catalogue's order."
        )
    return np.bincount(train.items, minlength=items).astype(np.float32)


def in_order_of_ids(train: Histories) -> Histories:
    """The same histories, users in the order of their ids: what is learned does not depend on the order of the table."""
    return train.select(np.argsort(train.user_ids, kind="stable"))


def met_items(train: Histories, items: int) -> sp.csr_matrix:
    """1 where the user met the item, however often: float32 [U, N]."""
    users = np.repeat(np.arange(len(train)), train.lengths)
    met = sp.csr_matrix((np.ones(len(users), np.float32), (users, train.items)), shape=(len(train), items))
    met.data[:] = 1
    return met


def popular_where_silent(scores: np.ndarray, popularity: np.ndarray) -> np.ndarray:
    """`scores` [U, N], in place with `popularity` [N] for every history that calls for nothing, the empty one first of all."""
    scores[~scores.any(axis=1)] = popularity
    return scores


def batches(rows: int, items: int) -> list[np.ndarray]:
    """0..rows-1 in runs small enough for dense [run, items] scores."""
    size = max(1, min(BATCH, BATCH_CELLS // items))
    return [np.arange(start, min(start + size, rows)) for start in range(0, rows, size)]


def masked(scores: np.ndarray, batch: Histories) -> np.ndarray:
    """`scores` [U, N] with -inf for every item of the history itself, in place."""
    scores[np.repeat(np.arange(len(batch)), batch.lengths), batch.items] = -np.inf
    return scores


def rank_batches(
    histories: Histories, k: int, exclude_seen: bool, score: Callable[[Histories], np.ndarray], items: int
) -> tuple[np.ndarray, np.ndarray]:
    """Score histories batch by batch and keep the best `k` of each. See `Ranker.rank`."""
    check_integer("k", k, 1)
    rows, kept = np.empty((len(histories), k), np.int64), np.empty((len(histories), k), np.float32)
    for users in batches(len(histories), items):
        batch = histories.select(users)
        scores = score(batch)
        if exclude_seen:
            masked(scores, batch)
        rows[users], kept[users] = top_of_each(scores, k)
    return rows, kept


def places(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Where each target [U] stands in its row of scores [U, N], as `top` orders it: int64 [U], 0 for the top, -1 at -inf."""
    own = np.take_along_axis(scores, targets[:, None], axis=1)
    before = np.arange(scores.shape[1]) < targets[:, None]
    found = np.count_nonzero((scores > own) | ((scores == own) & before), axis=1)
    return np.where(np.isneginf(own[:, 0]), -1, found)


def top(scores: np.ndarray, k: int) -> np.ndarray:
    """Indices of the `k` highest scores above -inf, best first, equal ones in index order: int64 [at most k]."""
    if k < len(scores):
        threshold = np.partition(scores, -k)[-k]
        candidates = np.flatnonzero((scores >= threshold) & (scores > -np.inf))
    else:
        candidates = np.flatnonzero(scores > -np.inf)
    return candidates[np.argsort(-scores[candidates], kind="stable")][:k]


def top_of_each(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The `top` k of each row of scores [U, N], and their scores: int64 [U, k], -1 where there are fewer; float32 [U, k], -inf
    there.
    """
    rows = np.full((len(scores), k), -1, np.int64)
    kept = np.full((len(scores), k), -np.inf, np.float32)
    for user, line in enumerate(scores):
        best = top(line, k)
        rows[user, : len(best)], kept[user, : len(best)] = best, line[best]
    return rows, kept


def validation_ndcg(
    validation: Targets,
    items: int,
    scores: Callable[[Histories], Iterable[np.ndarray]],
    tried: int,
    exclude_seen: bool,
    title: str,
) -> np.ndarray:
    """Mean NDCG@10 on validation questions of `tried` settings: float64 [tried].

    scores: for a batch, one array [U, N] per setting. Raises `DataError` without questions.
    """
    if not len(validation):
        raise DataError("There is nothing to tune on: the split has no validation questions. Leave the settings as they are.")
    positions = np.empty((tried, len(validation)), np.int64)
    for users in tqdm(batches(len(validation), items), desc=title, leave=False):
        batch, targets = validation.histories.select(users), validation.items[users]
        for setting, found in enumerate(scores(batch)):
            positions[setting, users] = places(masked(found, batch) if exclude_seen else found, targets)
    return ndcg_at(positions, 10).mean(axis=1)


class Voting(Protocol):
    """A baseline in which the items of a history vote, each step back in time weighing `config.decay`; see the two below.

    learned: what `learn` gave for `config`. popularity: training events per item [N].
    """

    name: str
    config: Any
    learned: Any
    popularity: np.ndarray

    def learn(self, config: Any) -> Any:
        """What is learned from the training histories with these settings."""
        ...

    def votes(self, learned: Any, batch: Histories, decay: float) -> np.ndarray:
        """Scores [U, N]."""
        ...


def rank_by_votes(baseline: Voting, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
    """See `Ranker.rank`."""
    learned, decay = baseline.learned, baseline.config.decay
    return rank_batches(
        histories, k, exclude_seen, lambda batch: baseline.votes(learned, batch, decay), len(baseline.popularity)
    )


def best_of(baseline: Voting, configs: Sequence[Any], validation: Targets, exclude_seen: bool) -> tuple[Any, Any]:
    """The config, and what was learned with it, that have the best NDCG@10 on validation (of equals, the first tried).

    Each config is learned once and asked with each of `DECAYS`. Raises `DataError` without questions.
    """
    best, chosen = -1.0, (configs[0], None)
    for place, config in enumerate(configs, 1):
        learned = baseline.learn(config)
        found = validation_ndcg(
            validation,
            len(baseline.popularity),
            lambda batch, learned=learned: (baseline.votes(learned, batch, decay) for decay in DECAYS),  # type: ignore[misc]
            len(DECAYS),
            exclude_seen,
            f"Tuning {baseline.name}, fit {place} of {len(configs)}",
        )
        if found.max() > best:
            best, chosen = float(found.max()), (replace(config, decay=DECAYS[int(found.argmax())]), learned)
    return chosen


def check_decay(decay: float) -> None:
    """Raise `SettingError` unless 0 < decay <= 1."""
    if not 0 < decay <= 1:
        raise SettingError(f"decay must be above 0 and at most 1, got {decay}.")


def check_above_zero(name: str, value: float) -> None:
    """Raise `SettingError` unless `value` is above 0 and finite."""
    if not 0 < value < np.inf:
        raise SettingError(f"{name} must be a number above 0, got {value}.")
