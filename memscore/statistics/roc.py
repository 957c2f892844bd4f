"""ROC curves of membership scores: area and left end of the curve, with errors."""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import betainc, ndtri, owens_t, stdtrit
from scipy.stats import binom, rankdata

from memscore.statistics.intervals import Interval, wilson

FALSE_POSITIVE_RATES = (0.001, 0.01)
"""Where the left end of the curve is evaluated (Carlini et al. 2022 argue for it)."""
CURVE_POINTS = 121
"""Number of false positive rates of a plotted curve."""
SHARED_SHADOWS = {"auc": 1.35, "tpr": 1.25}
"""How much wider the interval of a mean over targets is than that of independent targets. In simulated banks of 8 to 64
models the mean area varies .95 to 1.5 times as much as its targets say, and the rates .8 to 1.2 times."""


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


@dataclass(frozen=True, kw_only=True)
class RateAtFpr:
    """The true positive rate at a false positive rate, with its interval and the counts at its threshold.

    Attributes:
        value: the rate; NaN where it is undefined, and then `reason` says why.
        lo: lower end of its interval, 95 % unless stated otherwise.
        hi: upper end.
        fpr: the requested false positive rate; the threshold has this one at most.
        realised_fpr: false_positives / negatives.
        false_positives: negatives above the threshold.
        negatives: all of them.
        true_positives: positives above the threshold.
        positives: all of them.
        reason: "finer than 1/600" where 600 negatives have no such rate; empty where there is a value.
    """

    value: float
    lo: float
    hi: float
    fpr: float
    realised_fpr: float
    false_positives: int
    negatives: int
    true_positives: int
    positives: int
    reason: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetMean:
    """A measure per target model [M], its mean and the mean's 95 % interval over models, on these examples.

    Attributes:
        per_target: NaN where a target has no value.
        value: mean over targets.
        lo: lower end of its interval.
        hi: upper end.
        rate: of a true positive rate the same value and interval, with the counts of all targets; None of an area.
    """

    per_target: np.ndarray
    value: float
    lo: float
    hi: float
    rate: RateAtFpr | None = None


class RocCounts(NamedTuple):
    """The corners of a ROC curve: how many are above a threshold, from none to all, one corner a distinct score."""

    false: np.ndarray  # int64 [C + 1], negatives above each threshold, ascending
    true: np.ndarray  # int64 [C + 1], positives

    def find_corners(self, allowed: np.ndarray | int) -> np.ndarray:
        """Find the corners of the lowest thresholds with at most so many false positives."""
        corners: np.ndarray = np.searchsorted(self.false, allowed, side="right") - 1
        return corners

    def compute_area(self) -> float:
        """Compute the area; NaN without a positive or without a negative."""
        # twice the pairs that are ordered rightly, a tie counting one half: whole numbers, so exact
        pairs = int(self.false[-1]) * int(self.true[-1])
        twice = int((np.diff(self.false) * (self.true[1:] + self.true[:-1])).sum())
        return twice / 2 / pairs if pairs else float("nan")

    def compute_tprs(self, fprs: np.ndarray) -> np.ndarray:
        """Compute the largest true positive rate at each false positive rate; NaN without an area."""
        negatives, positives = self.false[-1], self.true[-1]
        if not negatives or not positives:
            return np.full(len(fprs), np.nan)
        # 1e-9 because 0.29 * 100 is 28.999...
        tprs: np.ndarray = self.true[self.find_corners((fprs * negatives + 1e-9).astype(np.int64))] / positives
        return tprs


def count_roc(scores: np.ndarray, positive: np.ndarray) -> RocCounts:
    """Count the corners of a ROC curve, by one sort.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].

    Returns:
        The corners; equal scores are of one corner.
    """
    order = np.argsort(scores)[::-1]
    ordered, is_positive = scores[order], positive[order]
    # the order within equal scores has no meaning: counts are read behind the last one of them
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], [True] * bool(len(ordered))))
    true = np.cumsum(is_positive)[last]
    return RocCounts(false=np.append(0, last + 1 - true), true=np.append(0, true))


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
    return count_roc(scores, positive).compute_area()


