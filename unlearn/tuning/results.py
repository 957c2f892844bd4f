"""Results of a sweep: comparisons of judged rows, paired by original, and the files of a sweep.

Paired by original means the same theta_o and theta_r under both methods.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.analysis.trial_rows import COUNTED, count_diverged, estimate_column, find_tunings, get_value, is_diverged
from memscore.statistics.means import MeanEstimate, estimate_mean
from memscore.store.json_records import encode_record, read_record, replace_nonfinite, require_same
from memscore.store.store import Store
from memscore.units import format_count
from unlearn.measures import find_limits
from unlearn.trials.config import ORACLE, ORIGINAL, Row
from unlearn.trials.second_oracle import compare_second_oracle
from unlearn.trials.tables import STEPS, format_estimate
from unlearn.tuning.methods import AUTOMATIC
from unlearn.tuning.search import OBJECTIVE
from unlearn.tuning.state import SweepResult


def average_by_original(rows: Sequence[Row], column: str) -> dict[int, float]:
    """Average a column over the rows of each original; NaN where a run diverged and counts no worst value."""
    values_by_original: dict[int, list[float]] = {}
    for row in rows:
        values_by_original.setdefault(int(row["index"]), []).append(get_value(row, column))
    return {index: float(np.mean(values)) for index, values in values_by_original.items()}


def paired_difference(ours: Sequence[Row], theirs: Sequence[Row], column: str) -> MeanEstimate:
    """Compute how much higher a column is in `ours` than in `theirs`.

    Mean difference over the originals that both have, with a 95 % t interval; NaN where there are none.
    """
    return paired_contrast([(1, ours), (-1, theirs)], column)


def paired_mean_difference(
    groups: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]], column: str
) -> MeanEstimate:
    """Compute a paired difference between the means over several methods on each side.

    Mean difference with a 95 % t interval over the originals that all have.
    """
    weighted_rows = [(sign / len(side), rows) for sign, side in ((1, groups), (-1, others)) for rows in side]
    return paired_contrast(weighted_rows, column)


def paired_contrast(weighted_rows: Sequence[tuple[float, Sequence[Row]]], column: str) -> MeanEstimate:
    """Compute a weighted sum of a column over several methods of the same originals, as (a - b) - (c - d).

        c_i = sum_m w_m mean_m,i    the column of method m averaged over its rows of original i

    Mean of c_i with a 95 % t interval over the originals that all methods have; NaN where there are none. Where
    parameters were tuned, the interval is over tunings, each of which has originals of its own. What diverged runs
    leave out is said, and no claim is judged by the rest.
    """
    sides = [(weight, average_by_original(rows, column)) for weight, rows in weighted_rows]
    shared = sorted(set.intersection(*(set(averages) for _, averages in sides)) if sides else set())
    values = [sum(weight * averages[index] for weight, averages in sides) for index in shared]
    # rows of originals that another method lacks are no part of the difference, and nor is their divergence
    compared = [row for _, rows in weighted_rows for row in rows if row["index"] in shared]
    estimate = estimate_mean(values, find_tunings(compared, shared))
    return replace(estimate, left_out=describe_left_out(compared, column))


def describe_left_out(rows: Sequence[Row], column: str) -> str:
    """Describe the diverged runs that have no value of a column; empty if there is none."""
    n_lacking = sum(is_diverged(row) and np.isnan(get_value(row, column)) for row in rows)
    return f"{n_lacking} of {format_count(len(rows), 'run')} diverged" if n_lacking else ""


def format_cell(rows: Sequence[Row], column: str) -> str:
    """Format a cell of a column over the rows of a method, with half of its interval over tunings; steps without."""
    if column == STEPS:
        return f"{np.mean([row[column] for row in rows]):.0f}"
    return format_estimate(estimate_column(rows, column), len(rows), find_limits(column))


def select_rows(rows: Sequence[Row], **values: object) -> list[Row]:
    """Select the rows whose columns have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in values.items())]


def select_last_step(rows: Sequence[Row]) -> list[Row]:
    """Select the rows of whole sequences, without those of their first steps."""
    return [row for row in rows if row["level"] in {0, row["levels"]}]


