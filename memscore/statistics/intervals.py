"""Intervals and standard errors of proportions that are valid for few trials."""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and its interval, 95 % unless stated otherwise; NaN where undefined."""

    value: float
    lo: float
    hi: float


def wilson(k: np.ndarray, n: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Compute Wilson's score interval for a proportion (Wilson 1927).

    The proportions p with |k / n - p| <= z sqrt(p (1 - p) / n), z the normal quantile of the level.

    Args:
        k: successes, of any shape.
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
    # the ends at k = 0 and k = n are 0 and 1; rounding must not move them past the observed proportion
    return np.where(k > 0, middle - half, 0.0) + empty, np.where(k < n, middle + half, 1.0) + empty


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
