"""A lower bound on a model's epsilon (privacy loss) from a membership attack on it.

An (epsilon, delta)-differentially private training bounds the success of any attack:

    TPR <= e^epsilon FPR + delta    and    1 - FPR <= e^epsilon (1 - TPR) + delta

(Kairouz, Oh & Viswanath 2015, theorem 2.1), so epsilon >= log((lower end of one rate - delta) / upper end of the
other), the ends from Clopper & Pearson (1934). One threshold and one of the two inequalities are selected on one half
of the examples and evaluated on the other, so the selection causes no bias; the two ends share the error probability
equally. Both hold for the attack that takes low scores for members as well: its rates are other rates with ends of
their own, never the first ones with another sign.

It bounds the epsilon of the algorithm that trained the model if membership was drawn at random, independently for each
example, and it is valid only as far as the examples are independent: a model's examples share its training, which
Clopper and Pearson do not take into account. If members differ from non-members in anything else, such as their source,
the bound is void.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from scipy.special import betaincinv


@dataclass(frozen=True, kw_only=True)
class EpsilonBound:
    """A lower bound and the counts that it is computed from.

    Attributes:
        value: epsilon, or another parameter of which it is a bound, is at least this, 0 or more; NaN where a half has
            no members or no non-members.
        level: confidence of the bound.
        threshold: an example with a higher score is classified as a member; with a lower one if members score lower.
        says: "member" if the bound uses the members classified by high scores, "non-member" if it uses the non-members
            classified by low scores.
        hits: correct classifications as `says` on the second half, of `of_hits` examples.
        of_hits: see hits.
        false: wrong classifications as `says`, of `of_false` examples.
        of_false: see false.
        members: "higher" or "lower", where the attack expects the scores of members.
    """

    value: float
    level: float
    threshold: float
    says: str
    hits: int
    of_hits: int
    false: int
    of_false: int
    members: str = "higher"


Bound = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Lower bound of a parameter from the lower end of a hit rate and the upper end of a false rate."""


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


def draw_halves(member: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw the half of the examples on which an attack is selected, within members and within non-members.

    Args:
        member: bool [n], true membership.
        rng: draws the halves.

    Returns:
        bool [n], true in the half for selection; the bound is computed on the others.
    """
    selection = np.zeros(len(member), bool)
    for side in (member, ~member):
        selection[rng.permutation(np.flatnonzero(side))[: int(side.sum()) // 2]] = True
    return selection


def compute_log_ratio(hit_rate: np.ndarray, false_rate: np.ndarray, delta: float = 0.0) -> np.ndarray:
    """Compute epsilon from rates, or its lower bound from their unfavourable ends.

    Args:
        hit_rate: a lower end, in [0, 1].
        false_rate: an upper end.
        delta: in [0, 1).

    Returns:
        epsilon; -infinity for a hit rate of delta or less, which bounds nothing.
    """
    with np.errstate(divide="ignore"):
        bound: np.ndarray = np.log(np.maximum(hit_rate - delta, 0)) - np.log(false_rate)
    return bound


def epsilon_lower_bound(
    scores: np.ndarray, member: np.ndarray, rng: np.random.Generator, level: float = 0.95
) -> EpsilonBound:
    """Select a threshold on one half of the examples and compute the bound at delta 0 on the other.

    Args:
        scores: [n], no NaN, higher for members.
        member: bool [n], true membership.
        rng: draws the halves, separately for members and non-members.
        level: confidence of the bound.

    Returns:
        The bound, delta 0.
    """
    return bound_by_rates(scores, member, draw_halves(member, rng), level, compute_log_ratio, directions=("higher",))


def bound_by_rates(
    scores: np.ndarray,
    member: np.ndarray,
    selection: np.ndarray,
    level: float,
    bound: Bound,
    directions: tuple[str, ...] = ("higher", "lower"),
) -> EpsilonBound:
    """Select threshold, inequality and direction on one half of the examples and compute a bound on the other.

    Args:
        scores: [n], no NaN.
        member: bool [n], true membership.
        selection: bool [n], the half for selection, from draw_halves.
        level: confidence of the bound.
        bound: of the two rates.
        directions: whether members are expected to score "higher" or "lower"; of several one is selected.

    Returns:
        The bound.
    """
    # 1. Each half needs members and non-members.
    if not all((half & side).any() for half in (selection, ~selection) for side in (member, ~member)):
        nan = float("nan")
        return EpsilonBound(
            value=nan, level=level, threshold=nan, says="member", hits=0, of_hits=0, false=0, of_false=0
        )
    # 2. On the first half, the best bound over all thresholds, both inequalities and the directions. It is too high,
    # since it is the largest of many, so only its threshold, its inequality and its direction are used.
    compute = partial(_compute_bound, tail=(1 - level) / 2, bound=bound)
    best, threshold, sign, says = -np.inf, float(scores[selection].max()), 1, "member"
    for direction in directions:
        oriented = 1 if direction == "higher" else -1
        thresholds = np.unique(oriented * scores[selection])
        above = _count_above(oriented * scores[selection], member[selection], thresholds)
        for kind in ("member", "non-member"):
            bounds = compute(_select_calls(kind, *above))
            if bounds.max() > best:
                best, threshold, sign, says = bounds.max(), float(thresholds[bounds.argmax()]), oriented, kind
    # 3. On the second half, the bound at that one threshold, with both ends' errors adding up to 1 - level.
    calls = _select_calls(says, *_count_above(sign * scores[~selection], member[~selection], np.array([threshold])))
    hits, of_hits, false, of_false = (int(np.ravel(count)[0]) for count in calls)
    return EpsilonBound(
        value=max(0.0, float(compute(calls)[0])), level=level, threshold=sign * threshold, says=says, hits=hits,
        of_hits=of_hits, false=false, of_false=of_false, members="higher" if sign == 1 else "lower",
    )  # fmt: skip


def compute_rate_ceiling(n_in: int, n_out: int, level: float, bound: Bound) -> float:
    """Compute the bound of an attack that is right for every example.

    Args:
        n_in: members of the second half.
        n_out: its non-members.
        level: confidence of the bound.
        bound: of the two rates.

    Returns:
        The largest value that bound_by_rates can have with these numbers; NaN where one of them is 0.
    """
    if not n_in or not n_out:
        return float("nan")
    counts = np.array(n_in), np.array(n_in), np.array(0), np.array(n_out)
    perfect = (_select_calls(says, *counts) for says in ("member", "non-member"))
    return max(0.0, *(float(_compute_bound(calls, (1 - level) / 2, bound)) for calls in perfect))


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


def _compute_bound(calls: tuple[np.ndarray, ...], tail: float, bound: Bound) -> np.ndarray:
    """Compute a bound from the hit rate's lower end and the false rate's upper end."""
    hits, of_hits, false, of_false = calls
    return bound(_tabulate_ends(int(of_hits), tail)[0][hits], _tabulate_ends(int(of_false), tail)[1][false])


@lru_cache(maxsize=8)
def _tabulate_ends(n: int, tail: float) -> tuple[np.ndarray, np.ndarray]:
    """Compute Clopper and Pearson's ends for 0 to n successes."""
    # Every threshold, direction and draw of the halves asks for some of them, and each costs microseconds.
    return clopper_pearson(np.arange(n + 1), np.array(n), tail)
