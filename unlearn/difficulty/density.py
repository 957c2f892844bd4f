"""Size of unlearning expansion: how densely the remaining examples lie around an example (INST 3.3.6, eq. 8).

    SUE_i = log of 1/m sum_j exp(-|| phi_i - phi_j ||_2^2 / (2 t^2)),     phi what the last layer reads
    t = mean over dimensions of sd_d(phi) * m^(-1 / (E + 4))                          (Scott 1992)

The paper names neither kernel nor temperature, and prints t outside of the kernel, where it is a constant factor. The
logarithm keeps the ranks of densities that are 0 in floating point.
"""

import numpy as np
from scipy.special import logsumexp

SOURCE = "INST eq. 8, Gaussian kernel with Scott's rule, logarithm"


def compute_bandwidth(embeddings: np.ndarray) -> float:
    """Compute t by Scott's rule from embeddings [m, E]; 1 where all are equal."""
    m, dimensions = embeddings.shape
    bandwidth = float(np.asarray(embeddings, np.float64).std(axis=0, ddof=1).mean() * m ** (-1 / (dimensions + 4)))
    return bandwidth if bandwidth > 0 else 1.0


def compute_log_density(embeddings: np.ndarray, others: np.ndarray, own: np.ndarray | None = None) -> np.ndarray:
    """Compute SUE.

    Args:
        embeddings: [n, E] of the instances.
        others: [m, E] of remaining examples, two or more.
        own: [n], each instance's position among the others, or -1; an example is no neighbour of its own.

    Returns:
        float64 [n]; higher where more of the others are near.
    """
    x, y = np.asarray(embeddings, np.float64), np.asarray(others, np.float64)
    t = compute_bandwidth(y)
    # |x - y|^2 by one product, which rounding can take below 0
    squared = np.maximum(0, (x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1)[None])
    exponents = -squared / (2 * t**2)
    counts = np.full(len(x), len(y))
    if own is not None:
        inside = np.flatnonzero(own >= 0)
        exponents[inside, own[inside]] = -np.inf
        counts[inside] -= 1
    return np.asarray(logsumexp(exponents, axis=1) - np.log(counts))
