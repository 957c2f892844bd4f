"""Distance to the decision boundary by the last layer, as if the network were linear in its embedding (INST eq. 7).

    distance_i = min over k != c of |(w_c - w_k)^T phi_i + b_c - b_k| / || w_c - w_k ||_2,  c the class that is answered
    printed_i  = min over k of (w_k^T phi_i + b_k) / || w_k ||_2

The printed form is the signed distance to the plane where one logit is 0, at which no decision changes.
"""

import numpy as np
from scipy.spatial.distance import cdist

SOURCE = "INST eq. 7, as the distance to where two logits are equal"
PRINTED_SOURCE = "INST eq. 7 as printed: distance to where a logit is 0"


def compute_boundary_distance(embeddings: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Compute the distance of embeddings to the nearest place where the last layer decides for another class.

    Args:
        embeddings: [n, E], what the last layer reads.
        weight: [K, E] of the last layer.
        bias: [K].

    Returns:
        float64 [n] in embedding units, at least 0; NaN where all other classes have the same weights.
    """
    phi, w, b = (np.asarray(array, np.float64) for array in (embeddings, weight, bias))
    logits = phi @ w.T + b
    answered = logits.argmax(1)
    margins = np.take_along_axis(logits, answered[:, None], 1) - logits
    # [K, K]: distances between the weights of two classes
    norms = cdist(w, w)[answered]
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.where(norms > 0, np.abs(margins) / norms, np.inf)
    distances[np.arange(len(phi)), answered] = np.inf
    nearest = distances.min(1)
    return np.where(np.isfinite(nearest), nearest, np.nan)


def compute_printed_boundary_distance(embeddings: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Compute the same as printed: float64 [n], of either sign."""
    phi, w, b = (np.asarray(array, np.float64) for array in (embeddings, weight, bias))
    norms = np.linalg.norm(w, axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        signed = np.where(norms > 0, (phi @ w.T + b) / norms, np.inf)
    nearest = signed.min(1)
    return np.where(np.isfinite(nearest), nearest, np.nan)
