"""Verdicts on a paper's claims: above 0, equivalent within a margin, or not lower.

Equivalence ("these are alike") and non-inferiority ("this is not lower") are tested with a margin, which is part of
the claim's wording. Claims of one family are corrected for their number by Holm's method.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import t as student

from memscore.statistics.intervals import Interval
from memscore.statistics.means import MeanEstimate, estimate_interval


@dataclass(frozen=True, kw_only=True)
class Trend:
    """A paper's claim, its value with an interval, and the verdict on it."""

    claim: str
    value: Interval
    verdict: str


def judge_interval(interval: Interval) -> str:
    """Judge the claim "above 0" by an interval.

    Args:
        interval: of the difference, in the stated direction.

    Returns:
        "holds" if all of it is above 0, "fails" if all of it is below, else "undecided", also where it is NaN or has no
        width, which is no estimate of an error.

    >>> judge_interval(Interval(value=0.2, lo=0.1, hi=0.3)), judge_interval(Interval(value=0.2, lo=-0.1, hi=0.5))
    ('holds', 'undecided')
    """
    # equal ends are no certainty: there was nothing to estimate an error from
    if interval.lo == interval.hi:
        return "undecided"
    return "holds" if interval.lo > 0 else "fails" if interval.hi < 0 else "undecided"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's claim, the measured value, and the verdict.

    Attributes:
        claim: in words; a value above 0 speaks for it, unless the words say otherwise.
        paper: the paper's printed result.
        family: the claims that it is corrected with: those of one experiment of one kind of statement, in words.
        value: of the claim's difference, with its interval.
        favours: holds or fails, which of the two the value speaks for; "" where there is no test.
        p: p value of that; NaN where there is no test.
        p_family: the same after Holm's correction within the family; p before correct_families.
        uncorrected: verdict by p: holds, fails, undecided, or why there is none.
        verdict: verdict by p_family.
    """

    claim: str
    paper: str
    family: str
    value: MeanEstimate
    favours: str
    p: float
    p_family: float
    uncorrected: str
    verdict: str


ERROR = 0.05
"""Chance of a wrong verdict that is allowed, of one claim or of a family."""
GIVEN_TUNING = ", given this tuning"
"""End of a verdict whose interval leaves out the error of the choice of parameters, as with a single tuning."""
ROUNDING = 1e-12
"""Standard error, over the value, below which all differences are equal but for rounding."""


def judge_claim(claim: str, paper: str, value: MeanEstimate, *, family: str) -> Claim:
    """Judge the claim that a difference is above 0, by Student's t test of both sides.

    Args:
        claim: the claim in words.
        paper: the paper's printed result.
        value: the difference, with its standard error.
        family: see Claim.

    Returns:
        The claim; it holds where the difference is above 0 at 5 %, fails where it is below, else it is undecided.
    """
    return _judge_above(claim, paper, value, family, 0.0)


EQUIVALENCE_MARGIN = 0.05
"""For accuracies and ToW: values that the papers call similar differ by less (RUM Table 11a: .937 and .942)."""


def judge_equivalent(
    claim: str, paper: str, value: MeanEstimate, *, family: str, margin: float = EQUIVALENCE_MARGIN
) -> Claim:
    """Judge the claim that a difference is within a margin of 0, by two one-sided tests (Schuirmann 1987).

    It holds where the 90 % interval lies within the margin, which has a chance of at most 5 % where the difference is
    not within it: p is the larger one of both tests. It fails where |difference| is above the margin, by the test of
    |difference| <= margin, whose p value is largest at the margin.

    Args:
        claim: the claim in words.
        paper: the paper's printed result.
        value: the difference, with its standard error.
        family: see Claim.
        margin: the largest allowed distance from 0.

    Returns:
        The claim, with the 90 % interval of the value.
    """
    distance = abs(value.value)
    # the larger p of the two one-sided tests is that of the margin which is nearer
    p_holds = _upper_tail(margin - distance, value)
    # both tails, as seen from the margin: a true difference there may be exceeded on either side
    p_fails = _upper_tail(distance - margin, value) + _upper_tail(distance + margin, value)
    return _judge(
        f"{claim} (90 % interval within {margin:g} of 0)",
        paper,
        estimate_interval(value, 0.9),
        family,
        p_holds,
        p_fails,
    )


def judge_not_lower(
    claim: str, paper: str, value: MeanEstimate, *, family: str, margin: float = EQUIVALENCE_MARGIN
) -> Claim:
    """Judge the claim that a difference is not below 0 by more than a margin.

    Args:
        claim: the claim in words.
        paper: the paper's printed result.
        value: the difference, with its standard error.
        family: see Claim.
        margin: the largest allowed distance below 0.

    Returns:
        The claim; it holds where the difference is above -margin at 5 %, and fails where it is below.
    """
    return _judge_above(f"{claim} (all of the interval above -{margin:g})", paper, value, family, -margin)


def correct_families(claims: Sequence[Claim]) -> list[Claim]:
    """Correct the p values of each family, and take the verdicts by them (Holm 1979).

    The k-th smallest of m p values counts m - k + 1 times, and no less than the one before it: the chance of a wrong
    verdict in a family is at most 5 %, however its claims depend on each other. Claims without a test are not counted.

    Args:
        claims: of one experiment.

    Returns:
        The same claims in their order.
    """
    corrected: dict[int, float] = {}
    for family in dict.fromkeys(claim.family for claim in claims):
        tested = [i for i, claim in enumerate(claims) if claim.family == family and not np.isnan(claim.p)]
        # a claim is not rejected before one of a smaller p, so corrected values never fall
        largest = 0.0
        for rank, i in enumerate(sorted(tested, key=lambda i: claims[i].p)):
            largest = max(largest, min(1.0, claims[i].p * (len(tested) - rank)))
            corrected[i] = largest
    return [
        replace(claim, p_family=corrected[i], verdict=_decide(claim.value, claim.favours, corrected[i]))
        if i in corrected
        else claim
        for i, claim in enumerate(claims)
    ]


def _judge_above(claim: str, paper: str, value: MeanEstimate, family: str, limit: float) -> Claim:
    """Judge whether a value is above a limit, or below."""
    sides = (value.value - limit, limit - value.value)
    return _judge(claim, paper, value, family, *(min(1.0, 2 * _upper_tail(side, value)) for side in sides))


def _judge(claim: str, paper: str, value: MeanEstimate, family: str, p_holds: float, p_fails: float) -> Claim:
    """Make a claim from the p values of its two verdicts."""
    # of any true difference one verdict alone is wrong, so the smaller p needs no factor for having looked at both
    favours, p = ("holds", p_holds) if p_holds <= p_fails else ("fails", p_fails)
    # without a test there is no p value either, and Holm's correction does not count the claim
    if value.left_out or not _has_spread(value):
        favours, p = "", float("nan")
    verdict = _decide(value, favours, p)
    return Claim(
        claim=claim,
        paper=paper,
        family=family,
        value=value,
        favours=favours,
        p=p,
        p_family=p,
        uncorrected=verdict,
        verdict=verdict,
    )


def _decide(value: MeanEstimate, favours: str, p: float) -> str:
    """Decide by a p value; undecided where it is NaN, since comparisons with NaN are false."""
    if value.left_out:
        return f"no verdict: {value.left_out}"
    return favours + GIVEN_TUNING * value.conditional if p <= ERROR else "undecided"


def _has_spread(value: MeanEstimate) -> bool:
    """Return whether the values differ: equal ones show no error to judge by; false where there are fewer than two."""
    return value.se > ROUNDING * max(1.0, abs(value.value))


def _upper_tail(distance: float, value: MeanEstimate) -> float:
    """Compute the chance of a larger t than distance / se."""
    return float(student.sf(distance / value.se, value.df)) if _has_spread(value) else float("nan")
