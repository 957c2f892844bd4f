"""Agreement of two scores of the same examples, and bootstrap intervals for it.

Two scores are compared by rank correlation, correlation, root mean square difference and the overlap of their tops. A
score that is estimated from models is noisy, and noise alone lowers every correlation with it; so a correlation is
reported with an interval over models and with the corrections of memscore/statistics/reliability.py. An example on
which either score is undefined (NaN) is left out of a pair.
"""

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from memscore.statistics.intervals import Interval

TOP_FRACTION = 3000 / 45_000
"""Fraction of the examples that counts as the top: RUM forgets 3,000 of 45,000."""


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """Compute Pearson's correlation of two scores.

    Args:
        x: [N], NaN where undefined.
        y: [N], of the same examples.

    Returns:
        In [-1, 1]; NaN with fewer than two examples or where either score is constant.
    """
    return _correlation(*_select_defined(x, y))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Compute Spearman's rank correlation of two scores, ties at their mean rank.

    Args:
        x: [N], NaN where undefined.
        y: [N], of the same examples.

    Returns:
        In [-1, 1]; NaN with fewer than two examples or where either score is constant.
    """
    x, y = _select_defined(x, y)
    return _correlation(rankdata(x), rankdata(y))


def rmse(x: np.ndarray, y: np.ndarray) -> float:
    """Compute the root mean square difference of two estimates of the same quantity.

    Args:
        x: [N], NaN where undefined.
        y: [N], in the same unit.

    Returns:
        At least 0; NaN without examples.
    """
    x, y = _select_defined(x, y)
    return float(np.sqrt(((x - y) ** 2).mean())) if len(x) else float("nan")


def top_overlap(x: np.ndarray, y: np.ndarray, share: float = TOP_FRACTION) -> float:
    """Compute the overlap of two scores' top k, k = max(round(share * N), 1), over k.

    Ties at the k-th place are broken at random, independently for the two scores, and this is the expectation over
    the random ties. (Breaking them by position would put the same examples into both tops: two constant scores would
    agree fully.) So a score with a tie there does not agree fully with itself either.

    Args:
        x: [N], higher is closer to the top, NaN where undefined.
        y: [N].
        share: of the examples, in (0, 1].

    Returns:
        In [0, 1], k / N for unrelated scores; NaN without examples.

    Raises:
        ValueError: the share is outside (0, 1].
    """
    if not 0 < share <= 1:
        raise ValueError(
            f"the share that counts as the top must be above 0 and at most 1, got {share}; RUM's is {TOP_FRACTION:.3f}"
        )
    x, y = _select_defined(x, y)
    if not len(x):
        return float("nan")
    # ties of the two scores are broken independently, so the probability to be in both tops is a product, and the sum
    # over examples is the expected overlap
    k = max(round(share * len(x)), 1)
    return float((_top_probability(x, k) * _top_probability(y, k)).sum() / k)


def draw_bootstrap_samples(members: list[np.ndarray], rng: np.random.Generator, draws: int) -> list[np.ndarray]:
    """Draw bootstrap samples of models, whole blocks at a time.

    Args:
        members: the models of each block, which are drawn together; one each where models are independent.
        rng: draws the blocks.
        draws: number of samples.

    Returns:
        Models, repeats included, one array per sample.
    """
    blocks = len(members)
    return [np.concatenate([members[b] for b in rng.integers(0, blocks, blocks)]) for _ in range(draws)]


def undo_attenuation(value: float, draws: np.ndarray) -> np.ndarray:
    """Multiply a correlation's draws so that they vary as the correlation does.

    With a noise of variance c beside a true score of variance 1, r is proportional to 1 / sqrt(1 + c), and in a
    resample, where the noise is doubled, to 1 / sqrt(1 + 2 c); what resampling adds to r is divided by the same root.
    So the spread is too small by the factor that the mean is too small by, which lies between sqrt(1/2) and 1.

    Args:
        value: the correlation of all models.
        draws: the correlation of each bootstrap sample, [draws].

    Returns:
        The draws, times value / mean of draws, that factor at least 1 and at most sqrt(2); [draws].
    """
    mean = float(np.nanmean(draws)) if len(draws) and not np.isnan(draws).all() else float("nan")
    factor = float(np.clip(value / mean, 1, np.sqrt(2))) if value and mean else 1.0
    return draws * (1.0 if np.isnan(factor) else factor)


def compute_interval_from_draws(value: float, draws: np.ndarray, blocks: int, level: float = 0.95) -> Interval:
    """Compute a correlation's bootstrap interval over models.

    Models, or whole blocks of them where the design balances blocks, are drawn with replacement and the correlation is
    measured again. A score from resampled models is noisier than the score (repeated models add no information), so
    its correlations are lower and a plain percentile interval can miss the value itself. Hence only the spread of the
    draws is used, on Fisher's scale z = arctanh r, with B the number of blocks:

        tanh( z +- t_{B-1} sqrt(B / (B - 1)) sd(z*) ).

    It is for other draws of as many models, on these examples, if the draws are those of undo_attenuation; draws of
    examples too vary as they should without it.

    Args:
        value: the correlation of all models.
        draws: the correlation of each bootstrap sample, [draws].
        blocks: number of blocks, or of single models, that were sampled from.
        level: nominal coverage.

    Returns:
        The correlation, and its interval. The ends are NaN with fewer than three blocks, with a correlation of 1 or -1,
        or where more than one draw in ten is undefined.
    """
    # leaves out NaN, and draws of exactly 1 or -1, which are infinite on Fisher's scale
    defined = draws[abs(draws) < 1]
    if blocks < 3 or not abs(value) < 1 or not len(draws) or len(defined) < 0.9 * len(draws):
        return Interval(value=value, lo=float("nan"), hi=float("nan"))
    # sampling B blocks from B with replacement gives a variance that is (B - 1) / B of the unbiased one
    spread = np.arctanh(defined).std(ddof=1) * np.sqrt(blocks / (blocks - 1))
    reach = stdtrit(blocks - 1, (1 + level) / 2) * spread
    lo, hi = np.tanh(np.arctanh(value) + np.array([-reach, reach]))
    return Interval(value=value, lo=float(lo), hi=float(hi))


def _select_defined(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both scores on the examples where both are defined."""
    if x.shape != y.shape or x.ndim != 1:
        raise ValueError(f"scores to compare need one value for each of the same examples, got {x.shape} and {y.shape}")
    defined = ~(np.isnan(x) | np.isnan(y))
    return x[defined], y[defined]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Compute Pearson's correlation, or NaN where it is undefined."""
    # constant values are found by comparing: their rounded mean may differ from them, and then the variance is not 0
    if len(x) < 2 or (x == x[0]).all() or (y == y[0]).all():
        return float("nan")
    a, b = (v.astype(np.float64) - v.mean(dtype=np.float64) for v in (x, y))
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1, 1))


def _top_probability(values: np.ndarray, k: int) -> np.ndarray:
    """Return the probability [N] to be among the k highest, ties broken at random."""
    # all above the k-th value are in; those equal to it share the remaining places
    last = np.partition(values, -k)[-k]
    above, tied = values > last, values == last
    probability: np.ndarray = above + tied * ((k - above.sum()) / tied.sum())
    return probability


def group_models_by_block(blocks: np.ndarray) -> list[np.ndarray]:
    """Return the models of each block."""
    return [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