def delong_variance(scores: np.ndarray, positive: np.ndarray) -> float:
    """Compute the variance of the area (DeLong et al. 1988), by ranks (Sun & Xu 2014).

    Args:
        scores: [n], no NaN.
        positive: bool [n].

    Returns:
        0 where all pairs are ordered alike; NaN with fewer than two positives or negatives.
    """
    pos, neg = scores[positive], scores[~positive]
    if min(len(pos), len(neg)) < 2:
        return float("nan")
    # DeLong's components without comparing pairs: an example's rank among all, less its rank on its own side, is the
    # number of the other side below it. So for each positive the share of negatives below it, and for each negative the
    # share of positives above it.
    ranks = rankdata(scores)
    share_below = (ranks[positive] - rankdata(pos)) / len(neg)
    share_above = 1 - (ranks[~positive] - rankdata(neg)) / len(pos)
    return float(share_below.var(ddof=1) / len(pos) + share_above.var(ddof=1) / len(neg))


def auc_interval(scores: np.ndarray, positive: np.ndarray, level: float = 0.95) -> Interval:
    """Compute the area with an interval inside [0, 1]: the areas A with |value - A| <= t sqrt(V(A)).

        V(A) = c (A (1 - A) + (m + n - 2) (q - A^2)) / (m n),   q = P[one positive is above two negatives]

    A score interval, as Newcombe 2006's method 5, whose variance is taken at A and not at the value: with few
    positives and a high area DeLong's is often far too small. Differs from Newcombe in three points. V is that of
    Gaussian scores of equal variance, not of exponential ones, which have three times the width at .99. c is DeLong's
    variance over V, both at the value, where that is above 1: scores may vary more than Gaussian ones. t has one degree
    of freedom less than the smaller class has examples.

    Args:
        scores: [n], no NaN.
        positive: bool [n].
        level: nominal coverage.

    Returns:
        The area and its interval; NaN without a positive or without a negative.
    """
    value, m, n = auc(scores, positive), int(positive.sum()), int((~positive).sum())
    if np.isnan(value):
        return Interval(value=value, lo=value, hi=value)
    fewer = min(m, n)
    # half a pair of the smaller class from 0 and from 1, where a variance in proportion to V would be 0
    inside = np.clip(value, 0.5 / fewer, 1 - 0.5 / fewer)
    excess = float(np.fmax(1, delong_variance(scores, positive) / _compute_area_variance(inside, m, n)))
    reach = stdtrit(max(fewer - 1, 1), (1 + level) / 2) * np.sqrt(excess)
    # both ends by bisection: A - value grows faster than the reach on the way from the value to 0 or 1
    near, far = np.array([value, value]), np.array([0.0, 1.0])
    for _ in range(50):
        middle = (near + far) / 2
        is_within = abs(middle - value) <= reach * np.sqrt(_compute_area_variance(middle, m, n))
        near, far = np.where(is_within, middle, near), np.where(is_within, far, middle)
    return Interval(value=value, lo=float(near[0]), hi=float(near[1]))


def _compute_area_variance(area: np.ndarray, m: int, n: int) -> np.ndarray:
    """Compute the variance of the area of m against n Gaussian scores of equal variance, whose true area is given."""
    # P[X > Y1, X > Y2] of standard normal differences with correlation 1/2, by Owen's T function
    both = area - 2 * owens_t(ndtri(area), np.sqrt(1 / 3))
    variance: np.ndarray = (area * (1 - area) + (m + n - 2) * (both - area**2)) / (m * n)
    return variance


