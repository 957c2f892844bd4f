"""The style that all tables in a terminal share; imports nothing heavy."""

from collections.abc import Sequence

from rich import box
from rich.table import Table


def make_table(title: str, columns: Sequence[str]) -> Table:
    """Make a table whose first column is a name and whose others are numbers."""
    table = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1)
    )
    for position, column in enumerate(columns):
        table.add_column(column, justify="right" if position else "left", no_wrap=True)
    return table
