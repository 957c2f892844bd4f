"""Make tables and lines for a terminal in one style, in which no number is ever cut; imports nothing heavy."""

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.table import Column, Table
from rich.text import Text

from memscore.cli.wrapping import find_breaks
from memscore.visible_text import escape_controls

PIPED_WIDTH = 120
"""Width of what is written to a file or a pipe, unless $COLUMNS says another."""

UNLIMITED = 10_000
"""Terminal width that fits any table."""
MIN_TEXT_WIDTH = 8
"""Minimum width of a column of text, whatever the terminal."""
MARKED = re.compile(r"\[(yellow|red)\](.*?)\[/\]")
"""A coloured beginning of a line. No other markup is read, so that brackets in an id are text."""
WORD = re.compile(r"[A-Za-z]{3}")
"""Only a cell of text has three letters in a row."""


class Size(NamedTuple):
    """Width that a column needs, without padding."""

    least: int
    """With text wrapped between words, and numbers whole."""
    natural: int
    """With nothing wrapped."""
    is_text: bool


class NumberTable(Table):
    """Table that never cuts a number: text wraps, and columns that do not fit go into another part below.

    Rich shortens cells to fit the terminal, and a shortened number is wrong. Each part begins with the leading columns
    of text, because they identify the rows. A blank line stands above the title and above each part; no line ends in
    blanks. Cells are plain text of one line: brackets are no markup, and control characters are escaped.
    """

    def __init__(self, title: str) -> None:
        super().__init__(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        self.heading = escape_controls(title)
        # headers of columns that are broken only where nothing else fits, as ids, which are copied
        self.whole: frozenset[str] = frozenset()

    def add_column(self, header: str = "", **options: Any) -> None:  # type: ignore[override]
        """Add a column with a plain header."""
        super().add_column(Text(escape_controls(header)), **options)

    def add_row(self, *cells: str) -> None:  # type: ignore[override]
        """Add a row of plain cells."""
        super().add_row(*(Text(escape_controls(cell)) for cell in cells))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the whole table where it fits, else part by part."""
        # measured as if the terminal had any width, because rich limits a cell's measure to the width it has
        unlimited = options.update_width(UNLIMITED)
        sizes = [
            _measure_column(console, unlimited, column, is_whole=str(column.header) in self.whole)
            for column in self.columns
        ]
        yield Segment.line()
        # not rich's title, which wraps at the width of the table
        if self.heading:
            for line in _wrap_text(Text(self.heading, "bold"), options.max_width):
                yield from (*line.render(console), Segment.line())
        keys = _find_keys(sizes)
        fits = _compute_table_width([size.natural for size in sizes]) <= options.max_width
        parts = [list(range(len(sizes)))] if fits else _split_columns(sizes, keys, options.max_width)
        # each part is a table with fixed widths that fit, so that rich has nothing to shorten
        for number, part in enumerate(parts):
            widths = _shrink_widths([sizes[index] for index in part], options.max_width)
            table = Table(box=self.box, pad_edge=self.pad_edge, padding=self.padding)
            for index, width in zip(part, widths, strict=True):
                column = self.columns[index]
                justify = "left" if index in keys else column.justify
                table.add_column(column.header, justify=justify, width=width, overflow="fold")
            for cells in zip(*(self.columns[index].cells for index in part), strict=True):
                table.add_row(*cells)
            if number:
                yield Segment.line()
            for segments in _strip_lines(console.render(table, options.update_width(UNLIMITED))):
                yield from (*segments, Segment.line())


def open_console() -> Console:
    """Open the console of a command's page: as wide as the terminal or $COLUMNS, else PIPED_WIDTH."""
    has_width = sys.stdout.isatty() or os.environ.get("COLUMNS", "").isdigit()
    return Console(width=None if has_width else PIPED_WIDTH)


def print_line(console: Console, text: str, *, indent: int = 0, markup: bool = False) -> None:
    """Print one paragraph, wrapped between words at the width of the console.

    Lines after the first begin after `indent` columns, so that a label stands alone. A word that is wider than the
    console, as a path may be, stays whole. Control characters are escaped. With `markup`, [yellow]...[/] or [red] at
    the beginning colours what is in it; nothing else is markup.
    """
    # before it becomes a Text, which drops some control characters and keeps the most harmful one
    text = escape_controls(text)
    marked = MARKED.match(text) if markup else None
    line = Text.assemble((marked[2], marked[1]), text[marked.end() :]) if marked else Text(text)
    for number, part in enumerate(_wrap_text(line, console.width, indent)):
        part.pad_left(indent if number else 0)
        console.print(part, overflow="ignore", no_wrap=True, crop=False, highlight=False)


def print_command(console: Console, label: str, command: str) -> None:
    """Print a command to copy on a line of its own, however long it is, below what it is for."""
    print_line(console, label)
    console.print(f"  {escape_controls(command)}", soft_wrap=True, highlight=False, markup=False)


def make_table(title: str, columns: Sequence[str], *, whole: Iterable[str] = ()) -> NumberTable:
    """Make a table whose first column is a name and whose others are numbers.

    `whole` are columns whose texts are not broken at blanks, as ids, which are copied. ValueError for a column without
    a name, which nobody could look up.
    """
    if not all(columns):
        raise ValueError(f"each column of a table needs a name, got {list(columns)}")
    table = NumberTable(title)
    table.whole = frozenset(whole)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table


def _wrap_text(text: Text, width: int, indent: int = 0) -> list[Text]:
    """Wrap a text between words, lines after the first narrower by the indent; no line ends in blanks."""
    # rich's own wrap cuts a word that is too long, as a path may be
    lines = list(text.divide(find_breaks(text.plain, width, indent)))
    for line in lines:
        line.rstrip()
    return lines


def _strip_lines(segments: Iterable[Segment]) -> Iterable[list[Segment]]:
    """Yield the lines of a table without blanks at their ends, and without blank lines around them."""
    for segments_of_line in Segment.split_lines(segments):
        line = list(segments_of_line)
        while line and not line[-1].text.strip():
            line.pop()
        if line:
            line[-1] = Segment(line[-1].text.rstrip(), line[-1].style, line[-1].control)
            yield line


def _measure_column(console: Console, options: ConsoleOptions, column: Column, *, is_whole: bool) -> Size:
    """Measure the width that a column needs with and without wrapped text."""
    header, *cells = (Measurement.get(console, options, cell) for cell in (column.header, *column.cells))
    is_text = any(WORD.search(str(cell)) for cell in column.cells)
    # a number of several words, such as "0.5 [0.4, 0.6]", stays on one line
    least = max((header.minimum, *(cell.minimum if is_text and not is_whole else cell.maximum for cell in cells)))
    return Size(least, max((header.maximum, *(cell.maximum for cell in cells))), is_text)


def _compute_table_width(widths: Sequence[int]) -> int:
    """Compute the width of a table of columns of these widths."""
    # a blank before the first column and two between columns; the blank after the last is not printed
    return sum(widths) + 2 * len(widths) - 1


def _find_keys(sizes: Sequence[Size]) -> list[int]:
    """Find the columns that identify the rows: the first and, if it is text, the columns of text that follow it."""
    return [index for index in range(len(sizes)) if index == 0 or all(size.is_text for size in sizes[: index + 1])]


def _split_columns(sizes: Sequence[Size], keys: list[int], width: int) -> list[list[int]]:
    """Split columns into parts: the keys, and as many of the others as fit."""
    parts: list[list[int]] = []
    # greedily from the left, by the least widths; a column that fits nowhere has a part with the keys alone
    for index in range(len(keys), len(sizes)):
        if not parts or _compute_table_width([sizes[i].least for i in (*parts[-1], index)]) > width:
            parts.append([*keys])
        parts[-1].append(index)
    return parts or [keys]


def _shrink_widths(sizes: Sequence[Size], width: int) -> list[int]:
    """Shrink the columns of a part until they fit: the widest first, and only text within words."""
    # Two rounds. First no column becomes narrower than its longest word or number; if that is not enough, text may be
    # cut within words, down to MIN_TEXT_WIDTH, and numbers still may not.
    widths = [size.natural for size in sizes]
    floors = [size.least for size in sizes]
    while _compute_table_width(widths) > width:
        wide = [index for index, floor in enumerate(floors) if widths[index] > floor]
        if wide:
            widths[max(wide, key=widths.__getitem__)] -= 1
        elif floors == (folded := [min(s.least, MIN_TEXT_WIDTH) if s.is_text else s.least for s in sizes]):
            break  # the terminal is narrower than one number and its name
        else:
            floors = folded
    return widths
