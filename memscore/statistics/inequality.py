"""Inequality of a score over examples: Lorenz curve and Gini coefficient.

    L(p) = share of the score's total that the lowest share p of the examples holds
    G = 1 - 2 * area under L = sum_i (2 i - n - 1) x_(i) / (n sum_i x_i),   x_(1) <= ... <= x_(n)

SCALE section 4, Table 3 and Fig. 12 (Gini 1912; Lorenz 1905): 0 if all examples have the same value, 1 - 1/n if one
example has the whole total. Values that fall over unlearning steps show that the memorized tail shrinks.

Both require a score that is nowhere negative, and both change if the score is shifted. From a score with values below 0
(an estimate of memorization, a confidence with its sign changed) the least value is subtracted, so that it becomes 0;
the paper does not say what it does. To compare steps, or subsets of examples, use one shift for all of them,
compute_min_shift of them.
"""

import numpy as np

from memscore.statistics.intervals import Interval


def compute_min_shift(*scores: np.ndarray) -> float:
    """Compute the least shift that makes all of these scores 0 or more, for comparing them.

    Args:
        *scores: [N] each, NaN where undefined.

    Returns:
        0 if none is negative, else minus the least value of all.

    >>> compute_min_shift(np.array([1.0, -0.25]), np.array([np.nan, 3.0]))
    0.25
    """
    return max([0.0, *(float(-np.min(score, initial=0, where=~np.isnan(score))) for score in scores)])


def lorenz(values: np.ndarray, shift: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Compute the Lorenz curve.

    Args:
        values: [N], NaN where undefined (left out).
        shift: added to each value; compute_min_shift(values) if None.

    Returns:
        Share of the examples from lowest to highest and share of the total they hold, [n + 1] each, from (0, 0) to
        (1, 1). The latter is NaN where the total is 0; both are empty without examples.

    Raises:
        ValueError: a value is below 0 after the shift.
    """
    x = _shift_and_sort(values, shift)
    if not len(x):
        return x, x
    with np.errstate(invalid="ignore"):
        held = np.concatenate([[0], np.cumsum(x)]) / x.sum()
    return np.linspace(0, 1, len(x) + 1), held


def gini(values: np.ndarray, shift: float | None = None) -> float:
    """Compute the Gini coefficient.

    Args:
        values: [N], NaN where undefined (left out).
        shift: added to each value; compute_min_shift(values) if None.

    Returns:
        In [0, 1 - 1/n], higher is more unequal; NaN where the total is 0 or there are no examples.

    Raises:
        ValueError: a value is below 0 after the shift.

    >>> gini(np.array([0.0, 0.0, 0.0, 5.0]))
    0.75
    """
    x = _shift_and_sort(values, shift)
    return _weighted_gini(x, np.ones(len(x)))


def gini_interval(
    values: np.ndarray,
    rng: np.random.Generator,
    shift: float | None = None,
    draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Compute the Gini coefficient with its bootstrap interval over examples.

    Examples are drawn with replacement, with a fixed shift. The interval has the percentiles of the draws, moved by the
    difference of the value and the draws' mean: a sample's coefficient is low by about G / n, and a resample's is low
    by as much again.

    Args:
        values: [N], NaN where undefined (left out).
        rng: draws the examples.
        shift: added to each value; compute_min_shift(values) if None.
        draws: number of resamples.
        level: nominal coverage.

    Returns:
        The coefficient and its interval, within [0, 1]; the ends are NaN with fewer than two examples.
    """
    x = _shift_and_sort(values, shift)
    n, value = len(x), gini(values, shift)
    if n < 2 or np.isnan(value):
        return Interval(value=value, lo=float("nan"), hi=float("nan"))
    # a resample is how often each value occurs, so the sorted values are not sorted again
    coefficients = np.array([_weighted_gini(x, np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(draws)])
    # a resample of zeros alone has no coefficient
    coefficients = coefficients[~np.isnan(coefficients)]
    lo, hi = np.quantile(coefficients, [(1 - level) / 2, (1 + level) / 2]) + value - coefficients.mean()
    return Interval(value=value, lo=float(max(lo, 0)), hi=float(min(hi, 1)))


def _shift_and_sort(values: np.ndarray, shift: float | None) -> np.ndarray:
    """Shift and sort the defined values: float64 [n], rising and nowhere negative."""
    x = np.sort(values[~np.isnan(values)].astype(np.float64)) + (compute_min_shift(values) if shift is None else shift)
    if len(x) and x[0] < 0:
        raise ValueError(
            f"a Gini coefficient needs values of 0 or more, got {x[0]} after the shift {shift}; leave the shift out"
        )
    return x


def _weighted_gini(x: np.ndarray, times: np.ndarray) -> float:
    """Compute the coefficient of a sample in which x_(i), rising, occurs times[i] times."""
    n, total = times.sum(), times @ x
    # the sum of 2 i - n - 1 over the copies of a value, whose last rank is the cumulative count
    ranks = times * (2 * np.cumsum(times) - times - n)
    return float(ranks @ x / (n * total)) if total > 0 else float("nan")
