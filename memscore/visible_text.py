"""Make control characters of text from outside visible: ids, class names, messages of other code, fields of records.

A file name may hold any character, and so may a record: one raw escape sequence clears the terminal that it is printed
on, a line break adds a row to a table, and a mark of direction turns the text around it.
"""

import logging
import re
import sys
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line and paragraph separators, marks of direction, and halves of characters, which no stream
can encode (bytes of a file name that are no text)."""
CONTROL_IN_LINE = re.compile(CONTROL.pattern.replace(r"[\x00-\x1f", r"[\x00-\x09\x0b-\x1f"))
"""The same without the line feed, for a text of several lines."""


def escape_controls(text: str) -> str:
    r"""Return a text with each control character as its escape sequence, for one line or cell.

    >>> escape_controls("a\x1b[2J\nb\u202e")
    'a\\x1b[2J\\nb\\u202e'
    """
    return CONTROL.sub(_escape, text)


def escape_controls_in_lines(text: str) -> str:
    r"""Return a text of several lines with each control character but the line feed as its escape sequence.

    >>> escape_controls_in_lines("a\x07\nb\r\n")
    'a\\x07\nb\\r\n'
    """
    return CONTROL_IN_LINE.sub(_escape, text)


def write_line(line: str, stream: TextIO | None = None) -> None:
    """Write a line for the user at once, on stderr unless another stream is given; control characters are escaped."""
    stream = stream or sys.stderr
    stream.write(f"{escape_controls(line)}\n")
    stream.flush()


class VisibleFormatter(logging.Formatter):
    """Formats a log record with its control characters escaped."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines of a record."""
        return escape_controls_in_lines(super().format(record))


@contextmanager
def escape_warnings() -> Generator[None, None, None]:
    """Escape control characters in what Python prints of warnings, and of log records that no handler takes."""
    # a program that has its own handlers, or runs a command inside itself, keeps what it had
    handler, format_before = logging.lastResort, warnings.formatwarning

    def format_visibly(message: Warning | str, *place: object, **line: object) -> str:
        return escape_controls_in_lines(format_before(message, *place, **line))  # type: ignore[arg-type]

    formatter_before = handler.formatter if handler else None
    if handler:
        handler.setFormatter(VisibleFormatter())
    warnings.formatwarning = format_visibly  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = format_before
        if handler:
            handler.setFormatter(formatter_before)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()
