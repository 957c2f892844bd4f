"""Print rows of trials as tables: means over seeds with 95 % intervals, the oracle first, the original last."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.tables.console import make_table, print_line
from memscore.units import format_count
from memscore.user_functions import is_user_function
from unlearn.measures import MEASURES
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.forgotten_copies import RetainedCopies
from unlearn.trials.measure import select_measures
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import DEFAULT_ALGORITHM, TrialRequest

TABLE_COLUMNS = (
    ("tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("tow_mia_test", "mia_test", "mia_test_gap"),
    ("wall_s", "rrt_wall", "rrt_examples", "steps"),
)
"""Columns of each table: four fit into the width of output that is not a terminal."""
STEPS = "steps"
MIN_ACCURACY_CHANGE = 0.005
"""Change of the forget accuracy below which nothing was forgotten."""
DIRECTIONS = (
    "tow is best at 1, a gap at 0, others where the oracle's is; mia_test: share of the forget set that an attack "
    "takes for non-members; rrt: over retraining, in seconds and examples"
)
MAX_RETAIN_LOSS = 0.1
"""Fall of the retain accuracy from which on an algorithm destroys what it should keep."""
CLASS_PREFIX = "class:"


def format_mean(values: Sequence[float]) -> str:
    """Format a cell: mean, half of the interval, and the number of values if some are undefined."""
    return format_estimate(estimate_mean(values), len(values))


def format_estimate(estimate: MeanEstimate, n_expected: int) -> str:
    """Format a cell: mean, half of the interval, and the number of values if fewer than expected are defined."""
    if not estimate.n:
        return "-"
    half = "" if np.isnan(estimate.lo) else f" ±{(estimate.hi - estimate.lo) / 2:.3f}"
    return f"{estimate.value:.3f}{half}" + (f" (n={estimate.n})" if estimate.n < n_expected else "")


def format_cell(column: str, values: Sequence[float]) -> str:
    """Format a cell as format_mean does; steps, of which there are as many for each seed, as a whole number."""
    return f"{np.mean(values):.0f}" if column == STEPS else format_mean(values)


def print_trials(console: Console, results: TrialResults, request: TrialRequest) -> int:
    """Print the results of the trials as tables, measures beyond the core ones in their own.

    Returns the exit code: 1 if a trial failed or diverged, else 0.
    """
    name, rows = request.algorithm or DEFAULT_ALGORITHM, results.rows
    for line in results.failed:
        print_line(console, line)
    # Without a model of the algorithm there is nothing to compare.
    if not select_values(rows, name, "status"):
        return 1
    first, n = rows[0], len({row["index"] for row in rows})
    seeds = f"{format_count(n, 'seed')}, mean ± 95 % t interval" if n > 1 else "1 seed"
    order = (ORACLE, *([] if name in {ORACLE, "original"} else [name]), "original")
    for number, columns in enumerate(TABLE_COLUMNS):
        title = f"{first['forget_set']}: {format_count(first['n_forget'], 'example')}, {seeds}" if not number else ""
        table = make_table(title, ("", *columns))
        for row_name in order:
            cells = (format_cell(column, select_values(rows, row_name, column)) for column in columns)
            table.add_row(row_name, *cells)
        console.print(table)
    print_line(console, DIRECTIONS)
    _print_requested_measures(console, rows, order, request.measures)
    if results.population_values:
        _print_population_measures(console, results.population_values, name, n)
    n_diverged = sum(row["status"] == "diverged" for row in rows)
    for line in (*list_remarks(rows, name, n_diverged, results.retained), *results.notes):
        print_line(console, line)
    return 1 if results.failed or n_diverged else 0


def list_remarks(rows: Sequence[Row], name: str, n_diverged: int, retained: RetainedCopies | None = None) -> list[str]:
    """List remarks that a reader of the table needs."""
    remarks = [line] if retained and (line := retained.describe()) else []
    if n_diverged:
        remarks.append(f"{n_diverged} of {len(rows)} runs diverged and have no measures; a smaller lr may not")
    if name not in {ORACLE, "original"} and has_same_accuracy(rows, name):
        # Where copies of the forgotten images stay, an algorithm that changes nothing may be as good as retraining.
        explained = retained is not None and (
            retained.same_label == retained.n_forget or (bool(retained.pairs) and has_same_accuracy(rows, ORACLE))
        )
        remarks.append(
            f"{name} is as right on the forget set as the original; with copies in the retain set that is no failure"
            if explained
            else f"{name} forgot nothing here: it is as right on the forget set as the original. "
            + (
                ""
                if is_user_function(name)
                else "Default learning rates are from the papers' ranges, for their networks and data. "
            )
            + "Try others with --tune 10, or with --set, a larger lr first"
        )
    if name not in {ORACLE, "original"} and (fall := describe_retain_loss(rows, name)):
        remarks.append(fall)
    if str(rows[0]["forget_set"]).startswith(CLASS_PREFIX):
        remarks.append(
            "accuracy_test is over all classes, the forgotten class among them; --measures kept-class-accuracy adds "
            "that on the others"
        )
    if any(row["beyond_its_purpose"] for row in rows):
        remarks.append(f"{name} was made to forget whole classes; on other sets it is known to harm the retain set")
    return remarks


def describe_retain_loss(rows: Sequence[Row], name: str) -> str:
    """Describe how far the retain accuracy fell below the original's; empty where by MAX_RETAIN_LOSS or less."""
    before, after = (estimate_mean(select_values(rows, who, "retain_accuracy")).value for who in ("original", name))
    if not before - after > MAX_RETAIN_LOSS:
        return ""
    return (
        f"{name} destroyed what should stay: retain accuracy fell from {before:.3f} to {after:.3f}; try a smaller lr "
        "or fewer epochs with --set"
    )


