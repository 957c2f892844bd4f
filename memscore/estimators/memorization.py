"""Memorization: how much likelier an example is answered right by models that were trained on it.

    mem(i) = P[correct(i) | i in the training set] - P[correct(i) | i not in it]

Feldman & Zhang 2020 (NeurIPS), estimator of section 4.1, from models trained on random subsets.

Differs from the authors' code: an example that was always in or always out has no value, where theirs divides by
max(count, 1e-10) and calls it memorized.
"""

from collections.abc import Iterable

import numpy as np

from memscore.statistics.intervals import smoothed_variance, wilson


def memorization(correct: np.ndarray, member: np.ndarray) -> np.ndarray:
    """P(correct | in) - P(correct | out) for each example (Feldman & Zhang 2020).

    Args:
        correct: bool [M, N], model m labels example n right.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        [N] in [-1, 1], higher is more memorized; NaN where an example was always in or always out.
    """
    return _difference(*counts(correct, member))


def memorization_table(correct: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Memorization with its standard error, 95 % interval and counts.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        The columns of from_counts, each [N].
    """
    return from_counts(*counts(correct, member))


def counts(correct: np.ndarray, member: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """What from_counts needs; counts of disjoint sets of models add.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        int64 [N] each: right and in, in, right and out, out.
    """
    k_in, n_in = (correct & member).sum(0), member.sum(0)
    return k_in, n_in, correct.sum(0) - k_in, len(member) - n_in


def from_counts(k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray) -> dict[str, np.ndarray]:
    """Memorization from counts.

    se^2 = sum over both sides of p~ (1 - p~) / (n + 1), p~ = (k + 1/2) / (n + 1). The interval is the hybrid score
    interval of Newcombe 1998 (method 10): Wilson's for each side, distances of their ends added in squares.

    Args:
        k_in: int [N], models that held the example and were right.
        n_in: int [N], models that held it.
        k_out: int [N], models that did not hold it and were right.
        n_out: int [N], models that did not hold it.

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


def precision(correct: np.ndarray, member: np.ndarray) -> tuple[float, int]:
    """A piece of a bank's precision; pieces of disjoint sets of examples add.

    Args:
        correct: bool [M, N].
        member: bool [M, N].

    Returns:
        The sum over examples of p (1 - p) / (n - 1), both sides added, which is unbiased for the variance of the
        binomial estimate; and the number of examples that have it, two models or more on each side.
    """
    return precision_of(*counts(correct, member))


def precision_of(k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray) -> tuple[float, int]:
    """The same from counts.

    Args:
        k_in: int [N], models that held the example and were right.
        n_in: int [N], models that held it.
        k_out: int [N], models that did not hold it and were right.
        n_out: int [N], models that did not hold it.

    Returns:
        As precision.
    """
    defined = (n_in >= 2) & (n_out >= 2)
    total = 0.0
    for k, n in ((k_in[defined], n_in[defined]), (k_out[defined], n_out[defined])):
        total += float((k * (n - k) / (n**2 * (n - 1.0))).sum())
    return total, int(defined.sum())


def bank_rmse(pieces: Iterable[tuple[float, int]]) -> float:
    """The root mean square error of memorization over a bank's examples, the number to stop by.

    Args:
        pieces: what precision gave for disjoint sets of examples.

    Returns:
        sqrt(mean over examples of the estimate's variance); NaN where no example has one.
    """
    total, number = np.sum([(0.0, 0), *pieces], axis=0)
    return float(np.sqrt(total / number)) if number else float("nan")


def _difference(k_in: np.ndarray, n_in: np.ndarray, k_out: np.ndarray, n_out: np.ndarray) -> np.ndarray:
    """The estimate, 0 / 0 being NaN."""
    with np.errstate(invalid="ignore"):
        difference: np.ndarray = k_in / n_in - k_out / n_out
    return difference
