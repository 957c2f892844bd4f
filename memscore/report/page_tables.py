"""Tables of a page: cells with the number behind their text, so that a page, a CSV file and Markdown show the same."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from memscore.statistics.intervals import Interval
from memscore.tables.numbers import format_number
from memscore.units import format_count
from memscore.visible_text import escape_controls

Format = Callable[[float], str]


class Cell(NamedTuple):
    """A cell: its text, the number behind it with its interval, None where undefined, and how it is to be seen.

    `level` is "good", "bad", "muted" or empty; `about` is shown on pointing at it.
    """

    text: str
    value: float | str | bool | None = None
    lo: float | None = None
    hi: float | None = None
    level: str = ""
    about: str = ""


class TableColumn(NamedTuple):
    """A column: its name in files, its title, what it is in a line, and whether it holds numbers."""

    name: str
    title: str
    about: str = ""
    is_number: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class PageTable:
    """A table of a page.

    Attributes:
        name: of its files, unique on the page.
        title: its caption.
        columns: from the left.
        rows: cells, as many as columns.
        notes: lines below it.
        is_open: whether it is shown at once, or on a click.
    """

    name: str
    title: str
    columns: Sequence[TableColumn]
    rows: Sequence[Sequence[Cell]]
    notes: Sequence[str] = ()
    is_open: bool = True
    meanings: Sequence[tuple[str, str]] = field(init=False)

    def __post_init__(self) -> None:
        meanings = [(column.title, column.about) for column in self.columns if column.about]
        object.__setattr__(self, "meanings", meanings)


def make_text(text: str | None, *, level: str = "", about: str = "") -> Cell:
    """Make a cell of words; a dash where there are none."""
    # a mark of direction or a line break in an id would change the text around it
    return Cell(text=escape_controls(text or "-"), value=text, level=level, about=about)


def make_number(
    value: float | None, formatted: Format = format_number, *, level: str = "", about: str = "", missing: str = "-"
) -> Cell:
    """Make a cell of a number; where it is undefined, null or NaN, a dash or another text."""
    if value is None or math.isnan(value):
        return Cell(text=missing, level="muted", about=about)
    return Cell(text=formatted(value), value=value, level=level, about=about)


def make_count(value: int | None) -> Cell:
    """Make a cell of a count."""
    return make_number(value, lambda count: format_count(int(count)))


def make_interval(
    interval: Interval | Mapping[str, Any] | Sequence[float | None],
    formatted: Format = format_number,
    *,
    level: str = "",
    about: str = "",
    missing: str = "-",
) -> Cell:
    """Make a cell of a number with its interval: of an object, a record, or value, lower and upper end in turn."""
    value, lo, hi = read_interval(interval)
    if value is None:
        return Cell(text=missing, level="muted", about=about)
    # one end alone is no interval
    if lo is None or hi is None:
        return Cell(text=formatted(value), value=value, level=level, about=about)
    text = f"{formatted(value)} [{formatted(lo)}, {formatted(hi)}]"
    return Cell(text=text, value=value, lo=lo, hi=hi, level=level, about=about)


def read_interval(
    interval: Interval | Mapping[str, Any] | Sequence[float | None],
) -> tuple[float | None, float | None, float | None]:
    """Read value, lower and upper end, each None where it is undefined."""
    if isinstance(interval, Interval):
        numbers: Iterable[float | None] = (interval.value, interval.lo, interval.hi)
    elif isinstance(interval, Mapping):
        numbers = (interval["value"], interval.get("lo"), interval.get("hi"))
    else:
        numbers = interval
    # JSON has null and memory NaN for what is undefined
    value, lo, hi = (None if number is None or math.isnan(number) else float(number) for number in numbers)
    return value, lo, hi


def format_percent(share: float) -> str:
    """Format a share in percent, with two digits or more."""
    percent = 100 * share
    return f"{percent:.2f} %" if percent < 10 else f"{percent:.1f} %"


def format_general(value: float) -> str:
    """Format a number of any size with four digits."""
    return f"{value:.4g}"
