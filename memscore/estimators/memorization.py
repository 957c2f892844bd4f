"""Memorization: how much likelier models trained on an example predict it correctly.

    mem(i) = P[correct(i) | i in the training set] - P[correct(i) | i not in it]

Feldman & Zhang 2020 (NeurIPS), equation 1 and the estimator of section 4.1, from models trained on random subsets.
Three estimators: by counts, by the probability of the label, and by clipped probit.

By counts. Differs from the authors' code: an example that was always in or always out has no value, where theirs
divides by max(count, 1e-10) and calls it memorized.

By the probability of the label, in place of whether the model is right:

    mem_p(i) = mean of p_y(i) over models with i - mean of p_y(i) over models without it,   p_y = sigmoid(confidence)

Differs from the paper: it is a different score, with its own column. It correlates with the definition (Pearson .97 to
.99 on digits and Fashion-MNIST), but its top 6.7 % share only .77 to .89 with the definition's, however many models
there are. Its advantage is less noise: half the models or fewer for the same reliability.

By clipped probit, the definition's score from about half the models:

    mem(i) ~ Phi(m_in / sqrt(v_in + .05)) - Phi(m_out / sqrt(v_out + .05))

m and v are mean and variance, over the models of a side, of the gap between the label's logit and the largest other,
clipped to [-5, 5]. A model is right exactly when its gap is above 0, so if gaps were Gaussian this would be
P[right | in] - P[right | out] from all of each gap instead of its sign. The clip protects the fit from heavy tails,
which rank worse without it; .05 keeps a handful of models that agree from giving certainty.

Differs from the paper: gaps are not Gaussian, so a bias remains however many models there are (PROBIT_BIAS below). With
25 to 50 models it ranks like 200 to 400 models by counts, and in RMSE it is worth about twice as many models. From some
200 models on the counts have the smaller error; the blend of both (memorization_blend.py) needs no such rule.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import expit, ndtr

from memscore.estimators.statistic import (
    Side,
    Statistic,
    Terms,
    compute_difference_errors,
    compute_mean_variance,
    subtract_means,
    take_signal,
)
from memscore.score_registry import ScoreInfo
from memscore.statistics.intervals import smoothed_variance, wilson


def memorization(correct: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Estimate P(correct | in) - P(correct | out) for each example (Feldman & Zhang 2020).

    Args:
        correct: bool [M, N], model m labels example n right.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        [N] in [-1, 1], higher is more memorized; NaN where an example was always in or always out.
    """
    k_in, n_in, k_out, n_out = count_by_membership(correct, member)
    return subtract_means(Side(n_in, (k_in,)), Side(n_out, (k_out,)))


