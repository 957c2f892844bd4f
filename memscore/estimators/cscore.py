"""C-score: how consistently models trained without an example predict it correctly.

    C(i) = mean over fractions of P[correct(i) | i not in the training set, a fraction of the data]

Jiang et al. 2021 (ICML), section 2: the plain mean over fractions of each fraction's mean, so no fraction weighs more
for having more models without the example. Higher is more regular, that is less memorized.
"""

from collections.abc import Sequence

import numpy as np

from memscore.estimators.statistic import Side, Statistic, Terms, compute_table, take_signal
from memscore.score_registry import ScoreInfo
from memscore.statistics.intervals import smoothed_variance, wilson


def cscore(correct: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate P(correct | out) of each example at one keep fraction.

    Args:
        correct: bool [M, N], model m labels example n right.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, se (smoothed, never 0), lo, hi (Wilson, 95 %): float64 [N], higher is more regular, NaN where an example
        was always in; n_out: int64 [N], models trained without it.
    """
    return compute_table(CSCORE, correct, member)


def compute_cscore(inside: Side, outside: Side) -> np.ndarray:
    """Compute k_out / n_out, the share of the models without the example that are right; NaN without such a model."""
    with np.errstate(invalid="ignore"):
        share: np.ndarray = outside.sums[0] / outside.n
    return share


def compute_cscore_errors(inside: Side, outside: Side, terms: Terms, member: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the smoothed standard error of that share, never 0, and the ends of Wilson's 95 % interval."""
    lo, hi = wilson(outside.sums[0], outside.n)
    return {"se": np.sqrt(smoothed_variance(outside.sums[0], outside.n)), "lo": lo, "hi": hi}


CSCORE = Statistic(
    info=ScoreInfo("Jiang et al. 2021 (SCALE 2.2): P[correct | out] at one subset fraction", "probability", -1),
    signal="correct",
    terms=take_signal,
    value=compute_cscore,
    errors=compute_cscore_errors,
    counts=("n_out",),
)


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
    # NaN in one fraction stays NaN: a mean over the others alone would compare examples at different fractions
    errors = np.array([fraction["se"] for fraction in fractions])
    value: np.ndarray = np.mean([fraction["value"] for fraction in fractions], axis=0)
    return {"value": value, "se": np.sqrt((errors**2).sum(0)) / len(fractions)}
