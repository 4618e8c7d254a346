"""How sure a measured number is: intervals, paired tests, many tests at once, several seeds.

In: one number per question [M], and whose question each is. Out: estimates, differences and p-values over users.
The user is the unit. Questions of one user are drawn, flipped and counted together: they are no independent evidence.

Sources: percentile bootstrap and paired bootstrap test, Efron & Tibshirani 1993, An Introduction to the Bootstrap; with
permutation tests for rankings, Smucker, Allan & Carterette 2007 (10.1145/1321440.1321528); Holm 1979 (jstor 4615733).

Legend: `M` questions, `U` users, `V` arrays measured on the same questions, `R` resamples, `S` seeds.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.stats import norm

from genrec.errors import DataError, SettingError, check_integer

RESAMPLES = 1000  # of a bootstrap
FLIPS = 10_000  # of a permutation test; its smallest p-value is 1 / (FLIPS + 1)
EXACT_USERS = 12  # up to so many, all 2 ** users flips are tried
CELLS = 2**21  # drawn numbers held at once
Name = TypeVar("Name", bound=Hashable)


@dataclass(frozen=True)
class Estimate:
    """A mean over questions and its 95 % interval (percentile bootstrap over users)."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """Mean of a - b over questions, its 95 % interval, and the two-sided p-value (paired bootstrap over users)."""

    mean: float
    low: float
    high: float
    p: float


@dataclass(frozen=True)
class Pooled:
    """One model fitted with several seeds, asked the same questions.

    mean: over seeds and questions. seeds: how many. seed_deviation: standard deviation of the seeds' means, how much a new fit
    would differ (None for one seed). low, high: 95 % interval over users of the mean of these fits, how much other users would
    differ. The two are answers to different questions and are never mixed.
    """

    mean: float
    seeds: int
    seed_deviation: float | None
    low: float
    high: float


def bootstrap(
    values: dict[Name, np.ndarray], seed: int, resamples: int = RESAMPLES, users: np.ndarray | None = None
) -> dict[Name, Estimate]:
    """Mean and 95 % interval of each per-question array [M], by its name, all on the same resamples.

    users: whose question each is [M]. Users are drawn, with all their questions: those of one user are no independent
    evidence. None: every question is a user's only one.
    """
    drawn = resampled(by_user(list(values.values()), users), seed, resamples)
    low, high = np.quantile(drawn[:, :-1] / drawn[:, -1:], [0.025, 0.975], axis=0)
    return {
        name: Estimate(float(array.mean()), float(low[i]), float(high[i])) for i, (name, array) in enumerate(values.items())
    }


def paired_bootstrap(
    a: np.ndarray, b: np.ndarray, users: np.ndarray | None = None, seed: int = 0, resamples: int = RESAMPLES
) -> Difference:
    """How much better `a` is than `b` on the same questions [M].

    p: twice the share of resamples on the rarer side of zero, those at zero on both, so that it agrees with the interval but
    for one draw at the edge; at least 2 / (resamples + 1). Raises `DataError` where a and b are not of the same questions.
    """
    difference = _difference(a, b)
    drawn = resampled(by_user([difference], users), seed, resamples)
    means = drawn[:, 0] / drawn[:, 1]
    rarer = min(int((means <= 0).sum()), int((means >= 0).sum()))
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high), min(1.0, 2 * (rarer + 1) / (resamples + 1)))


def permutation_test(a: np.ndarray, b: np.ndarray, users: np.ndarray | None = None, seed: int = 0, flips: int = FLIPS) -> float:
    """Two-sided p-value of "for every user a and b could be swapped": how often swaps give as large a difference.

    Each user's a - b keeps or changes its sign as a whole. Users without a difference change nothing and are left out; with at
    most `EXACT_USERS` others all flips are tried, and p is exact. Raises `DataError` where a and b are of different questions.
    """
    check_integer("flips", flips, 1)
    sums, _ = by_user([_difference(a, b)], users)
    sums = sums[sums != 0]
    size, exact = len(sums), len(sums) <= EXACT_USERS
    observed = abs(sums.sum()) - 1e-9 * np.abs(sums).sum()  # a tie must not be lost to rounding
    if exact:
        signs = 1.0 - 2.0 * (np.arange(2**size)[:, None] >> np.arange(size) & 1)
        return float((np.abs(signs @ sums) >= observed).mean())
    random, as_large = np.random.default_rng(seed), 0
    for batch in _batches(flips, size):
        signs = 1.0 - 2.0 * random.integers(0, 2, (batch, size), np.int8)
        as_large += int((np.abs(signs @ sums) >= observed).sum())
    return (as_large + 1) / (flips + 1)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """p-values of a family of tests, adjusted so that the chance of any false alarm is kept: float64, in the same order.

    The smallest is multiplied by their number, the next by one less, and so on; none gets below a smaller one's, none above 1.
    Raises `SettingError` for values outside 0 to 1.
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise SettingError(f"p_values must be a list of numbers from 0 to 1, got {p_values!r}.")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted


