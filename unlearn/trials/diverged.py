"""What a diverged run counts where rows are averaged and compared: the worst value of a column that has one.

Its stored measures are NaN, since there is no model to measure. A tuning counts it 0 for ToW, and so do the judged
rows. A gap or an accuracy has no such value, and is then of the other runs alone.
"""

from collections.abc import Sequence

from unlearn.trials.config import Row

WORST_VALUES = {"tow": 0.0, "tow_mia": 0.0}
"""Column, without its split -> what a diverged run counts in it."""
COUNTED = "0 in tow and tow_mia"
"""The same in words."""


def get_value(row: Row, column: str) -> float:
    """Return what a row counts in a column: its value, or the worst one of a diverged run; NaN where there is none."""
    # the stored value is NaN, which averages would leave out: the runs that are left flatter the algorithm
    if is_diverged(row) and (stem := column.rpartition("_")[0]) in WORST_VALUES:
        return WORST_VALUES[stem]
    return float(row[column])


def is_diverged(row: Row) -> bool:
    """Return whether a row is of a diverged run."""
    return row.get("status") == "diverged"


def count_diverged(rows: Sequence[Row]) -> int:
    """Count the rows of diverged runs."""
    return sum(map(is_diverged, rows))
