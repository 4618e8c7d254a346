"""What is popular, what was popular lately, and what the user had last: baselines that know nothing about items.

    Popularity().fit(split.train, len(catalogue))
    RecentPopularity().fit(split.train, len(catalogue)).tune(split.validation, exclude_seen=True)

All are rankers (see `genrec/evaluation/base.py`). Equal scores: the catalogue's order.

Legend: `U` histories, `N` items, `E` events.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.splits import Targets
from genrec.errors import DataError, SettingError
from genrec.evaluation.ranking import check_above_zero, item_counts, rank_batches, validation_ndcg

DAY = 86_400.0  # seconds
HALF_LIVES, LAST_SHARES = (7.0, 30.0, 90.0, 180.0, 365.0), (0.02, 0.05, 0.1, 0.2, 0.5)  # what `tune` tries
NO_SECONDS = 1e11  # later than the year 5000: times in milliseconds or finer


class Popularity:
    """Most training events first."""

    name = "popularity"

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`, the size of the catalogue. Raises `DataError` when the histories name a row beyond it."""
        self.scores = item_counts(train, items)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is the number of training events."""
        return rank_batches(histories, k, exclude_seen, self._score, len(self.scores))

    def _score(self, batch: Histories) -> np.ndarray:
        return np.tile(self.scores, (len(batch), 1))


@dataclass(frozen=True)
class RecentPopularityConfig:
    """half_life: days after which a training event counts half; needs times in seconds. last_share: instead, only this share of
    all training events counts, the latest ones, each alike; needs times of any unit. Give one, and None for the other.
    """

    half_life: float | None = 30.0
    last_share: float | None = None

    def __post_init__(self) -> None:
        if (self.half_life is None) == (self.last_share is None):
            raise SettingError(
                "half_life and last_share are two ways to say the same: set one and make the other None, got "
                f"{self.half_life} and {self.last_share}."
            )
        if self.half_life is not None:
            check_above_zero("half_life", self.half_life)
        if self.last_share is not None and not 0 < self.last_share <= 1:
            raise SettingError(f"last_share must be above 0 and at most 1, got {self.last_share}.")


class RecentPopularity:
    """Most training events first, where recent events count more: sum of 2 ** (-age / half life) over an item's events.

    The age is counted from the last training event. Events without a time count nothing. Items without a recent event come
    after the others, by all their events.
    """

    name = "recent-popularity"

    def __init__(self, config: RecentPopularityConfig | None = None) -> None:
        self.config = config or RecentPopularityConfig()

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` for histories without times, or not in seconds, or with rows beyond the catalogue."""
        check_times(train, in_seconds=self.config.half_life is not None)
        self.popularity = item_counts(train, items)
        timed = ~np.isnan(train.times)
        self.events, self.times = train.items[timed], train.times[timed]
        self.scores = self._recent(self.config)
        return self

    def tune(self, validation: Targets, exclude_seen: bool) -> Self:
        """Choose `half_life` or `last_share` by NDCG@10 on validation questions (of equals, the first tried).

        Tried are `HALF_LIVES` where the times are seconds, and `LAST_SHARES`. Raises `DataError` without questions.
        """
        grid = [RecentPopularityConfig(None, share) for share in LAST_SHARES]
        if self.times.max() < NO_SECONDS:
            grid = [RecentPopularityConfig(days) for days in HALF_LIVES] + grid
        tried = [self._recent(config) for config in grid]
        found = validation_ndcg(
            validation,
            len(self.popularity),
            lambda batch: (np.tile(scores, (len(batch), 1)) for scores in tried),
            len(grid),
            exclude_seen,
            f"Tuning {self.name}",
        )
        self.config, self.scores = grid[int(found.argmax())], tried[int(found.argmax())]
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; the score is the number of training events, weighted by age."""
        return rank_batches(histories, k, exclude_seen, self._score, len(self.scores))

    def _score(self, batch: Histories) -> np.ndarray:
        return np.tile(self.scores, (len(batch), 1))

    def _recent(self, config: RecentPopularityConfig) -> np.ndarray:
        """Weighted events per item: float64 [N]."""
        order = np.lexsort((self.events, self.times))  # sums in an order that the table's does not change
        events, times = self.events[order], self.times[order]
        if config.half_life is not None:
            weights = 2.0 ** ((times - times[-1]) / (DAY * config.half_life))
        else:
            # Events at the very moment of the cut all count: which of them came first, nobody knows.
            first = min(int(len(times) * (1 - config.last_share)), len(times) - 1)  # type: ignore[operator]
            weights = (times >= times[first]).astype(np.float64)
        recent = np.bincount(events, weights, len(self.popularity))
        # Below the smallest weight that an item with recent events has, in the order of all events.
        return np.where(recent > 0, recent, recent[recent > 0].min() * self.popularity / (2 * self.popularity.max()))


def check_times(train: Histories, in_seconds: bool = True) -> None:
    """Raise `DataError` unless some training event has a time, and where it must be, in seconds."""
    if np.isnan(train.times).all():
        raise DataError(
            "recent-popularity needs training events with a timestamp, got none. Add the column `timestamp`, or leave this "
            "baseline out of evaluation.baselines."
        )
    latest = float(np.nanmax(train.times))
    if in_seconds and latest >= NO_SECONDS:
        raise DataError(
            f"A half-life in days needs timestamps in seconds since 1970, got {latest:g}. Convert them (dates are converted by "
            "themselves), or in Python set last_share instead."
        )


class RepeatLast:
    """What the user had, latest first, then popularity.

    Only meaningful where seen items stay in the list: with `exclude_seen` all it has to say is left out, and it is popularity.
    """

    name = "repeat-last"

    def fit(self, train: Histories, items: int) -> Self:
        """items: `N`. Raises `DataError` when the histories name a row beyond it."""
        self.popularity = item_counts(train, items)
        return self

    def rank(self, histories: Histories, k: int, exclude_seen: bool) -> tuple[np.ndarray, np.ndarray]:
        """See `Ranker.rank`; above the highest popularity, the score counts the items of the history from its start."""
        return rank_batches(histories, k, exclude_seen, self._score, len(self.popularity))

    def _score(self, batch: Histories) -> np.ndarray:
        users = np.repeat(np.arange(len(batch)), batch.lengths)
        place = np.arange(len(users)) - batch.indptr[users]
        scores = np.tile(self.popularity.astype(np.float64), (len(batch), 1))
        np.maximum.at(scores, (users, batch.items), self.popularity.max() + 1 + place)  # an item met twice: its latest place
        return scores
