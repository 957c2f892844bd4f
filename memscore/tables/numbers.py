"""Numbers of tables: a dash where they are undefined, intervals in brackets, rates with their counts."""

import math
from collections.abc import Iterable

import numpy as np

from memscore.statistics.intervals import Interval, clip_interval
from memscore.statistics.roc import RateAtFpr, TargetMean

MIN_MEMBER_ACCURACY = 0.95
"""Accuracy on members below which memorization means little."""
UNLIMITED, SHARE = (-math.inf, math.inf), (0.0, 1.0)
"""What a number may be: anything, or a share, as an accuracy, a rate and ToW are."""
ROUNDING = 1e-9


def format_number(value: float | None) -> str:
    """Format three digits, or a dash where undefined: null in a file, NaN in memory."""
    # 0 is added since a small negative number would be written as -0.000
    return "-" if value is None or np.isnan(value) else f"{round(float(value), 3) + 0.0:.3f}"


def format_interval(lo: float | None, hi: float | None) -> str:
    """Format the ends of an interval, or a dash where there is none."""
    ends = (format_number(lo), format_number(hi))
    return "-" if ends == ("-", "-") else f"[{', '.join(ends)}]"


def format_value_and_half(
    value: float, lo: float, hi: float, *, limits: tuple[float, float] = UNLIMITED, mark: str = "± "
) -> str:
    """Format a number and half of its interval, or the interval's ends where half of it goes beyond the limits."""
    if np.isnan(lo):
        return format_number(value)
    half = max(hi - value, value - lo)
    # rounding of a float is no end beyond 1
    if limits[0] - ROUNDING <= value - half and value + half <= limits[1] + ROUNDING:
        return f"{format_number(value)} {mark}{format_number(half)}"
    clipped = clip_interval(Interval(value=value, lo=lo, hi=hi), *limits)
    return f"{format_number(value)} {format_interval(clipped.lo, clipped.hi)}"


def format_target_mean(mean: TargetMean) -> str:
    """Format a mean over targets with its error, and for a rate the mean counts of false positives and negatives."""
    if np.isnan(mean.value):
        return format_reason(mean.rate.reason if mean.rate else "")
    # areas and rates are shares
    text = format_value_and_half(mean.value, mean.lo, mean.hi, limits=SHARE)
    if mean.rate is None:
        return text
    targets = int((~np.isnan(mean.per_target)).sum())
    return f"{text} at {mean.rate.false_positives / targets:.3g}/{mean.rate.negatives / targets:.0f}"


def format_rate(rate: RateAtFpr) -> str:
    """Format a rate with its interval and the counts of its realised false positive rate, or why it has no value."""
    if np.isnan(rate.value):
        return format_reason(rate.reason)
    interval = format_interval(rate.lo, rate.hi)
    return f"{format_number(rate.value)} {interval} at {rate.false_positives}/{rate.negatives}"


def format_reason(reason: str) -> str:
    """Format why there is no rate: that it is finer than the examples allow, else a dash."""
    return reason if reason.startswith("finer") else "-"


def explain_unrealisable_rates(rates: Iterable[RateAtFpr]) -> list[str]:
    """Explain each false positive rate that the non-members are too few for, in a line."""
    reasons = {rate.fpr: rate.reason for rate in rates if rate.reason.startswith("finer")}
    return [
        f"TPR at FPR {format_percent(fpr)} has no value: that false positive rate is {reasons[fpr]}, one of the "
        f"non-members; it needs {math.ceil(1 / fpr):,} of them"
        for fpr in sorted(reasons, reverse=True)
    ]


def format_percent(share: float) -> str:
    """Format a share as in the tables' headers, .1 % for a thousandth."""
    return f"{100 * share:g} %".removeprefix("0")


def format_with_interval(interval: Interval) -> str:
    """Format a number and its interval, or one dash where both are undefined."""
    value, ends = format_number(interval.value), format_interval(interval.lo, interval.hi)
    return value if value == ends else f"{value} {ends}"
