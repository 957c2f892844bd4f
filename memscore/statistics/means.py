"""Means of a few values with Student's t intervals, also where the values come in clusters that share an error."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from memscore.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class MeanEstimate(Interval):
    """A mean with its t interval, and what a test of it needs.

    Attributes:
        se: standard error of the mean; NaN for fewer than two clusters.
        df: degrees of freedom: clusters - 1; NaN for fewer than two.
        n: number of values.
        n_clusters: number of clusters that the interval is over; n where each value is one of its own.
        conditional: whether all values are of one cluster, so that the interval is over them and leaves out the error
            that they share.
        left_out: which values it should have and lacks, in words; "" where it lacks none.
    """

    se: float
    df: float
    n: int
    n_clusters: int
    conditional: bool = False
    left_out: str = ""


def estimate_mean(
    values: Sequence[float], clusters: Sequence[Hashable] | None = None, level: float = 0.95
) -> MeanEstimate:
    """Estimate a mean with a Student t interval over clusters.

        mean +- t_{(1 + level) / 2, K - 1} sd(m_1, ..., m_K) / sqrt(K)

    where m_k is the mean of cluster k and the mean is that of m_1, ..., m_K. Values of one cluster share an error, as
    runs with the same chosen parameters do, so their number does not count: Donner & Klar 2000, section 6.

    Args:
        values: NaN is left out.
        clusters: of each value; None where the values are independent, each a cluster of its own.
        level: nominal coverage.

    Returns:
        The mean, NaN without values; its interval, NaN for fewer than two values. Where all are of one cluster, the
        interval is over the values, and conditional.

    >>> estimate_mean([1.0, 2.0, 3.0]).value, estimate_mean([1.0, 1.0, 4.0], "aab").n_clusters
    (2.0, 2)
    """
    groups: dict[Hashable, list[float]] = {}
    for number, value in enumerate(values):
        if not np.isnan(value):
            groups.setdefault(number if clusters is None else clusters[number], []).append(float(value))
    conditional = clusters is not None and len(groups) == 1
    if conditional:
        groups = dict(enumerate([value] for value in next(iter(groups.values()))))
    # Clusters count alike, whatever their sizes: their means are what is drawn anew in a repetition.
    means = np.array([np.mean(group) for group in groups.values()])
    n = sum(len(group) for group in groups.values())
    mean = float(means.mean()) if n else float("nan")
    nan = float("nan")
    enough = len(means) >= 2
    estimate = MeanEstimate(
        value=mean,
        lo=nan,
        hi=nan,
        se=float(means.std(ddof=1) / np.sqrt(len(means))) if enough else nan,
        df=len(means) - 1.0 if enough else nan,
        n=n,
        n_clusters=len(means),
        conditional=conditional,
    )
    return estimate_interval(estimate, level)


def estimate_interval(estimate: MeanEstimate, level: float) -> MeanEstimate:
    """Return an estimate with its t interval of this level in place of its own; NaN without a standard error."""
    if np.isnan(estimate.se):
        return estimate
    half = float(student.ppf((1 + level) / 2, estimate.df)) * estimate.se
    return replace(estimate, lo=estimate.value - half, hi=estimate.value + half)