def tpr_at_fpr(scores: np.ndarray, positive: np.ndarray, fpr: float, level: float = 0.95) -> RateAtFpr:
    """Compute the largest true positive rate at a false positive rate of at most fpr, without interpolation.

    The interval is for the rate at fpr in the population. There the number K of these negatives above the threshold is
    binomial, so the threshold lies between the K-th negative and the next one. Its rate is a proportion of positives,
    h_K of which are above it, the mean of those above either negative; with Jeffreys' prior

        TPR ~ Beta(h_K + 1/2, positives - h_K + 1/2),   K ~ Binomial(negatives, fpr).

    The ends are quantiles of that mixture, which has both the few negatives that decide the threshold and the
    positives. Wilson's interval has the positives only, and a bootstrap of the examples is too short for fewer than
    about 20 false positives: docs/decisions/056-intervals-cover-what-they-say.md.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fpr: the largest false positive rate allowed, in [0, 1].
        level: nominal coverage.

    Returns:
        The rate, its interval and its counts. NaN without a positive or a negative, and where negatives * fpr < 1:
        only thresholds without a false positive remain, whose rate is finer than 1 / negatives.

    Raises:
        ValueError: fpr is outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise ValueError(f"a false positive rate lies between 0 and 1, got {fpr}; 0.001 is usual")
    curve = count_roc(scores, positive)
    rate = _find_rate(curve, fpr)
    if rate.reason:
        return rate
    lo, hi = _compute_tpr_ends(curve, fpr, level)
    return replace(rate, lo=min(lo, rate.value), hi=max(hi, rate.value))


def compute_target_means(scores: np.ndarray, member: np.ndarray) -> dict[str, TargetMean]:
    """Compute area and left end of each target's curve, and their means over targets.

    The interval is for other draws of models on these examples: t over targets, SHARED_SHADOWS times as wide since
    every target is a shadow model of the others. It says nothing of other examples.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        "auc", "tpr_at_0.001" and "tpr_at_0.01"; the mean of a rate is NaN if a target's negatives cannot have it.
    """
    return summarize_targets(scores, member)[0]


def summarize_targets(scores: np.ndarray, member: np.ndarray) -> tuple[dict[str, TargetMean], RocBand]:
    """Compute compute_target_means and compute_roc_band from one sort of each target's scores.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        The means by name, and the band.
    """
    defined = ~np.isnan(scores)
    negatives = (defined & ~member).sum(1)
    # the lowest rate is one false positive of the target with the fewest negatives, and at most 1/2, so that there is
    # something between it and 1
    lowest = 1 / max(2, int(negatives[negatives > 0].min(initial=member.shape[1])))
    fprs = np.append(np.geomspace(lowest, 1, CURVE_POINTS)[:-1], 1.0)
    areas, tprs, sizes = [], [], []
    rates: dict[float, list[RateAtFpr]] = {fpr: [] for fpr in FALSE_POSITIVE_RATES}
    for row, held, known in zip(scores, member, defined, strict=True):
        curve = count_roc(row, held) if known.all() else count_roc(row[known], held[known])
        areas.append(curve.compute_area())
        tprs.append(curve.compute_tprs(fprs))
        sizes.append(min(int(curve.true[-1]), int(curve.false[-1])))
        for fpr, found in rates.items():
            found.append(_find_rate(curve, fpr))
    # a target without members or without non-members has neither area nor rate
    fewest = min((size for size in sizes if size), default=0)
    means = {"auc": _mean_interval(np.array(areas), fewest, SHARED_SHADOWS["auc"])}
    means |= {f"tpr_at_{fpr:g}": _average_rates(found, fpr) for fpr, found in rates.items()}
    return means, _summarize_tprs(fprs, np.array(tprs))


def compute_tprs(scores: np.ndarray, positive: np.ndarray, fprs: np.ndarray) -> np.ndarray:
    """Compute tpr_at_fpr at many false positive rates, without intervals.

    Args:
        scores: [n], no NaN, higher for positives.
        positive: bool [n].
        fprs: false positive rates in [0, 1].

    Returns:
        float64 [F]; NaN without a positive or without a negative.
    """
    return count_roc(scores, positive).compute_tprs(fprs)


def compute_roc_band(scores: np.ndarray, member: np.ndarray) -> RocBand:
    """Compute the ROC band over targets, from one false positive on, on a log axis.

    Args:
        scores: [M, N], an attack's score of example n against target m, higher for members; NaN is left out.
        member: bool [M, N], example n was in model m's training set.

    Returns:
        Mean and central 95 % of the targets that have a curve; NaN where none has.
    """
    return summarize_targets(scores, member)[1]


def _summarize_tprs(fprs: np.ndarray, tprs: np.ndarray) -> RocBand:
    """Summarize true positive rates over targets, [M, F]."""
    # a target without members or without non-members has no curve
    tprs = tprs[~np.isnan(tprs).any(1)] if len(tprs) else tprs
    if not len(tprs):
        undefined = np.full(len(fprs), np.nan)
        return RocBand(fpr=fprs, mean=undefined, lo=undefined, hi=undefined)
    lo, hi = np.quantile(tprs, [0.025, 0.975], axis=0)
    return RocBand(fpr=fprs, mean=tprs.mean(0), lo=lo, hi=hi)


def _find_rate(curve: RocCounts, fpr: float) -> RateAtFpr:
    """Find the rate at the lowest threshold with at most fpr false positives, without its interval."""
    negatives, positives, nan = int(curve.false[-1]), int(curve.true[-1]), float("nan")
    # negatives that may be above the threshold, which is the next one; 1e-9 because 0.29 * 100 is 28.999...
    allowed = int(fpr * negatives + 1e-9)
    reason = "" if allowed else f"finer than 1/{negatives}" if negatives else "no negatives"
    if not positives:
        reason = "no positives"
    # fewer than allowed are above it where several tie with it
    corner = curve.find_corners(allowed)
    false, true = int(curve.false[corner]), int(curve.true[corner])
    return RateAtFpr(
        value=nan if reason else true / positives,
        lo=nan,
        hi=nan,
        fpr=fpr,
        realised_fpr=false / negatives if negatives else nan,
        false_positives=false,
        negatives=negatives,
        true_positives=true,
        positives=positives,
        reason=reason,
    )


def _compute_tpr_ends(curve: RocCounts, fpr: float, level: float) -> tuple[float, float]:
    """Compute the ends of tpr_at_fpr's interval: two quantiles of a mixture of Beta distributions."""
    negatives, positives = int(curve.false[-1]), int(curve.true[-1])
    # the numbers of negatives above the threshold that have any weight, 8 standard deviations about their mean
    reach = 8 * np.sqrt(negatives * fpr * (1 - fpr)) + 8
    k = np.arange(max(0, int(negatives * fpr - reach)), min(negatives, int(negatives * fpr + reach)) + 1)
    weight = binom.pmf(k, negatives, fpr)
    # positives above the k-th negative and above the next one, the highest negative being the first
    before, after = (curve.true[curve.find_corners(number)] for number in (k - 1, k))
    hits = (np.where(k > 0, before, 0) + after) / 2
    # both quantiles by bisection of the mixture's distribution function, to 2**-40
    tails, ends = np.array([(1 - level) / 2, (1 + level) / 2]), np.array([0.5, 0.5])
    for step in 2.0 ** -np.arange(2, 42):
        ends += np.where(betainc(hits + 0.5, positives - hits + 0.5, ends[:, None]) @ weight < tails, step, -step)
    return float(ends[0]), float(ends[1])


