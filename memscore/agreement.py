"""How well one score stands in for another, and how far either can be trusted.

Two scores of the same examples are compared by rank correlation, correlation, root mean square difference and the
overlap of their tops. A score that is estimated from models is noisy, which alone lowers every correlation with it, so
beside a correlation stand an interval over models, the score's own reliability, and the correlation that a noiseless
score would have had. An example on which either score is undefined (NaN) is left out of a pair.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

TOP = 3000 / 45_000
"""Share of the examples that counts as the top: RUM forgets 3,000 of 45,000."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number and an interval for it; the ends are NaN where undefined."""

    value: float
    lo: float
    hi: float


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How far two halves of the models agree on a score; means over random halves.

    Attributes:
        spearman: rank correlation of the halves, as measured.
        spearman_full: the same stepped up to all models (Spearman-Brown).
        pearson: correlation of the halves, as measured.
        pearson_full: stepped up.
        rmse: root mean square error of the score from all models, half of the halves' root mean square difference.
        top: overlap of the halves' tops.
        halves: how many times the models were halved.
    """

    spearman: float
    spearman_full: float
    pearson: float
    pearson_full: float
    rmse: float
    top: float
    halves: int


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's correlation of two scores.

    Args:
        x: [N], NaN where undefined.
        y: [N], of the same examples.

    Returns:
        In [-1, 1]; NaN with fewer than two examples or where either score is constant.
    """
    return _correlation(*_both(x, y))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation of two scores: Pearson's of their ranks, ties at their mean rank.

    Args:
        x: [N], NaN where undefined.
        y: [N], of the same examples.

    Returns:
        In [-1, 1]; NaN with fewer than two examples or where either score is constant.
    """
    x, y = _both(x, y)
    return _correlation(rankdata(x), rankdata(y))


def rmse(x: np.ndarray, y: np.ndarray) -> float:
    """Root mean square difference of two estimates of the same thing.

    Args:
        x: [N], NaN where undefined.
        y: [N], in the same unit.

    Returns:
        At least 0; NaN without an example.
    """
    x, y = _both(x, y)
    return float(np.sqrt(((x - y) ** 2).mean())) if len(x) else float("nan")


def top_overlap(x: np.ndarray, y: np.ndarray, share: float = TOP) -> float:
    """What share of the top k of one score is in the top k of another, k = round(share * N) but at least 1.

    Ties at the k-th place are broken at random, apart for the two scores, and this is the expectation over that. (To
    break them by position would put the same examples into both tops: two constant scores would agree wholly.) So a
    score that is tied there does not agree wholly with itself either.

    Args:
        x: [N], higher is nearer the top, NaN where undefined.
        y: [N].
        share: of the examples, in (0, 1].

    Returns:
        In [0, 1], k / N by chance; NaN without an example.

    Raises:
        ValueError: a share outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"the share that counts as the top must be above 0 and at most 1, got {share}; RUM's is {TOP:.3f}"
        )
    x, y = _both(x, y)
    if not len(x):
        return float("nan")
    k = max(round(share * len(x)), 1)
    return float((_chance_of_top(x, k) * _chance_of_top(y, k)).sum() / k)


def interval_over_models(
    measure: Callable[[np.ndarray], float],
    blocks: np.ndarray,
    rng: np.random.Generator,
    draws: int = 200,
    level: float = 0.95,
) -> Interval:
    """A correlation with its bootstrap interval over models: what other models of the same number would have given.

    Models, or whole blocks of them where the design balances blocks, are drawn with replacement and the correlation is
    measured again. A score from resampled models is noisier than the score (its repeats count as news), so its
    correlations lie lower and a plain percentile interval can miss the very value it is for. Hence, on Fisher's scale
    z = arctanh r, draws are taken around their own mean:

        tanh( z + sqrt(B / (B - 1)) (quantile of z* - mean of z*) ),   B the number of blocks.

    Args:
        measure: from models (int [M], repeats included) to a correlation of the score that they give.
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: draws the models.
        draws: how often; the measure is called once more for the value.
        level: coverage aimed at.

    Returns:
        The correlation of all models, and its interval. The ends are NaN with fewer than three blocks, with a
        correlation of 1 or -1, or where more than one draw in ten is undefined.
    """
    value = measure(np.arange(len(blocks)))
    members = _members(blocks)
    nowhere = Interval(value=value, lo=float("nan"), hi=float("nan"))
    if len(members) < 3 or not abs(value) < 1:
        return nowhere
    drawn = np.array([
        measure(np.concatenate([members[b] for b in rng.integers(0, len(members), len(members))])) for _ in range(draws)
    ])
    defined = drawn[abs(drawn) < 1]
    if len(defined) < 0.9 * draws:
        return nowhere
    z = np.arctanh(defined)
    ends = np.quantile(z - z.mean(), [(1 - level) / 2, (1 + level) / 2]) * np.sqrt(len(members) / (len(members) - 1))
    lo, hi = np.tanh(np.arctanh(value) + ends)
    return Interval(value=value, lo=float(lo), hi=float(hi))


