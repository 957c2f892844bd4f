"""LiRA of one model that is not in the bank, every model of the bank a shadow: the audit of a user's own model.

    online    L(i) = log p(phi | in) - log p(phi | out)           offline    z(i), one-sided

with lira.py's predictives (Carlini et al. 2022; Student-t, the same prior). No shadow is left out, and none is dropped
to make counts equal: how many models of the bank held an example was settled without the audited model, so the counts
tell nothing of what it held. In lira.py, where target and shadows share one design, they would.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from memscore.estimators.shadows import MEAN_STRENGTH, VARIANCE_STRENGTH, log_density, moments, normal_deviate


@dataclass(frozen=True, kw_only=True)
class OutsidePool:
    """Mean over examples of their shadows' mean and variance, every example weighing the same."""

    mean_in: float
    variance_in: float
    mean_out: float
    variance_out: float


def outside_pool(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> OutsidePool:
    """The first of two passes: what the predictives shrink to.

    Args:
        blocks: (confidence, member), float and bool [M, n], for disjoint sets of examples.

    Returns:
        One mean and one variance a side; NaN where no example has a shadow, or two of them, on that side.
    """
    sums = np.zeros((2, 4))
    for confidence, member in blocks:
        phi = confidence.astype(np.float64)
        for side, held in enumerate((member, ~member)):
            n, mean, squares = moments(phi, held)
            own = np.where(n > 1, squares / np.maximum(n - 1, 1), 0)
            sums[side] += (mean.sum(), (n > 0).sum(), own.sum(), (n > 1).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        (mean_in, mean_out), (variance_in, variance_out) = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
    return OutsidePool(
        mean_in=float(mean_in), variance_in=float(variance_in), mean_out=float(mean_out),
        variance_out=float(variance_out),
    )  # fmt: skip


def outside_lira(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, pool: OutsidePool
) -> tuple[np.ndarray, np.ndarray]:
    """Both attacks on one outside target.

    Args:
        target: float [N], the target's logit confidence in example n's label.
        confidence: float [M, N], the bank's.
        member: bool [M, N], of the bank.
        pool: from outside_pool, over all examples.

    Returns:
        online, a log-likelihood ratio, and offline, a normal deviate: float64 [N], higher for members; NaN where a side
        that is needed has no shadow.
    """
    phi = confidence.astype(np.float64)
    inside = _predictive(target, phi, member, pool.mean_in, pool.variance_in)
    outside = _predictive(target, phi, ~member, pool.mean_out, pool.variance_out)
    return log_density(*inside) - log_density(*outside), normal_deviate(outside[0], outside[2])


def _predictive(
    target: np.ndarray, phi: np.ndarray, side: np.ndarray, prior_mean: float, prior_variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One side's Student-t: the statistic, scale and degrees of freedom, [n] each."""
    n, mean, squares = moments(phi, side)
    strength, df = MEAN_STRENGTH + n, VARIANCE_STRENGTH + n
    location = (MEAN_STRENGTH * prior_mean + n * mean) / strength
    total = VARIANCE_STRENGTH * prior_variance + squares + MEAN_STRENGTH * n / strength * (mean - prior_mean) ** 2
    scale = np.where((n > 0) & (total > 0), np.sqrt(total * (strength + 1) / (df * strength)), np.nan)
    return (target - location) / scale, scale, df
