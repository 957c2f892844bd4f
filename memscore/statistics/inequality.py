"""How unequally a score is spread over examples: Lorenz curve and Gini coefficient.

    L(p) = share of the score's total that the lowest share p of the examples holds
    G = 1 - 2 * area under L = sum_i (2 i - n - 1) x_(i) / (n sum_i x_i),   x_(1) <= ... <= x_(n)

SCALE section 4, Table 3 and Fig. 12 (Gini 1912; Lorenz 1905): 0 if all examples have the same, 1 - 1/n if one example
has it all. Falling values over unlearning steps say that the memorized tail is going.

Both need a score that is nowhere negative, and neither is what it was after a shift. A score with values below 0 (an
estimate of memorization, a confidence turned round) has its least value subtracted, so that this becomes 0; the paper
does not say what it does. To compare steps, or subsets of examples, give all of them one shift,
compute_min_shift of them.
"""

import numpy as np

from memscore.statistics.intervals import Interval


def compute_min_shift(*scores: np.ndarray) -> float:
    """What must be added to scores that are to be compared so that none has a value below 0.

    Args:
        *scores: [N] each, NaN where undefined.

    Returns:
        0 if none is negative, else minus the least value of all.

    >>> compute_min_shift(np.array([1.0, -0.25]), np.array([np.nan, 3.0]))
    0.25
    """
    return max([0.0, *(float(-np.min(score, initial=0, where=~np.isnan(score))) for score in scores)])


def lorenz(values: np.ndarray, shift: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The Lorenz curve.

    Args:
        values: [N], NaN where undefined (left out).
        shift: added to each value; compute_min_shift(values) if None.

    Returns:
        Share of the examples from lowest to highest and share of the total they hold, [n + 1] each, from (0, 0) to
        (1, 1). The latter is NaN where the total is 0; both are empty without an example.

    Raises:
        ValueError: a value that stays below 0.
    """
    x = _sorted(values, shift)
    if not len(x):
        return x, x
    with np.errstate(invalid="ignore"):
        held = np.concatenate([[0], np.cumsum(x)]) / x.sum()
    return np.linspace(0, 1, len(x) + 1), held


def gini(values: np.ndarray, shift: float | None = None) -> float:
    """The Gini coefficient.

    Args:
        values: [N], NaN where undefined (left out).
        shift: added to each value; compute_min_shift(values) if None.

    Returns:
        In [0, 1 - 1/n], higher is more unequal; NaN where the total is 0 or there is no example.

    Raises:
        ValueError: a value that stays below 0.

    >>> gini(np.array([0.0, 0.0, 0.0, 5.0]))
    0.75
    """
    x = _sorted(values, shift)
    return _weighted(x, np.ones(len(x)))


def gini_interval(
    values: np.ndarray,
    rng: np.random.Generator,
    shift: float | None = None,
    draws: int = 1000,
    level: float = 0.95,
) -> Interval:
    """The Gini coefficient with its bootstrap interval over examples.

    Examples are drawn with replacement, the shift stays. Percentiles of the draws, moved by what their mean falls short
    of the value: a sample's coefficient is low by about G / n, and a resample's of it again.

    Args:
        values: [N], NaN where undefined (left out).
        rng: draws the examples.
        shift: added to each value; compute_min_shift(values) if None.
        draws: how many resamples.
        level: coverage aimed at.

    Returns:
        The coefficient and its interval, within [0, 1]; the ends are NaN with fewer than two examples.
    """
    x = _sorted(values, shift)
    n, value = len(x), gini(values, shift)
    if n < 2 or np.isnan(value):
        return Interval(value=value, lo=float("nan"), hi=float("nan"))
    drawn = np.array([_weighted(x, np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(draws)])
    drawn = drawn[~np.isnan(drawn)]
    lo, hi = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]) + value - drawn.mean()
    return Interval(value=value, lo=float(max(lo, 0)), hi=float(min(hi, 1)))


def _sorted(values: np.ndarray, shift: float | None) -> np.ndarray:
    """float64 [n], rising and nowhere negative."""
    x = np.sort(values[~np.isnan(values)].astype(np.float64)) + (compute_min_shift(values) if shift is None else shift)
    if len(x) and x[0] < 0:
        raise ValueError(
            f"a Gini coefficient needs values of 0 or more, got {x[0]} after the shift {shift}; leave the shift out"
        )
    return x


def _weighted(x: np.ndarray, times: np.ndarray) -> float:
    """The coefficient of a sample in which x_(i), rising, stands times[i] times."""
    n, total = times.sum(), times @ x
    ranks = times * (2 * np.cumsum(times) - times - n)  # the sum of 2 i - n - 1 over the copies of a value
    return float(ranks @ x / (n * total)) if total > 0 else float("nan")
