"""Leakage by group of examples: how well an attack separates members from others within each class or cluster.

Averages over all examples hide groups that leak more, such as rare classes (power law of arXiv 2402.06674; grouped
analysis of Meta's PrivacyGuard). Members of a group are compared with non-members of the same group, so a group whose
scores are all high is not taken for one that leaks.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import stdtrit
from scipy.stats import rankdata

from memscore.statistics.calibrated_threshold import compute_mean_rate, count_flagged
from memscore.statistics.intervals import Interval, wilson
from memscore.statistics.roc import auc_interval

FEWEST = 10
"""Members, and non-members, of a group in a target, below which the target says nothing of the group."""


@dataclass(frozen=True, kw_only=True)
class GroupLeak:
    """Leakage of one group; means over targets with 95 % intervals, for these examples and shadow models.

    Of one target, as in an audit, the intervals are over examples: other examples of the group.

    Attributes:
        group: number of the class or cluster.
        examples: in the group.
        targets: that have at least FEWEST members and non-members in the group.
        members: of the group in such a target, on average.
        auc: within the group; NaN with no such target.
        tpr: of members above the threshold that was set on all examples.
        fpr: of non-members above it.
        mean_score: of members.
    """

    group: int
    examples: int
    targets: int
    members: float
    auc: Interval
    tpr: Interval
    fpr: Interval
    mean_score: float


def compute_group_aucs(scores: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Compute the area under the curve of each target, a tie counting one half.

    Args:
        scores: [T, n], higher for members; NaN is left out.
        member: bool [T, n].

    Returns:
        float64 [T]; NaN where a target has no member or no non-member with a score.
    """
    # ranks of all targets at once; what is undefined ranks above everything, so that it changes no other rank
    undefined = np.isnan(scores)
    finite = np.nan_to_num(scores.astype(np.float64), nan=np.inf, posinf=np.finfo(np.float64).max)
    ranks, positive = rankdata(finite, axis=1), member & ~undefined
    n_pos, n_neg = positive.sum(1), (~member & ~undefined).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        aucs: np.ndarray = ((ranks * positive).sum(1) - n_pos * (n_pos + 1) / 2) / (n_pos * n_neg)
    return aucs


def compute_group_leaks(
    scores: np.ndarray, member: np.ndarray, groups: np.ndarray, threshold: float
) -> list[GroupLeak]:
    """Compute the leakage of each group, the largest area first, groups without one last.

    Args:
        scores: [T, n], of each example against each target, higher for members; NaN is left out.
        member: bool [T, n].
        groups: int [n], the group of each example; below 0 for none.
        threshold: scores above it are flagged.

    Returns:
        One entry for each group.
    """
    # one stable sort gives the examples of every group
    order = np.argsort(groups, kind="stable")
    numbers, starts = np.unique(groups[order], return_index=True)
    leaks = [
        compute_group_leak(scores[:, rows], member[:, rows], int(number), threshold)
        for number, rows in zip(numbers, np.split(order, starts[1:]), strict=True)
        if number >= 0
    ]
    return sorted(leaks, key=lambda leak: (np.isnan(leak.auc.value), -leak.auc.value, leak.group))


def compute_group_leak(scores: np.ndarray, member: np.ndarray, group: int, threshold: float) -> GroupLeak:
    """Compute the leakage of one group.

    Args:
        scores: [T, n], of the group's examples.
        member: bool [T, n].
        group: its number.
        threshold: scores above it are flagged.

    Returns:
        Means over the targets that have enough examples on both sides.
    """
    counts = count_flagged(scores, member, threshold)
    enough = (counts[:, 1] >= FEWEST) & (counts[:, 3] >= FEWEST)
    counts, positives = counts[enough], scores[enough][member[enough]]
    defined = positives[~np.isnan(positives)]
    if len(scores) == 1 and len(counts) == 1:
        has_score = ~np.isnan(scores[0])
        auc = auc_interval(scores[0][has_score], member[0][has_score])
        tpr, fpr = (compute_share(*counts[0, k : k + 2].tolist()) for k in (2, 0))
    else:
        auc = compute_mean(compute_group_aucs(scores[enough], member[enough]))
        tpr, fpr = (compute_mean_rate(counts[:, k], counts[:, k + 1]) for k in (2, 0))
    return GroupLeak(
        group=group,
        examples=scores.shape[1],
        targets=len(counts),
        members=float(counts[:, 3].mean()) if len(counts) else float("nan"),
        auc=auc,
        tpr=tpr,
        fpr=fpr,
        mean_score=float(defined.mean()) if len(defined) else float("nan"),
    )


def compute_share(hits: int, trials: int) -> Interval:
    """Compute a share with Wilson's interval.

    Args:
        hits: counted.
        trials: of so many.

    Returns:
        The share and its 95 % interval; NaN without trials.
    """
    lo, hi = wilson(np.asarray(hits), np.asarray(trials))
    return Interval(value=hits / trials if trials else float("nan"), lo=float(lo), hi=float(hi))


def compute_mean(values: np.ndarray) -> Interval:
    """Compute the mean over targets with its t interval, cut to the range of the values.

    Args:
        values: [T], in [0, 1].

    Returns:
        The mean and its 95 % interval; the interval is NaN with fewer than two targets.
    """
    nan, n = float("nan"), len(values)
    value = float(values.mean()) if n else nan
    reach = float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else nan
    # a mean of numbers in [0, 1] lies there too
    lo, hi = np.clip([value - reach, value + reach], 0, 1).tolist()
    return Interval(value=value, lo=lo, hi=hi)
