"""Print a sweep as tables: methods by their distance to the oracle, the regret of choosing without one, and remarks."""

from collections.abc import Mapping, Sequence

from rich.console import Console

from memscore.analysis.trial_rows import count_diverged
from memscore.statistics.intervals import Interval, clip_interval
from memscore.tables.console import make_table, print_line
from memscore.tables.numbers import UNLIMITED
from memscore.units import format_count, format_duration
from unlearn.trials.config import ORACLE, Row, format_plan
from unlearn.trials.second_oracle import describe_second_oracle
from unlearn.trials.tables import (
    DIRECTIONS,
    describe_population_column,
    format_population_value,
)
from unlearn.tuning.gains import COST_COLUMNS
from unlearn.tuning.populations import METHOD_COLUMNS
from unlearn.tuning.results import (
    compare_automatic,
    compute_regrets,
    describe_diverged,
    format_cell,
    group_by_method,
    mean_or_minus_infinity,
    restrict_to_shared_originals,
)
from unlearn.tuning.state import SweepResult

MethodKey = tuple[str, str, str]
"""Method, variant and selection."""
Groups = Mapping[MethodKey, list[Row]]
UNEQUAL_NOTE = (
    "where labels are drawn there are twice the originals, where a trial failed there are fewer: compare by the last "
    "column, which is that of the order"
)
GAIN_NOTE = "gain_per_pass: tow_test above that of doing nothing, for each pass over the training set"
COLUMNS = ("tow_test", "forget_accuracy", "mia_test_gap", "rrt_examples")

DIFFERENCES = (-1.0, 1.0)
"""Of two values of ToW."""


def print_sweep(console: Console, result: SweepResult, folder: str) -> int:
    """Print the results of a sweep.

    Returns the exit code: 1 if a trial failed, a judged one diverged, or a method ended early, else 0.
    """
    groups = group_by_method(result.judged_rows)
    n_originals = {key: len({row["index"] for row in rows}) for key, rows in groups.items()}
    shared_rows = restrict_to_shared_originals(groups)
    n_shared = len({row["index"] for rows in shared_rows.values() for row in rows})
    # Means over different originals are not comparable: order by the shared ones, and show that column.
    uneven = len(set(n_originals.values())) > 1
    variants, score = shorten_variants([variant for _, variant, _ in groups])
    title = (
        f"{result.judged_set.name}: {format_count(len(result.judged_set.rows), 'example')}, judged on "
        f"{'originals' if uneven else format_count(n_shared, 'original')} unseen by the choice{score}"
    )
    any_diverged = count_diverged(result.judged_rows) > 0
    extra = (f"tow_test of the same {n_shared}",) * uneven
    table = make_table(
        title, ("method", "variant", "chosen by", *["n"] * uneven, *["diverged"] * any_diverged, *COLUMNS, *extra)
    )
    for key in sort_methods(groups, shared_rows):
        cells = [format_cell(groups[key], column) for column in COLUMNS]
        cells += [format_cell(shared_rows[key], "tow_test")] * uneven
        counts = [str(n_originals[key])] * uneven
        counts += [str(count_diverged(groups[key]))] * any_diverged
        table.add_row(key[0], variants[key[1]], key[2], *counts, *cells)
    console.print(table)
    if uneven:
        print_line(console, UNEQUAL_NOTE)
    print_line(console, DIRECTIONS)
    _print_costs(console, groups, shared_rows)
    _print_regrets(console, result)
    _print_populations(console, result)
    for line in (*describe_automatic_plans(result), *list_remarks(result)):
        print_line(console, line)
    print_line(console, f"every trial and what was chosen: {folder}")
    return (
        1
        if result.failed or count_diverged(result.judged_rows) or any(state.end_reason for state in result.states)
        else 0
    )


def _print_costs(console: Console, groups: Groups, shared_rows: Groups) -> None:
    """Print what a run of each method costs, and what ToW it gains for that."""
    variants, _ = shorten_variants([variant for _, variant, _ in groups])
    names = ("method", "variant", "chosen by", *COST_COLUMNS)
    table = make_table("cost of a run; passes: over the training set", names)
    for key in sort_methods(groups, shared_rows):
        table.add_row(key[0], variants[key[1]], key[2], *(format_cell(groups[key], column) for column in COST_COLUMNS))
    console.print(table)
    print_line(console, GAIN_NOTE)


def _print_regrets(console: Console, result: SweepResult) -> None:
    regrets = compute_regrets(result.judged_rows)
    if not regrets:
        return
    groups = group_by_method(result.judged_rows)
    variants, score = shorten_variants([variant for _, variant in regrets])
    table = make_table(
        f"tow_test by who chose, and the regret of choosing without an oracle (below 0: it did better){score}",
        ("method", "variant", "oracle", "blind", "regret"),
    )
    for (name, variant), regret in regrets.items():
        cells = [format_cell(groups[name, variant, select], "tow_test") for select in ("oracle", "blind")]
        table.add_row(name, variants[variant], *cells, format_interval(regret, DIFFERENCES))
    console.print(table)


