"""Print a sweep as tables: methods by their distance to the oracle, the regret of choosing without one, and remarks."""

from rich.console import Console

from memscore.statistics.intervals import Interval
from memscore.tables.console import make_table
from unlearn.trials.config import ORACLE
from unlearn.trials.tables import DIRECTIONS, format_mean
from unlearn.tuning.results import (
    compare_automatic,
    compute_regrets,
    count_diverged,
    describe_diverged,
    group_by_method,
    mean_or_minus_infinity,
    restrict_to_shared_originals,
)
from unlearn.tuning.state import SweepResult

UNEQUAL_NOTE = (
    "where labels are drawn there are twice the originals, where a trial failed there are fewer: compare by the last "
    "column, which is that of the order"
)
COLUMNS = ("tow_test", "forget_accuracy", "mia_test_gap", "rrt_examples")


def print_sweep(console: Console, result: SweepResult, folder: str) -> int:
    """Print the results of a sweep.

    Returns the exit code: 1 if a trial failed, a judged one diverged, or a method ended early, else 0.
    """
    groups = group_by_method(result.judged_rows)
    n_originals = {key: len({row["index"] for row in rows}) for key, rows in groups.items()}
    shared_rows = restrict_to_shared_originals(groups)
    n_shared = len({row["index"] for rows in shared_rows.values() for row in rows})
    keys = sorted(
        (key for key in groups if key[2]), key=lambda key: (-mean_or_minus_infinity(shared_rows[key], "tow_test"), key)
    )
    title = (
        f"{result.judged_set.name}: {len(result.judged_set.rows)} examples, judged on originals unseen by the choice"
    )
    # Means over different originals are not comparable: order by the shared ones, and show that column.
    uneven = len(set(n_originals.values())) > 1
    extra = (f"tow_test of the same {n_shared}",) * uneven
    table = make_table(title, ("", "variant", "chosen by", "n", *COLUMNS, *extra))
    for key in [(ORACLE, "", ""), *keys, ("original", "", "")]:
        if key in groups:
            cells = [format_mean([r[c] for r in groups[key]]) for c in COLUMNS]
            cells += [format_mean([r["tow_test"] for r in shared_rows[key]])] * uneven
            table.add_row(*key, str(n_originals[key]), *cells)
    console.print(table)
    if uneven:
        console.print(UNEQUAL_NOTE, highlight=False, soft_wrap=True)
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    _print_regrets(console, result)
    for line in (*describe_automatic_plans(result), *list_remarks(result)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"every trial and what was chosen: {folder}", highlight=False, soft_wrap=True, markup=False)
    return (
        1
        if result.failed or count_diverged(result.judged_rows) or any(state.end_reason for state in result.states)
        else 0
    )


def _print_regrets(console: Console, result: SweepResult) -> None:
    regrets = compute_regrets(result.judged_rows)
    if not regrets:
        return
    groups = group_by_method(result.judged_rows)
    table = make_table(
        "tow_test by who chose, and the regret of choosing without an oracle",
        ("", "variant", "oracle", "blind", "regret"),
    )
    for (name, variant), regret in regrets.items():
        cells = [
            format_mean([row["tow_test"] for row in groups[name, variant, select]]) for select in ("oracle", "blind")
        ]
        table.add_row(name, variant, *cells, format_interval(regret))
    console.print(table)


def describe_automatic_plans(result: SweepResult) -> list[str]:
    """Describe each automatic RUM: its plan, its cost, and its distance to the best fixed plan."""
    best_fixed = {
        (variant, select): (best, regret) for variant, select, best, regret in compare_automatic(result.judged_rows)
    }
    lines = []
    for state in (state for state in result.states if state.method.automatic and not state.end_reason):
        variant, select = state.method.variant, state.select
        plan = " > ".join(name for name, _ in state.steps)
        cost = state.cost
        line = f"{variant} by {select}: {plan}, after {cost['attempts']:.0f} attempts, {cost['tuning_s']:.0f} s"
        if (variant, select) in best_fixed:
            best, regret = best_fixed[variant, select]
            line += f"; {best[0]} {best[1]}, the best fixed plan of this table, is {format_interval(regret)} above it"
        lines.append(line)
    return lines


def list_remarks(result: SweepResult) -> list[str]:
    """List remarks that a reader of the tables needs."""
    remarks = [*result.failed, *result.notes]
    shared = len(set(result.tuning_set.rows) & set(result.judged_set.rows))
    remarks.append(
        f"parameters were chosen on {result.tuning_set.name} "
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
        remarks.append(f"{n_diverged} of {len(result.tuning_rows)} tuning runs diverged; each is a row")
    return [*remarks, *describe_diverged(result.judged_rows)]


def format_interval(interval: Interval) -> str:
    """Format a mean with its interval."""
    if interval.value != interval.value:
        return "-"
    return f"{interval.value:+.3f}" + (
        "" if interval.lo != interval.lo else f" [{interval.lo:+.3f}, {interval.hi:+.3f}]"
    )
