"""Intervals and standard errors of proportions that are valid for few trials."""

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy.special import gammaincinv, ndtri


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and its interval, 95 % unless stated otherwise; NaN where undefined."""

    value: float
    lo: float
    hi: float


SomeInterval = TypeVar("SomeInterval", bound=Interval)


def clip_interval(interval: SomeInterval, lowest: float, highest: float) -> SomeInterval:
    """Clip the ends of an interval to what its number can be, for pages and figures.

    A t interval of a few shares may end beyond 0 or 1, where no share is; without those values it covers as often.

    Args:
        interval: NaN where undefined.
        lowest: what the number can be, -inf where nothing limits it.
        highest: the same above.

    Returns:
        The interval with these ends; its number is unchanged.
    """
    lo, hi = np.clip([interval.lo, interval.hi], lowest, highest).tolist()
    return replace(interval, lo=lo, hi=hi)


def wilson(k: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Compute Wilson's score interval for a proportion (Wilson 1927), as modified by Brown, Cai & DasGupta 2001.

    The proportions p with |k / n - p| <= z sqrt(p (1 - p) / n), z the normal quantile of the level. Beside 0 and 1 that
    covers as little as .85 where it should .95: of 8 trials at p = .98 one fails with probability .15, and then .98 is
    outside. So with 1 to 3 successes (1 or 2 of at most 50) the lower end is at most the lambda / n at which a Poisson
    number reaches k with probability 1 - level; and so for failures and the upper end.

    Args:
        k: successes, of any shape; whole numbers, or shares of them where trials count less.
        n: trials, of the same shape.
        level: nominal coverage.

    Returns:
        Lower and upper end, in [0, 1]; NaN where n is 0.
    """
    z2 = ndtri((1 + level) / 2) ** 2
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        half = np.sqrt(z2 * (k * (n - k) / n + z2 / 4)) / (n + z2)
        middle = (k + z2 / 2) / (n + z2)
        empty = np.where(n > 0, 0.0, np.nan)
    few = np.where(n <= 50, 2, 3)
    # the ends at k = 0 and k = n are 0 and 1; rounding must not move them past the observed proportion
    lo = _lower_by_poisson(np.where(k > 0, middle - half, 0.0), k, n, few, 1 - level)
    hi = 1 - _lower_by_poisson(np.where(k < n, 1 - (middle + half), 0.0), n - k, n, few, 1 - level)
    return lo + empty, hi + empty


def _lower_by_poisson(end: np.ndarray, k: np.ndarray, n: np.ndarray, few: np.ndarray, tail: float) -> np.ndarray:
    """Lower the lower end to the Poisson bound where k is few, and less than half of n."""
    lowered, is_few = np.asarray(end).copy(), (k > 0) & (k <= few) & (2 * k < n)
    lowered[is_few] = np.minimum(lowered[is_few], gammaincinv(k[is_few], tail) / n[is_few])
    return lowered


SHARED_SHADOWS_TRIALS = 1.7
"""How many targets count as one independent trial where each is a shadow model of the others. In simulated banks of 8
to 64 models the variance of a share of targets is 1.2 to 1.7 times the binomial one, more for the most exposed."""


def shared_wilson(k: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Compute Wilson's interval for a share of targets that share their shadow models: that of n / 1.7 trials.

    Args:
        k: successes, of any shape.
        n: targets, of the same shape.
        level: nominal coverage.

    Returns:
        Lower and upper end, in [0, 1]; NaN where n is 0.
    """
    return wilson(np.asarray(k) / SHARED_SHADOWS_TRIALS, np.asarray(n) / SHARED_SHADOWS_TRIALS, level)


def smoothed_variance(k: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compute p~ (1 - p~) / (n + 1), p~ = (k + 1/2) / (n + 1): a proportion's variance.

    It is above 0 also where k is 0 or n.

    Args:
        k: successes, of any shape.
        n: trials, of the same shape.

    Returns:
        Of that shape; NaN where n is 0.
    """
    n = np.where(np.asarray(n) > 0, n, np.nan)
    share = (k + 0.5) / (n + 1)
    variance: np.ndarray = share * (1 - share) / (n + 1)
    return variance
