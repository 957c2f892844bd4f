"""How well scores tell members from non-members: the area under the ROC curve, and its left end, with their errors."""

from dataclasses import dataclass

import numpy as np
from scipy.special import expit, logit, ndtri, stdtrit
from scipy.stats import rankdata

from memscore.statistics.intervals import Interval, smoothed_variance, wilson

FALSE_POSITIVE_RATES = (0.001, 0.01)
"""Where the left end is read (Carlini et al. 2022 argue for it)."""
CURVE_POINTS = 121
"""False positive rates of a curve that is drawn."""


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
    """A measure of every target model [M], its mean over targets and the 95 % t interval of that mean."""

    per_target: np.ndarray
    value: float
    lo: float
    hi: float


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(score of a positive > score of a negative), a tie counting one half.

    Args:
        scores: [n], no NaN.
        positive: bool [n].

    Returns:
        In [0, 1], higher tells better; NaN without a positive or without a negative.

    >>> auc(np.array([3.0, 2.0, 1.0]), np.array([True, False, True]))
    0.5
    """
    n_pos = int(positive.sum())
    pairs = n_pos * (len(positive) - n_pos)
    return float((rankdata(scores)[positive].sum() - n_pos * (n_pos + 1) / 2) / pairs) if pairs else float("nan")


def auc_se(scores: np.ndarray, positive: np.ndarray) -> float:
    """Standard error of the area (DeLong et al. 1988), by ranks (Sun & Xu 2014).

    Where DeLong's variance is 0 or undefined (all pairs ordered alike, one positive) the area is taken as a smoothed
    proportion of as many trials as the smaller class has examples, which is the worst case for pairs that share them.

    Args:
        scores: [n], no NaN.
        positive: bool [n].

    Returns:
        Above 0; NaN without a positive or without a negative.
    """
    pos, neg = scores[positive], scores[~positive]
    if not len(pos) or not len(neg):
        return float("nan")
    ranks = rankdata(scores)
    beaten = (ranks[positive] - rankdata(pos)) / len(neg)  # by each positive, the share of negatives below it
    beating = 1 - (ranks[~positive] - rankdata(neg)) / len(pos)
    fewer = min(len(pos), len(neg))
    variance = beaten.var(ddof=1) / len(pos) + beating.var(ddof=1) / len(neg) if fewer > 1 else 0.0
    if variance == 0:
        variance = smoothed_variance(np.asarray(beaten.mean() * fewer), np.asarray(fewer))
    return float(np.sqrt(variance))


def auc_interval(scores: np.ndarray, positive: np.ndarray, level: float = 0.95) -> Interval:
    """The area with an interval that stays inside [0, 1].

    logit(A) +- z se / (A (1 - A)); at A = 0 or 1 Wilson's, for as many trials as the smaller class has examples.

    Args:
        scores: [n], no NaN.
        positive: bool [n].
        level: coverage aimed at.

    Returns:
        The area and its interval.
    """
    value, se = auc(scores, positive), auc_se(scores, positive)
    if 0 < value < 1:
        reach = ndtri((1 + level) / 2) * se / (value * (1 - value))
        return Interval(value=value, lo=float(expit(logit(value) - reach)), hi=float(expit(logit(value) + reach)))
    fewer = min(int(positive.sum()), int((~positive).sum()))
    lo, hi = wilson(np.asarray(value * fewer), np.asarray(fewer), level)
    return Interval(value=value, lo=float(lo), hi=float(hi))


def tpr_at_fpr(scores: np.ndarray, positive: np.ndarray, fpr: float, level: float = 0.95) -> Interval:
    """The largest true positive rate of a threshold whose false positive rate is at most fpr.

    No interpolation: below 1 / negatives only thresholds without a false positive are left. The interval is Wilson's
    for the positives at that threshold; that the threshold itself rests on few negatives is not in it.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fpr: the largest false positive rate allowed, in [0, 1].
        level: coverage aimed at.

    Returns:
        The rate and its interval; NaN without a positive or without a negative.

    Raises:
        ValueError: fpr is no rate.
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, got {fpr}; 0.001 is usual")
    pos, neg = scores[positive], np.sort(scores[~positive])[::-1]
    if not len(pos) or not len(neg):
        return Interval(value=float("nan"), lo=float("nan"), hi=float("nan"))
    allowed = int(fpr * len(neg) + 1e-9)  # 0.29 * 100 is 28.999...
    hits = int((pos > neg[allowed]).sum()) if allowed < len(neg) else len(pos)
    lo, hi = wilson(np.asarray(hits), np.asarray(len(pos)), level)
    return Interval(value=hits / len(pos), lo=float(lo), hi=float(hi))


def compute_target_means(scores: np.ndarray, member: np.ndarray) -> dict[str, TargetMean]:
    """The area and the left end of the curve for each target model, and their means over targets.

    Targets share their shadow models, so the interval of the mean is approximate.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        "auc", "tpr_at_0.001" and "tpr_at_0.01".
    """
    known = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    means = {"auc": _mean_interval(np.array([auc(*target) for target in known]))}
    for fpr in FALSE_POSITIVE_RATES:
        rates = np.array([tpr_at_fpr(*target, fpr).value for target in known])
        means[f"tpr_at_{fpr:g}"] = _mean_interval(rates)
    return means


def compute_tprs(scores: np.ndarray, positive: np.ndarray, fprs: np.ndarray) -> np.ndarray:
    """tpr_at_fpr at many rates, without their intervals.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fprs: rates in [0, 1].

    Returns:
        float64 [F]; NaN without a positive or without a negative.
    """
    pos, neg = np.sort(scores[positive]), np.sort(scores[~positive])[::-1]
    if not len(pos) or not len(neg):
        return np.full(len(fprs), np.nan)
    allowed = (fprs * len(neg) + 1e-9).astype(np.int64)
    thresholds = np.append(neg, -np.inf)[np.minimum(allowed, len(neg))]
    above = len(pos) - np.searchsorted(pos, thresholds, side="right")
    return np.where(allowed < len(neg), above, len(pos)) / len(pos)


def compute_roc_band(scores: np.ndarray, member: np.ndarray) -> RocBand:
    """The ROC curve over targets, from one false positive on, evenly spread on a log axis.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        Mean and central 95 % of the targets that have a curve; NaN where none has.
    """
    negatives = (~member).sum(1)
    one = 1 / max(2, int(negatives[negatives > 0].min(initial=member.shape[1])))
    fprs = np.append(np.geomspace(one, 1, CURVE_POINTS)[:-1], 1.0)
    known = [(row[~np.isnan(row)], held[~np.isnan(row)]) for row, held in zip(scores, member, strict=True)]
    each = np.array([compute_tprs(*target, fprs) for target in known])
    each = each[~np.isnan(each).any(1)]
    if not len(each):
        nowhere = np.full(len(fprs), np.nan)
        return RocBand(fpr=fprs, mean=nowhere, lo=nowhere, hi=nowhere)
    lo, hi = np.quantile(each, [0.025, 0.975], axis=0)
    return RocBand(fpr=fprs, mean=each.mean(0), lo=lo, hi=hi)


def _mean_interval(each: np.ndarray) -> TargetMean:
    """Over the targets that have a value; the interval is NaN with fewer than two."""
    known = each[~np.isnan(each)]
    value = float(known.mean()) if len(known) else float("nan")
    reach = float("nan")
    if len(known) > 1:
        reach = float(stdtrit(len(known) - 1, 0.975) * known.std(ddof=1) / np.sqrt(len(known)))
    return TargetMean(per_target=each, value=value, lo=value - reach, hi=value + reach)