def pool_seeds(values: Sequence[np.ndarray], users: np.ndarray | None = None, seed: int = 0) -> Pooled:
    """Pool the results of several fits: one array [M] per seed, all on the same questions.

    For the interval each question is averaged over seeds first, so users stay the unit however many seeds there are. `seed`
    draws the bootstrap. Raises `DataError` without results or for results of different questions.
    """
    if not len(values) or len({np.shape(one) for one in values}) != 1:
        raise DataError(
            f"Seeds can be pooled on the same questions only, got arrays of shapes {[np.shape(one) for one in values]}. "
            "Evaluate every fit on the same split."
        )
    matrix = np.stack([np.asarray(one, np.float64) for one in values])
    estimate = bootstrap({"": matrix.mean(axis=0)}, seed, users=users)[""]
    deviation = float(matrix.mean(axis=1).std(ddof=1)) if len(matrix) > 1 else None
    return Pooled(estimate.mean, len(matrix), deviation, estimate.low, estimate.high)


def minimum_detectable_difference(
    a: np.ndarray, b: np.ndarray, users: np.ndarray | None = None, power: float = 0.8, level: float = 0.05
) -> float:
    """The true difference that a two-sided paired test at `level` would find with chance `power`, with as many such users.

    (z(1 - level / 2) + z(power)) * standard error of the mean of a - b, where the error is that of a ratio of sums over users.
    Raises `DataError` for fewer than two users.
    """
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise SettingError(f"{name} must be above 0 and below 1, got {value}.")
    difference = _difference(a, b)
    sums, sizes = by_user([difference], users)
    if len(sizes) < 2:
        raise DataError(f"An error over users needs at least two users, got {len(sizes)}. Evaluate on more.")
    left = sums - difference.mean() * sizes
    error = np.sqrt(len(sizes) / (len(sizes) - 1) * (left @ left)) / len(difference)
    return float((norm.ppf(1 - level / 2) + norm.ppf(power)) * error)


def user_numbers(users: np.ndarray) -> np.ndarray:
    """Ids [M] as numbers from 0 in the ids' own order, so that the order of the questions changes no draw: int64 [M]."""
    ids = pa.array(users)
    order = pc.sort_indices(ids)
    in_order = ids.take(order)
    numbers = np.zeros(len(ids), np.int64)
    numbers[order.to_numpy()[1:]] = np.cumsum(pc.not_equal(in_order[1:], in_order[:-1]).to_numpy(zero_copy_only=False))
    return numbers


def by_user(values: Sequence[np.ndarray], users: np.ndarray | None) -> np.ndarray:
    """Sums of each of `V` arrays [M] over the questions of each user, then how many questions each has: float64 [V + 1, U].

    users: whose question each is (None: every question is a user's only one). Raises `DataError` for users of other questions.
    """
    questions = len(values[0])
    if users is not None and len(users) != questions:
        raise DataError(f"users must name the user of each of {questions} questions, got {len(users)} names.")
    owner = np.arange(questions) if users is None else user_numbers(users)
    sizes = np.bincount(owner)
    sums = np.empty((len(values) + 1, len(sizes)))  # filled line by line: with a million users, each copy counts
    for line, array in zip(sums, values, strict=False):
        line[:] = np.bincount(owner, array)
    sums[-1] = sizes
    return sums


def resampled(sums: np.ndarray, seed: int, resamples: int = RESAMPLES) -> np.ndarray:
    """Totals of sums [V, U] over `U` users drawn with replacement, all V on the same draws: float64 [R, V]."""
    check_integer("resamples", resamples, 1)
    random, users = np.random.default_rng(seed), sums.shape[1]
    totals = []
    for batch in _batches(resamples, users):
        drawn = random.integers(0, users, (batch, users)) + np.arange(batch)[:, None] * users
        times = np.bincount(drawn.reshape(-1), minlength=batch * users).reshape(batch, users)
        totals.append(times.astype(np.float64) @ sums.T)
    return np.concatenate(totals)


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    if np.shape(a) != np.shape(b) or np.ndim(a) != 1 or not len(a):
        raise DataError(
            f"Two models can be compared on the same questions only, got arrays of shapes {np.shape(a)} and {np.shape(b)}. "
            "Evaluate both on one split, with at least one question."
        )
    return np.asarray(a, np.float64) - np.asarray(b, np.float64)


def _batches(draws: int, width: int) -> Iterator[int]:
    """Sizes that add up to `draws`, each small enough for `CELLS`."""
    size = max(1, CELLS // max(1, width))
    return (min(size, draws - start) for start in range(0, draws, size))
