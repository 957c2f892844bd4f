"""What a paper reports, and what an interval says to it."""

from dataclasses import dataclass

from memscore.intervals import Interval


@dataclass(frozen=True, kw_only=True)
class Trend:
    """What a paper says, and what this bank says to it: holds, fails or undecided, by an interval."""

    claim: str
    value: Interval
    verdict: str


def verdict(interval: Interval) -> str:
    """What an interval says of "above 0".

    Args:
        interval: of the difference, in the stated direction.

    Returns:
        "holds", "fails" or "undecided".

    >>> verdict(Interval(value=0.2, lo=0.1, hi=0.3)), verdict(Interval(value=0.2, lo=-0.1, hi=0.5))
    ('holds', 'undecided')
    """
    return "holds" if interval.lo > 0 else "fails" if interval.hi < 0 else "undecided"
