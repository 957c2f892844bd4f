"""Print rows of trials as tables: means over seeds with 95 % intervals, the oracle first, the original last."""

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Console

from memscore.analysis.trial_rows import COUNTED, count_diverged, get_value
from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import UNLIMITED, format_value_and_half
from memscore.units import format_count
from memscore.user_functions import is_user_function
from unlearn.measures import MEASURES, find_limits
from unlearn.measures.inputs import Column
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.forgotten_copies import RetainedCopies
from unlearn.trials.measure import select_measures
from unlearn.trials.prepare import TrialResults
from unlearn.trials.request import DEFAULT_ALGORITHM, TrialRequest
from unlearn.trials.second_oracle import describe_second_oracle

TABLE_COLUMNS = (
    ("tow_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("tow_mia_test", "mia_test", "mia_test_gap"),
    ("wall_s", "rrt_wall", "rrt_examples", "steps"),
)
"""Columns of each table: four fit into the width of output that is not a terminal."""
STEPS = "steps"
CLASS_COLUMNS = (
    ("tow_test", "forget_accuracy", "retain_accuracy", "kept_class_accuracy_test"),
    ("accuracy_test", "tow_mia_test", "mia_test", "mia_test_gap"),
    TABLE_COLUMNS[2],
)
"""The same where whole classes are forgotten, on which a model should be wrong."""
MEANINGS = {
    "tow_test": (
        "tug of war, the agreement with the oracle: the product of 1 less the distance between the two accuracies on "
        "the examples to forget, on the retained and on the test examples; best at 1"
    ),
    "forget_accuracy": "share of the {n} examples to forget that the model is right on",
    "retain_accuracy": "share of the other training examples, which it should keep, that it is right on",
    "kept_class_accuracy_test": "share of the test examples of the classes that stay that it is right on",
    "accuracy_test": "share of the test examples that it is right on",
    "tow_mia_test": "as tow_test, with mia_test in place of the accuracy on the examples to forget; best at 1",
    "mia_test": (
        "share of the {n} examples to forget that a membership inference attack takes for unseen ones, by their loss "
        "beside that of retained and of test examples"
    ),
    "mia_test_gap": "distance of mia_test to the oracle's; best at 0",
}
"""Column -> what it is; where no best value is said, that is the oracle's."""
COSTS_MEANING = (
    "wall_s: seconds of the algorithm; rrt: over retraining, in seconds and in examples read; steps: of the optimizer; "
    "less is cheaper"
)
MIN_ACCURACY_CHANGE = 0.005
"""Change of the forget accuracy below which nothing was forgotten."""
DIRECTIONS = (
    "tow is best at 1, a gap at 0, others where the oracle's is; mia_test: share of the forget set that an attack "
    "takes for non-members; rrt: over retraining, in seconds and examples"
)
MAX_RETAIN_LOSS = 0.1
"""Distance of the retain accuracy below the oracle's from which on an algorithm destroys what it should keep."""
MAX_FORGET_EXCESS = 0.1
"""Distance of the forget accuracy below the oracle's from which on an algorithm forgets more than retraining does."""
CLASS_PREFIX = "class:"


def format_mean(values: Sequence[float], limits: tuple[float, float] = UNLIMITED) -> str:
    """Format a cell: mean, half of the interval, and the number of values if some are undefined."""
    return format_estimate(estimate_mean(values), len(values), limits)


def format_column(rows: Sequence[Row], column: str) -> str:
    """Format a cell of a column over rows, in which diverged runs count their worst value if there is one.

    Steps, of which there are as many for each seed, are a whole number.
    """
    if column == STEPS:
        return f"{np.mean([row[column] for row in rows]):.0f}"
    return format_mean([get_value(row, column) for row in rows], find_limits(column))


def format_estimate(estimate: MeanEstimate, n_expected: int, limits: tuple[float, float] = UNLIMITED) -> str:
    """Format a cell: mean, half of the interval, and the number of values if fewer than expected are defined.

    An interval that goes beyond the limits of its column is printed by its ends, which are clipped to them.
    """
    if not estimate.n:
        return "-"
    cell = format_value_and_half(estimate.value, estimate.lo, estimate.hi, limits=limits, mark="±")
    return cell + (f" (n={estimate.n})" if estimate.n < n_expected else "")


def print_trials(console: Console, results: TrialResults, request: TrialRequest) -> int:
    """Print the results of the trials as tables, measures beyond the core ones in their own.

    Returns the exit code: 1 if a trial failed or diverged, else 0.
    """
    name, rows = request.algorithm or DEFAULT_ALGORITHM, results.rows
    for line in results.failed:
        print_line(console, line)
    # Without a model of the algorithm there is nothing to compare.
    if not select_algorithm(rows, name):
        return 1
    first, n = rows[0], len({row["index"] for row in rows})
    seeds = f"{format_count(n, 'seed')}, mean ± 95 % t interval" if n > 1 else "1 seed"
    order = (ORACLE, *([] if name in {ORACLE, "original"} else [name]), "original")
    tables = CLASS_COLUMNS if forgets_classes(rows) else TABLE_COLUMNS
    for number, columns in enumerate(tables):
        title = f"{first['forget_set']}: {format_count(first['n_forget'], 'example')}, {seeds}" if not number else ""
        table = make_table(title, ("model", *columns))
        for row_name in order:
            own_rows = select_algorithm(rows, row_name)
            table.add_row(row_name, *(format_column(own_rows, column) for column in columns))
        console.print(table)
    for line in describe_columns(rows, [column for columns in tables for column in columns]):
        print_line(console, line, indent=2)
    _print_requested_measures(console, rows, order, request.measures)
    if results.population_values:
        _print_population_measures(console, results.population_values, name, n)
    for line in (*list_remarks(rows, name, results.retained), *results.notes):
        print_line(console, line)
    return 1 if results.failed or count_diverged(rows) else 0


def describe_columns(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Describe what each column is a share of, which value is best, and where the oracle lies."""
    lines = []
    for column in (column for column in columns if column in MEANINGS):
        meaning, oracle = MEANINGS[column].format(n=rows[0]["n_forget"]), mean_column(rows, ORACLE, column)
        has_best = "best at" in meaning
        lines.append(f"{column}: {meaning}" + ("" if has_best else f"; best at the oracle's, {oracle:.3f}"))
    return [*lines, COSTS_MEANING]


def forgets_classes(rows: Sequence[Row]) -> bool:
    """Return whether the forget set of a trial consists of whole classes."""
    return str(rows[0]["forget_set"]).startswith(CLASS_PREFIX)


def list_remarks(rows: Sequence[Row], name: str, retained: RetainedCopies | None = None) -> list[str]:
    """List remarks that a reader of the table needs."""
    remarks = [line] if retained and (line := retained.describe()) else []
    remarks += describe_second_oracle(rows)
    own_rows = select_algorithm(rows, name)
    if n_diverged := count_diverged(own_rows):
        remarks.append(
            f"{n_diverged} of {format_count(len(own_rows), 'run')} of {name} diverged; they count {COUNTED}, and other "
            "measures are of the rest; a smaller lr may not diverge"
        )
    if name not in {ORACLE, "original"}:
        # a model that lost everything lost the forget set too, which is no news
        remarks += filter(None, [describe_retain_loss(rows, name) or describe_forgetting(rows, name, retained)])
    if forgets_classes(rows):
        remarks.append(
            "accuracy_test is over all classes, the forgotten class among them, on which a model should be wrong; "
            "kept_class_accuracy_test is over those that stay"
        )
    if any(row["beyond_its_purpose"] for row in rows):
        remarks.append(f"{name} was made to forget whole classes; on other sets it is known to harm the retain set")
    return remarks


def describe_forgetting(rows: Sequence[Row], name: str, retained: RetainedCopies | None = None) -> str:
    """Describe an algorithm that forgot nothing, or much more than the oracle; empty for any other.

    The oracle decides: where it is as right on the forget set as the original, to change nothing is no failure.
    """
    before, own, oracle = (mean_column(rows, who, "forget_accuracy") for who in ("original", name, ORACLE))
    if oracle - own > MAX_FORGET_EXCESS:
        return (
            f"{name} forgot more than retraining does: it is right on {own:.3f} of the forget set, the oracle on "
            f"{oracle:.3f}; try a smaller lr or fewer epochs with --set"
        )
    if not has_same_accuracy(rows, name):
        return ""
    # copies that stay keep the oracle right too, which explains what a reader would take for a failure
    has_copies = retained is not None and bool(retained.pairs)
    if has_same_accuracy(rows, ORACLE):
        reason = "with copies in the retain set" if has_copies else "where retraining changes nothing"
        return (
            f"{name} is as right on the forget set as the original, and so is the oracle; {reason} that is no failure"
        )
    if retained is not None and retained.same_label == retained.n_forget:
        return f"{name} is as right on the forget set as the original; with copies in the retain set that is no failure"
    return (
        f"{name} forgot nothing here: it is as right on the forget set as the original, on {before:.3f} of it, and the "
        f"oracle on {oracle:.3f}. "
        + ("" if is_user_function(name) else "Defaults are the papers', for their networks and data. ")
        + "Try others with --tune 10, or with --set, a larger lr first"
    )


def describe_retain_loss(rows: Sequence[Row], name: str) -> str:
    """Describe how far the retain accuracy is below the oracle's; empty where by MAX_RETAIN_LOSS or less."""
    before, after, oracle = (mean_column(rows, who, "retain_accuracy") for who in ("original", name, ORACLE))
    if not oracle - after > MAX_RETAIN_LOSS:
        return ""
    return (
        f"{name} destroyed what should stay: retain accuracy fell from {before:.3f} to {after:.3f}, where the "
        f"oracle has {oracle:.3f}; try a smaller lr or fewer epochs with --set"
    )


def has_same_accuracy(rows: Sequence[Row], algorithm: str) -> bool:
    """Return whether the models of an algorithm are all as right on the forget set as their originals."""
    changes = [row["forget_accuracy_gap_original"] for row in select_algorithm(rows, algorithm)]
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
    table = make_table("requested measures", ("measure", "best", *order))
    for column, best in directions.items():
        cells = [format_column(select_algorithm(rows, row_name), column) for row_name in order]
        table.add_row(column, best, *cells)
    console.print(table)


def _name_direction(ending: str, best: str) -> str:
    """Name the direction of a column with this ending; a gap to the oracle is best small, one to theta_o has none."""
    if best == "oracle" and ending.endswith("_gap"):
        return "min"
    return "" if best == "none" or ending.endswith("_gap_original") else best


def _print_population_measures(console: Console, values: Mapping[str, float], name: str, n: int) -> None:
    """Print the measures of many models, with the best direction, the ideal value, and a description."""
    table = make_table(
        f"{name}: measures of all models together, {n} on each side", ("measure", "value", "best", "ideal")
    )
    table.add_column("meaning")
    for column, value in values.items():
        description = describe_population_column(column)
        table.add_row(
            column,
            format_population_value(column, value),
            "" if description.best == "none" else description.best,
            description.ideal,
            description.description,
        )
    console.print(table)
    print_line(console, "stored beside the trials; the next command that asks for them reads them there")


def describe_population_column(column: str) -> Column:
    """Return what is declared of a column of a measure of many models; one of a split ends in its name."""
    columns = {c: described for measure in MEASURES.values() for c, described in measure.columns.items()}
    return columns[next(c for c in (column, column.rpartition("_")[0]) if c in columns)]


def format_population_value(column: str, value: float) -> str:
    """Format a value of a measure of many models."""
    if value >= describe_population_column(column).unbounded:
        return f"none finite ({value:.0f})"
    return "-" if np.isnan(value) else f"{value:.0f}" if column.endswith("_n") else f"{value:.3f}"


def select_algorithm(rows: Sequence[Row], algorithm: str) -> list[Row]:
    """Select one algorithm's rows."""
    return [row for row in rows if row["algorithm"] == algorithm]


def mean_column(rows: Sequence[Row], algorithm: str, column: str) -> float:
    """Compute the mean of a column of one algorithm's rows, as its cell shows it."""
    return estimate_mean([get_value(row, column) for row in select_algorithm(rows, algorithm)]).value
