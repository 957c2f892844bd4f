"""Verdicts on a paper's claims: above 0, equivalent within a margin, or not lower.

Equivalence ("these are alike") and non-inferiority ("this is not lower") are tested with a margin, which is part of
the claim's wording.
"""

from dataclasses import dataclass

from memscore.statistics.intervals import Interval


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
        "holds" if all of it is above 0, "fails" if all of it is below, else "undecided", also where it is NaN.

    >>> judge_interval(Interval(value=0.2, lo=0.1, hi=0.3)), judge_interval(Interval(value=0.2, lo=-0.1, hi=0.5))
    ('holds', 'undecided')
    """
    return "holds" if interval.lo > 0 else "fails" if interval.hi < 0 else "undecided"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A paper's claim, the measured value, and the verdict.

    Attributes:
        claim: in words; an interval above 0 confirms it.
        paper: the paper's printed result.
        value: of the claim's difference, with its 95 % interval.
        verdict: holds, fails or undecided.
    """

    claim: str
    paper: str
    value: Interval
    verdict: str


def judge_claim(claim: str, paper: str, value: Interval) -> Claim:
    """Judge a claim by its interval; undecided where the interval is undefined."""
    return Claim(claim=claim, paper=paper, value=value, verdict=judge_interval(value))


EQUIVALENCE_MARGIN = 0.05
"""For accuracies and ToW: values that the papers call similar differ by less (RUM Table 11a: .937 and .942)."""


def judge_equivalent(claim: str, paper: str, value: Interval, margin: float = EQUIVALENCE_MARGIN) -> Claim:
    """Judge the claim that a difference is within a margin of 0.

    Args:
        claim: the claim in words.
        paper: the paper's printed result.
        value: the difference, with its interval.
        margin: the largest allowed distance from 0.

    Returns:
        The claim; it holds where the whole interval lies within the margin, and fails where all of it lies outside.
    """
    # comparisons with NaN are false, so an undefined interval is neither
    inside = -margin < value.lo and value.hi < margin
    outside = value.lo > margin or value.hi < -margin
    verdict = "holds" if inside else "fails" if outside else "undecided"
    return Claim(
        claim=f"{claim} (all of the interval within {margin:g} of 0)", paper=paper, value=value, verdict=verdict
    )


def judge_not_lower(claim: str, paper: str, value: Interval, margin: float = EQUIVALENCE_MARGIN) -> Claim:
    """Judge the claim that a difference is not below 0 by more than a margin.

    Args:
        claim: the claim in words.
        paper: the paper's printed result.
        value: the difference, with its interval.
        margin: the largest allowed distance below 0.

    Returns:
        The claim; it holds where the whole interval lies above -margin, and fails where all of it lies below.
    """
    verdict = "holds" if value.lo > -margin else "fails" if value.hi < -margin else "undecided"
    return Claim(claim=f"{claim} (all of the interval above -{margin:g})", paper=paper, value=value, verdict=verdict)
