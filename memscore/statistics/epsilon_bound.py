"""How much privacy a model has lost at least: a lower bound on epsilon from an attack that was run.

An (epsilon, 0)-differentially private training bounds what any attack reaches:

    TPR <= e^epsilon FPR    and    1 - FPR <= e^epsilon (1 - TPR)            (Kairouz, Oh & Viswanath 2015, theorem 2.1)

so epsilon >= log(lower end of one rate / upper end of the other), the ends from Clopper & Pearson (1934). One threshold
and one of the two lines are chosen on one half of the examples and read on the other, so choosing costs nothing; the
two ends share the error evenly.

It bounds the epsilon of the algorithm that trained the model if who was a member was drawn at random, each example by
its own coin, and is as good as the examples are independent: a model's examples share its training, which Clopper and
Pearson know nothing of. Members that differ from non-members in anything else, such as another source, make it void.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound at delta 0 and what it rests on.

    Attributes:
        value: epsilon is at least this, 0 or more; NaN where a half lacks members or non-members.
        level: confidence of the bound.
        threshold: an example is called a member above it.
        says: "member" where members were told by high scores, "non-member" where others were told by low ones.
        hits: right calls of that kind on the second half, of `of_hits` examples.
        of_hits: see hits.
        false: wrong calls of that kind, of `of_false` examples.
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
    """Two one-sided exact bounds of a proportion, each wrong with probability at most `tail`.

    Args:
        k: successes, of any shape.
        n: trials, at least 1.
        tail: error of each end, e.g. 0.025.

    Returns:
        Lower and upper end in [0, 1].

    >>> lo, hi = clopper_pearson(np.array(0), np.array(10), 0.05)
    >>> float(lo), round(float(hi), 4), round(1 - 0.05**0.1, 4)
    (0.0, 0.2589, 0.2589)
    """
    k, n = np.asarray(k, np.float64), np.asarray(n, np.float64)
    lo = np.where(k > 0, betaincinv(np.maximum(k, 1), n - k + 1, tail), 0.0)
    hi = np.where(k < n, betaincinv(k + 1, np.maximum(n - k, 1), 1 - tail), 1.0)
    return lo, hi


def epsilon_lower_bound(
    scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, level: float = 0.95
) -> EpsilonBound:
    """Choose a threshold on one half of the examples and read the bound on the other.

    Args:
        scores: [n], no NaN, higher for members.
        member: bool [n], the truth.
        rng: draws the halves, members and non-members apart.
        level: confidence of the bound.

    Returns:
        The bound, delta 0.
    """
    chosen = np.zeros(len(scores), bool)
    for side in (member, ~member):
        chosen[rng.permutation(np.flatnonzero(side))[: int(side.sum()) // 2]] = True
    if not all((half & side).any() for half in (chosen, ~chosen) for side in (member, ~member)):
        nan = float("nan")
        return EpsilonBound(
            value=nan, level=level, threshold=nan, says="member", hits=0, of_hits=0, false=0, of_false=0
        )
    tail = (1 - level) / 2
    thresholds = np.unique(scores[chosen])
    above = _counts_above(scores[chosen], member[chosen], thresholds)
    bounds = {says: _bound(_calls(says, *above), tail) for says in ("member", "non-member")}
    says = max(bounds, key=lambda kind: float(bounds[kind].max()))
    threshold = float(thresholds[bounds[says].argmax()])
    calls = _calls(says, *_counts_above(scores[~chosen], member[~chosen], np.array([threshold])))
    hits, of_hits, false, of_false = (int(np.ravel(count)[0]) for count in calls)
    return EpsilonBound(
        value=max(0.0, float(_bound(calls, tail)[0])), level=level, threshold=threshold, says=says, hits=hits,
        of_hits=of_hits, false=false, of_false=of_false,
    )  # fmt: skip


def _counts_above(scores: np.ndarray, member: np.ndarray, thresholds: np.ndarray) -> tuple[np.ndarray, ...]:
    """Members above each threshold, members, non-members above it, non-members."""
    counts = []
    for side in (member, ~member):
        own = np.sort(scores[side])
        counts += [len(own) - np.searchsorted(own, thresholds, side="right"), np.array(len(own))]
    return tuple(counts)


def _calls(says: str, tp: np.ndarray, n_in: np.ndarray, fp: np.ndarray, n_out: np.ndarray) -> tuple[np.ndarray, ...]:
    """Hits of n, and false calls of n: of "member" above the threshold, or of "non-member" up to it."""
    return (tp, n_in, fp, n_out) if says == "member" else (n_out - fp, n_out, n_in - tp, n_in)


def _bound(calls: tuple[np.ndarray, ...], tail: float) -> np.ndarray:
    """Log of the hit rate's lower end over the false rate's upper end; minus infinity without a hit."""
    hits, of_hits, false, of_false = calls
    lo, _ = clopper_pearson(hits, of_hits, tail)
    _, hi = clopper_pearson(false, of_false, tail)
    with np.errstate(divide="ignore"):
        bound: np.ndarray = np.log(lo) - np.log(hi)
    return bound
