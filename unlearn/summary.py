"""Rows of trials as a table: means over seeds with 95 % intervals, the oracle on top, the original beneath."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from scipy.stats import t as student

from memscore.intervals import Interval
from memscore.report.terminal import new_table
from unlearn.measuring import asked
from unlearn.request import Fulfilled, Wish
from unlearn.trials import ORACLE, Row

SHOWN = ("tow_test", "tow_mia_test", "forget_accuracy", "retain_accuracy", "accuracy_test", "mia_test", "mia_test_gap")
COST = ("wall_s", "rrt_wall", "rrt_examples")


def over_seeds(values: Sequence[float], level: float = 0.95) -> Interval:
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


def shown(interval: Interval) -> str:
    """An interval in a cell."""
    if np.isnan(interval.value):
        return "-"
    if np.isnan(interval.lo):
        return f"{interval.value:.3f}"
    return f"{interval.value:.3f} ±{(interval.hi - interval.lo) / 2:.3f}"


def table(console: Console, found: Fulfilled, wish: Wish) -> int:
    """Print what was measured.

    Args:
        console: where to.
        found: rows of the oracle, the algorithm and the original, and what failed.
        wish: what was asked for; measures beyond the core ones get tables of their own.

    Returns:
        Exit code: 1 if a trial failed or diverged, else 0.
    """
    name, more, rows, failed = wish.algorithm, wish.measures, found.rows, found.failed
    for line in failed:
        console.print(line, markup=False, soft_wrap=True)
    if not rows:
        return 1
    first, n = rows[0], len({row["index"] for row in rows})
    title = (
        f"{first['forget_set']}: {first['n_forget']} examples, {n} seed{'s' if n > 1 else ''}, mean ± 95 % t interval"
    )
    order = (ORACLE, *([] if name in {ORACLE, "original"} else [name]), "original")
    _print(console, rows, order, title, [column for column in SHOWN if column in first])
    _print(console, rows, order, "cost (seconds of one worker's wall clock; rrt: over retraining)", COST)
    if more:
        core = asked(())
        extra = [c for measure in asked(more) if measure not in core for c in asked(more)[measure].columns]
        names = [column for column in first if any(column == c or column.startswith(f"{c}_") for c in extra)]
        printed = new_table("asked for", ("", *order))
        for column in names:
            printed.add_row(column, *(shown(over_seeds(values_in(rows, who, column))) for who in order))
        console.print(printed)
    for column, value in found.many.items():
        console.print(f"{column} {value:.3f}, over all models together", highlight=False)
    gone = sum(row["status"] == "diverged" for row in rows)
    if gone:
        console.print(f"{gone} of {len(rows)} runs diverged and have no measures; a smaller lr may not")
    if any(row["beyond_its_purpose"] for row in rows):
        console.print(f"{name} was made to forget whole classes; on other sets it is known to harm what stays")
    return 1 if failed or gone else 0


def _print(console: Console, rows: Sequence[Row], order: Sequence[str], title: str, columns: Sequence[str]) -> None:
    """One table: a line for each model, a column for each measure."""
    printed = new_table(title, ("", *columns))
    for who in order:
        printed.add_row(who, *(shown(over_seeds(values_in(rows, who, column))) for column in columns))
    console.print(printed)


def values_in(rows: Sequence[Row], algorithm: str, column: str) -> list[float]:
    """A column of one algorithm's rows."""
    return [row[column] for row in rows if row["algorithm"] == algorithm]
