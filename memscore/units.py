"""Format durations, rates, counts and sizes for people, in one way for every command; imports nothing heavy."""

import math
from typing import Any

COMMA_FROM = 10_000
"""The least count that is written with commas."""


def format_duration(seconds: float) -> str:
    """Format a duration with two or three digits and one unit.

    Args:
        seconds: any number; below 0 counts as 0.

    Returns:
        Such as "1.3 s"; "-" where it is unknown.

    >>> [format_duration(s) for s in (0, 0.004, 0.11, 1.3, 59, 61, 756 * 60, 200_000, 9e7, float("nan"))]
    ['0 s', '4 ms', '0.11 s', '1.3 s', '59 s', '1 min', '12.6 h', '2.3 days', '2.9 years', '-']
    """
    if not math.isfinite(seconds):
        return "-"
    if seconds <= 0:
        return "0 s"
    if seconds < 0.1:
        return f"{_round_digits(1000 * seconds, 2)} ms"
    for unit, size, limit in (("s", 1, 60), ("min", 60, 5400), ("h", 3600, 172_800)):
        if seconds < limit:
            # 59.7 s would be written as 60 s, which is a minute
            return f"{_round_digits(seconds / size, 2 if seconds < 10 * size else 3)} {unit}"
    if seconds < 2 * 31_557_600:
        return f"{_round_digits(seconds / 86_400, 2)} days"
    return f"{_round_digits(seconds / 31_557_600, 2)} years"


def format_hours(seconds: float) -> str:
    """Format hours of cores or GPUs, which are paid for, as a number without a unit.

    Args:
        seconds: 0 or more.

    Returns:
        Such as "12.6"; "under 0.01" where it is less.

    >>> [format_hours(s) for s in (0, 0.5, 90, 4000, 45_360, 6e7)]
    ['0', 'under 0.01', '0.025', '1.1', '12.6', '16,700']
    """
    hours = seconds / 3600
    return "under 0.01" if 0 < hours < 0.01 else _round_digits(hours, 2 if hours < 10 else 3)


def format_about_hours(seconds: float) -> str:
    """Format an estimate of hours of cores or GPUs, whose unit stands behind it.

    Args:
        seconds: 0 or more.

    Returns:
        Such as "about 12.6"; "under 0.01" where it is less.

    >>> format_about_hours(45_360), format_about_hours(0.5)
    ('about 12.6', 'under 0.01')
    """
    hours = format_hours(seconds)
    return hours if hours.startswith("under") else f"about {hours}"


def format_rate(per_s: float) -> str:
    """Format a rate with three digits at most, by the second, hour or day.

    Args:
        per_s: how many a second.

    Returns:
        Such as "550 an hour"; "-" where it is unknown.

    >>> [format_rate(r) for r in (153.4, 6.98, 0.53, 0.1, 2e-4, 1e-5, float("nan"))]
    ['153 a second', '6.98 a second', '1910 an hour', '360 an hour', '17.3 a day', '0.864 a day', '-']
    """
    if not math.isfinite(per_s):
        return "-"
    for unit, size in (("a second", 1), ("an hour", 3600)):
        if per_s * size >= 1:
            return f"{_round_digits(per_s * size, 3)} {unit}"
    return f"{_round_digits(per_s * 86_400, 3)} a day"


def format_count(count: int, singular: str = "", plural: str = "") -> str:
    """Format a count, with commas from five digits on, and its noun if there is one.

    Args:
        count: how many.
        singular: the noun for 1; empty for none.
        plural: the noun for other counts (default: with an s).

    Returns:
        Such as "1 model" or "50,000 models".

    >>> format_count(1, "model"), format_count(0, "model"), format_count(50_000, "query", "queries"), format_count(1200)
    ('1 model', '0 models', '50,000 queries', '1200')
    """
    number = f"{count:,}" if count >= COMMA_FROM else str(count)
    noun = singular if count == 1 else plural or f"{singular}s"
    return f"{number} {noun}" if singular else number


def format_size(n_bytes: float) -> str:
    """Format a number of bytes with three digits at most.

    Args:
        n_bytes: 0 or more.

    Returns:
        Such as "6.4 MB", of 10^6 bytes.

    >>> [format_size(n) for n in (0, 512, 6_400_000, 37_123_456, 1.25e9, 4e13)]
    ['0 B', '512 B', '6.4 MB', '37.1 MB', '1.25 GB', '40 TB']
    """
    for unit, size in (("B", 1), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9)):
        if n_bytes < 999.5 * size:
            return f"{_round_digits(n_bytes / size, 3)} {unit}"
    return f"{_round_digits(n_bytes / 1e12, 3)} TB"


def format_error(error: float) -> str:
    """Format a standard error or RMSE with four decimals, and never a small one as 0.

    Args:
        error: 0 or more.

    Returns:
        Such as "0.0105"; "-" where it is unknown.

    >>> format_error(0.01046), format_error(0.0), format_error(float("nan"))
    ('0.0105', '< 0.0001', '-')
    """
    if math.isnan(error):
        return "-"
    return "< 0.0001" if error < 0.00005 else f"{error:.4f}"


def name_rmse(score: str, estimate: str) -> str:
    """Name a root mean square error of a bank's estimates.

    Args:
        score: whose error it is, without the arm's suffix.
        estimate: how the error was estimated, such as "between blocks".

    Returns:
        The name by which every page calls it.

    >>> name_rmse("memorization_blend", "between blocks")
    'RMSE of memorization_blend (between blocks)'
    """
    return f"RMSE of {score} ({estimate})"


def format_rmse(score: str, estimate: str, error: float) -> str:
    """Format a root mean square error of a bank's estimates with its name.

    Args:
        score: whose error it is, without the arm's suffix.
        estimate: how the error was estimated.
        error: 0 or more, or NaN.

    Returns:
        Name and value.

    >>> format_rmse("memorization", "independent models", 0.01046)
    'RMSE of memorization (independent models) 0.0105'
    >>> format_rmse("memorization", "independent models", float("nan"))
    'RMSE of memorization (independent models) undefined'
    """
    return f"{name_rmse(score, estimate)} {'undefined' if math.isnan(error) else format_error(error)}"


def format_value(value: Any, separator: str = ", ") -> str:
    """Format a value of an option or a record for a message: no digits that say nothing, no brackets or quotes.

    Args:
        value: a number, a text, or a list of these.
        separator: between the values of a list.

    Returns:
        Such as "0.1" or "15, 25"; "none" for nothing.

    >>> format_value(0.30000000000000004), format_value([15.0, 25.0]), format_value(()), format_value("crop")
    ('0.3', '15, 25', 'none', 'crop')
    """
    if isinstance(value, (tuple, list)):
        return separator.join(format_value(each, separator) for each in value) or "none"
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _round_digits(value: float, digits: int) -> str:
    """Round to so many digits; whole numbers of more digits keep their length, as in counts."""
    if value == 0:
        return "0"
    decimals = max(digits - 1 - math.floor(math.log10(abs(value))), 0)
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    if decimals:
        return f"{rounded:.{decimals}f}".rstrip("0").rstrip(".")
    return format_count(round(rounded))
