"""C-score: how consistently models trained without an example predict it correctly.

    C(i) = mean over fractions of P[correct(i) | i not in the training set, a fraction of the data]

Jiang et al. 2021 (ICML), section 2: the plain mean over fractions of each fraction's mean, so no fraction weighs more
for having more models without the example. Higher is more regular, that is less memorized.
"""

from collections.abc import Sequence

import numpy as np

from memscore.statistics.intervals import smoothed_variance, wilson


def cscore(correct: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate P(correct | out) of each example at one keep fraction.

    Args:
        correct: bool [M, N], model m labels example n right.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        The columns of cscore_from_counts, each [N].
    """
    return cscore_from_counts((correct & ~member).sum(0), (~member).sum(0))


def cscore_from_counts(k_out: np.ndarray, n_out: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate P(correct | out) from counts.

    Args:
        k_out: int [N], models trained without the example that are right.
        n_out: int [N], models trained without it.

    Returns:
        value, se (smoothed, never 0), lo, hi (Wilson, 95 %): float64 [N], higher is more regular, NaN where n_out is 0;
        n_out as given.
    """
    lo, hi = wilson(k_out, n_out)
    with np.errstate(invalid="ignore"):
        value = k_out / n_out
    return {"value": value, "se": np.sqrt(smoothed_variance(k_out, n_out)), "lo": lo, "hi": hi, "n_out": n_out}


def average_fractions(fractions: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Average the C-scores of several fractions, each with the same weight.

    Args:
        fractions: results of cscore at each fraction, for the same examples; models of different fractions are
            independent.

    Returns:
        value, se: float64 [N]; NaN where the example has no value at any one of the fractions.

    Raises:
        ValueError: `fractions` is empty.
    """
    if not fractions:
        raise ValueError("a C-score needs one fraction or more, got none; add an arm to the bank")
    errors = np.array([fraction["se"] for fraction in fractions])
    value: np.ndarray = np.mean([fraction["value"] for fraction in fractions], axis=0)
    return {"value": value, "se": np.sqrt((errors**2).sum(0)) / len(fractions)}
