"""Answers known without the code under test: closed forms, counting, and learners simple enough to reason about."""

import numpy as np
from scipy.stats import hypergeom, norm


def neighbour_order(points: np.ndarray) -> np.ndarray:
    """[N, N - 1]: for each point the others, nearest first."""
    distances = ((points[:, None] - points[None]) ** 2).sum(-1)
    np.fill_diagonal(distances, -1)
    return np.argsort(distances, axis=1, kind="stable")[:, 1:]


def nearest_neighbour_correct(points: np.ndarray, labels: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Bool [M, N]: whether 1-nearest-neighbour on each model's members labels each point right."""
    order = np.column_stack([np.arange(len(points)), neighbour_order(points)])
    first = member[:, order].argmax(2)
    nearest = np.take_along_axis(order[None], first[:, :, None], axis=2)[..., 0]
    return labels[nearest] == labels


def nearest_neighbour_memorization(points: np.ndarray, labels: np.ndarray, size: int) -> np.ndarray:
    """[N]: 1 - P(right | out) when `size` of the N points are drawn, by counting.

    In, a point is its own neighbour. Out, the j-th nearest decides when it is in and the j - 1 nearer ones are not.
    """
    n, rank = len(points), np.arange(1, len(points))
    none_nearer = hypergeom.pmf(0, n - 1, size, rank - 1)
    decides = none_nearer * size / (n - rank)
    return 1 - (decides * (labels[neighbour_order(points)] == labels[:, None])).sum(1)


def nearest_neighbour_memorization_bernoulli(points: np.ndarray, labels: np.ndarray, keep: float) -> np.ndarray:
    """[N]: the same when each point has its own coin; with nobody in, the learner above names the point itself."""
    rank = np.arange(1, len(points))
    decides = keep * (1 - keep) ** (rank - 1)
    nobody = (1 - keep) ** (len(points) - 1)
    return 1 - nobody - (decides * (labels[neighbour_order(points)] == labels[:, None])).sum(1)


def gaussian_auc(distance: float) -> float:
    """Area under the ROC curve of the best test between N(0, 1) and N(d, 1)."""
    return float(norm.cdf(distance / np.sqrt(2)))


def gaussian_tpr(distance: float, fpr: float) -> float:
    """Its true positive rate at a false positive rate."""
    return float(norm.cdf(distance - norm.isf(fpr)))
