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
25 to 50 models it ranks like 200 to 400 models by counts, and in RMSE it is worth about twice as many models; from 400
models on report the counts.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import expit, ndtr

from memscore.statistics.intervals import smoothed_variance, wilson


def memorization(correct: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Estimate P(correct | in) - P(correct | out) for each example (Feldman & Zhang 2020).

    Args:
        correct: bool [M, N], model m labels example n right.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        [N] in [-1, 1], higher is more memorized; NaN where an example was always in or always out.
    """
    return _difference(*count_by_membership(correct, member))


def memorization_table(correct: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate memorization with its standard error, 95 % interval and counts.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        The columns of memorization_from_counts, each [N].
    """
    return memorization_from_counts(*count_by_membership(correct, member))


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
    value = _difference(k_in, n_in, k_out, n_out)
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
    defined = (n_in >= 2) & (n_out >= 2)
    total = 0.0
    for k, n in ((k_in[defined], n_in[defined]), (k_out[defined], n_out[defined])):
        total += float((k * (n - k) / (n**2 * (n - 1.0))).sum())
    return total, int(defined.sum())


def compute_bank_rmse(parts: Iterable[tuple[float, int]]) -> float:
    """Compute memorization's root mean square error over a bank, to decide when to stop.

    Args:
        parts: results of sum_variances for disjoint sets of examples.

    Returns:
        sqrt(mean over examples of the estimate's variance); NaN where no example has a variance.
    """
    total, number = np.sum([(0.0, 0), *parts], axis=0)
    return float(np.sqrt(total / number)) if number else float("nan")


def _difference(k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray) -> np.ndarray:
    """Compute the estimate, 0 / 0 being NaN."""
    with np.errstate(invalid="ignore"):
        difference: np.ndarray = k_in / n_in - k_out / n_out
    return difference


MIN_STD = 1e-3
"""Least standard deviation over models: models that agree to the last bit do not prove an error of 0."""


def memorization_probability(confidence: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate mean p_y in minus mean p_y out, for each example.

    se^2 = sum over both sides of max(s^2, MIN_STD^2) / n, s the sample standard deviation over that side's models.
    It ignores kinds of models that have not occurred yet; there the error of the counts is more conservative.

    Args:
        confidence: float [M, N], logit confidence log p_y / (1 - p_y) of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a
        side; n_in, n_out: int64 [N].
    """
    p = expit(confidence.astype(np.float64))
    (n_in, mean_in, squares_in), (n_out, mean_out, squares_out) = (
        compute_moments(p, member),
        compute_moments(p, ~member),
    )
    variance = compute_mean_variance(squares_in, n_in) + compute_mean_variance(squares_out, n_out)
    return {"value": mean_in - mean_out, "se": np.sqrt(variance), "n_in": n_in, "n_out": n_out}


def compute_moments(values: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute count, mean and sum of squared deviations of one side's models, for each example.

    Args:
        values: float64 [M, N].
        side: bool [M, N], the models that count.

    Returns:
        Count int64 [N], mean and sum of squared deviations from it float64 [N]; both NaN with fewer than two models.
    """
    count = side.sum(0)
    few = np.where(count >= 2, 0.0, np.nan)
    mean = np.where(side, values, 0).sum(0) / np.maximum(count, 1)
    return count, mean + few, (np.where(side, values - mean, 0) ** 2).sum(0) + few


def compute_mean_variance(squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compute a mean's variance from squared deviations; above 0, NaN where they are."""
    variance: np.ndarray = np.maximum(squares / np.maximum(n - 1, 1), MIN_STD**2) / np.maximum(n, 1)
    return variance


GAP_CLIP = 5.0
"""Gaps are clipped to this; chosen on one bank of digits at keep 0.7, with PROBIT_VARIANCE_FLOOR, then fixed."""
PROBIT_VARIANCE_FLOOR = 0.05
"""Added to each variance."""
PROBIT_BIAS = 0.02
"""Root mean square difference from the definition that more models do not remove: .015 to .02 on tested banks."""


def memorization_probit(gap: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Estimate Phi in minus Phi out, for each example.

    The standard error is the infinitesimal jackknife's (Jaeckel 1972), which is the delta method with the sample's
    third and fourth moments: a model whose gap is d above its side's mean moves Phi(z), z = m / s, s^2 = v + .05, by

        phi(z) (d / s - z (d^2 n / (n - 1) - v) / (2 s^2)) / n.

    It is the sampling error only; PROBIT_BIAS comes on top. As for probabilities it is never 0.

    Args:
        gap: float [M, N], logit of the label minus the largest other one.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a
        side; n_in, n_out: int64 [N].
    """
    clipped = np.clip(gap.astype(np.float64), -GAP_CLIP, GAP_CLIP)
    (share_in, variance_in, n_in), (share_out, variance_out, n_out) = (
        _estimate_side(clipped, member),
        _estimate_side(clipped, ~member),
    )
    return {"value": share_in - share_out, "se": np.sqrt(variance_in + variance_out), "n_in": n_in, "n_out": n_out}


def _estimate_side(gap: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute Phi(z), its variance and the count of one side, [N] each."""
    n, mean, squares = compute_moments(gap, side)
    df = np.maximum(n - 1, 1)
    variance = squares / df + PROBIT_VARIANCE_FLOOR
    z = mean / np.sqrt(variance)
    d = np.where(side, gap - mean, 0)
    variance_influence = np.where(side, (d**2 * n - squares) / df, 0)
    influence = d / np.sqrt(variance) - z * variance_influence / (2 * variance)
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return ndtr(z), compute_mean_variance((influence**2).sum(0) * density**2, n), n