def split_half(
    estimate: Callable[[np.ndarray], np.ndarray],
    blocks: np.ndarray,
    rng: np.random.Generator,
    halves: int = 10,
    share: float = TOP,
) -> Reliability:
    """How reliable a score is: estimated twice, from random halves of the models, and compared.

    Whole blocks go to one half, since parts of a balanced block are tied to each other; of an odd number of blocks one
    is left out, another each time. Halves have half of the models, so the correlation r of two is stepped up to that
    of two scores from all models: 2 r / (1 + r) (Spearman 1910, Brown 1910), of the mean r. That holds for a sum of a
    true score and independent errors, for ranks only nearly so.

    Args:
        estimate: from models (int [n]) to the score [N] that they give.
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: draws the halves.
        halves: how often the models are halved.
        share: what counts as the top.

    Returns:
        The means; all NaN with fewer than two blocks.
    """
    members = _members(blocks)
    found = np.full((max(halves, 1), 4), np.nan)
    for row in found[: halves if len(members) > 1 else 0]:
        order, half = rng.permutation(len(members)), len(members) // 2
        x, y = (
            estimate(np.sort(np.concatenate([members[b] for b in part])))
            for part in (order[:half], order[half : 2 * half])
        )
        row[:] = spearman(x, y), pearson(x, y), rmse(x, y), top_overlap(x, y, share)
    ranks, values, difference, top = found.mean(0).tolist()
    return Reliability(
        spearman=ranks,
        spearman_full=stepped_up(ranks),
        pearson=values,
        pearson_full=stepped_up(values),
        rmse=difference / 2,
        top=top,
        halves=halves,
    )


def stepped_up(r: float) -> float:
    """The reliability of a score from twice the models whose halves correlate by r: 2 r / (1 + r).

    Args:
        r: correlation of two halves.

    Returns:
        In [0, 1]; NaN below 0, where the halves have nothing in common.

    >>> stepped_up(0.5)
    0.6666666666666666
    """
    return 2 * r / (1 + r) if r >= 0 else float("nan")


def disattenuated(r: float, reliability: float, other: float = 1.0) -> float:
    """The correlation that two scores would have without their noise (Spearman 1904).

        r / sqrt(reliability * other)

    That is right for errors that are independent of each other and of both scores. Noise in the reliabilities can
    carry it past 1, where it is cut off: 1 then says "no less than the reliability allows", not "the same score".

    Args:
        r: their correlation.
        reliability: of the one, split_half's for all models, of the same kind of correlation.
        other: of the other; 1 takes it as it stands.

    Returns:
        In [-1, 1]; NaN where a reliability is not above 0, or anything is NaN.

    >>> disattenuated(0.6, 0.81), disattenuated(-0.9, 0.25)
    (0.6666666666666666, -1.0)
    """
    if not (reliability > 0 and other > 0) or np.isnan(r):
        return float("nan")
    return float(np.clip(r / np.sqrt(reliability * other), -1, 1))


def _both(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The examples on which both scores are defined."""
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"scores to compare need one value for each of the same examples, got {x.shape} and {y.shape}")
    defined = ~(np.isnan(x) | np.isnan(y))
    return x[defined], y[defined]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Pearson's, or NaN."""
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    a, b = (v.astype(np.float64) - v.mean(dtype=np.float64) for v in (x, y))
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _chance_of_top(values: np.ndarray, k: int) -> np.ndarray:
    """[N]: the chance of each example to be among the k highest when ties are broken at random."""
    last = np.partition(values, -k)[-k]
    above, tied = values > last, values == last
    chance: np.ndarray = above + tied * ((k - above.sum()) / tied.sum())
    return chance


def _members(blocks: np.ndarray) -> list[np.ndarray]:
    """The models of each block."""
    return [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
