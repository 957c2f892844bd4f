"""Tables of a page as files: CSV with the stored numbers and their intervals, Markdown as the page reads."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from memscore.report.files import replace_file
from memscore.report.page_tables import PageTable
from memscore.visible_text import escape_controls

MARKDOWN = re.compile(r"([\\`*_{}\[\]<>|#])")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""Beginnings of a text that spreadsheets run as a formula."""


def write_tables(folder: str, tables: Sequence[PageTable]) -> int:
    """Write each table as NAME.csv and NAME.md into a folder, which is made; return the number of tables."""
    place = Path(folder).expanduser()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"cannot make --tables {folder}: {error.strerror}; name a folder that can be made") from error
    for table in tables:
        # names of audits come from a user's file names
        stem = re.sub(r"[^\w.-]+", "-", table.name)
        replace_file(place / f"{stem}.csv", format_csv(table).encode())
        replace_file(place / f"{stem}.md", format_markdown(table).encode())
    return len(tables)


def format_csv(table: PageTable) -> str:
    """Format a table as CSV: numbers in full, undefined ones empty, NAME_lo and NAME_hi where there are intervals."""
    places = range(len(table.columns))
    # all rows of a column have the same fields, also those without an interval
    with_ends = {place for place in places if any(row[place].lo is not None for row in table.rows)}
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    endings = {place: ("", "_lo", "_hi") if place in with_ends else ("",) for place in places}
    writer.writerow([f"{table.columns[place].name}{ending}" for place in places for ending in endings[place]])
    for row in table.rows:
        numbers: list[object] = []
        for place in places:
            cell = row[place]
            values = (cell.value, cell.lo, cell.hi) if place in with_ends else (cell.value,)
            numbers += [format_value(value) for value in values]
        writer.writerow(numbers)
    return buffer.getvalue()


def format_value(value: object) -> object:
    """Format a value of a CSV file: undefined is empty, and no text is a formula."""
    if value is None:
        return ""
    # an id such as =1+1 is text, and spreadsheets take an apostrophe for that
    if isinstance(value, str) and value.startswith(FORMULA):
        return f"'{value}"
    return value


def format_markdown(table: PageTable) -> str:
    """Format a table as Markdown, with its caption and its notes."""
    titles = [escape_markdown(column.title) for column in table.columns]
    rules = ["---:" if column.is_number else "---" for column in table.columns]
    rows = [[escape_markdown(cell.text) for cell in row] for row in table.rows]
    lines = [f"| {' | '.join(cells)} |" for cells in (titles, rules, *rows)]
    meanings = [f"- {escape_markdown(title)}: {escape_markdown(about)}" for title, about in table.meanings]
    notes = [escape_markdown(note) for note in table.notes]
    blocks = [
        f"**{escape_markdown(table.title)}**",
        "\n".join(lines),
        *notes,
        *(["\n".join(meanings)] if meanings else []),
    ]
    return "\n\n".join(blocks) + "\n"


def escape_markdown(text: str) -> str:
    r"""Escape what Markdown or HTML in it would read as markup.

    >>> escape_markdown("a|b <i> x_1")
    'a\\|b \\<i\\> x\\_1'
    """
    return MARKDOWN.sub(r"\\\1", escape_controls(text))
