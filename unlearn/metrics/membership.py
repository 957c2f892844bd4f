"""Whom an attack on membership learns from: examples the model was trained on and others, as many of each.

Drawn by the measure's own stream from the rows in rising order, so that neither the order of a set nor its size beside
the other's can tell the attacker anything.
"""

import numpy as np

from unlearn.metrics.case import Case

MOST = 2000
"""Examples a side: a kernel machine's cost grows with the square of them, what it says hardly changes (see mia.py)."""
FEWEST = 10
"""Examples a side: below it a cross-validated attack is undefined; up to some hundreds it is noise, so pool seeds."""


def members_and_others(case: Case, rng: np.random.Generator, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the retain set, and as many held-out ones.

    Args:
        case: its retain and held-out sets.
        rng: draws them.
        most: examples a side.

    Returns:
        Two int64 arrays of one length.
    """
    return _as_many(case.retain, case.held_out, rng, most)


def forgotten_and_others(case: Case, rng: np.random.Generator, most: int = MOST) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the forget set, and as many held-out ones of its classes: else a class that is gone gives itself away.

    Args:
        case: its forget and held-out sets.
        rng: draws them.
        most: examples a side.

    Returns:
        Two int64 arrays of one length.
    """
    others = case.held_out[np.isin(case.labels[case.held_out], np.unique(case.labels[case.forget]))]
    return _as_many(case.forget, others, rng, most)


def _as_many(one: np.ndarray, other: np.ndarray, rng: np.random.Generator, most: int) -> tuple[np.ndarray, np.ndarray]:
    count = min(len(one), len(other), most)
    first, second = (rng.choice(np.sort(rows), count, replace=False) for rows in (one, other))
    return first, second


def told_apart(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features as one attack's input: rows of both, and True for the first.

    Args:
        one: [n] or [n, d].
        other: [n] or [n, d].

    Returns:
        float64 [2 n, d], bool [2 n].
    """
    features = np.concatenate([one, other]).astype(np.float64)
    return features.reshape(len(features), -1), np.arange(len(features)) < len(one)
