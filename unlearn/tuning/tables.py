"""A sweep in a terminal: who comes nearest to the oracle, what choosing without one costs, and what to distrust."""

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


def print_sweep(console: Console, swept: SweepResult, where: str) -> int:
    """Print what came of a sweep.

    Args:
        console: where to.
        swept: what came of it.
        where: the folder that keeps it.

    Returns:
        Exit code: 1 if a trial failed, a judged one diverged, or a contender ended early, else 0.
    """
    groups = group_by_method(swept.judged)
    n = {key: len({row["index"] for row in rows}) for key, rows in groups.items()}
    same = restrict_to_shared_originals(groups)
    few = len({row["index"] for rows in same.values() for row in rows})
    rows = sorted(
        (key for key in groups if key[2]), key=lambda key: (-mean_or_minus_infinity(same[key], "tow_test"), key)
    )
    title = f"{swept.judged_on.name}: {len(swept.judged_on.rows)} examples, judged on originals unseen by the choice"
    uneven = len(set(n.values())) > 1
    more = (f"tow_test of the same {few}",) * uneven
    printed = make_table(title, ("", "variant", "chosen by", "n", *COLUMNS, *more))
    for key in [(ORACLE, "", ""), *rows, ("original", "", "")]:
        if key in groups:
            cells = [format_mean([r[c] for r in groups[key]]) for c in COLUMNS]
            cells += [format_mean([r["tow_test"] for r in same[key]])] * uneven
            printed.add_row(*key, str(n[key]), *cells)
    console.print(printed)
    if uneven:
        console.print(UNEQUAL_NOTE, highlight=False, soft_wrap=True)
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    _regret(console, swept)
    for line in (*describe_automatic_plans(swept), *list_remarks(swept)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    console.print(f"every trial and what was chosen: {where}", highlight=False, soft_wrap=True, markup=False)
    return 1 if swept.failed or count_diverged(swept.judged) or any(path.over for path in swept.paths) else 0


def _regret(console: Console, swept: SweepResult) -> None:
    """What choosing without an oracle costs."""
    found = compute_regrets(swept.judged)
    if not found:
        return
    groups = group_by_method(swept.judged)
    printed = make_table(
        "tow_test by who chose, and the regret of choosing without an oracle",
        ("", "variant", "oracle", "blind", "regret"),
    )
    for (name, variant), regret in found.items():
        cells = [
            format_mean([row["tow_test"] for row in groups[name, variant, select]]) for select in ("oracle", "blind")
        ]
        printed.add_row(name, variant, *cells, format_interval(regret))
    console.print(printed)


def describe_automatic_plans(swept: SweepResult) -> list[str]:
    """Automatic RUM, a line each: what it chose, what that took, and how far it is from the best fixed plan, if any."""
    beaten = {(variant, select): (best, regret) for variant, select, best, regret in compare_automatic(swept.judged)}
    said = []
    for path in (one for one in swept.paths if one.contender.automatic and not one.over):
        variant, select = path.contender.variant, path.select
        plan = " > ".join(name for name, _ in path.steps)
        spent = path.spent
        line = f"{variant} by {select}: {plan}, after {spent['attempts']:.0f} attempts, {spent['tuning_s']:.0f} s"
        if (variant, select) in beaten:
            best, regret = beaten[variant, select]
            line += f"; {best[0]} {best[1]}, the best fixed plan of this table, is {format_interval(regret)} above it"
        said.append(line)
    return said


def list_remarks(swept: SweepResult) -> list[str]:
    """What a reader of the tables must know besides."""
    said = [*swept.failed, *swept.notes]
    shared = len(set(swept.tuned_on.rows) & set(swept.judged_on.rows))
    said.append(
        f"parameters were chosen on {swept.tuned_on.name} "
        + (
            "(no example of it is reported on)"
            if not shared
            else "which is the reported set itself: only the originals are unseen"
            if shared == len(swept.judged_on.rows)
            else f"which has {shared} of the {len(swept.judged_on.rows)} reported examples"
        )
    )
    for path in swept.paths:
        who = f"{path.contender.name}, {path.contender.variant}, chosen by {path.select}"
        if path.over:
            said.append(f"{who}: ended early, {path.over}")
        if path.boundary:
            said.append(
                f"{who}: the best {', '.join(path.boundary)} lies at an end of its space; a wider one may do better"
            )
    if all(path.over for path in swept.paths):
        said.append("no contender is left to be judged; finished trials are kept")
    gone = count_diverged(swept.tried)
    if gone:
        said.append(f"{gone} of {len(swept.tried)} tuning runs diverged; each is a row")
    return [*said, *describe_diverged(swept.judged)]


def format_interval(found: Interval) -> str:
    """A mean with its interval."""
    if found.value != found.value:
        return "-"
    return f"{found.value:+.3f}" + ("" if found.lo != found.lo else f" [{found.lo:+.3f}, {found.hi:+.3f}]")