def _print_populations(console: Console, result: SweepResult) -> None:
    """Print the measures of many models, a row a method, with what each column is."""
    if not result.populations:
        return
    columns = [column for column in result.populations[0] if column not in METHOD_COLUMNS]
    variants, score = shorten_variants([row["variant"] for row in result.populations])
    table = make_table(
        f"measures of all judged models of a method together{score}", ("method", "variant", "chosen by", *columns)
    )
    for row in result.populations:
        cells = (format_population_value(column, row[column]) for column in columns)
        table.add_row(row["contender"], variants[row["variant"]], row["select"], *cells)
    console.print(table)
    for column in columns:
        described = describe_population_column(column)
        best = "" if described.best == "none" else f"; best at its {described.best}imum"
        print_line(console, f"{column}: {described.description}{best}, ideal {described.ideal}", indent=2)


def shorten_variants(names: Sequence[str]) -> tuple[dict[str, str], str]:
    """Shorten the names of variants that refine by one score, and say by which; unchanged where they are of several.

    >>> shorten_variants(["vanilla", "rum memorization", "auto memorization"])
    ({'vanilla': 'vanilla', 'rum memorization': 'rum', 'auto memorization': 'auto'}, ', variants by memorization')
    """
    scores = {score for _, _, score in (name.partition(" ") for name in names) if score}
    if len(scores) != 1:
        return {name: name for name in names}, ""
    return {name: name.partition(" ")[0] for name in names}, f", variants by {scores.pop()}"


def sort_methods(groups: Groups, shared_rows: Groups) -> list[MethodKey]:
    """Sort methods by their distance to the oracle, which comes first, on shared originals; theta_o is the last."""
    keys = sorted(
        (key for key in groups if key[2]), key=lambda key: (-mean_or_minus_infinity(shared_rows[key], "tow_test"), key)
    )
    return [key for key in ((ORACLE, "", ""), *keys, ("original", "", "")) if key in groups]


def describe_automatic_plans(result: SweepResult) -> list[str]:
    """Describe each automatic RUM: its plan, its cost, and its distance to the best fixed plan."""
    best_fixed = {
        (variant, select): (best, regret) for variant, select, best, regret in compare_automatic(result.judged_rows)
    }
    lines = []
    for state in (state for state in result.states if state.method.automatic and not state.end_reason):
        variant, select = state.method.variant, state.select
        plan = format_plan(">".join(name for name, _ in state.steps))
        cost = state.cost
        tried = f"{format_count(int(cost['attempts']), 'configuration')}, {format_duration(cost['tuning_s'])}"
        line = f"{variant} by {select}: {plan}, after {tried}"
        if (variant, select) in best_fixed:
            best, regret = best_fixed[variant, select]
            line += (
                f"; {best[0]} {best[1]}, the best fixed plan of this table, is {format_interval(regret, DIFFERENCES)} "
                "above it (picked on these rows, which flatters it)"
            )
        lines.append(line)
    return lines


def list_remarks(result: SweepResult) -> list[str]:
    """List remarks that a reader of the tables needs."""
    remarks = [*result.failed, *result.notes, *describe_second_oracle(result.judged_rows)]
    first = result.tuning_sets[0]
    tuned_rows = {row for tuning_set in result.tuning_sets for row in tuning_set.rows}
    shared = len(tuned_rows & set(result.judged_set.rows))
    remarks.append(
        f"parameters were chosen on {first.name} "
        + (
            "(no example of it is reported on)"
            if not shared
            else "which is the reported set itself: only the originals are unseen"
            if shared == len(result.judged_set.rows)
            else f"which has {shared} of the {len(result.judged_set.rows)} reported examples"
        )
    )
    for state in result.states:
        method = f"{state.method.name}, {state.method.variant}, chosen by {state.select}"
        if state.end_reason:
            remarks.append(f"{method}: ended early, {state.end_reason}")
        if state.at_boundary:
            remarks.append(
                f"{method}: the best {', '.join(state.at_boundary)} lies at an end of its space; a wider one may do "
                "better"
            )
    if all(state.end_reason for state in result.states):
        remarks.append("no method is left to be judged; finished trials are stored")
    n_diverged = count_diverged(result.tuning_rows)
    if n_diverged:
        remarks.append(f"{n_diverged} of {format_count(len(result.tuning_rows), 'tuning run')} diverged; each is a row")
    return [*remarks, *describe_diverged(result.judged_rows)]


def format_interval(interval: Interval, limits: tuple[float, float] = UNLIMITED) -> str:
    """Format a mean with its interval, whose ends are clipped to the limits."""
    interval = clip_interval(interval, *limits)
    if interval.value != interval.value:
        return "-"
    return f"{interval.value:+.3f}" + (
        "" if interval.lo != interval.lo else f" [{interval.lo:+.3f}, {interval.hi:+.3f}]"
    )
