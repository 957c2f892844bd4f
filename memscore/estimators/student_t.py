"""Student-t predictives of a normal-inverse-gamma prior, compared for many targets at once.

    log density    log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(pi w) / 2 - (df + 1) / 2 log(1 + d^2 / w)

d is the distance of a value from the location, and w = df scale^2 the width: without roots, and with one logarithm of
two widths in a ratio of two densities. Degrees of freedom depend on numbers of shadows only and are tables
(shadow_moments.py).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

from memscore.estimators.shadow_moments import SideMoments, TargetGroups

VARIANCE_STRENGTH = 8.0
"""Weight of the prior on the variance, in shadows."""
LEAST_MEAN_STRENGTH = 0.05
"""Least weight of the prior on the mean and all shadows together: without any nothing is defined, and it divides."""


class Predictive(NamedTuple):
    """Student's t of one side for each target."""

    distance: np.ndarray  # float64 [T, n], value - location
    width: np.ndarray  # float64 [T, n], df * scale^2, above 0 or NaN where undefined
    df: np.ndarray  # float64 [G, n], VARIANCE_STRENGTH plus whole numbers
    groups: TargetGroups

    def compute_log_tail(self) -> np.ndarray:
        """Compute log(1 + d^2 / w), [T, n]."""
        ratio = self.distance**2
        ratio /= self.width
        tail: np.ndarray = np.log1p(ratio, out=ratio)
        return tail

    def compute_log_ratio(self, other: "Predictive") -> np.ndarray:
        """Compute log density - log density of the other, at the same values: float64 [T, n], NaN where undefined."""
        expand = self.groups.expand
        ratio: np.ndarray = np.log(other.width / self.width)
        ratio /= 2
        ratio += expand(compute_log_constant(self.df) - compute_log_constant(other.df))
        ratio -= expand((self.df + 1) / 2) * self.compute_log_tail()
        ratio += expand((other.df + 1) / 2) * other.compute_log_tail()
        return ratio

    def compute_normal_deviate(self) -> np.ndarray:
        """Compute the z with Phi(z) = CDF of Student's t, by Wallace's formula (1959).

        z = sign(d) (8 df + 1) / (8 df + 3) sqrt(df log(1 + d^2 / w)),    within .03 of the exact z up to 5 if df >= 9

        Returns:
            float64 [T, n]; NaN where undefined.
        """
        z = np.sqrt(self.compute_log_tail())
        z *= self.groups.expand((8 * self.df + 1) / (8 * self.df + 3) * np.sqrt(self.df))
        signed: np.ndarray = np.copysign(z, self.distance, out=z)
        return signed


def compute_log_constant(df: np.ndarray) -> np.ndarray:
    """Compute log Gamma((df + 1) / 2) - log Gamma(df / 2) for degrees of freedom, VARIANCE_STRENGTH + whole numbers."""
    # few values occur: gammaln of each once, then a look-up
    fewest = df.min(initial=VARIANCE_STRENGTH)
    table = np.arange(fewest, df.max(initial=fewest) + 1)
    constant: np.ndarray = (gammaln((table + 1) / 2) - gammaln(table / 2))[(df - fewest).astype(np.int64)]
    return constant


def predict(
    targets: np.ndarray,
    side: SideMoments,
    prior_mean: np.ndarray,
    mean_strength: np.ndarray | float,
    prior_variance: np.ndarray,
) -> Predictive:
    """Compute one side's predictive for each target.

    Args:
        targets: float64 [T, n], the values that it is for.
        side: the moments of the shadows.
        prior_mean: [T, n] or [T, 1].
        mean_strength: weight of the prior mean in shadows, [G, n] or one number.
        prior_variance: [T].

    Returns:
        The predictive; undefined without a shadow.
    """
    # posterior of a normal-inverse-gamma prior at that mean and variance, relative to the centre
    expand, strength = side.groups.expand, np.maximum(mean_strength + side.n, LEAST_MEAN_STRENGTH)
    location = prior_mean - side.centre
    difference = side.mean - location
    location += expand(side.n / strength) * difference
    difference *= difference
    difference *= expand(mean_strength * side.n / strength)
    difference += side.spread
    difference += VARIANCE_STRENGTH * prior_variance[:, None]
    # without a shadow nothing is defined, nor where all are equal and so is the prior
    difference *= expand(np.where(side.n > 0, (strength + 1) / strength, np.nan))
    if not (difference > 0).all():
        difference[~(difference > 0)] = np.nan
    distance = targets - side.centre
    distance -= location
    return Predictive(distance, difference, VARIANCE_STRENGTH + side.n, side.groups)
