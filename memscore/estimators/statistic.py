"""Statistics that compare the models trained with an example and those trained without it.

A statistic is given by what is summed over the models of each side (its terms, such as correctness, or a gap and its
square) and by a function from those sums to its value. Sums are linear in the models' weights: those for a half of the
models, or for a bootstrap sample of them, are a product weights [W, M] x terms [M, n]. So all models, halves, blocks
and bootstrap samples share one function, and the bank is read once, whatever W is.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscore.score_registry import ScoreInfo

Terms = tuple[np.ndarray, ...]
MIN_STD = 1e-3
"""Least standard deviation over models, in the unit of the term (a probability, a nat): models that agree to the last
bit do not prove an error of 0."""


class Side(NamedTuple):
    """Sums over the models trained with each example, or over those trained without it.

    Attributes:
        n: number of models, [n] over all models or [W, n] over weighted sets of models.
        sums: of each term, of the same shape.
    """

    n: np.ndarray
    sums: Terms


@dataclass(frozen=True, kw_only=True)
class Statistic:
    """One statistic of a bank, an entry of registry.STATISTICS.

    Attributes:
        info: source, unit and direction of its value.
        signal: the shard column that it reads beside member.
        terms: signal [M, n] -> what is summed over the models of each side, [M, n] each; keeps the signal's type
            unless its sums need float64 (squares, which cancel).
        value: (inside, outside) -> the statistic in the shape of the sums; NaN where it is undefined.
        errors: (inside, outside, terms, member) of all models -> further columns [n], such as se, lo and hi; where se
            is NaN, the value from all models is too. None if it has none.
        counts: the counts that are stored beside it, of n_in and n_out.
    """

    info: ScoreInfo
    signal: str
    terms: Callable[[np.ndarray], Terms]
    value: Callable[[Side, Side], np.ndarray]
    errors: Callable[[Side, Side, Terms, np.ndarray], dict[str, np.ndarray]] | None = None
    counts: tuple[str, ...] = ("n_in", "n_out")


def take_signal(signal: np.ndarray) -> Terms:
    """Sum the signal itself: the terms of a statistic of means or shares."""
    return (signal,)


def subtract_means(inside: Side, outside: Side) -> np.ndarray:
    """Compute the mean of a term in minus its mean out, of counts k_in / n_in - k_out / n_out; NaN without a model."""
    with np.errstate(invalid="ignore", divide="ignore"):
        difference: np.ndarray = inside.sums[0] / inside.n - outside.sums[0] / outside.n
    return difference


def compute_difference_errors(inside: Side, outside: Side, terms: Terms, member: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the standard error of subtract_means, from the spread of the one term over the models of each side.

    se^2 = sum over both sides of max(s^2, MIN_STD^2) / n, s the sample standard deviation over that side's models.
    It ignores kinds of models that have not occurred yet; there the error of the counts is more conservative.

    Args:
        inside: sums of the term over the models with each example.
        outside: over those without it.
        terms: the term, float64 [M, N].
        member: bool [M, N].

    Returns:
        se: float64 [N], never 0; NaN with fewer than two models on a side.
    """
    variance = np.zeros(member.shape[1])
    # two passes, not sums of squares: where all values are near 1, the latter cancel to rounding errors
    for side, models in ((inside, member), (outside, ~member)):
        deviation = (terms[0] - side.sums[0] / np.maximum(side.n, 1)) * models
        variance += compute_mean_variance((deviation**2).sum(0), side.n)
    return {"se": np.sqrt(variance)}