def group_by_method(rows: Sequence[Row]) -> Mapping[tuple[str, str, str], list[Row]]:
    """Group judged rows by method, variant and selection, in their order."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in select_last_step(rows):
        groups.setdefault((row["contender"], row["variant"], row["select"]), []).append(row)
    return groups


def restrict_to_shared_originals(
    groups: Mapping[tuple[str, str, str], list[Row]],
) -> dict[tuple[str, str, str], list[Row]]:
    """Restrict the groups to the originals that all of them have."""
    sets = [{row["index"] for row in rows} for rows in groups.values()]
    common = set.intersection(*sets) if sets else set()
    return {key: [row for row in rows if row["index"] in common] for key, rows in groups.items()}


SWEEPS_FOLDER = "sweeps"


def resolve_sweep_folder(store: Store, name: str, identity: Mapping[str, Any]) -> str:
    """Return a sweep's folder, after checking that no other sweep has it; nothing is written.

    A larger "budget" in the identity than the stored one continues the sweep. Raises ValueError for an invalid name of
    a folder, and for another sweep's; the message names the options that differ.
    """
    if not name or name.startswith(".") or any(c in name for c in '/\\:*?"<>|') or not name.isprintable():
        raise ValueError(f"--name {name!r} is not a valid folder name; use letters, digits and -")
    path = f"{SWEEPS_FOLDER}/{name}"
    if store.folder.exists(f"{path}/sweep.json"):
        stored = read_record(store.folder, f"{path}/sweep.json")
        # A search resumes from stored configurations, so a larger budget continues a sweep.
        if identity.get("budget", 0) > stored.get("budget", 0):
            stored |= {"budget": identity["budget"]}
        require_same(
            stored,
            replace_nonfinite(identity),
            f"the sweep {store.folder.display_path(path)}",
            "give this one another --name",
        )
    return path


def claim_sweep_folder(store: Store, name: str, identity: Mapping[str, Any]) -> str:
    """Check the folder of a sweep and write sweep.json; the caller holds the lock of the store."""
    path = resolve_sweep_folder(store, name, identity)
    store.folder.replace(f"{path}/sweep.json", encode_record(identity))
    return path


def write_sweep(store: Store, path: str, result: SweepResult) -> None:
    """Write trials.parquet and chosen.json to the folder of a sweep, replacing those of an earlier run."""
    rows = [
        row | {"role": role}
        for role, rows in (("tuning", result.tuning_rows), ("judged", result.judged_rows))
        for row in rows
    ]
    store.write_table(f"{path}/trials.parquet", rows_to_table(rows))
    record = {
        "tunings": [{"forget_set": tuning_set.name, "n": len(tuning_set.rows)} for tuning_set in result.tuning_sets],
        "judged_on": {"forget_set": result.judged_set.name, "n": len(result.judged_set.rows)},
        "chosen": [
            {
                "contender": state.method.name,
                "variant": state.method.variant,
                "select": state.select,
                "tuning": state.tuning,
                "steps": [{"algorithm": name, "params": dict(params)} for name, params in state.steps],
                "objective": [choice[OBJECTIVE[state.select]] for choice in state.chosen],
                "at_boundary": state.at_boundary,
                "ended_early": state.end_reason,
                **state.cost,
            }
            for state in result.states
        ],
        "regret": [asdict(regret) | {"of": list(key)} for key, regret in compute_regrets(result.judged_rows).items()],
        "populations": list(result.populations),
        "second_oracle": asdict(compare_second_oracle(result.judged_rows)),
        "failed": result.failed,
        "notes": list(result.notes),
    }
    store.folder.replace(f"{path}/chosen.json", encode_record(record))


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Convert rows to a table with the columns of all rows; undefined and missing values are null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows], from_pandas=True) for name in columns})


def compute_regrets(judged: Sequence[Row], column: str = "tow_test") -> dict[tuple[str, str], MeanEstimate]:
    """Compute the regret of choosing without an oracle: the oracle's choice minus the blind one, paired.

    (method, variant) -> mean with a 95 % t interval, for the methods that have both; in `column`, higher is better. It
    may be negative: the oracle chose on other originals too, and is not the best choice for the judged ones.
    """
    groups = group_by_method(judged)
    names = dict.fromkeys((method, variant) for method, variant, select in groups if select)
    compared = [key for key in names if (*key, "oracle") in groups and (*key, "blind") in groups]
    return {key: paired_difference(groups[*key, "oracle"], groups[*key, "blind"], column) for key in compared}


def compare_automatic(
    judged: Sequence[Row], column: str = "tow_test"
) -> list[tuple[str, str, tuple[str, str], MeanEstimate]]:
    """Compare automatic RUM with the best fixed plan; in `column`, higher is better.

    For each automatic method and selection: its variant, the selection, the fixed plan with the highest mean over the
    shared originals (chosen on these same rows, which flatters it), and its paired advantage.
    """
    groups, comparisons = restrict_to_shared_originals(group_by_method(judged)), []
    for (name, variant, select), rows in groups.items():
        if name != AUTOMATIC:
            continue
        # Fixed plans under the same selection; the oracle and theta_o are no plans.
        fixed = {key: method_rows for key, method_rows in groups.items() if key[0] not in {AUTOMATIC, ORACLE, ORIGINAL}}
        fixed = {key: method_rows for key, method_rows in fixed.items() if key[2] == select}
        if fixed:
            best = max(fixed, key=lambda key: mean_or_minus_infinity(fixed[key], column))
            comparisons.append((variant, select, best[:2], paired_difference(fixed[best], rows, column)))
    return comparisons


def mean_or_minus_infinity(rows: Sequence[Row], column: str) -> float:
    """Return the mean of the defined values, for descending order; minus infinity if there are none."""
    defined = [value for row in rows if not np.isnan(value := get_value(row, column))]
    return float(np.mean(defined)) if defined else -np.inf


def describe_diverged(judged: Sequence[Row]) -> list[str]:
    """Describe each method with diverged judged runs, and what they count."""
    counts = {key: (count_diverged(rows), len(rows)) for key, rows in group_by_method(judged).items()}
    return [
        f"{name} {variant}, chosen by {select}: {n_diverged} of {n} judged runs diverged; they count "
        f"{COUNTED}, and its other means are of the rest, which flatters it"
        for (name, variant, select), (n_diverged, n) in counts.items()
        if n_diverged
    ]
