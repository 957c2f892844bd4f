"""Memorization by true-class probability: how much surer of an example's label models are that were trained on it.

    mem_p(i) = mean of p_y(i) over models with i - mean of p_y(i) over models without it,   p_y = sigmoid(confidence)

Feldman & Zhang 2020 (NeurIPS), equation 1, with the model's probability of the label in place of whether it is right.

Differs from the paper: it is another score, with a column of its own. It correlates with the definition (Pearson .97
to .99 on digits and Fashion-MNIST), but its top 6.7 % share only .77 to .89 with the definition's, however many models
there are. What it gains is less noise: half the models or fewer for the same reliability.
"""

import numpy as np
from scipy.special import expit

RESOLUTION = 1e-3
"""No standard deviation over models counts as less: models that agree to the last bit are no proof of an error of 0."""


def memorization_probability(confidence: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Mean of p_y in minus mean of p_y out, for each example.

    se^2 = sum over both sides of max(s^2, RESOLUTION^2) / n, s the sample standard deviation over that side's models.
    It knows nothing of a kind of model that has not been seen yet, where the error of the counts is the safer one.

    Args:
        confidence: float [M, N], logit confidence log p_y / (1 - p_y) of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, se: float64 [N], value in [-1, 1] and higher for more memorized, NaN with fewer than two models on a
        side; n_in, n_out: int64 [N].
    """
    p = expit(confidence.astype(np.float64))
    (n_in, mean_in, squares_in), (n_out, mean_out, squares_out) = moments(p, member), moments(p, ~member)
    variance = mean_variance(squares_in, n_in) + mean_variance(squares_out, n_out)
    return {"value": mean_in - mean_out, "se": np.sqrt(variance), "n_in": n_in, "n_out": n_out}


def moments(values: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What one side's models say of each example.

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


def mean_variance(squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Variance of a mean of n from its sum of squared deviations; above 0, NaN where squares is."""
    variance: np.ndarray = np.maximum(squares / np.maximum(n - 1, 1), RESOLUTION**2) / np.maximum(n, 1)
    return variance