def compute_mean_variance(squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compute a mean's variance from the sum of squared deviations of n models; above 0, NaN with fewer than two."""
    variance: np.ndarray = np.maximum(squares / np.maximum(n - 1, 1), MIN_STD**2) / np.maximum(n, 1)
    return np.where(n > 1, variance, np.nan)


def compute_table(statistic: Statistic, signal: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Compute a statistic of each example from all models, with its errors and counts.

    Args:
        statistic: which.
        signal: [M, N], its shard column; sums of it are in float64, of a bool signal exact.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        value, the columns of `errors`, and the counts: [N] each, in this order.
    """
    return _complete_table(statistic, *_sum_all_models(statistic, signal, member), member)


def compute_tables(
    statistics: Mapping[str, Statistic], columns: Mapping[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Compute several statistics as compute_table does; those with equal terms share their sums.

    Args:
        statistics: by name.
        columns: member and each signal, [M, n].

    Returns:
        By name the columns [n].
    """
    member, tables = columns["member"], {}
    computed: dict[tuple[object, str], tuple[Side, Side, Terms]] = {}
    for name, statistic in statistics.items():
        # memorization and the C-score differ only in what follows the sums
        key = (statistic.terms, statistic.signal)
        if key not in computed:
            computed[key] = _sum_all_models(statistic, columns[statistic.signal], member)
        tables[name] = _complete_table(statistic, *computed[key], member)
    return tables


def compute_weighted_values(
    statistics: Mapping[str, Statistic], weights: np.ndarray, columns: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Compute statistics of each example from each weighted set of models.

    Args:
        statistics: by name.
        weights: [W, M], whole numbers; float32 takes half the time of float64, and is exact for counts if each set
            sums to less than 2**24.
        columns: member and each signal, [M, n].

    Returns:
        By name the values [W, n], NaN where a statistic is undefined in a set; in float32 where weights and terms are.
    """
    member, values = columns["member"], {}
    inside = member.astype(weights.dtype)
    # [W, n]: models of each set that were trained on each example
    n_in = weights @ inside
    n_out = weights.sum(1, keepdims=True) - n_in
    computed: dict[tuple[object, str], tuple[Terms, Terms]] = {}
    for name, statistic in statistics.items():
        key = (statistic.terms, statistic.signal)
        if key not in computed:
            sums = [_sum_sets(term, member, inside, weights) for term in statistic.terms(columns[statistic.signal])]
            computed[key] = tuple(own for own, _ in sums), tuple(other for _, other in sums)
        sums_in, sums_out = computed[key]
        values[name] = statistic.value(Side(n_in, sums_in), Side(n_out, sums_out))
    return values


def count_set_weights(sets: Sequence[np.ndarray], models: int) -> np.ndarray:
    """Count how often each model occurs in each set.

    Args:
        sets: positions of models, repeats included.
        models: number of models.

    Returns:
        float32 [len(sets), models].
    """
    # the reshape keeps the width where there are no sets
    return np.array([np.bincount(positions, minlength=models) for positions in sets], np.float32).reshape(
        len(sets), models
    )


def compute_between_block_se(per_block: np.ndarray) -> np.ndarray:
    """Compute a score's standard error from how whole blocks of models differ.

    It is the error of the mean of the blocks' estimates, which for counts and probabilities in balanced blocks is the
    score itself, and for the probit approximately. It includes the variance reduction of a design, which the error
    within a side does not; from few blocks it is itself uncertain (+-35 % from five).

    Args:
        per_block: [B, n], the score from each whole block.

    Returns:
        [n]; NaN everywhere with fewer than three blocks, and where a block has an empty side.
    """
    if len(per_block) < 3:
        return np.full(per_block.shape[1], np.nan)
    error: np.ndarray = np.std(per_block.astype(np.float64), axis=0, ddof=1) / np.sqrt(len(per_block))
    return error


def compute_between_block_covariance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the covariance of two scores' errors that compute_between_block_se gives.

    Args:
        first: [B, n], a score from each whole block.
        second: [B, n], another one.

    Returns:
        [n]; NaN everywhere with fewer than three blocks, and where a block has an empty side.
    """
    if len(first) < 3:
        return np.full(first.shape[1], np.nan)
    deviations = (values.astype(np.float64) - values.mean(0, dtype=np.float64) for values in (first, second))
    covariance: np.ndarray = np.prod([*deviations], axis=0).sum(0) / (len(first) - 1) / len(first)
    return covariance


def _sum_all_models(statistic: Statistic, signal: np.ndarray, member: np.ndarray) -> tuple[Side, Side, Terms]:
    """Sum over all models, each once: in float64, and bool terms exactly."""
    terms = statistic.terms(signal if signal.dtype == bool else signal.astype(np.float64))
    inside, outside = (Side(side.sum(0), tuple(_sum_side(term, side) for term in terms)) for side in (member, ~member))
    return inside, outside, terms


def _sum_side(term: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Sum a term over the models of a side, [n]; a product, since np.where takes ten times as long on random masks."""
    total: np.ndarray = (term & side).sum(0) if term.dtype == bool else np.einsum("mn,mn->n", term, side.astype(float))
    return total


def _sum_sets(
    term: np.ndarray, member: np.ndarray, inside: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum a term over the models of each set that were trained on an example, and over the others, [W, n] each."""
    if term.dtype == bool:
        # combined as booleans, which take a quarter of the memory of floats
        own, term = weights @ (term & member).astype(weights.dtype), term.astype(weights.dtype)
    else:
        own = weights @ (term * inside)
    # the other side by subtraction: as many products, and no second copy of the term
    return own, weights @ term - own


def _complete_table(
    statistic: Statistic, inside: Side, outside: Side, terms: Terms, member: np.ndarray
) -> dict[str, np.ndarray]:
    """Put value, errors and counts into one table; a value whose standard error is undefined is NaN."""
    value, counts = statistic.value(inside, outside), {"n_in": inside.n, "n_out": outside.n}
    errors = statistic.errors(inside, outside, terms, member) if statistic.errors else {}
    if "se" in errors:
        value = np.where(np.isnan(errors["se"]), np.nan, value)
    return {"value": value, **errors, **{name: counts[name] for name in statistic.counts}}
