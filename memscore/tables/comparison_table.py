"""The comparison of two banks in a terminal."""

from rich.console import Console

from memscore.analysis.compare_banks import MEMORIZED, BankComparison
from memscore.statistics.intervals import clip_interval
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import format_number, format_with_interval
from memscore.units import format_count

DIFFERENCES = (-2.0, 2.0)
"""Of two values of memorization, each a difference of two probabilities."""


def print_comparison(console: Console, comparison: BankComparison, first: str, second: str) -> None:
    """Print a line for each level of the first bank's score, and how many examples became memorized."""
    columns = ("in the first", "examples", "first", "second", "difference", "rose", "fell")
    table = make_table(f"{comparison.score} of what both banks have", columns)
    for level in comparison.levels:
        difference = clip_interval(level.difference, *DIFFERENCES)
        cells = (format_number(level.first), format_number(level.second), format_with_interval(difference))
        changes = ("-" if count is None else str(count) for count in (level.rose, level.fell))
        table.add_row(level.name, str(level.examples), *cells, *changes)
    console.print(table)
    print_line(console, f"first: {first}, with {format_count(comparison.only_first, 'example')} that second has not")
    print_line(console, f"second: {second}, with {comparison.only_second} that first has not")
    if comparison.undefined:
        print_line(console, f"left out: {comparison.undefined} whose score is undefined in one of them")
    became = f"{comparison.became} became memorized ({MEMORIZED:g} or more, below it before)"
    print_line(console, f"{became}, {comparison.ceased} are no longer")
    everything = comparison.levels[-1]
    by_chance = f"by chance at most {0.025 * everything.examples:.0f} each of {everything.examples}"
    if everything.rose is None:
        by_chance = f"unknown, as {comparison.score} has none; other memorization scores have them"
    print_line(
        console,
        f"rose, fell: by more than 1.96 standard errors; {by_chance}. Levels are of the first bank's "
        "scores, errors included: low ones rise and high ones fall by that alone",
    )
