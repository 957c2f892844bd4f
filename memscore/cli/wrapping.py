"""Wrap what is written to a terminal between words; a file or a pipe gets it as it is. Imports nothing heavy."""

import os
import re
import sys
import unicodedata
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, TextIO

UNBROKEN = re.compile(r"`[^`\n]+`\S*|\S*\d (?:%|ms|s|min|h|days|kB|MB|GB|TB)(?=[\s.,;:)]|$)\S*|\S+")
"""What no line break divides: a command between backticks, a number and its unit, or a word."""
DEFAULT_WIDTH = 80
"""Width of a terminal that does not say its own."""
MIN_WIDTH = 20
"""Minimum width of wrapped lines, whatever the terminal."""


def measure_width(text: str) -> int:
    """Return the columns that a text takes in a terminal."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def find_breaks(text: str, width: int, indent: int = 0) -> list[int]:
    """Find where a paragraph is broken between words.

    Lines after the first are narrower by the indent. A word that is wider than a line, as a path or a command may be,
    stays whole. Returns the positions in the text at which lines after the first begin.

    >>> find_breaks("about 12 min are left", 10)
    [6]
    """
    breaks, begin, room = [], 0, width
    for word in UNBROKEN.finditer(text):
        if word.start() > begin and measure_width(text[begin : word.end()]) > room:
            begin, room = word.start(), max(width - indent, MIN_WIDTH)
            breaks.append(begin)
    return breaks


def wrap_lines(text: str, width: int) -> str:
    """Wrap each line of a text; indented ones, which are commands to copy, and those with control codes stay."""
    # a progress bar moves the cursor over lines that fit already
    if "\x1b" in text or "\r" in text:
        return text
    wrapped = []
    for line in text.splitlines(keepends=True):
        # blanks stay at the end of the last part: a question is followed by one
        breaks = [0, *([] if line[0].isspace() else find_breaks(line.rstrip("\n"), max(width, MIN_WIDTH)))]
        parts = [line[begin:end] for begin, end in zip(breaks, [*breaks[1:], None], strict=True)]
        wrapped += [f"{part.rstrip()}\n" for part in parts[:-1]] + parts[-1:]
    return "".join(wrapped)


class WrappingStream:
    """A terminal whose lines are wrapped between words."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        """Write a text, which begins at the begin of a line."""
        self.stream.write(wrap_lines(text, self.find_width()))
        return len(text)

    def find_width(self) -> int:
        """Find the terminal's width: $COLUMNS, else that of this stream, whatever stdout is."""
        # not shutil's, which asks for stdout: that may be a pipe while errors go to a terminal
        columns = os.environ.get("COLUMNS", "")
        if columns.isdigit() and int(columns):
            return int(columns)
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or DEFAULT_WIDTH
        except (OSError, ValueError):
            return DEFAULT_WIDTH

    def __getattr__(self, name: str) -> Any:
        """Return what the terminal's stream has: flush, isatty, encoding, fileno."""
        return getattr(self.stream, name)


@contextmanager
def wrap_messages() -> Generator[None, None, None]:
    """Wrap what this block writes to stderr, if that is a terminal: errors, warnings, and lines on what is done."""
    # Python has no stderr where the user closed it
    before = sys.stderr
    if before is None or not before.isatty():
        yield
        return
    sys.stderr = WrappingStream(before)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stderr = before
