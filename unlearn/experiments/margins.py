"""Claims that two things are alike, or that one is not lower: by a margin that is part of the claim's words."""

from memscore.intervals import Interval
from unlearn.experiments.parts import Finding

MARGIN = 0.05
"""Of accuracies and of ToW: what the papers call similar differs by less (RUM Table 11a: .937 and .942)."""


def alike(claim: str, paper: str, value: Interval, margin: float = MARGIN) -> Finding:
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
    return Finding(
        claim=f"{claim} (all of the interval within {margin:g} of 0)", paper=paper, value=value, verdict=verdict
    )


def not_lower(claim: str, paper: str, value: Interval, margin: float = MARGIN) -> Finding:
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
    return Finding(claim=f"{claim} (all of the interval above -{margin:g})", paper=paper, value=value, verdict=verdict)
