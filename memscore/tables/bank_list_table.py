"""The list of banks in a terminal."""

from collections.abc import Sequence

from rich.console import Console

from memscore.monitoring.bank_list import BankSummary
from memscore.tables.console import make_table, print_line
from memscore.units import format_count, format_duration, format_size


def print_banks(console: Console, banks: Sequence[BankSummary], place: str) -> None:
    """Print the banks of a folder, then folders that are none or are damaged."""
    known = [bank for bank in banks if bank.data]
    table = make_table("", ("bank", "of", "models", "scores", "trials", "size", "changed"))
    table.columns[1].justify = "left"
    table.columns[1].no_wrap = False
    for bank in known:
        counts = (bank.models, bank.scores, bank.trials)
        kind = f"{bank.data}, {bank.architecture}" + (f", {bank.recipe}" if bank.recipe else "")
        table.add_row(bank.name, kind, *map(str, counts), format_size(bank.bytes), format_age(bank))
    print_line(console, f"{format_count(len(known), 'bank')} in {place}")
    if known:
        console.print(table)
    for bank in banks:
        if bank.problem:
            print_line(console, f"{bank.name}: {bank.problem} ({format_size(bank.bytes)})")


def format_age(bank: BankSummary) -> str:
    """Format when a bank was changed last, in one unit, or what works on it now."""
    if bank.activity in {"running", "in use"} or bank.changed_s is None:
        return bank.activity or "-"
    age = f"{format_duration(bank.changed_s)} ago"
    return f"{age}, {bank.activity}" if bank.activity else age
