"""Claims that two things are alike, or that one is not lower: by a margin that is part of the claim's words.

What a paper reports, and what an interval says to it.
"""

from dataclasses import dataclass

from memscore.statistics.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What a paper says, and what this bank says to it: holds, fails or undecided, by an interval."""

    claim: str
    value: Interval
    verdict: str


def judge_interval(interval: Interval) -> str:
    """What an interval says of "above 0".

    Args:
        interval: of the difference, in the stated direction.

    Returns:
        "holds", "fails" or "undecided".

    >>> verdict(Interval(value=0.2, lo=0.1, hi=0.3)), verdict(Interval(value=0.2, lo=-0.1, hi=0.5))
    ('holds', 'undecided')
    """
    return "holds" if interval.lo > 0 else "fails" if interval.hi < 0 else "undecided"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a paper says, what was measured, and what that says to it.

    Attributes:
        claim: in words that an interval above 0 confirms.
        paper: what the paper printed.
        value: of the claim's difference, with its 95 % interval.
        verdict: holds, fails or undecided.
    """

    claim: str
    paper: str
    value: Interval
    verdict: str


def judge_claim(claim: str, paper: str, value: Interval) -> Claim:
    """A finding with its verdict; undecided where the interval is undefined."""
    return Claim(claim=claim, paper=paper, value=value, verdict=judge_interval(value))


EQUIVALENCE_MARGIN = 0.05
"""Of accuracies and of ToW: what the papers call similar differs by less (RUM Table 11a: .937 and .942)."""


def judge_equivalent(claim: str, paper: str, value: Interval, margin: float = EQUIVALENCE_MARGIN) -> Claim:
    """Whether a difference is nearly nothing.

    Args:
        claim: what is alike.
        paper: what the paper printed.
        value: the difference, with its interval.
        margin: how far from 0 it may lie.

    Returns:
        It holds where the whole interval lies within the margin, and fails where all of it lies without.
    """
    inside = -margin < value.lo and value.hi < margin
    outside = value.lo > margin or value.hi < -margin
    verdict = "holds" if inside else "fails" if outside else "undecided"
    return Claim(
        claim=f"{claim} (all of the interval within {margin:g} of 0)", paper=paper, value=value, verdict=verdict
    )


def judge_not_lower(claim: str, paper: str, value: Interval, margin: float = EQUIVALENCE_MARGIN) -> Claim:
    """Whether a difference is not below 0 by more than a margin.

    Args:
        claim: what is not lower.
        paper: what the paper printed.
        value: the difference, with its interval.
        margin: how far below 0 it may lie.

    Returns:
        It holds where the whole interval lies above -margin, and fails where all of it lies below.
    """
    verdict = "holds" if value.lo > -margin else "fails" if value.hi < -margin else "undecided"
    return Claim(claim=f"{claim} (all of the interval above -{margin:g})", paper=paper, value=value, verdict=verdict)
