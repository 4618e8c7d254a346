"""Cut histories into training, validation and test.

In: `Histories`. Out: `Split`, with one target item per validation or test row and the history that came before it.
Leave-one-out is the protocol of the published Amazon benchmarks; a global time cut is what production looks like; a user
holdout asks about users that training never met.
"""

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from genrec.data.interactions import Histories
from genrec.data.mapped import large_array, stretches
from genrec.errors import DataError, SettingError, check_choice, check_integer

LEAVE_ONE_OUT, GLOBAL_TIME, USER_HOLDOUT = SPLITS = ("leave-one-out", "global-time", "user-holdout")
ALL, WARM, COLD = QUESTIONS = ("all", "warm", "cold")

# Above this share of repeated events, leaving out what a user already had would hide items that are truly met again.
REPEATS_MATTER = 0.01


def exclude_seen_by_default(repeat_share: float) -> bool:
    """Whether recommendations leave out a user's own items unless told otherwise: yes where users hardly repeat items."""
    return repeat_share < REPEATS_MATTER


@dataclass(frozen=True, eq=False)
class Targets:
    """`M` questions: after `histories[i]`, the user met item `items[i]` (int64 [M], catalogue rows).

    times: when, float64 [M], NaN where unknown; None where nobody knows any.
    """

    histories: Histories
    items: np.ndarray
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: np.ndarray) -> "Targets":
        """The questions at `rows` (int64 [n])."""
        return Targets(self.histories.select(rows), self.items[rows], None if self.times is None else self.times[rows])

    def sample(self, size: int, seed: int) -> "Targets":
        """`size` of the questions drawn without replacement, in their old order; all of them when there are fewer."""
        if size >= len(self):
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self), size, replace=False))
        return self.select(chosen)


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

    def about(self, questions: str) -> "Split":
        """The same split with questions about "all" targets, those with training events ("warm") or without ("cold").

        Training stays what it is. There may be no question left.
        """
        check_choice("questions", questions, QUESTIONS)
        if questions == ALL:
            return self

        parts = (self.train.items, self.validation.items, self.test.items)
        trained = np.zeros(1 + max(int(items.max(initial=-1)) for items in parts), bool)
        trained[self.train.items] = True

        def kept(asked: Targets) -> Targets:
            return asked.select(np.flatnonzero(trained[asked.items] == (questions == WARM)))

        return replace(self, validation=kept(self.validation), test=kept(self.test))


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
        LEAVE_ONE_OUT, train, _from_the_end(histories, validated, 2), _from_the_end(histories, tested, 1), train.repeat_share()
    )


def user_holdout(histories: Histories, validation_share: float = 0.1, test_share: float = 0.1, seed: int = 0) -> Split:
    """About `test_share` of the users test, another `validation_share` validates, nothing of either trains.

    Whoever is held out is asked about the last item, after all items before it; one with a single item is not asked. Users
    are chosen by a hash of their id and the seed, so who else is in the table and in which order changes nothing. Raises
    `DataError` where nobody is left to train.
    """
    _check_shares(validation_share, test_share)
    check_integer("seed", seed, 0)
    chance = np.array([_chance(user, seed) for user in histories.user_ids], np.float64)
    tested = chance < test_share
    validated = ~tested & (chance < test_share + validation_share)
    train = histories.select(np.flatnonzero(~(tested | validated)))
    if not len(train.items):
        raise DataError(
            f"A user holdout needs users to train on, got none: all {len(histories)} are held out. Use more users, smaller "
            "shares, or the leave-one-out split."
        )
    asked = histories.lengths >= 2
    return Split(
        USER_HOLDOUT,
        train,
        _from_the_end(histories, np.flatnonzero(validated & asked), 1),
        _from_the_end(histories, np.flatnonzero(tested & asked), 1),
        train.repeat_share(),
    )


def global_time(histories: Histories, validation_share: float = 0.1, test_share: float = 0.1) -> Split:
    """Two cuts in time: the last `test_share` of all events tests, the `validation_share` before it validates.

    Every event of a window is one question, with everything the same user did before it as history. Events at the very
    moment of a cut go to the later part. Raises `DataError` where a timestamp is missing or no event is early enough to train.
    """
    _check_shares(validation_share, test_share)
    missing = int(np.isnan(histories.times).sum())
    if missing:
        raise DataError(
            f"A global-time split needs a timestamp in every interaction, got {missing} of {len(histories.items)} without. "
            "Fill them, drop these rows, or use the leave-one-out split."
        )
    times = large_array(len(histories.times), np.float64)
    times[:] = histories.times
    shares = [1 - validation_share - test_share, 1 - test_share]
    cut_validation, cut_test = np.quantile(times, shares, method="higher", overwrite_input=True)
    train_lengths, later = np.zeros(len(histories), np.int64), []
    for first, last in stretches(histories.indptr):
        users = np.repeat(np.arange(first, last), histories.lengths[first:last])
        events = np.arange(histories.indptr[first], histories.indptr[last])
        trains = histories.times[events] < cut_validation
        train_lengths[first:last] = np.bincount(users[trains] - first, minlength=last - first)
        asked = ~trains & (events > histories.indptr[users])  # not about the first item of anybody
        later.append(np.stack([events[asked], users[asked]]))
    events, users = np.concatenate(later, axis=1)
    trained = np.flatnonzero(train_lengths)
    if not len(trained):
        raise DataError(
            f"A global-time split needs events before its first window, got none: {len(histories.items)} events share "
            "too few moments. Use finer timestamps, smaller shares, or the leave-one-out split."
        )
    train = histories.select(trained, train_lengths[trained])

    def questions(inside: np.ndarray) -> Targets:
        chosen, of = events[inside], users[inside]
        before = histories.select(of, chosen - histories.indptr[of])
        return Targets(before, histories.items[chosen], histories.times[chosen])

    in_test = histories.times[events] >= cut_test
    return Split(
        GLOBAL_TIME,
        train,
        questions(~in_test),
        questions(in_test),
        train.repeat_share(),
    )


def _from_the_end(histories: Histories, users: np.ndarray, place: int) -> Targets:
    """One question for each of `users` (int64 [n]): the item at `place` from the end (1: the last), after all before it."""
    events = histories.indptr[users + 1] - place
    return Targets(histories.select(users, histories.lengths[users] - place), histories.items[events], histories.times[events])


def _check_shares(validation_share: float, test_share: float) -> None:
    if not (0 < validation_share < 1 and 0 < test_share < 1 and validation_share + test_share < 1):
        raise SettingError(
            "validation_share and test_share must be above 0 and add up to less than 1, "
            f"got {validation_share} and {test_share}."
        )


def _chance(user_id: str, seed: int) -> float:
    """A number from 0 to below 1 that depends on the user and the seed alone, and is the same on every machine."""
    digest = hashlib.blake2b(str(user_id).encode(), digest_size=8, salt=int(seed).to_bytes(16, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64
