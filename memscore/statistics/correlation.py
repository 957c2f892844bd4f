"""How well one score stands in for another, and how far either can be trusted.

Two scores of the same examples are compared by rank correlation, correlation, root mean square difference and the
overlap of their tops. A score that is estimated from models is noisy, which alone lowers every correlation with it, so
beside a correlation stand an interval over models and what reliability.py adds. An example on which either
score is undefined (NaN) is left out of a pair.
"""

from collections.abc import Callable

import numpy as np
from scipy.stats import rankdata

from memscore.statistics.intervals import Interval

TOP_FRACTION = 3000 / 45_000
"""Share of the examples that counts as the top: RUM forgets 3,000 of 45,000."""


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


def top_overlap(x: np.ndarray, y: np.ndarray, share: float = TOP_FRACTION) -> float:
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
            f"the share that counts as the top must be above 0 and at most 1, got {share}; RUM's is {TOP_FRACTION:.3f}"
        )
    x, y = _both(x, y)
    if not len(x):
        return float("nan")
    k = max(round(share * len(x)), 1)
    return float((_chance_of_top(x, k) * _chance_of_top(y, k)).sum() / k)


def bootstrap_over_models(
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
    members = group_models_by_block(blocks)
    drawn = [measure(chosen) for chosen in draw_bootstrap_samples(members, rng, draws if len(members) > 2 else 0)]
    return compute_interval_from_draws(value, np.array(drawn), len(members), level)


def draw_bootstrap_samples(members: list[np.ndarray], rng: np.random.Generator, draws: int) -> list[np.ndarray]:
    """Bootstrap samples of models.

    Args:
        members: the models of each block, which are drawn together; one each where models are independent.
        rng: draws the blocks.
        draws: how many samples.

    Returns:
        Models, repeats included, one array a sample.
    """
    blocks = len(members)
    return [np.concatenate([members[b] for b in rng.integers(0, blocks, blocks)]) for _ in range(draws)]


def compute_interval_from_draws(value: float, drawn: np.ndarray, blocks: int, level: float = 0.95) -> Interval:
    """The interval of bootstrap_over_models from draws that were made elsewhere.

    Args:
        value: the correlation of all models.
        drawn: that of each bootstrap sample, [draws].
        blocks: how many blocks there are to draw from.
        level: coverage aimed at.

    Returns:
        The correlation, and its interval.
    """
    defined = drawn[abs(drawn) < 1]
    if blocks < 3 or not abs(value) < 1 or not len(drawn) or len(defined) < 0.9 * len(drawn):
        return Interval(value=value, lo=float("nan"), hi=float("nan"))
    z = np.arctanh(defined)
    ends = np.quantile(z - z.mean(), [(1 - level) / 2, (1 + level) / 2]) * np.sqrt(blocks / (blocks - 1))
    lo, hi = np.tanh(np.arctanh(value) + ends)
    return Interval(value=value, lo=float(lo), hi=float(hi))


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


def group_models_by_block(blocks: np.ndarray) -> list[np.ndarray]:
    """The models of each block."""
    return [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
