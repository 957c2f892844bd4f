"""Checks of values that were read from a file: each returns what is wrong, or nothing.

A check takes a value and returns a clause for a message, "" for a valid value: record_schemas.py puts them together to
a schema of each kind of record. None of them raises, whatever the value.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[Any], str]
MAX_WHOLE = 2**53
"""The largest whole number that JSON readers agree on."""
MAX_TEXT = 100_000
NAME = re.compile(r"(?!\.)[^/\x00-\x1f\x7f]{1,200}")
"""A name that becomes part of a path: it stays in its folder."""
SHOWN = 60
"""Characters of a value in a message."""


def whole(least: int = 0, most: int = MAX_WHOLE) -> Check:
    """Check for a whole number in a range."""

    def check(value: Any) -> str:
        # True is an int in Python, and true is none in JSON
        is_valid = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        return "" if is_valid else f"must be a whole number from {least} to {most}, got {show(value)}"

    return check


def number(least: float = -math.inf, most: float = math.inf) -> Check:
    """Check for a finite number in a range."""

    def check(value: Any) -> str:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if is_number and least <= value <= most and abs(value) < math.inf:
            return ""
        limits = "" if math.isinf(least) and math.isinf(most) else f" from {least:g} to {most:g}"
        return f"must be a number{limits}, got {show(value)}"

    return check


def flag(value: Any) -> str:
    """Check for true or false."""
    return "" if isinstance(value, bool) else f"must be true or false, got {show(value)}"


def text(value: Any) -> str:
    """Check for a text."""
    return "" if isinstance(value, str) and len(value) <= MAX_TEXT else f"must be a text, got {show(value)}"


def matching(pattern: str | re.Pattern[str], what: str) -> Check:
    """Check for a text that matches a regular expression as a whole; `what` describes it."""
    compiled = re.compile(pattern)

    def check(value: Any) -> str:
        return "" if isinstance(value, str) and compiled.fullmatch(value) else f"must be {what}, got {show(value)}"

    return check


def anything(value: Any) -> str:
    """Accept any value."""
    return ""


def one_of(*values: Any) -> Check:
    """Check for one of some values."""

    def check(value: Any) -> str:
        # by type too: 1 equals True and 1.0
        is_valid = any(type(value) is type(each) and value == each for each in values)
        return "" if is_valid else f"must be {' or '.join(map(str, values))}, got {show(value)}"

    return check


def nullable(check: Check) -> Check:
    """Check for null or a value that passes another check."""
    return lambda value: "" if value is None else check(value)


def listing(check: Check, length: int | None = None) -> Check:
    """Check for a list, of this length if one is given, all of whose values pass a check."""

    def check_list(value: Any) -> str:
        if not isinstance(value, list) or length not in {None, len(value)}:
            what = "a list" if length is None else f"a list of {length}"
            return f"must be {what}, got {show(value)}"
        return next((f"[{k}]{join(fault)}" for k, each in enumerate(value) if (fault := check(each))), "")

    return check_list


def mapping(check: Check, keys: Check = anything) -> Check:
    """Check for an object all of whose keys and values pass a check."""

    def check_mapping(value: Any) -> str:
        if not isinstance(value, dict):
            return f"must be an object, got {show(value)}"
        for key, each in value.items():
            if fault := keys(key):
                return f"has a key that {fault}"
            if fault := check(each):
                return f".{key[:SHOWN]}{join(fault)}"
        return ""

    return check_mapping


def record(
    required: Mapping[str, Check], optional: Mapping[str, Check] | None = None, *, closed: bool = False
) -> Check:
    """Check for an object with some entries; others are allowed unless it is closed, for later versions add some."""
    checks = {**required, **(optional or {})}

    def check_record(value: Any) -> str:
        if not isinstance(value, dict):
            return f"must be an object, got {show(value)}"
        # what is missing first: a record of another kind lacks something, whatever it has
        for key in required:
            if key not in value:
                return f"has no entry {key!r}"
        for key, check in checks.items():
            if key in value and (fault := check(value[key])):
                return f".{key}{join(fault)}"
        unknown = [key for key in value if key not in checks] if closed else []
        return f"has an unknown entry {unknown[0][:SHOWN]!r}" if unknown else ""

    return check_record


def digits(least: int = 0) -> Check:
    """Check for a text of digits, a whole number in the metadata of a table."""

    def check(value: Any) -> str:
        # int() takes signs, blanks and digits of other scripts too
        is_valid = isinstance(value, str) and re.fullmatch(r"[0-9]{1,15}", value) and int(value) >= least
        return "" if is_valid else f"must be a whole number from {least} on, got {show(value)}"

    return check


def json_text(check: Check) -> Check:
    """Check for a text that is JSON, and for what it holds."""

    def check_text(value: Any) -> str:
        try:
            content = json.loads(value)
        except (TypeError, ValueError, RecursionError):
            return f"must be JSON, got {show(value)}"
        return check(content)

    return check_text


def show(value: Any) -> str:
    """Show a value of any kind in a few characters."""
    # Python refuses to write a whole number of thousands of digits
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_WHOLE:
        return f"a whole number of {value.bit_length()} bits"
    if isinstance(value, list | dict):
        return f"{'a list' if isinstance(value, list) else 'an object'} of {len(value)}"
    shown = json.dumps(value[: SHOWN + 1] if isinstance(value, str) else value)
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."


def join(fault: str) -> str:
    """Join a clause to the entry that it is about: "[0].keep must be ..."."""
    return fault if fault[0] in ".[" else f" {fault}"
