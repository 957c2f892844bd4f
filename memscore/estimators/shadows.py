"""The shadows of a target: who they are, what is dropped so that their number tells nothing, and their Student-t.

For target t and example i the shadows are the models of a bank other than t, on two sides: those that held i and those
that did not. The attacks in lira.py, lira_modes.py, rmia.py and outside.py are built from what stands here.

From a target's shadows one more is dropped, from the side that exceeds its share of keep * (M - 1): lira.py says why.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import gammaln

VARIANCE_STRENGTH = 8.0
"""Shadows that the prior on the variance counts for."""
MEAN_STRENGTH = 0.05
"""Shadows that the prior on the mean counts for."""

CELLS = 2**18
"""Models x examples that are worked on at a time."""


def pieces(confidence: np.ndarray, member: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Columns in float64, few enough at a time to stay in cache.

    Args:
        confidence: float [M, N].
        member: bool [M, N].

    Yields:
        The same columns of both, from left to right: float64 and bool [M, n], at most CELLS cells and at least one
        column.
    """
    width = max(CELLS // max(len(member), 1), 1)
    for start in range(0, member.shape[1], width):
        yield confidence[:, start : start + width].astype(np.float64), member[:, start : start + width]


def moments(phi: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and sum of squared deviations of one side of each example.

    Args:
        phi: float64 [M, n].
        side: bool [M, n], the models that count.

    Returns:
        Three arrays [n]; the mean of nobody is 0, its count says so.
    """
    count = side.sum(0)
    mean = np.where(side, phi, 0).sum(0) / np.maximum(count, 1)
    return count, mean, (np.where(side, phi - mean, 0) ** 2).sum(0)


def surplus(member: np.ndarray, keep: float) -> np.ndarray:
    """Where a target's in-shadows exceed their share, so that one of them is dropped; elsewhere an out-shadow is.

    sum over m != t of member[m, i]  >  keep * (M - 1)

    Args:
        member: bool [M, n], example i was in model m's training set.
        keep: the arm's share of examples a model.

    Returns:
        bool [M, n], for every model as target.
    """
    exceeding: np.ndarray = member.sum(0) - member > keep * (len(member) - 1)
    return exceeding


def following(values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The value of the next model of that side after each, cyclically: the shadow that is dropped.

    Args:
        values: [M, n].
        side: bool [M, n].

    Returns:
        [M, n] of the type of values; 0 where that side is empty.
    """
    after = np.empty_like(values)
    carried = np.zeros(values.shape[1])
    for last_round in (False, True):
        for m in reversed(range(len(values))):
            if last_round:
                after[m] = carried
            carried = np.where(side[m], values[m], carried)
    return after


def log_density(t: np.ndarray, scale: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Log-density of Student's t with a scale, at a statistic t.

    log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2 - log scale - (df + 1) / 2 log(1 + t^2 / df)

    Args:
        t: (value - location) / scale, float64.
        scale: above 0, of the same shape.
        df: degrees of freedom, VARIANCE_STRENGTH plus whole numbers, of the same shape: their gamma functions come
            from a table.

    Returns:
        float64 of the same shape; NaN where t or scale is.
    """
    fewest = df.min(initial=VARIANCE_STRENGTH)
    table = np.arange(fewest, df.max(initial=fewest) + 1)
    constant = gammaln((table + 1) / 2) - gammaln(table / 2) - np.log(table * np.pi) / 2
    density: np.ndarray = constant[(df - fewest).astype(np.int64)] - np.log(scale) - (df + 1) / 2 * np.log1p(t**2 / df)
    return density


def normal_deviate(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """The z with Phi(z) = CDF of Student's t, by Wallace's formula (1959).

    z = sign(t) (8 df + 1) / (8 df + 3) sqrt(df log(1 + t^2 / df)),    within .03 of the exact z up to 5 if df >= 9

    Args:
        t: a statistic, float64.
        df: its degrees of freedom, of the same shape.

    Returns:
        float64 of the same shape; NaN where t is.
    """
    z: np.ndarray = np.sign(t) * (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))
    return z
