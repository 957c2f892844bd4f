"""Gaussian differential privacy: mu from two rates, and the epsilon at a delta that it means.

Training is mu-GDP if telling two neighbouring data sets apart is at least as hard as telling N(0, 1) from N(mu, 1)
(Dong, Roth & Su 2022, J. R. Stat. Soc. B, definition 2.6; arXiv 1905.02383):

    mu >= z(TPR) - z(FPR)  of any attack,  z the normal quantile
    delta(epsilon) = Phi(-epsilon / mu + mu / 2) - e^epsilon Phi(-epsilon / mu - mu / 2)        (corollary 2.13)

The two are exact, so a lower bound on mu is a lower bound on epsilon at delta, for training whose trade-off function is
Gaussian, as that of noisy gradients nearly is. Pure epsilon-DP training is not of this kind.
"""

import numpy as np
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtr, ndtri


def bound_mu(hit_rate: np.ndarray, false_rate: np.ndarray) -> np.ndarray:
    """Compute mu from rates, or its lower bound from their unfavourable ends.

    Args:
        hit_rate: a lower end, in [0, 1].
        false_rate: an upper end.

    Returns:
        mu, negative where the attack is worse than chance. A negative mu says nothing: that low scores speak for
        membership needs ends of its own, of the rates of the opposite guesses.
    """
    mu: np.ndarray = ndtri(hit_rate) - ndtri(false_rate)
    return mu


def delta_from_mu(mu: float, epsilon: float) -> float:
    """Compute the least delta for which mu-GDP is (epsilon, delta)-differential privacy.

    Args:
        mu: above 0.
        epsilon: 0 or more.

    Returns:
        delta in [0, 1].

    >>> round(delta_from_mu(1.0, 0.0), 4), round(delta_from_mu(1.0, 1.0), 4)
    (0.3829, 0.1269)
    """
    # The second term in logarithms: e^epsilon overflows, the product does not.
    return float(ndtr(-epsilon / mu + mu / 2) - np.exp(epsilon + log_ndtr(-epsilon / mu - mu / 2)))


def epsilon_from_mu(mu: float, delta: float) -> float:
    """Compute the least epsilon for which mu-GDP is (epsilon, delta)-differential privacy.

    Args:
        mu: 0 or more.
        delta: in [0, 1).

    Returns:
        epsilon, 0 or more; infinity at delta 0, where mu above 0 has none.

    >>> round(epsilon_from_mu(1.0, 1e-5), 3), epsilon_from_mu(0.0, 0.0), epsilon_from_mu(1.0, 0.0)
    (4.377, 0.0, inf)
    """
    if mu == 0 or delta_from_mu(mu, 0.0) <= delta:
        return 0.0
    if delta == 0:
        return float("inf")
    high = 1.0
    while delta_from_mu(mu, high) > delta:
        high *= 2
    # relative to delta, which may be 1e-12: a root of the difference itself would be found within its tolerance
    return float(brentq(lambda epsilon: delta_from_mu(mu, epsilon) / delta - 1, 0.0, high, xtol=1e-12))
