"""A lower bound on a model's epsilon (privacy loss) from a membership attack on it.

An (epsilon, 0)-differentially private training bounds the success of any attack:

    TPR <= e^epsilon FPR    and    1 - FPR <= e^epsilon (1 - TPR)            (Kairouz, Oh & Viswanath 2015, theorem 2.1)

so epsilon >= log(lower end of one rate / upper end of the other), the ends from Clopper & Pearson (1934). One threshold
and one of the two inequalities are selected on one half of the examples and evaluated on the other, so the selection
causes no bias; the two ends share the error probability equally.

It bounds the epsilon of the algorithm that trained the model if membership was drawn at random, independently for each
example, and it is valid only as far as the examples are independent: a model's examples share its training, which
Clopper and Pearson do not take into account. If members differ from non-members in anything else, such as their source,
the bound is void.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound at delta 0 and the counts that it is computed from.

    Attributes:
        value: epsilon is at least this, 0 or more; NaN where a half has no members or no non-members.
        level: confidence of the bound.
        threshold: an example with a higher score is classified as a member.
        says: "member" if the bound uses the members classified by high scores, "non-member" if it uses the non-members
            classified by low scores.
        hits: correct classifications as `says` on the second half, of `of_hits` examples.
        of_hits: see hits.
        false: wrong classifications as `says`, of `of_false` examples.
        of_false: see false.
    """

    value: float
    level: float
    threshold: float
    says: str
    hits: int
    of_hits: int
    false: int
    of_false: int


def clopper_pearson(k: np.ndarray, n: np.ndarray, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute two one-sided exact bounds of a proportion, each with error `tail`.

    Args:
        k: successes, of any shape.
        n: trials, at least 1.
        tail: error probability of each end, e.g. 0.025.

    Returns:
        Lower and upper end in [0, 1].

    >>> lo, hi = clopper_pearson(np.array(0), np.array(10), 0.05)
    >>> float(lo), round(float(hi), 4), round(1 - 0.05**0.1, 4)
    (0.0, 0.2589, 0.2589)
    """
    # The ends are quantiles of Beta(k, n - k + 1) and Beta(k + 1, n - k). At k = 0 or k = n one of them does not exist,
    # and the maximum only keeps its parameter valid where np.where takes the constant.
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    lo = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    hi = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return lo, hi


def epsilon_lower_bound(
    scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, level: float = 0.95
) -> EpsilonBound:
    """Select a threshold on one half of the examples and compute the bound on the other.

    Args:
        scores: [n], no NaN, higher for members.
        member: bool [n], true membership.
        rng: draws the halves, separately for members and non-members.
        level: confidence of the bound.

    Returns:
        The bound, delta 0.
    """
    # 1. Halves, drawn within members and within non-members, so that both have some of each; of one example alone they
    # cannot, and there is no bound.
    selection = np.zeros(len(scores), bool)
    for side in (member, ~member):
        selection[rng.permutation(np.flatnonzero(side))[: int(side.sum()) // 2]] = True
    if not all((half & side).any() for half in (selection, ~selection) for side in (member, ~member)):
        nan = float("nan")
        return EpsilonBound(
            value=nan, level=level, threshold=nan, says="member", hits=0, of_hits=0, false=0, of_false=0
        )
    # 2. On the first half, the best bound over all thresholds and both inequalities. It is too high, since it is the
    # largest of many, so only its threshold and its inequality are used.
    tail = (1 - level) / 2
    thresholds = np.unique(scores[selection])
    above = _count_above(scores[selection], member[selection], thresholds)
    bounds = {says: _compute_bound(_select_calls(says, *above), tail) for says in ("member", "non-member")}
    says = max(bounds, key=lambda kind: float(bounds[kind].max()))
    # 3. On the second half, the bound at that one threshold, with both ends' errors adding up to 1 - level.
    threshold = float(thresholds[bounds[says].argmax()])
    calls = _select_calls(says, *_count_above(scores[~selection], member[~selection], np.array([threshold])))
    hits, of_hits, false, of_false = (int(np.ravel(count)[0]) for count in calls)
    return EpsilonBound(
        value=max(0.0, float(_compute_bound(calls, tail)[0])), level=level, threshold=threshold, says=says, hits=hits,
        of_hits=of_hits, false=false, of_false=of_false,
    )  # fmt: skip


def _count_above(scores: np.ndarray, member: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, ...]:
    """Count members above each threshold, members, non-members above it, non-members."""
    counts = []
    for side in (member, ~member):
        ranked = np.sort(scores[side])
        counts += [len(ranked) - np.searchsorted(ranked, thresholds, side="right"), np.array(len(ranked))]
    return tuple(counts)


def _select_calls(
    says: str, tp: np.ndarray, n_in: np.ndarray, fp: np.ndarray, n_out: np.ndarray
) -> tuple[np.ndarray, ...]:
    """Return hits, their total, false calls and their total for one kind of call."""
    # "non-member" calls the examples not above the threshold: n_out - fp of them rightly, n_in - tp wrongly
    return (tp, n_in, fp, n_out) if says == "member" else (n_out - fp, n_out, n_in - tp, n_in)


def _compute_bound(calls: tuple[np.ndarray, ...], tail: float) -> np.ndarray:
    """Compute the log of the hit rate's lower end over the false rate's upper end."""
    hits, of_hits, false, of_false = calls
    lo, _ = clopper_pearson(hits, of_hits, tail)
    _, hi = clopper_pearson(false, of_false, tail)
    # without a hit the lower end is 0 and the bound -infinity, below all others
    with np.errstate(divide="ignore"):
        bound: np.ndarray = np.log(lo) - np.log(hi)
    return bound
