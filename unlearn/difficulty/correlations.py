"""Rank correlation of a factor with the FP-score over examples and originals, with an interval over both.

    rho = mean over originals o of Spearman(factor_o, GT_o)
    se^2 = sd_o(rho_o)^2 / O + jackknife variance of rho over blocks of examples, left out of all originals at once

Originals share their examples, so neither alone is the error: the first part is what other originals would change, the
second what other examples would. What depends on both is in both, which makes the interval too wide and not too narrow.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from memscore.statistics.correlation import spearman
from memscore.statistics.means import MeanEstimate, estimate_interval, estimate_mean

BLOCKS = 20
"""Blocks of examples in the jackknife; an interval needs two examples in each."""


def correlate(factor: np.ndarray, gt: np.ndarray) -> MeanEstimate:
    """Estimate the mean Spearman correlation over originals.

    Args:
        factor: [O, n] of the same examples for each original, NaN where undefined.
        gt: [O, n].

    Returns:
        The mean with its 95 % t interval over examples and originals; with one original conditional on it; NaN where
        all are undefined, without an interval below two examples a block.
    """

    def compute(chosen: np.ndarray) -> np.ndarray:
        return np.array([spearman(x[chosen], y[chosen]) for x, y in zip(factor, gt, strict=True)])

    return estimate_over_examples(compute, (~np.isnan(factor + gt)).any(0))


def estimate_over_examples(compute: Callable[[np.ndarray], np.ndarray], counted: np.ndarray) -> MeanEstimate:
    """Estimate the mean over originals of a statistic of examples, with an interval over both.

    Args:
        compute: from bool [n], the examples to read, to the statistic of each original, [O], NaN where undefined.
        counted: bool [n], the examples that the statistic is defined on.

    Returns:
        The mean with its 95 % t interval.
    """
    values = compute(counted)
    defined = ~np.isnan(values)
    n, n_originals = int(counted.sum()), int(defined.sum())
    estimate = replace(estimate_mean([]), n=n, n_clusters=n_originals, conditional=n_originals == 1)
    if not n_originals:
        return estimate
    estimate = replace(estimate, value=float(values[defined].mean()))
    if n < 2 * BLOCKS:
        return estimate
    # Interleaved blocks: examples come in an order that may mean something.
    number = np.full(len(counted), -1)
    number[counted] = np.arange(n) % BLOCKS
    means = np.array([np.nanmean(compute(counted & (number != block))[defined]) for block in range(BLOCKS)])
    variances = [((BLOCKS - 1) / BLOCKS * float(((means - means.mean()) ** 2).sum()), BLOCKS - 1)]
    if n_originals > 1:
        variances.append((float(values[defined].var(ddof=1)) / n_originals, n_originals - 1))
    total = sum(variance for variance, _ in variances)
    if not total > 0:
        return estimate
    # Welch and Satterthwaite: a small part with few degrees of freedom costs little.
    df = total**2 / sum(variance**2 / own_df for variance, own_df in variances)
    return estimate_interval(replace(estimate, se=float(np.sqrt(total)), df=float(df)), 0.95)


def overlap_of_hardest(first: np.ndarray, second: np.ndarray, share: float = 0.1) -> float:
    """Compute the share of one algorithm's hardest examples that are among the other's.

    Args:
        first: [n], FP-score of each example, the lowest are the hardest; NaN where undefined.
        second: [n], by another algorithm.
        share: of the examples that counts as the hardest.

    Returns:
        In [0, 1], about `share` for unrelated algorithms; NaN with too few examples.
    """
    defined = ~np.isnan(first + second)
    k = round(share * int(defined.sum()))
    if not k:
        return float("nan")
    lowest = [set(np.argsort(values[defined], kind="stable")[:k].tolist()) for values in (first, second)]
    return len(lowest[0] & lowest[1]) / k
