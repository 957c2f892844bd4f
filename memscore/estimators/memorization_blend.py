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
        counts_difference: (c_A - c_B)^2, over the same.
        product_difference: (c_A - c_B)(q_A - q_B), over the same.
        probit_difference: (q_A - q_B)^2, over the same.
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
    counts_difference: float
    product_difference: float
    probit_difference: float
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
        counts_variance: mean variance of the counts.
        covariance: mean covariance of counts and probit.
        probit_variance: mean variance of the probit.
        is_between_blocks: variances and covariance, and so the RMSE, are measured between halves of whole blocks, which
            includes what a design cancels within its blocks; else they are those of independent models.
    """

    weight: float
    bias: float
    bias_share: float
    rmse: float
    counts_variance: float
    covariance: float
    probit_variance: float
    is_between_blocks: bool

    def predict_rmse(self, share: float) -> float:
        """Predict the blend's error from another number of models, with the weight that is the best one there.

        The probit's bias stays, and all variances change alike, by 1 over the number of models.

        Args:
            share: variances there, as a share of those here.

        Returns:
            The error; at share 1 it is `rmse`.
        """
        here = self._compute_least_error(1.0)
        # the weight was fitted to other products of the same halves, so that the least error differs a little from rmse
        return self._compute_least_error(share) * (self.rmse / here if here else 1.0)

    def _compute_least_error(self, share: float) -> float:
        """Compute the error with the best weight from the bias and the variances alone."""
        counts, both, probit = (share * each for each in (self.counts_variance, self.covariance, self.probit_variance))
        curvature = self.bias + counts - 2 * both + probit
        weight = float(np.clip((self.bias + probit - both) / curvature, 0, 1)) if curvature > 0 else 1.0
        return float(np.sqrt(_combine_variances(counts, both, probit, weight) + (1 - weight) ** 2 * self.bias))


def sum_for_blend(
    tables: Mapping[str, Columns], halves: Mapping[str, np.ndarray], columns: Mapping[str, np.ndarray]
) -> BlendSums:
    """Sum over some examples what fit_blend needs.

    Args:
        tables: by the names of BLENDED their columns [n] from all models.
        halves: by these names the values [2 P, n] from the halves of P pairs; rows 0 and 1 are a pair, and so on.
        columns: correct and member, bool [M, n].

    Returns:
        The sums, over examples where both estimates are defined; those over pairs, where they are in both halves.
    """
    counts, probit = (tables[name] for name in BLENDED)
    halves_counts, halves_probit = (halves[name] for name in BLENDED)
    variance = compute_variances(columns["correct"], columns["member"])
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
        counts_difference=sum_over_pairs((c_a - c_b) ** 2),
        product_difference=sum_over_pairs((c_a - c_b) * (q_a - q_b)),
        probit_difference=sum_over_pairs((q_a - q_b) ** 2),
        pairs=int(defined.sum()),
        counts=float(variance[has_both].sum()),
        covariance=float(probit[COVARIANCE][has_both].sum()),
        probit=float((probit["se"][has_both] ** 2).sum()),
        examples=int(has_both.sum()),
    )


def fit_blend(parts: Iterable[BlendSums], block_share: float | None = None) -> BlendFit:
    """Fit the weight of the counts, and measure the blend's error.

    The variances of independent models follow from each side's spread. In balanced blocks models depend on each other:
    what the design cancels is seen between blocks only. Halves A and B of whole blocks, each a share s of the models,
    are independent of each other, so that the variance from all models is s / 2 times the mean of (x_A - x_B)^2.

    Args:
        parts: sums of disjoint sets of examples.
        block_share: s, where the halves are of whole blocks of models that depend on each other; else None.

    Returns:
        The fit; all NaN where no example is defined in both halves of a pair, or from all models.
    """
    sums = BlendSums(*np.sum([*parts], axis=0).tolist())
    has_blocks = block_share is not None
    if not sums.pairs or not sums.examples:
        undefined = dict.fromkeys(
            ("weight", "bias", "bias_share", "rmse", "counts_variance", "covariance", "probit_variance"), np.nan
        )
        return BlendFit(**undefined, is_between_blocks=has_blocks)
    # where counts and probit are equal, every weight gives the same
    weight = float(np.clip(sums.numerator / sums.square, 0, 1)) if sums.square else 1.0
    # an average of products, which noise may make negative
    bias = max(sums.bias / sums.pairs, 0.0)
    if block_share is None:
        counts, both, probit = (each / sums.examples for each in (sums.counts, sums.covariance, sums.probit))
    else:
        counts, both, probit = (
            block_share / 2 * each / sums.pairs
            for each in (sums.counts_difference, sums.product_difference, sums.probit_difference)
        )
    return BlendFit(
        weight=weight,
        bias=bias,
        bias_share=max(sums.bias / sums.scale, 0.0),
        rmse=float(np.sqrt(_combine_variances(counts, both, probit, weight) + (1 - weight) ** 2 * bias)),
        counts_variance=counts,
        covariance=both,
        probit_variance=probit,
        is_between_blocks=has_blocks,
    )


def _combine_variances(counts: float, covariance: float, probit: float, weight: float) -> float:
    """Combine mean variances to the blend's; noise of the covariance must not make it negative."""
    rest = 1 - weight
    return max(weight**2 * counts + 2 * weight * rest * covariance + rest**2 * probit, 0.0)


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
    correct: np.ndarray,
    gap: np.ndarray,
    member: np.ndarray,
    halves: Sequence[tuple[np.ndarray, np.ndarray]],
    *,
    has_blocks: bool = False,
) -> tuple[dict[str, np.ndarray], BlendFit]:
    """Estimate the blend of each example from models in memory.

    Args:
        correct: bool [M, N], model m labels example n right.
        gap: [M, N], logit of the label minus the largest other.
        member: bool [M, N], example n was in model m's training set.
        halves: pairs of disjoint sets of models, positions in M, such as draw_random_halves gives.
        has_blocks: the halves are of whole blocks of models that depend on each other.

    Returns:
        The columns of compute_blend_table, and the fit.
    """
    columns = {"correct": correct, "gap": gap, "member": member}
    tables = compute_tables(BLENDED, columns)
    sets = [half for pair in halves for half in pair]
    # all halves in one pass over the models, as a matrix of weights 0 and 1
    of_halves = compute_weighted_values(BLENDED, count_set_weights(sets, len(member)), columns)
    share = float(np.mean([len(half) for half in sets])) / len(member) if has_blocks and sets else None
    fit = fit_blend([sum_for_blend(tables, of_halves, columns)], share)
    counts, probit = tables.values()
    return compute_blend_table(counts, probit, fit), fit
