"""Memorization by a blend of counts and clipped probit, with one weight for all examples of an arm.

    mem(i) ~ w c(i) + (1 - w) q(i)

c is the estimate by counts and q the one by clipped probit, both of equation 1 of Feldman & Zhang 2020 (see
memorization.py). Counts have no bias and more noise; the probit has a bias b(i) that more models do not remove. The
mean squared error over examples is a parabola in w. It is least at

    w = mean (c - q)(t - q) / D,    D = mean (c - q)^2,

t the true memorization. The numerator is mean b^2 plus mean Var q - Cov(c, q). Two disjoint sets A and B of models,
each half of all, show both without knowing t, since an example's noise in A tells nothing of that in B:

    mean (c_A - q_A)(c_B - q_B) = mean b^2,    mean (c_A - q_A)(c_B - q_A) = mean b^2 + 2 mean (Var q - Cov(c, q)).

Their mean is the numerator for all models, (c_A - q_A)(c_B - (q_A + q_B) / 2), averaged here over both orders of A and
B and over ten random halves. The more models there are, the smaller are the variances beside b^2: w goes to 1, and the
blend to the counts.

Differs from the paper: the estimator is ours.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from memscore.estimators.memorization import (
    MEMORIZATION,
    MEMORIZATION_PROBIT,
    compute_probit_errors_and_covariance,
    compute_variances,
)
from memscore.estimators.statistic import compute_tables, compute_weighted_values, count_set_weights

BLEND = "memorization_blend"
COVARIANCE = "covariance"
"""Name of the covariance of probit and counts in the table of PROBIT_FOR_BLEND, and of what is stored nowhere."""
PROBIT_FOR_BLEND = replace(MEMORIZATION_PROBIT, errors=compute_probit_errors_and_covariance)
"""The probit with a further column: the sampling covariance with the counts."""
INTERVAL_WEIGHT = 0.5
"""Least weight of the counts in the blend's interval. With the blend's own weight it covers .75 to .90 of the examples
with memorization above .05 in banks of 16 to 64 models (digits, iid, keep .5 and .7), with this one .94 to .97."""
BLENDED = {"memorization": MEMORIZATION, "memorization_probit": PROBIT_FOR_BLEND}
"""What is blended, counts first."""

Columns = Mapping[str, np.ndarray]


class BlendSums(NamedTuple):
    """Sums over examples from which weight and error of the blend follow; sums of disjoint examples add.

    Attributes:
        numerator: of the weight, over examples and pairs of halves.
        square: (c - q)^2 from all models, over the same.
        bias: (c_A - q_A)(c_B - q_B), over the same.
        scale: squared standard error of the counts, over the same.
        pairs: number of those examples and pairs.
        counts: unbiased variance of the counts, over examples that have both estimates.
        covariance: of counts and probit, over these examples.
        probit: variance of the probit, over these examples.
        examples: number of these examples.
    """

    numerator: float
    square: float
    bias: float
    scale: float
    pairs: int
    counts: float
    covariance: float
    probit: float
    examples: int


@dataclass(frozen=True, kw_only=True)
class BlendFit:
    """The weight of the counts in an arm's blend, and the blend's precision.

    Attributes:
        weight: of the counts, in [0, 1]; NaN where halves of the models define no example.
        bias: mean squared bias of the probit.
        bias_share: the same as a multiple of the counts' squared standard error.
        rmse: root mean square error of the blend over the bank.
    """

    weight: float
    bias: float
    bias_share: float
    rmse: float


def sum_for_blend(
    counts: Columns, probit: Columns, halves_counts: np.ndarray, halves_probit: np.ndarray, variance: np.ndarray
) -> BlendSums:
    """Sum over some examples what fit_blend needs.

    Args:
        counts: value and se [n] of MEMORIZATION from all models.
        probit: value, se and covariance [n] of PROBIT_FOR_BLEND.
        halves_counts: [2 P, n], counts from the halves of P pairs; rows 0 and 1 are a pair, 2 and 3, and so on.
        halves_probit: [2 P, n], the probit from them.
        variance: [n], unbiased variance of the counts; NaN where undefined.

    Returns:
        The sums, over examples where both estimates are defined; those over pairs, where they are in both halves.
    """
    c_a, c_b = halves_counts[::2].astype(np.float64), halves_counts[1::2].astype(np.float64)
    q_a, q_b = halves_probit[::2], halves_probit[1::2]
    # The weight's numerator is the mean of (c - q)(m - q), with the truth m unknown: the other half's counts stand for
    # it, since their mean is m and their noise is independent.
    middle = (q_a + q_b) / 2
    numerator = ((c_a - q_a) * (c_b - middle) + (c_b - q_b) * (c_a - middle)) / 2
    square = (counts["value"] - probit["value"]) ** 2
    # a half of the models lacks more examples than all of them do, so that sums have counts of their own
    defined = ~np.isnan(numerator + square)
    has_both = ~np.isnan(square + variance)

    def sum_over_pairs(values: np.ndarray) -> float:
        return float(np.sum(np.broadcast_to(values, defined.shape)[defined]))

    return BlendSums(
        numerator=sum_over_pairs(numerator),
        square=sum_over_pairs(square),
        bias=sum_over_pairs((c_a - q_a) * (c_b - q_b)),
        scale=sum_over_pairs(counts["se"] ** 2),
        pairs=int(defined.sum()),
        counts=float(variance[has_both].sum()),
        covariance=float(probit[COVARIANCE][has_both].sum()),
        probit=float((probit["se"][has_both] ** 2).sum()),
        examples=int(has_both.sum()),
    )


def fit_blend(parts: Iterable[BlendSums]) -> BlendFit:
    """Fit the weight of the counts, and measure the blend's error.

    Args:
        parts: sums of disjoint sets of examples.

    Returns:
        The fit; all NaN where no example is defined in both halves of a pair, or from all models.
    """
    sums = BlendSums(*np.sum([*parts], axis=0).tolist())
    if not sums.pairs or not sums.examples:
        return BlendFit(weight=np.nan, bias=np.nan, bias_share=np.nan, rmse=np.nan)
    # where counts and probit are equal, every weight gives the same
    weight = float(np.clip(sums.numerator / sums.square, 0, 1)) if sums.square else 1.0
    # an average of products, which noise may make negative
    bias = max(sums.bias / sums.pairs, 0.0)
    rest = 1 - weight
    total = weight**2 * sums.counts + 2 * weight * rest * sums.covariance + rest**2 * sums.probit
    variance = max(total / sums.examples, 0.0)
    return BlendFit(
        weight=weight,
        bias=bias,
        bias_share=max(sums.bias / sums.scale, 0.0),
        rmse=float(np.sqrt(variance + rest**2 * bias)),
    )


def blend(counts: np.ndarray, probit: np.ndarray, weight: float) -> np.ndarray:
    """Blend estimates by counts and by probit, of any shape; NaN where one is."""
    blended: np.ndarray = weight * counts + (1 - weight) * probit
    return blended


def compute_blend_variance(counts: np.ndarray, probit: np.ndarray, covariance: np.ndarray, weight: float) -> np.ndarray:
    """Compute the variance of a blend from variances and covariance of both estimates, of any shape."""
    # rounding and smoothing must not make a correlation larger than 1
    limit = np.sqrt(counts * probit)
    covariance = np.clip(covariance, -limit, limit)
    variance = weight**2 * counts + 2 * weight * (1 - weight) * covariance + (1 - weight) ** 2 * probit
    return np.maximum(variance, 0)


def compute_blend_table(counts: Columns, probit: Columns, fit: BlendFit) -> dict[str, np.ndarray]:
    """Compute the blend of each example with its error and interval.

    se^2 is the variance of the blend plus the squared bias that the probit leaves in it, which is taken as proportional
    to the counts' squared standard error: an example on which all models agree has no bias. The interval adds in
    squares, with the estimates' correlation, the distances of the ends of the counts' interval and 1.96 standard errors
    of the probit (MOVER, Zou & Donner 2008, as Newcombe's interval of the counts does with Wilson's), and 1.96 times
    that bias. There the counts weigh at least INTERVAL_WEIGHT: the fewer models, the less a Gaussian fit to those that
    agree knows of rare ones that do not, and the more it weighs in the blend.

    Args:
        counts: the columns of MEMORIZATION.
        probit: the columns of PROBIT_FOR_BLEND.
        fit: weight and bias.

    Returns:
        value, se, lo, hi: float64 [N], in the unit of memorization, NaN where one of both is; n_in, n_out as given.
    """
    z, weight = ndtri(0.975), max(fit.weight, INTERVAL_WEIGHT)
    value = blend(counts["value"], probit["value"], fit.weight)
    squared_bias = fit.bias_share * counts["se"] ** 2
    with np.errstate(invalid="ignore"):
        correlation = np.clip(probit[COVARIANCE] / (counts["se"] * probit["se"]), -1, 1)
    # the ends of an interval are not equally far from the estimate, near 0 and 1 least of all: a variance for each side
    down, up = (
        compute_blend_variance(end**2, (z * probit["se"]) ** 2, correlation * end * z * probit["se"], weight)
        for end in (counts["value"] - counts["lo"], counts["hi"] - counts["value"])
    )
    variance = compute_blend_variance(counts["se"] ** 2, probit["se"] ** 2, probit[COVARIANCE], fit.weight)
    return {
        "value": value,
        "se": np.sqrt(variance + (1 - fit.weight) ** 2 * squared_bias),
        "lo": np.maximum(value - np.sqrt(down + (z * (1 - weight)) ** 2 * squared_bias), -1),
        "hi": np.minimum(value + np.sqrt(up + (z * (1 - weight)) ** 2 * squared_bias), 1),
        "n_in": counts["n_in"],
        "n_out": counts["n_out"],
    }


def estimate_blend(
    correct: np.ndarray, gap: np.ndarray, member: np.ndarray, halves: Sequence[tuple[np.ndarray, np.ndarray]]
) -> tuple[dict[str, np.ndarray], BlendFit]:
    """Estimate the blend of each example from models in memory.

    Args:
        correct: bool [M, N], model m labels example n right.
        gap: [M, N], logit of the label minus the largest other.
        member: bool [M, N], example n was in model m's training set.
        halves: pairs of disjoint sets of models, positions in M, such as draw_random_halves gives.

    Returns:
        The columns of compute_blend_table, and the fit.
    """
    columns = {"correct": correct, "gap": gap, "member": member}
    counts, probit = compute_tables(BLENDED, columns).values()
    weights = count_set_weights([half for pair in halves for half in pair], len(member))
    # all halves in one pass over the models, as a matrix of weights 0 and 1
    of_halves = compute_weighted_values(BLENDED, weights, columns)
    halves_counts, halves_probit = of_halves.values()
    variance = compute_variances(correct, member)
    fit = fit_blend([sum_for_blend(counts, probit, halves_counts, halves_probit, variance)])
    return compute_blend_table(counts, probit, fit), fit
