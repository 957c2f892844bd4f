"""Membership decisions by a threshold that is set on target models whose members are known.

Targets are models of a bank, each attacked with the others. A threshold tau is the one at which a share alpha of all
their non-members is above it. What it does to another target is measured by cross-fitting: tau from the other folds of
targets, rates in this one, so that no target takes part in the threshold that it is judged by.

    FPR = mean over targets of P(score > tau | not a member)          TPR the same of members
    precision (PPV) = pi TPR / (pi TPR + (1 - pi) FPR),    pi the share of members among those in question

Jebreel et al. 2026 (arXiv 2603.07567) for thresholds from shadows, precision at priors and repeated decisions; an
auditor asks "of those that you flag, how many were members?".

The intervals are over targets, for these examples and these shadow models: a model of the same recipe that is attacked
with the same bank.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtr, stdtrit

from memscore.statistics.intervals import Interval, wilson

PRIORS = (0.01, 0.1, 0.5)
"""Shares of members at which the precision is given."""
RATES = (0.01, 0.001)
"""False positive rates at which thresholds are set."""
FOLDS = 10
"""Parts of the targets for cross-fitting."""

UNDEFINED = Interval(value=float("nan"), lo=float("nan"), hi=float("nan"))


@dataclass(frozen=True, kw_only=True)
class DecisionRates:
    """What decisions at a threshold are worth, over targets.

    Attributes:
        fpr: mean over targets of the false positive rate, and its 95 % interval.
        fpr_sd: its standard deviation over targets, which is what one audited model adds; NaN for one target.
        tpr: mean true positive rate.
        precision: for each of PRIORS the share of members among the flagged.
        targets: number of targets.
        false_positives: of all targets.
        negatives: of all targets.
    """

    fpr: Interval
    fpr_sd: float
    tpr: Interval
    precision: dict[float, Interval]
    targets: int
    false_positives: int
    negatives: int


@dataclass(frozen=True, kw_only=True)
class CalibratedThreshold:
    """A threshold set on targets, and the rates of decisions by it on other targets.

    Attributes:
        fpr: the requested false positive rate.
        threshold: scores above it are flagged; NaN where fewer than 1 / fpr non-members are known.
        rates: cross-fitted.
    """

    fpr: float
    threshold: float
    rates: DecisionRates


def find_threshold(scores: np.ndarray, member: np.ndarray, fpr: float) -> float:
    """Find the lowest threshold above which at most a share fpr of the non-members of all targets is.

    Args:
        scores: [T, n], higher for members; NaN is left out.
        member: bool [T, n].
        fpr: in (0, 1).

    Returns:
        The threshold; NaN where the share is not even one non-member.
    """
    negatives = scores[~member & ~np.isnan(scores)]
    allowed = _count_allowed(len(negatives), fpr)
    return _find_descending(negatives, allowed) if allowed else float("nan")


def _count_allowed(negatives: int, fpr: float) -> int:
    """Count the negatives that may be above a threshold; 1e-9 because 0.29 * 100 is 28.999..."""
    return int(fpr * negatives + 1e-9)


def _find_descending(values: np.ndarray, place: int) -> float:
    """Find the value, of [n], that has so many before it in descending order."""
    return float(np.partition(values, len(values) - 1 - place)[len(values) - 1 - place])


def count_flagged(scores: np.ndarray, member: np.ndarray, threshold: float) -> np.ndarray:
    """Count decisions by target.

    Args:
        scores: [T, n], higher for members; NaN is not counted.
        member: bool [T, n].
        threshold: scores above it are flagged.

    Returns:
        int64 [T, 4]: false positives, negatives, true positives, positives.
    """
    defined, flagged = ~np.isnan(scores), scores > threshold
    positive, negative = member & defined, ~member & defined
    return np.stack([each.sum(1) for each in (flagged & negative, negative, flagged & positive, positive)], axis=1)


def calibrate_threshold(scores: np.ndarray, member: np.ndarray, fpr: float) -> CalibratedThreshold:
    """Set a threshold on targets, and measure by cross-fitting what it does to others.

    Args:
        scores: [T, n], the score of each example against each target, higher for members; NaN is left out.
        member: bool [T, n].
        fpr: the requested false positive rate, in (0, 1).

    Returns:
        The threshold of all targets, and the rates; undefined with one target, and where the non-members of the other
        folds are fewer than 1 / fpr.

    Raises:
        ValueError: fpr is not between 0 and 1.
    """
    if not 0 < fpr < 1:
        raise ValueError(f"a false positive rate to calibrate for lies between 0 and 1, got {fpr}; 0.01 is usual")
    # neighbours stay together: models of one block of a design depend on each other
    folds = np.array_split(np.arange(len(scores)), min(FOLDS, len(scores)))
    threshold, without_fold = _find_fold_thresholds(scores, member, fpr, folds)
    if np.isnan(without_fold).any():
        return CalibratedThreshold(fpr=fpr, threshold=float("nan"), rates=compute_rates(np.zeros((0, 4), np.int64)))
    counts = [count_flagged(scores[fold], member[fold], each) for fold, each in zip(folds, without_fold, strict=True)]
    return CalibratedThreshold(fpr=fpr, threshold=threshold, rates=compute_rates(np.concatenate(counts)))


def _find_fold_thresholds(
    scores: np.ndarray, member: np.ndarray, fpr: float, folds: list[np.ndarray]
) -> tuple[float, list[float]]:
    """Find the threshold of all targets, and that of the targets outside of each fold."""
    negative = ~member & ~np.isnan(scores)
    values, sizes = scores[negative], np.array([negative[fold].sum() for fold in folds], np.int64)
    folds_of_values = np.repeat(np.arange(len(folds)), sizes)
    # Thresholds lie among the highest negatives: those of all targets, twice as many as may be above the threshold,
    # are sorted once.
    highest = min(2 * _count_allowed(len(values), fpr) + 1, len(values))
    is_high = values >= _find_descending(values, highest - 1) if highest else np.zeros(0, bool)
    order = np.argsort(values[is_high])[::-1]
    high, folds_of_high = values[is_high][order], folds_of_values[is_high][order]

    def find(allowed: int, fold: int) -> float:
        remaining = high[folds_of_high != fold]
        if allowed < len(remaining):
            return float(remaining[allowed])
        # more than half of the highest are of this fold
        return _find_descending(values[folds_of_values != fold], allowed)

    allowed = [_count_allowed(int(total), fpr) for total in (len(values), *(len(values) - sizes))]
    # -1 is no fold, whose threshold is that of all targets
    thresholds = [find(each, fold) if each else float("nan") for fold, each in enumerate(allowed, start=-1)]
    return thresholds[0], thresholds[1:]


def compute_rates(counts: np.ndarray) -> DecisionRates:
    """Compute rates, precision and their intervals from the decisions on each target.

    Args:
        counts: int [T, 4], from count_flagged.

    Returns:
        The rates; NaN without a target that has members and non-members.
    """
    counts = counts[(counts[:, 1] > 0) & (counts[:, 3] > 0)]
    fpr, tpr = (compute_mean_rate(counts[:, k], counts[:, k + 1]) for k in (0, 2))
    each, true_rates = counts[:, 0] / counts[:, 1], counts[:, 2] / counts[:, 3]
    # A target whose scores are all high has more of both. Half of the correlation counts, and less of few targets,
    # which know it badly: all of it covers 90 % at rates of .1 %, none gives intervals 1.7 times too wide at 1 %.
    varies = len(counts) > 2 and each.std() > 0 and true_rates.std() > 0
    known = float(np.corrcoef(each, true_rates)[0, 1]) if varies else 0.0
    correlation = max(known, 0.0) * (1 - 4 / max(len(counts), 4)) / 2
    return DecisionRates(
        fpr=fpr,
        fpr_sd=float(each.std(ddof=1)) if len(each) > 1 else float("nan"),
        tpr=tpr,
        precision={prior: compute_precision(tpr, fpr, prior, correlation) for prior in PRIORS},
        targets=len(counts),
        false_positives=int(counts[:, 0].sum()),
        negatives=int(counts[:, 1].sum()),
    )


def compute_mean_rate(hits: np.ndarray, trials: np.ndarray) -> Interval:
    """Compute the mean of a rate over targets with an interval inside [0, 1].

    Wilson's interval for as many trials as give the variance between targets, p (1 - p) / se^2, at most all of them,
    with the t quantile of T - 1 degrees of freedom in place of the normal one.

    Args:
        hits: int [T].
        trials: int [T], above 0.

    Returns:
        The mean and its 95 % interval; the interval is NaN with fewer than two targets.
    """
    targets = len(hits)
    if not targets:
        return UNDEFINED
    rates = hits / trials
    mean, total = float(rates.mean()), float(trials.sum())
    if targets < 2:
        return Interval(value=mean, lo=float("nan"), hi=float("nan"))
    variance = float(rates.var(ddof=1)) / targets
    # at 0 and 1 targets agree exactly, and all trials count
    effective = min(total, mean * (1 - mean) / variance) if variance > 0 else total
    level = float(2 * ndtr(stdtrit(targets - 1, 0.975)) - 1)
    lo, hi = wilson(np.asarray(mean * effective), np.asarray(effective), level)
    return Interval(value=mean, lo=float(lo), hi=float(hi))


def compute_precision(tpr: Interval, fpr: Interval, prior: float, correlation: float = 0.0) -> Interval:
    """Compute the share of members among the flagged, at a share of members among those in question.

    The interval is that of TPR / FPR by the recovered variances of both logarithms (Donner & Zou 2012).

    Args:
        tpr: true positive rate and its interval.
        fpr: false positive rate and its interval.
        prior: pi, in (0, 1).
        correlation: of both rates over targets.

    Returns:
        The precision and its interval; NaN where nobody is flagged.
    """
    if not tpr.value + fpr.value > 0:
        return UNDEFINED
    with np.errstate(divide="ignore", invalid="ignore"):
        log_t, log_t_lo, log_t_hi = np.log([tpr.value, tpr.lo, tpr.hi])
        log_f, log_f_lo, log_f_hi = np.log([fpr.value, fpr.lo, fpr.hi])
        ratio = log_t - log_f
        # a rate of 0 has no logarithm to measure from: the ends of both intervals are combined
        if tpr.value and fpr.value:
            below, above = (log_t - log_t_lo, log_f_hi - log_f), (log_t_hi - log_t, log_f - log_f_lo)
            reach = [np.sqrt(a * a + b * b - 2 * correlation * a * b) for a, b in (below, above)]
            lo, hi = ratio - reach[0], ratio + reach[1]
        else:  # a rate of 0 has no logarithm to measure from: the ends of both intervals are combined
            lo, hi = log_t_lo - log_f_hi, log_t_hi - log_f_lo
    odds = prior / (1 - prior)

    def convert(log_ratio: float) -> float:
        return float(1 / (1 + np.exp(-log_ratio) / odds))

    return Interval(value=convert(ratio), lo=convert(lo), hi=convert(hi))


@dataclass(frozen=True, kw_only=True)
class RepeatedDecisions:
    """Whether a decision on an example holds from one target to another.

    Attributes:
        flagged_again: of members flagged in one target, the share flagged in another one that was trained on them.
        wrongly_again: the same of non-members that were flagged.
        flips: probability that two targets that were trained on an example decide differently on it.
        coin_flips: share of examples that are flagged in a quarter to three quarters of the targets trained on them;
            NaN where these are fewer than 8 for half of the examples.
    """

    flagged_again: float
    wrongly_again: float
    flips: float
    coin_flips: float


def count_decisions(scores: np.ndarray, member: np.ndarray, threshold: float) -> dict[str, np.ndarray]:
    """Compute for each example in what share of the targets the decision on it is right.

    Args:
        scores: [T, n], higher for members; NaN is not counted.
        member: bool [T, n].
        threshold: scores above it are flagged.

    Returns:
        value: mean of in and out, 1/2 where scores tell nothing, whatever the threshold; in: share of the targets
        trained on the example in which it is flagged; out: share of the others in which it is not; float64 [n], NaN
        without a target. n_in, n_out: int64 [n], the targets.
    """
    flagged_out, n_out, flagged_in, n_in = count_flagged(scores.T, member.T, threshold).T
    with np.errstate(invalid="ignore"):
        right_in, right_out = flagged_in / n_in, 1 - flagged_out / n_out
    return {"value": (right_in + right_out) / 2, "in": right_in, "out": right_out, "n_in": n_in, "n_out": n_out}


def summarize_decisions(decisions: dict[str, np.ndarray]) -> RepeatedDecisions:
    """Compute over all examples whether decisions hold from one target to another.

    Args:
        decisions: from count_decisions.

    Returns:
        The shares; pairs of different targets only, so that few targets do not look as if decisions held.
    """
    (once_in, twice_in), (once_out, twice_out) = (
        compute_repeats(share, decisions[count])
        for share, count in ((decisions["in"], "n_in"), (1 - decisions["out"], "n_out"))
    )
    share = decisions["in"][decisions["n_in"] > 0]
    with np.errstate(invalid="ignore", divide="ignore"):
        return RepeatedDecisions(
            flagged_again=float(np.maximum(np.divide(twice_in, once_in), 0)),
            wrongly_again=float(np.maximum(np.divide(twice_out, once_out), 0)),
            flips=float(2 * (once_in - twice_in)),
            coin_flips=float(((share >= 0.25) & (share <= 0.75)).mean())
            if len(share) and np.median(decisions["n_in"]) >= 8
            else float("nan"),
        )


def compute_repeats(share: np.ndarray, n: np.ndarray) -> tuple[np.float64, np.float64]:
    """Compute the mean probabilities that one target, and that two targets, flag an example.

    Args:
        share: float64 [n], share of n targets that flag it.
        n: int [n].

    Returns:
        Means over the examples with two targets, k / n and k (k - 1) / (n (n - 1)); NaN without any.
    """
    share, n = share[n > 1], n[n > 1]
    if not len(n):
        return np.float64("nan"), np.float64("nan")
    return share.mean(), (share * (share * n - 1) / (n - 1)).mean()
