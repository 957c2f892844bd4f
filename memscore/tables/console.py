"""Make tables for a terminal in one style, in which no number is ever cut; imports nothing heavy."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table

UNLIMITED = 10_000
"""Terminal width that fits any table."""
MIN_TEXT_WIDTH = 8
"""Minimum width of a column of text, whatever the terminal."""
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
    of text, because they identify the rows.
    """

    def __init__(self, title: str) -> None:
        super().__init__(
            title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
        )

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the whole table where it fits, else part by part."""
        # measured as if the terminal had any width, because rich limits a cell's measure to the width it has
        sizes = [_measure_column(console, options.update_width(UNLIMITED), column) for column in self.columns]
        if _compute_table_width([size.natural for size in sizes]) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        # each part is a table with fixed widths that fit, so that rich has nothing to shorten
        for number, part in enumerate(_split_columns(sizes, options.max_width)):
            table = NumberTable("" if number else str(self.title or ""))
            widths = _shrink_widths([sizes[index] for index in part], options.max_width)
            for index, width in zip(part, widths, strict=True):
                column = self.columns[index]
                table.add_column(column.header, justify=column.justify, width=width, overflow="fold")
            for cells in zip(*(self.columns[index].cells for index in part), strict=True):
                table.add_row(*cells)
            # Table's own method: this class's would measure the part, and split it again
            yield from Table.__rich_console__(table, console, options)


def make_table(title: str, columns: Sequence[str]) -> NumberTable:
    """Make a table whose first column is a name and whose others are numbers."""
    table = NumberTable(title)
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table


def _measure_column(console: Console, options: ConsoleOptions, column: Column) -> Size:
    """Measure the width that a column needs with and without wrapped text."""
    header, *cells = (Measurement.get(console, options, cell) for cell in (column.header, *column.cells))
    is_text = any(WORD.search(str(cell)) for cell in column.cells)
    # a number of several words, such as "0.5 [0.4, 0.6]", stays on one line
    least = max((header.minimum, *(cell.minimum if is_text else cell.maximum for cell in cells)))
    return Size(least, max((header.maximum, *(cell.maximum for cell in cells))), is_text)


def _compute_table_width(widths: Sequence[int]) -> int:
    """Compute the width of a table of columns of these widths."""
    # rich needs 3 n - 1 places for the padding and the lines of n columns; two more are left free
    return sum(widths) + 3 * len(widths) + 1


def _split_columns(sizes: Sequence[Size], width: int) -> list[list[int]]:
    """Split columns into parts: the leading ones, and as many of the others as fit."""
    # keys identify the rows: the first column and, if it is text, the columns of text that follow it
    keys = [index for index in range(len(sizes)) if index == 0 or all(size.is_text for size in sizes[: index + 1])]
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
