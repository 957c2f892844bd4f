"""ROC curves of membership scores: area and left end of the curve, with errors."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit
from scipy.stats import rankdata

from memscore.statistics.intervals import Interval, smoothed_variance, wilson

FALSE_POSITIVE_RATES = (0.001, 0.01)
"""Where the left end of the curve is evaluated (Carlini et al. 2022 argue for it)."""
CURVE_POINTS = 121
"""Number of false positive rates of a plotted curve."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RocBand:
    """The ROC curve of an attack over target models, at fixed false positive rates.

    Attributes:
        fpr: rising, [F].
        mean: mean true positive rate over targets, [F].
        lo: 2.5 % quantile over targets, [F].
        hi: 97.5 % quantile over targets, [F].
    """

    fpr: np.ndarray
    mean: np.ndarray
    lo: np.ndarray
    hi: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetMean:
    """A measure per target model [M], its mean and the mean's 95 % t interval."""

    per_target: np.ndarray
    value: float
    lo: float
    hi: float


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute P(score of a positive > score of a negative), a tie counting one half.

    Args:
        scores: [n], no NaN.
        positive: bool [n].

    Returns:
        In [0, 1], higher separates better; NaN without a positive or without a negative.

    >>> auc(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.5
    """
    # Mann and Whitney's U: the sum of the positives' ranks, less their ranks among themselves, is the number of pairs
    # that are ordered rightly; mean ranks count a tie as one half
    n_pos = int(positive.sum())
    pairs = n_pos * (len(positive) - n_pos)
    return float((rankdata(scores)[positive].sum() - n_pos * (n_pos + 1) / 2) / pairs) if pairs else float("nan")


def auc_se(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the standard error of the area (DeLong et al. 1988), by ranks (Sun & Xu 2014).

    Where DeLong's variance is 0 or undefined (all pairs ordered alike, one positive) the area is treated as a
    smoothed proportion of as many trials as the smaller class has examples, which is the worst case for pairs that
    share examples.

    Args:
        scores: [n], no NaN.
        positive: bool [n].

    Returns:
        Above 0; NaN without a positive or without a negative.
    """
    pos, neg = scores[positive], scores[~positive]
    if not len(pos) or not len(neg):
        return float("nan")
    # DeLong's components without comparing pairs: an example's rank among all, less its rank on its own side, is the
    # number of the other side below it. So for each positive the share of negatives below it, and for each negative the
    # share of positives above it.
    ranks = rankdata(scores)
    share_below = (ranks[positive] - rankdata(pos)) / len(neg)
    share_above = 1 - (ranks[~positive] - rankdata(neg)) / len(pos)
    fewer = min(len(pos), len(neg))
    variance = share_below.var(ddof=1) / len(pos) + share_above.var(ddof=1) / len(neg) if fewer > 1 else 0.0
    if variance == 0:
        variance = smoothed_variance(np.asarray(share_below.mean() * fewer), np.asarray(fewer))
    return float(np.sqrt(variance))


def auc_interval(scores: np.ndarray, positive: np.ndarray, level: float = 0.95) -> Interval:
    """Compute the area with an interval inside [0, 1].

    logit(A) +- z se / (A (1 - A)); at A = 0 or 1 Wilson's, for as many trials as the smaller class has examples.

    Args:
        scores: [n], no NaN.
        positive: bool [n].
        level: nominal coverage.

    Returns:
        The area and its interval.
    """
    value, se = auc(scores, positive), auc_se(scores, positive)
    if 0 < value < 1:
        # by the delta method: the derivative of logit(A) is 1 / (A (1 - A))
        reach = ndtri((1 + level) / 2) * se / (value * (1 - value))
        return Interval(value=value, lo=float(expit(logit(value) - reach)), hi=float(expit(logit(value) + reach)))
    fewer = min(int(positive.sum()), int((~positive).sum()))
    lo, hi = wilson(np.asarray(value * fewer), np.asarray(fewer), level)
    return Interval(value=value, lo=float(lo), hi=float(hi))


def tpr_at_fpr(scores: np.ndarray, positive: np.ndarray, fpr: float, level: float = 0.95) -> Interval:
    """Compute the largest true positive rate at a false positive rate of at most fpr.

    No interpolation: below 1 / negatives only thresholds without a false positive remain. The interval is Wilson's
    for the positives at that threshold; it does not include that few negatives decide the threshold.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fpr: the largest false positive rate allowed, in [0, 1].
        level: nominal coverage.

    Returns:
        The rate and its interval; NaN without a positive or without a negative.

    Raises:
        ValueError: fpr is outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, got {fpr}; 0.001 is usual")
    pos, neg = scores[positive], np.sort(scores[~positive])[::-1]
    if not len(pos) or not len(neg):
        return Interval(value=float("nan"), lo=float("nan"), hi=float("nan"))
    # negatives that may be above the threshold, which is the next one; 1e-9 because 0.29 * 100 is 28.999...
    allowed = int(fpr * len(neg) + 1e-9)
    hits = int((pos > neg[allowed]).sum()) if allowed < len(neg) else len(pos)
    lo, hi = wilson(np.asarray(hits), np.asarray(len(pos)), level)
    return Interval(value=hits / len(pos), lo=float(lo), hi=float(hi))


def compute_target_means(scores: np.ndarray, member: np.ndarray) -> dict[str, TargetMean]:
    """Compute area and left end of each target's curve, and their means over targets.

    Targets share their shadow models, so the interval of the mean is approximate.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        "auc", "tpr_at_0.001" and "tpr_at_0.01".
    """
    targets = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    means = {"auc": _mean_interval(np.array([auc(*target) for target in targets]))}
    for fpr in FALSE_POSITIVE_RATES:
        tprs = np.array([tpr_at_fpr(*target, fpr).value for target in targets])
        means[f"tpr_at_{fpr:g}"] = _mean_interval(tprs)
    return means


def compute_tprs(scores: np.ndarray, positive: np.ndarray, fprs: np.ndarray) -> np.ndarray:
    """Compute tpr_at_fpr at many false positive rates, without intervals.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fprs: false positive rates in [0, 1].

    Returns:
        float64 [F]; NaN without a positive or without a negative.
    """
    pos, neg = np.sort(scores[positive]), np.sort(scores[~positive])[::-1]
    if not len(pos) or not len(neg):
        return np.full(len(fprs), np.nan)
    # as tpr_at_fpr, for all rates in one search; -infinity stands for the threshold where all negatives are allowed
    allowed = (fprs * len(neg) + 1e-9).astype(np.int64)
    thresholds = np.append(neg, -np.inf)[np.minimum(allowed, len(neg))]
    above = len(pos) - np.searchsorted(pos, thresholds, side="right")
    return np.where(allowed < len(neg), above, len(pos)) / len(pos)


def compute_roc_band(scores: np.ndarray, member: np.ndarray) -> RocBand:
    """Compute the ROC band over targets, from one false positive on, on a log axis.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        Mean and central 95 % of the targets that have a curve; NaN where none has.
    """
    # the lowest rate is one false positive of the target with the fewest negatives, and at most 1/2, so that there is
    # something between it and 1
    negatives = (~member).sum(1)
    lowest = 1 / max(2, int(negatives[negatives > 0].min(initial=member.shape[1])))
    fprs = np.append(np.geomspace(lowest, 1, CURVE_POINTS)[:-1], 1.0)
    targets = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    tprs = np.array([compute_tprs(*target, fprs) for target in targets])
    # a target without members or without non-members has no curve
    tprs = tprs[~np.isnan(tprs).any(1)]
    if not len(tprs):
        undefined = np.full(len(fprs), np.nan)
        return RocBand(fpr=fprs, mean=undefined, lo=undefined, hi=undefined)
    lo, hi = np.quantile(tprs, [0.025, 0.975], axis=0)
    return RocBand(fpr=fprs, mean=tprs.mean(0), lo=lo, hi=hi)


def _mean_interval(per_target: np.ndarray) -> TargetMean:
    """Average the targets that have a value; the interval is NaN with fewer than two."""
    defined = per_target[~np.isnan(per_target)]
    value = float(defined.mean()) if len(defined) else float("nan")
    reach = float("nan")
    if len(defined) > 1:
        reach = float(stdtrit(len(defined) - 1, 0.975) * defined.std(ddof=1) / np.sqrt(len(defined)))
    return TargetMean(per_target=per_target, value=value, lo=value - reach, hi=value + reach)
