"""Rows of trials as a table: means over seeds with 95 % intervals, the oracle on top, the original beneath."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console
from scipy.stats import t as student

from memscore.statistics.intervals import Interval
from memscore.tables.console import make_table
from unlearn.measures import MEASURES
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.measure import select_measures
from unlearn.trials.setup import TrialOptions, TrialResults

TABLE_COLUMNS = (
    ("tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("tow_mia_test", "mia_test", "mia_test_gap"),
    ("wall_s", "rrt_wall", "rrt_examples"),
)
"""Columns of one table each: four fit where nobody sees a terminal."""
MIN_ACCURACY_CHANGE = 0.005
"""Change of the forget accuracy below which nothing was forgotten."""
DIRECTIONS = "tow is best at 1, a gap at 0, others where the oracle's is; rrt: over retraining, in seconds and examples"


def mean_with_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Mean and t interval of values of several seeds.

    Args:
        values: one a seed; NaN where a run diverged or the measure is undefined, left out.
        level: coverage aimed at.

    Returns:
        NaN without values; an interval of NaN for a single one.
    """
    known = np.asarray(values, np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return Interval(value=float("nan"), lo=float("nan"), hi=float("nan"))
    mean, n = float(known.mean()), len(known)
    half = float("nan")
    if n > 1:
        half = float(student.ppf((1 + level) / 2, n - 1) * known.std(ddof=1) / np.sqrt(n))
    return Interval(value=mean, lo=mean - half, hi=mean + half)


def format_mean(values: Sequence[float]) -> str:
    """A cell: mean, half of the interval, and how many values it rests on where some are undefined."""
    found, known = mean_with_interval(values), int(np.sum(~np.isnan(np.asarray(values, np.float64))))
    if not known:
        return "-"
    half = "" if np.isnan(found.lo) else f" ±{(found.hi - found.lo) / 2:.3f}"
    return f"{found.value:.3f}{half}" + (f" (n={known})" if known < len(values) else "")


def print_trials(console: Console, found: TrialResults, wish: TrialOptions) -> int:
    """Print what was measured.

    Args:
        console: where to.
        found: rows of the oracle, the algorithm and the original, and what failed.
        wish: what was asked for; measures beyond the core ones get tables of their own.

    Returns:
        Exit code: 1 if a trial failed or diverged, else 0.
    """
    name, rows = wish.algorithm, found.rows
    for line in found.failed:
        console.print(line, markup=False, soft_wrap=True)
    if not rows:
        return 1
    first, n = rows[0], len({row["index"] for row in rows})
    seeds = f"{n} seeds, mean ± 95 % t interval" if n > 1 else "1 seed"
    order = (ORACLE, *([] if name in {ORACLE, "original"} else [name]), "original")
    for number, columns in enumerate(TABLE_COLUMNS):
        title = f"{first['forget_set']}: {first['n_forget']} examples, {seeds}" if not number else ""
        printed = make_table(title, ("", *columns))
        for who in order:
            printed.add_row(who, *(format_mean(select_values(rows, who, column)) for column in columns))
        console.print(printed)
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    _print_more(console, rows, order, wish.measures)
    if found.many:
        _print_many(console, found.many, name, n)
    gone = sum(row["status"] == "diverged" for row in rows)
    for line in list_remarks(rows, name, gone):
        console.print(line, highlight=False, soft_wrap=True)
    return 1 if found.failed or gone else 0


def list_remarks(rows: Sequence[Row], name: str, gone: int) -> list[str]:
    """What a reader of the table must know besides."""
    said = []
    if gone:
        said.append(f"{gone} of {len(rows)} runs diverged and have no measures; a smaller lr may not")
    own = select_values(rows, name, "forget_accuracy_gap_original")
    if name not in {ORACLE, "original"} and own and all(moved < MIN_ACCURACY_CHANGE for moved in own):
        said.append(
            f"{name} forgot nothing here: it is as right on the forget set as the original. Defaults are the papers', "
            "for their networks and data; try others with --set, a larger lr first"
        )
    if any(row["beyond_its_purpose"] for row in rows):
        said.append(f"{name} was made to forget whole classes; on other sets it is known to harm what stays")
    return said


def _print_more(console: Console, rows: Sequence[Row], order: Sequence[str], more: Sequence[str]) -> None:
    """Measures that were asked for, a line each."""
    core = select_measures(())
    extra = [
        c for measure in select_measures(more) if measure not in core for c in select_measures(more)[measure].columns
    ]
    names = [column for column in rows[0] if any(column == c or column.startswith(f"{c}_") for c in extra)]
    if not names:
        return
    printed = make_table("asked for", ("", *order))
    for column in names:
        printed.add_row(column, *(format_mean(select_values(rows, who, column)) for who in order))
    console.print(printed)


def _print_many(console: Console, many: Mapping[str, float], name: str, n: int) -> None:
    """Measures of many models, with what is best, what would be ideal, and what they are."""
    columns = {c: column for measure in MEASURES.values() for c, column in measure.columns.items()}
    printed = make_table(f"{name}: measures of all models together, {n} on each side", ("", "value", "best", "ideal"))
    printed.add_column("")
    for column, value in many.items():
        known = columns[next(c for c in (column, column.rpartition("_")[0]) if c in columns)]
        cell = "-" if np.isnan(value) else f"{value:.0f}" if column.endswith("_n") else f"{value:.3f}"
        cell = f"none finite ({value:.0f})" if value >= known.unbounded else cell
        printed.add_row(column, cell, "" if known.best == "none" else known.best, known.ideal, known.description)
    console.print(printed)


def select_values(rows: Sequence[Row], algorithm: str, column: str) -> list[float]:
    """A column of one algorithm's rows."""
    return [row[column] for row in rows if row["algorithm"] == algorithm]
