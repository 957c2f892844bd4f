"""Memorization by clipped probit: the definition's score from about half the models.

    mem(i) ~ Phi(m_in / sqrt(v_in + .05)) - Phi(m_out / sqrt(v_out + .05))

m and v are mean and variance, over the models of a side, of the gap between the label's logit and the largest other,
clipped to [-5, 5]. A model is right exactly when its gap is above 0, so were gaps Gaussian this would be
P[right | in] - P[right | out], equation 1 of Feldman & Zhang 2020, from all of each gap instead of its sign. The clip
keeps the fit from heavy tails, which rank worse without it; .05 keeps a handful of models that agree from certainty.

Differs from the paper: gaps are not Gaussian, so a bias stays however many models there are (BIAS below). With 25 to 50
models it ranks like 200 to 400 that are counted, and it is worth about twice as many in RMSE; from 400 models on report
the counts.
"""

import numpy as np
from scipy.special import ndtr

from memscore.estimators.probability import mean_variance, moments

CLIP = 5.0
"""Gaps beyond count as this; chosen on one bank of digits at keep 0.7, together with FLOOR, then left alone."""
FLOOR = 0.05
"""Added to each variance."""
BIAS = 0.02
"""Root mean square difference to the definition that more models do not remove: .015 to .02 on the banks tried."""


def memorization_probit(gap: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Phi in minus Phi out, for each example.

    The standard error is the infinitesimal jackknife's (Jaeckel 1972), which is the delta method with the sample's own
    third and fourth moments: a model whose gap is d above its side's mean moves Phi(z), z = m / s, s^2 = v + .05, by

        phi(z) (d / s - z (d^2 n / (n - 1) - v) / (2 s^2)) / n.

    It is the sampling error only; BIAS comes on top. As for probabilities it never falls to 0.

    Args:
        gap: float [M, N], logit of the label minus the largest other one.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a
        side; n_in, n_out: int64 [N].
    """
    clipped = np.clip(gap.astype(np.float64), -CLIP, CLIP)
    (share_in, variance_in, n_in), (share_out, variance_out, n_out) = _side(clipped, member), _side(clipped, ~member)
    return {"value": share_in - share_out, "se": np.sqrt(variance_in + variance_out), "n_in": n_in, "n_out": n_out}


def _side(gap: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Phi(z), its variance and the count of one side, [N] each."""
    n, mean, squares = moments(gap, side)
    others = np.maximum(n - 1, 1)
    width2 = squares / others + FLOOR
    z = mean / np.sqrt(width2)
    d = np.where(side, gap - mean, 0)
    around = np.where(side, (d**2 * n - squares) / others, 0)
    moved = d / np.sqrt(width2) - z * around / (2 * width2)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return ndtr(z), mean_variance((moved**2).sum(0) * density**2, n), n