def has_same_accuracy(rows: Sequence[Row], algorithm: str) -> bool:
    """Return whether the models of an algorithm are all as right on the forget set as their originals."""
    changes = select_values(rows, algorithm, "forget_accuracy_gap_original")
    return bool(changes) and all(change < MIN_ACCURACY_CHANGE for change in changes)


def _print_requested_measures(
    console: Console, rows: Sequence[Row], order: Sequence[str], names: Sequence[str]
) -> None:
    """Print the measures requested beyond the core ones, one per line."""
    core = select_measures(())
    # Column of a row -> its direction: a column of a split ends in its name, and gaps in theirs.
    directions: dict[str, str] = {}
    for measure in (entry for name, entry in select_measures(names).items() if name not in core):
        for stem, described in measure.columns.items():
            found = [column for column in rows[0] if column == stem or column.startswith(f"{stem}_")]
            directions |= {column: _name_direction(column.removeprefix(stem), described.best) for column in found}
    if not directions:
        return
    table = make_table("requested measures", ("", "best", *order))
    for column, best in directions.items():
        cells = [format_mean(select_values(rows, row_name, column)) for row_name in order]
        table.add_row(column, best, *cells)
    console.print(table)


def _name_direction(ending: str, best: str) -> str:
    """Name the direction of a column with this ending; a gap to the oracle is best small, one to theta_o has none."""
    if best == "oracle" and ending.endswith("_gap"):
        return "min"
    return "" if best == "none" or ending.endswith("_gap_original") else best


def _print_population_measures(console: Console, values: Mapping[str, float], name: str, n: int) -> None:
    """Print the measures of many models, with the best direction, the ideal value, and a description."""
    columns = {c: column for measure in MEASURES.values() for c, column in measure.columns.items()}
    table = make_table(f"{name}: measures of all models together, {n} on each side", ("", "value", "best", "ideal"))
    table.add_column("")
    for column, value in values.items():
        description = columns[next(c for c in (column, column.rpartition("_")[0]) if c in columns)]
        cell = "-" if np.isnan(value) else f"{value:.0f}" if column.endswith("_n") else f"{value:.3f}"
        cell = f"none finite ({value:.0f})" if value >= description.unbounded else cell
        table.add_row(
            column,
            cell,
            "" if description.best == "none" else description.best,
            description.ideal,
            description.description,
        )
    console.print(table)


def select_values(rows: Sequence[Row], algorithm: str, column: str) -> list[float]:
    """Select a column of one algorithm's rows."""
    return [row[column] for row in rows if row["algorithm"] == algorithm]
