"""Intervals and variances of proportions."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from memscore.statistics.intervals import smoothed_variance, wilson


@pytest.mark.parametrize("level", [0.8, 0.95])
@pytest.mark.parametrize(("k", "n"), [(0, 1), (1, 1), (0, 7), (3, 7), (7, 7), (250, 400), (400, 400)])
def test_wilson_is_scipys(k, n, level):
    theirs = binomtest(k, n).proportion_ci(level, method="wilson")
    np.testing.assert_allclose(
        wilson(np.array(k), np.array(n), level), [theirs.low, theirs.high], rtol=1e-10, atol=1e-15
    )


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
