"""Cut histories into training, validation and test.

In: `Histories`. Out: `Split`, with one target item per validation or test row and the history that came before it.
Leave-one-out is the protocol of the published Amazon benchmarks; a global time cut is what production looks like.
"""

from dataclasses import dataclass

import numpy as np

from genrec.data.interactions import Histories
from genrec.errors import DataError, SettingError

# Above this share of repeated events, leaving out what a user already had would hide items that are truly met again.
REPEATS_MATTER = 0.01


def exclude_seen_by_default(repeat_share: float) -> bool:
    """Whether recommendations leave out a user's own items unless told otherwise: yes where users hardly repeat items."""
    return repeat_share < REPEATS_MATTER


@dataclass(frozen=True, eq=False)
class Targets:
    """`M` questions: after `histories[i]`, the user met item `items[i]` (int64 [M], catalogue rows)."""

    histories: Histories
    items: np.ndarray

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, size: int, seed: int) -> "Targets":
        """`size` of the questions drawn without replacement, in their old order; all of them when there are fewer."""
        if size >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        return Targets(self.histories.select(chosen), self.items[chosen])


@dataclass(frozen=True, eq=False)
class Split:
    """Training histories, validation and test questions.

    `repeat_share`, measured on training histories, decides whether seen items are masked by default.
    """

    name: str
    train: Histories
    validation: Targets
    test: Targets
    repeat_share: float


def leave_one_out(histories: Histories) -> Split:
    """The last item of each user tests, the last but one validates, everything before trains.

    A user with two items has no validation row, a user with one only trains.
    """
    lengths = histories.lengths
    users = np.arange(len(histories))
    tested, validated = users[lengths >= 2], users[lengths >= 3]
    keep = np.where(lengths >= 3, lengths - 2, np.minimum(lengths, 1))
    train = histories.select(users, keep)
    return Split(
        "leave-one-out",
        train,
        Targets(histories.select(validated, lengths[validated] - 2), histories.items[histories.indptr[validated + 1] - 2]),
        Targets(histories.select(tested, lengths[tested] - 1), histories.items[histories.indptr[tested + 1] - 1]),
        train.repeat_share(),
    )


def global_time(histories: Histories, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Two cuts in time: the last `test_share` of all events tests, the `validation_share` before it validates.

    Every event of a window is one question, with everything the same user did before it as history. Events at the very
    moment of a cut go to the later part. Raises `DataError` where a timestamp is missing or no event is early enough to train.
    """
    if not (0 < validation_share < 1 and 0 < test_share < 1 and validation_share + test_share < 1):
        raise SettingError(
            "validation_share and test_share must be above 0 and add up to less than 1, "
            f"got {validation_share} and {test_share}."
        )
    missing = int(np.isnan(histories.times).sum())
    if missing:
        raise DataError(
            f"A global-time split needs a timestamp in every interaction, got {missing} of {len(histories.items)} without. "
            "Fill them, drop these rows, or use the leave-one-out split."
        )
    cut_validation, cut_test = np.quantile(
        histories.times, [1 - validation_share - test_share, 1 - test_share], method="higher"
    )
    users = np.repeat(np.arange(len(histories)), histories.lengths)
    position = np.arange(len(histories.items)) - histories.indptr[users]
    train_lengths = np.bincount(users, histories.times < cut_validation, len(histories)).astype(np.int64)
    trained = np.flatnonzero(train_lengths)
    if not len(trained):
        raise DataError(
            f"A global-time split needs events before its first window, got none: {len(histories.items)} events share "
            "too few moments. Use finer timestamps, smaller shares, or the leave-one-out split."
        )
    train = histories.select(trained, train_lengths[trained])

    def questions(inside: np.ndarray) -> Targets:
        events = np.flatnonzero(inside & (position > 0))
        return Targets(histories.select(users[events], position[events]), histories.items[events])

    in_test = histories.times >= cut_test
    return Split(
        "global-time",
        train,
        questions((histories.times >= cut_validation) & ~in_test),
        questions(in_test),
        train.repeat_share(),
    )