def _average_rates(rates: list[RateAtFpr], fpr: float) -> TargetMean:
    """Average the targets' rates, with the counts of those that have members and non-members added up."""
    curves = [rate for rate in rates if rate.positives and rate.negatives]
    # one target that cannot have the rate leaves no mean: an average of the others would be of other examples
    reason = min(curves, key=lambda rate: rate.negatives).reason if curves else "no target with members and others"
    values, fewest = np.array([rate.value for rate in rates]), min((rate.positives for rate in curves), default=0)
    mean = _mean_interval(values, fewest, SHARED_SHADOWS["tpr"])
    value, lo, hi = (float("nan"),) * 3 if reason else (mean.value, mean.lo, mean.hi)
    false, negatives, true, positives = (
        sum(getattr(rate, count) for rate in curves)
        for count in ("false_positives", "negatives", "true_positives", "positives")
    )
    rate = RateAtFpr(
        value=value,
        lo=lo,
        hi=hi,
        fpr=fpr,
        realised_fpr=false / negatives if negatives else float("nan"),
        false_positives=false,
        negatives=negatives,
        true_positives=true,
        positives=positives,
        reason=reason,
    )
    return TargetMean(per_target=mean.per_target, value=value, lo=lo, hi=hi, rate=rate)


def _mean_interval(per_target: np.ndarray, trials: int, widening: float) -> TargetMean:
    """Average the targets that have a value; the interval is NaN with fewer than two."""
    defined = per_target[~np.isnan(per_target)]
    value, n = float(defined.mean()) if len(defined) else float("nan"), len(defined)
    lo = hi = float("nan")
    if n > 1 and (defined == defined[0]).all():
        # targets that agree fully, as at an area of 1, show no spread: then the interval of one target's examples
        lo, hi = (float(end) for end in wilson(np.asarray(value * trials), np.asarray(trials)))
    elif n > 1:
        reach = float(widening * stdtrit(n - 1, 0.975) * defined.std(ddof=1) / np.sqrt(n))
        lo, hi = max(value - reach, 0.0), min(value + reach, 1.0)
    return TargetMean(per_target=per_target, value=value, lo=lo, hi=hi)
