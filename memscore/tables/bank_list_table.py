"""The list of banks in a terminal."""

from collections.abc import Sequence

from rich.console import Console

from memscore.monitoring.bank_list import BankSummary
from memscore.tables.console import make_table
from memscore.tables.progress_bar import format_duration

UNITS = ("B", "kB", "MB", "GB", "TB")


def print_banks(console: Console, banks: Sequence[BankSummary], place: str) -> None:
    """Print the banks of a folder, then folders that are none or are damaged."""
    known = [bank for bank in banks if bank.data]
    table = make_table("", ("bank", "of", "models", "scores", "trials", "size", "changed"))
    table.columns[1].justify = "left"
    table.columns[1].no_wrap = False
    for bank in known:
        counts = (bank.models, bank.scores, bank.trials)
        kind = f"{bank.data}, {bank.architecture}" + (f", {bank.recipe}" if bank.recipe else "")
        table.add_row(bank.name, kind, *map(str, counts), format_bytes(bank.bytes), format_age(bank))
    console.print(
        f"{len(known)} bank{'s' * (len(known) != 1)} in {place}", soft_wrap=True, highlight=False, markup=False
    )
    if known:
        console.print(table)
    for bank in banks:
        if bank.problem:
            line = f"{bank.name}: {bank.problem} ({format_bytes(bank.bytes)})"
            console.print(line, soft_wrap=True, highlight=False, markup=False)


def format_age(bank: BankSummary) -> str:
    """Format when a bank was changed last, in one unit, or what works on it now."""
    if bank.activity in {"running", "in use"} or bank.changed_s is None:
        return bank.activity or "-"
    age = " ".join(format_duration(bank.changed_s).split()[:2])
    return f"{age} ago, {bank.activity}" if bank.activity else f"{age} ago"


def format_bytes(number: int) -> str:
    """Format a number of bytes in the unit that a person would take.

    >>> [format_bytes(n) for n in (0, 999, 11_530_000, 999_999, 2_400_000_000)]
    ['0 B', '999 B', '11.5 MB', '1.0 MB', '2.4 GB']
    """
    value, unit = float(number), 0
    while round(value, 1) >= 1000 and unit < len(UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {UNITS[unit]}" if unit else f"{number} B"
