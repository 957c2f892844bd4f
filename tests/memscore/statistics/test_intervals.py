"""Intervals and variances of proportions."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest, poisson

from memscore.statistics.intervals import SHARED_SHADOWS_TRIALS, shared_wilson, smoothed_variance, wilson


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (4, 400), (250, 400), (400, 400)])
def test_wilson_is_scipys_but_beside_0_and_1(k, n, level):
    theirs = binomtest(k, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(
        wilson(np.array(k), np.array(n), level), [theirs.low, theirs.high], rtol=1e-10, atol=1e-15
    )


@pytest.mark.parametrize(("k", "n"), [(1, 8), (2, 50), (3, 400)])
def test_a_few_successes_have_a_poisson_bound(k, n):
    """Its rate gives k or more with a probability of .05; scipy's Wilson excludes it."""
    lo, hi = wilson(np.array(k), np.array(n))
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    assert poisson.sf(k - 1, lo * n) == pytest.approx(0.05, rel=1e-10)
    assert lo < theirs.low
    assert hi == pytest.approx(theirs.high, rel=1e-10)
    mirrored = wilson(np.array(n - k), np.array(n))
    assert (mirrored[1], mirrored[0]) == pytest.approx((1 - lo, 1 - hi), rel=1e-10)


@pytest.mark.parametrize("n", [8, 16, 32, 64, 400])
def test_wilson_covers_beside_1_too(n):
    """Exact, over all outcomes. Without the bound .851 at n = 8 and p = .98, at n = 16 and .99, at n = 32 and .995."""
    k, shares = np.arange(n + 1), np.array([0.9, 0.95, 0.97, 0.98, 0.99, 0.995])
    lo, hi = wilson(k, np.full(n + 1, n))
    covered = np.array([binom.pmf(k, n, p)[(lo <= p) & (p <= hi)].sum() for p in shares])
    assert (covered > 0.92).all()


def test_shares_of_targets_count_less():
    k, n = np.array([0, 5, 17, 34]), np.full(4, 34)
    np.testing.assert_array_equal(shared_wilson(k, n), wilson(k / SHARED_SHADOWS_TRIALS, n / SHARED_SHADOWS_TRIALS))


@pytest.mark.parametrize("q", [0.5, 0.9, 0.99])
def test_wilson_covers_its_nominal_level_at_32_trials(q):
    """Exact, over all outcomes. Nominal .95; counts are whole, so .94 to .98 is what 32 trials can do."""
    k = np.arange(33)
    lo, hi = wilson(k, np.full(33, 32))
    assert 0.94 < binom.pmf(k, 32, q)[(lo <= q) & (q <= hi)].sum() < 0.98


def test_no_trials_give_no_interval_and_no_error():
    assert np.isnan(wilson(np.array([0]), np.array([0]))).all()
    assert np.isnan(smoothed_variance(np.array([0]), np.array([0]))).all()


def test_the_variance_is_above_zero_for_unanimous_trials_and_right_for_many():
    np.testing.assert_allclose(smoothed_variance(np.array([0, 5]), np.array([5, 5])), 0.5 * 5.5 / 6**3, rtol=1e-10)
    np.testing.assert_allclose(smoothed_variance(np.array([300_000]), np.array([10**6])), 0.21e-6, rtol=1e-5)