def count_by_membership(
    correct: np.ndarray, member: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count for memorization_from_counts; counts of disjoint sets of models add.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        int64 [N] each: right and in, in, right and out, out.
    """
    k_in, n_in = (correct & member).sum(0), member.sum(0)
    return k_in, n_in, correct.sum(0) - k_in, len(member) - n_in


def memorization_from_counts(
    k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray
) -> dict[str, np.ndarray]:
    """Estimate memorization from counts.

    se^2 = sum over both sides of p~ (1 - p~) / (n + 1), p~ = (k + 1/2) / (n + 1). The interval is the hybrid score
    interval of Newcombe 1998 (method 10): Wilson's for each side, the distances of their ends added in squares.

    Args:
        k_in: int [N], models trained on the example that are right.
        n_in: int [N], models trained on it.
        k_out: int [N], models trained without it that are right.
        n_out: int [N], models trained without it.

    Returns:
        value, se, lo, hi: float64 [N], higher is more memorized, NaN where either count is 0; n_in, n_out as given.
    """
    value = subtract_means(Side(n_in, (k_in,)), Side(n_out, (k_out,)))
    with np.errstate(invalid="ignore"):
        p_in, p_out = k_in / n_in, k_out / n_out
    (lo_in, hi_in), (lo_out, hi_out) = wilson(k_in, n_in), wilson(k_out, n_out)
    return {
        "value": value,
        "se": np.sqrt(smoothed_variance(k_in, n_in) + smoothed_variance(k_out, n_out)),
        "lo": value - np.hypot(p_in - lo_in, hi_out - p_out),
        "hi": value + np.hypot(hi_in - p_in, p_out - lo_out),
        "n_in": n_in,
        "n_out": n_out,
    }


def compute_memorization_errors(inside: Side, outside: Side, terms: Terms, member: np.ndarray) -> dict[str, np.ndarray]:
    """Compute se, lo and hi as memorization_from_counts does."""
    table = memorization_from_counts(inside.sums[0], inside.n, outside.sums[0], outside.n)
    return {name: table[name] for name in ("se", "lo", "hi")}


MEMORIZATION = Statistic(
    info=ScoreInfo("Feldman & Zhang 2020; RUM eq. 1: P[correct | in] - P[correct | out]", "probability", 1),
    signal="correct",
    terms=take_signal,
    value=subtract_means,
    errors=compute_memorization_errors,
)
"""value, se, lo, hi: float64 [N], higher is more memorized, NaN where an example was always in or always out; n_in,
n_out: int64 [N]."""


def sum_variances(correct: np.ndarray, member: np.ndarray) -> tuple[float, int]:
    """Sum the estimates' variances over examples; sums of disjoint sets of examples add.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        The sum over examples of p (1 - p) / (n - 1), both sides added, which is unbiased for the variance of the
        binomial estimate; and the number of examples that have it, two models or more on each side.
    """
    return sum_variances_from_counts(*count_by_membership(correct, member))


def sum_variances_from_counts(
    k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray
) -> tuple[float, int]:
    """Sum the estimates' variances over examples, from counts.

    Args:
        k_in: int [N], models trained on the example that are right.
        n_in: int [N], models trained on it.
        k_out: int [N], models trained without it that are right.
        n_out: int [N], models trained without it.

    Returns:
        As sum_variances.
    """
    # with p = k / n, p (1 - p) / (n - 1) is k (n - k) / (n^2 (n - 1))
    defined = (n_in >= 2) & (n_out >= 2)
    total = 0.0
    for k, n in ((k_in[defined], n_in[defined]), (k_out[defined], n_out[defined])):
        total += float((k * (n - k) / (n**2 * (n - 1.0))).sum())
    return total, int(defined.sum())


def compute_variances(correct: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Compute the variance of each example's estimate, without bias.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        [N], p (1 - p) / (n - 1), both sides added; NaN with fewer than two models on a side. It is 0 where all agree.
    """
    k_in, n_in, k_out, n_out = count_by_membership(correct, member)
    total = np.where((n_in >= 2) & (n_out >= 2), 0.0, np.nan)
    for k, n in ((k_in, n_in), (k_out, n_out)):
        total += k * (n - k) / (np.maximum(n, 1) ** 2 * np.maximum(n - 1.0, 1))
    return total


def compute_bank_rmse(parts: Iterable[tuple[float, int]]) -> float:
    """Compute memorization's root mean square error over a bank, to decide when to stop.

    Args:
        parts: results of sum_variances for disjoint sets of examples.

    Returns:
        sqrt(mean over examples of the estimate's variance); NaN where no example has a variance.
    """
    total, number = np.sum([(0.0, 0), *parts], axis=0)
    return float(np.sqrt(total / number)) if number else float("nan")


def compute_probabilities(confidence: np.ndarray) -> Terms:
    """Compute p_y from logit confidence log p_y / (1 - p_y)."""
    return (expit(confidence),)


MEMORIZATION_PROBABILITY = Statistic(
    info=ScoreInfo(
        "Feldman & Zhang 2020 eq. 1 with p_y in place of correctness: mean p_y in - mean p_y out", "probability", 1
    ),
    signal="logit_confidence",
    terms=compute_probabilities,
    value=subtract_means,
    errors=compute_difference_errors,
)
"""value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a side;
n_in, n_out: int64 [N]."""


GAP_CLIP = 5.0
"""Gaps are clipped to this; chosen on one bank of digits at keep 0.7, with PROBIT_VARIANCE_FLOOR, then fixed."""
PROBIT_VARIANCE_FLOOR = 0.05
"""Added to each variance."""
PROBIT_BIAS = 0.02
"""Root mean square difference from the definition that more models do not remove: .015 to .02 on tested banks."""


def compute_probit_terms(gap: np.ndarray) -> Terms:
    """Compute clipped gaps and their squares; in float64, since the squares cancel in a variance."""
    clipped = np.clip(gap, -GAP_CLIP, GAP_CLIP).astype(np.float64)
    return clipped, clipped**2


def compute_probit_difference(inside: Side, outside: Side) -> np.ndarray:
    """Compute Phi in minus Phi out, in [-1, 1]; NaN with fewer than two models on a side."""
    difference: np.ndarray = compute_probit(inside) - compute_probit(outside)
    return difference


def compute_probit(side: Side) -> np.ndarray:
    """Compute Phi of one side, the fitted share of right models; NaN with fewer than two models."""
    share: np.ndarray = ndtr(_standardize(side)[0])
    return share


def compute_probit_errors(inside: Side, outside: Side, terms: Terms, member: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the standard error of that difference.

    It is the infinitesimal jackknife's (Jaeckel 1972), which is the delta method with the sample's third and fourth
    moments: a model whose gap is d above its side's mean moves Phi(z), z = m / s, s^2 = v + .05, by

        phi(z) (d / s - z (d^2 n / (n - 1) - v) / (2 s^2)) / n.

    It is the sampling error only; PROBIT_BIAS comes on top. As for probabilities it is never 0.

    Args:
        inside: sums of the terms over the models with each example.
        outside: over those without it.
        terms: clipped gaps and their squares, float64 [M, N].
        member: bool [M, N].

    Returns:
        se: float64 [N]; NaN with fewer than two models on a side.
    """
    return {"se": compute_probit_errors_and_covariance(inside, outside, terms, member)["se"]}


def compute_probit_errors_and_covariance(
    inside: Side, outside: Side, terms: Terms, member: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the standard error of compute_probit_difference, and its sampling covariance with memorization by counts.

    Both are the jackknife's, from each model's influence on the probit and on the share of models that are right.

    Args:
        inside: sums of the terms over the models with each example.
        outside: over those without it.
        terms: clipped gaps and their squares, float64 [M, N].
        member: bool [M, N].

    Returns:
        se, covariance: float64 [N]; NaN with fewer than two models on a side.
    """
    total, covariance = np.zeros(member.shape[1]), np.zeros(member.shape[1])
    for side, models in ((inside, member), (outside, ~member)):
        z, mean, variance, squares = _standardize(side)
        df = np.maximum(side.n - 1, 1)
        # Influence of each model on z = m / s: d / s through the mean, and through the variance v, on which a model's
        # influence is d^2 n / (n - 1) - v. Models of the other side have none. [M, N]
        d = (terms[0] - mean) * models
        variance_influence = (d**2 * side.n - squares) / df * models
        influence = d / np.sqrt(variance) - z * variance_influence / (2 * variance)
        # phi(z) turns an influence on z into one on Phi(z). The jackknife's variance is the sum of squared influences
        # over n (n - 1), which is the variance of a mean of n influences.
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        total += compute_mean_variance((influence**2).sum(0) * density**2, side.n)
        # influences sum to 0, so those on the share of right models need no subtraction of their mean
        product = np.einsum("mn,mn->n", influence, (terms[0] > 0).astype(np.float64))
        covariance += product * density / (side.n * df)
    return {"se": np.sqrt(total), "covariance": covariance}


def _standardize(side: Side) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute z, mean, v + .05 and the sum of squared deviations of one side, NaN with fewer than two models."""
    n = np.where(side.n > 1, side.n, np.nan)
    mean = side.sums[0] / n
    squares = np.maximum(side.sums[1] - n * mean**2, 0)  # rounding may leave less than 0 where all gaps agree
    variance = squares / (n - 1) + PROBIT_VARIANCE_FLOOR
    return mean / np.sqrt(variance), mean, variance, squares


MEMORIZATION_PROBIT = Statistic(
    info=ScoreInfo(
        "Feldman & Zhang 2020 eq. 1 by a Gaussian fit to clipped gaps; a bias of about .02 stays", "probability", 1
    ),
    signal="gap",
    terms=compute_probit_terms,
    value=compute_probit_difference,
    errors=compute_probit_errors,
)
"""value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a side;
n_in, n_out: int64 [N]."""
