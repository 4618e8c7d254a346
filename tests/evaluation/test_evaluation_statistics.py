"""Intervals and tests over users: hand cases, known truths, and simulated data whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from genrec.errors import DataError, SettingError
from genrec.evaluation import statistics
from genrec.evaluation.statistics import (
    bootstrap,
    holm,
    minimum_detectable_difference,
    paired_bootstrap,
    permutation_test,
    pool_seeds,
    resampled,
)


def correlated(random: np.random.Generator, users: int, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Values of mean 0 whose questions of one user agree, and the users."""
    values = random.normal(size=users).repeat(each) + 0.3 * random.normal(size=users * each)
    return values, np.array([f"u{i:03}" for i in range(users)], object).repeat(each)


def test_the_bootstrap_interval_holds_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        values, users = correlated(random, 60, 3)
        found = bootstrap({"m": values}, trial, resamples=300, users=users)["m"]
        held += found.low <= 0 <= found.high
    assert 0.91 <= held / 300 <= 0.98


@pytest.mark.parametrize("cells", [1, 100, 2**21])
def test_the_draws_do_not_depend_on_the_batches(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(1).normal(size=(3, 40))
    expected = resampled(sums, 7, 50)
    monkeypatch.setattr(statistics, "CELLS", cells)
    np.testing.assert_allclose(resampled(sums, 7, 50), expected, rtol=1e-12)


def test_the_order_of_questions_changes_nothing() -> None:
    random = np.random.default_rng(2)
    a, users = correlated(random, 20, 3)
    b, order = a + random.normal(size=60), random.permutation(60)
    moved = (a[order], b[order], users[order])
    for one, other in zip(vars(paired_bootstrap(a, b, users)).values(), vars(paired_bootstrap(*moved)).values(), strict=True):
        assert one == pytest.approx(other, abs=1e-12)
    assert permutation_test(a, b, users) == permutation_test(*moved)
    assert minimum_detectable_difference(a, b, users) == pytest.approx(minimum_detectable_difference(*moved))


def test_p_values_are_uniform_where_nothing_differs() -> None:
    random = np.random.default_rng(3)
    found = []
    for trial in range(300):
        values, users = correlated(random, 50, 2)
        zero = np.zeros_like(values)
        found.append([paired_bootstrap(values, zero, users, trial, 300).p, permutation_test(values, zero, users, trial, 300)])
    for p in np.array(found).T:
        for level in (0.05, 0.25, 0.5, 0.75):
            assert (p <= level).mean() == pytest.approx(level, abs=0.07)


def test_both_tests_find_a_large_difference_and_counting_questions_as_independent_would_find_too_many() -> None:
    random = np.random.default_rng(4)
    values, users = correlated(random, 80, 20)
    better = paired_bootstrap(values + 1, np.zeros_like(values), users)
    assert better.low > 0
    assert better.p == pytest.approx(2 / 1001)
    assert permutation_test(values + 1, np.zeros_like(values), users) == pytest.approx(1 / 10_001)
    alone = paired_bootstrap(values, np.zeros_like(values))
    together = paired_bootstrap(values, np.zeros_like(values), users)
    assert together.high - together.low > 3 * (alone.high - alone.low)


def test_no_difference_at_all_has_p_of_one_and_an_interval_of_zero() -> None:
    same = np.array([1.0, 0.0, 0.5])
    found = paired_bootstrap(same, same)
    assert (found.mean, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert permutation_test(same, same) == 1
    assert minimum_detectable_difference(same, same) == 0


def test_the_permutation_test_is_exact_for_few_users() -> None:
    # Sums per user 3, 1, -1: of the 8 flips four are as far from 0 as 3: +3+1-1, +3-1+1, and both of +-5.
    a, users = np.array([2.0, 1.0, 1.0, 0.0]), np.array(["x", "x", "y", "z"], object)
    b = np.array([0.0, 0.0, 0.0, 1.0])
    assert permutation_test(a, b, users) == 6 / 8
    assert permutation_test(np.arange(1.0, 6), np.zeros(5)) == 2 / 32, "all of one sign: only that and its mirror"
    assert permutation_test(np.arange(1.0, 6), np.zeros(5), seed=9) == 2 / 32, "nothing is drawn"


def test_drawn_flips_come_near_the_exact_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    a = np.array([0.3, 0.1, -0.2, 0.5, 0.4, -0.1, 0.2, 0.6, -0.3, 0.25])
    exact = permutation_test(a, np.zeros(10))
    monkeypatch.setattr(statistics, "EXACT_USERS", 5)
    assert permutation_test(a, np.zeros(10)) == pytest.approx(exact, abs=0.02)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == [1, 1]
    assert holm([]).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.integers(0, 10**6))
def test_holm_lies_between_no_correction_and_bonferroni_keeps_order_and_rejects_step_by_step(p: list[float], seed: int) -> None:
    raw, adjusted = np.array(p), holm(p)
    assert (adjusted >= raw).all()
    assert (adjusted <= np.minimum(1, raw * len(p))).all()
    order = np.random.default_rng(seed).permutation(len(p))
    assert holm(raw[order]).tolist() == adjusted[order].tolist()
    # Holm's own words: go up from the smallest and stop at the first that misses level / (how many are left).
    for level in (0.01, 0.05, 0.2):
        rejected = 0
        for step, value in enumerate(sorted(p)):
            if value * (len(p) - step) > level:
                break
            rejected += 1
        assert int((adjusted <= level).sum()) == rejected


def test_seeds_and_users_are_two_kinds_of_doubt() -> None:
    random = np.random.default_rng(5)
    values, users = correlated(random, 50, 4)
    one = pool_seeds([values], users)
    assert one.seed_deviation is None
    many = pool_seeds([values] * 10, users)
    assert (many.seed_deviation, many.seeds) == (pytest.approx(0), 10)
    assert (many.low, many.high) == pytest.approx((one.low, one.high)), "ten copies of a fit are no more users"
    shifted = pool_seeds([values, values + 1, values + 2], users)
    assert shifted.mean == pytest.approx(values.mean() + 1)
    assert shifted.seed_deviation == pytest.approx(1)
    assert shifted.high - shifted.low == pytest.approx(one.high - one.low), "what a new fit would change is not in it"


def test_the_minimum_detectable_difference_is_found_about_as_often_as_its_power_says() -> None:
    random = np.random.default_rng(6)
    values, users = correlated(random, 100, 3)
    smallest = minimum_detectable_difference(values, np.zeros_like(values), users)
    # With as many questions for everyone it is that of a z-test on users' means.
    means = values.reshape(100, 3).mean(axis=1)
    assert smallest == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * means.std(ddof=1) / 10)
    found = 0
    for trial in range(200):
        fresh, _ = correlated(random, 100, 3)
        found += paired_bootstrap(fresh + smallest, np.zeros_like(fresh), users, trial, 200).p <= 0.05
    assert 0.65 <= found / 200 <= 0.92
    quarter = minimum_detectable_difference(np.tile(values, 4), np.zeros(1200), np.arange(1200) // 3)
    assert quarter == pytest.approx(smallest / 2, rel=0.01)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: paired_bootstrap(np.ones(3), np.ones(4)), r"shapes \(3,\) and \(4,\)"),
        (lambda: permutation_test(np.ones(0), np.ones(0)), "at least one question"),
        (lambda: paired_bootstrap(np.ones(3), np.ones(3), np.array(["a", "b"])), "each of 3 questions, got 2"),
        (lambda: pool_seeds([np.ones(3), np.ones(4)]), r"\[\(3,\), \(4,\)\]"),
        (lambda: pool_seeds([]), "same questions only"),
        (lambda: minimum_detectable_difference(np.ones(2), np.zeros(2), np.array(["a", "a"])), "two users, got 1"),
    ],
)
def test_comparing_what_cannot_be_compared_is_refused(call: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: holm([0.5, 1.5]), "from 0 to 1"),
        (lambda: holm([math.nan]), "from 0 to 1"),
        (lambda: minimum_detectable_difference(np.ones(2), np.ones(2), power=1.0), "power must be above 0 and below 1"),
        (lambda: paired_bootstrap(np.ones(2), np.ones(2), resamples=0), "resamples must be an integer of at least 1"),
    ],
)
def test_impossible_settings_of_tests_are_refused(call: object, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        call()  # type: ignore[operator]
