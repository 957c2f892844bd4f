"""Rows of unlearning trials: what diverged runs count, groups by method, and means over originals with intervals.

A diverged run counts the worst value of a column that has one. Its stored measures are NaN, since there is no model to
measure. A tuning counts it 0 for ToW, and so do the judged rows. A gap or an accuracy has no such value, and is then of
the other runs alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from memscore.statistics.means import MeanEstimate, estimate_mean

Row = Mapping[str, Any]
"""A row of trials/, of a sweep or of an experiment: column -> value, NaN where undefined."""
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


def find_tunings(rows: Sequence[Row], indices: Sequence[int]) -> list[int] | None:
    """Find the tuning of each original, by rows of all methods; None where no method was tuned."""
    # Every original belongs to one tuning, whichever method it judges; rows of the oracle do not say which. Tunings
    # count from 0, and -1 is of rows whose parameters nobody chose.
    tuning_by_index = {row["index"]: row["tuning"] for row in rows if row.get("tuning", -1) >= 0}
    return [tuning_by_index.get(index, -1) for index in indices] if tuning_by_index else None


def estimate_column(rows: Sequence[Row], column: str) -> MeanEstimate:
    """Estimate the mean of a column over originals, with an interval over tunings where parameters were tuned."""
    values = [get_value(row, column) for row in rows]
    return estimate_mean(values, find_tunings(rows, [row["index"] for row in rows]))
