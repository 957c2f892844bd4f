"""What a sweep leaves: all trials in one table, what was chosen, and what choosing without an oracle costs.

Comparisons of judged trials, paired by original: the same theta_o and theta_r under both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.statistics.intervals import Interval
from memscore.store.json_records import encode_record, read_record, replace_nonfinite, require_same
from memscore.store.store import Store
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.tables import mean_with_interval
from unlearn.tuning.methods import AUTOMATIC, ORIGINAL
from unlearn.tuning.search import OBJECTIVE
from unlearn.tuning.state import SweepResult


def average_by_original(rows: Sequence[Row], column: str) -> dict[int, float]:
    """A column's value for each original; the mean where one original has several rows, NaN where a run diverged."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(int(row["index"]), []).append(float(row[column]))
    return {index: float(np.mean(values)) for index, values in found.items()}


def paired_difference(ours: Sequence[Row], theirs: Sequence[Row], column: str) -> Interval:
    """How much higher a column is in one group of rows than in another.

    Args:
        ours: judged rows of one contender.
        theirs: of another.
        column: of the rows.

    Returns:
        Mean difference over the originals that both have, with a 95 % t interval; NaN where there are none.
    """
    return paired_contrast([(1, ours), (-1, theirs)], column)


def paired_mean_difference(groups: Sequence[Sequence[Row]], others: Sequence[Sequence[Row]], column: str) -> Interval:
    """As paired, with each side the mean over several contenders of the same originals.

    Args:
        groups: rows of each contender of one side.
        others: rows of each contender of the other side.
        column: of the rows.

    Returns:
        Mean difference with a 95 % t interval over the originals that all have.
    """
    terms = [(sign / len(side), rows) for sign, side in ((1, groups), (-1, others)) for rows in side]
    return paired_contrast(terms, column)


def paired_contrast(terms: Sequence[tuple[float, Sequence[Row]]], column: str) -> Interval:
    """A weighted sum of what several contenders make of the same originals, as (a - b) - (c - d).

    Args:
        terms: a weight, and rows of a contender that it is given to.
        column: of the rows.

    Returns:
        Mean with a 95 % t interval over the originals that all have; NaN where there are none.
    """
    sides = [(weight, average_by_original(rows, column)) for weight, rows in terms]
    shared = set.intersection(*(set(found) for _, found in sides)) if sides else set()
    return mean_with_interval([sum(weight * found[index] for weight, found in sides) for index in sorted(shared)])


def select_rows(rows: Sequence[Row], **wanted: object) -> list[Row]:
    """The rows whose columns have these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in wanted.items())]


def select_last_step(rows: Sequence[Row]) -> list[Row]:
    """Rows of whole sequences, without those of their beginnings."""
    return [row for row in rows if row["level"] in {0, row["levels"]}]


def group_by_method(rows: Sequence[Row]) -> Mapping[tuple[str, str, str], list[Row]]:
    """Judged rows by contender, variant and selection, in the order in which they come."""
    found: dict[tuple[str, str, str], list[Row]] = {}
    for row in select_last_step(rows):
        found.setdefault((row["contender"], row["variant"], row["select"]), []).append(row)
    return found


def restrict_to_shared_originals(
    groups: Mapping[tuple[str, str, str], list[Row]],
) -> dict[tuple[str, str, str], list[Row]]:
    """The same groups, of those originals alone that all of them have."""
    sets = [{row["index"] for row in rows} for rows in groups.values()]
    common = set.intersection(*sets) if sets else set()
    return {key: [row for row in rows if row["index"] in common] for key, rows in groups.items()}


SWEEPS_FOLDER = "sweeps"


def resolve_sweep_folder(store: Store, name: str, words: Mapping[str, Any]) -> str:
    """The folder of a sweep, which is its own: a sweep of other words is refused there. Nothing is written.

    Args:
        store: open.
        name: of the sweep.
        words: all that it was asked for; a larger "budget" than on file goes on with what is there.

    Returns:
        Its path in the store.

    Raises:
        ValueError: a name that is no name of a folder, or another sweep has it; names the words that differ.
    """
    if not name or name.startswith(".") or any(c in name for c in '/\\:*?"<>|') or not name.isprintable():
        raise ValueError(f"--name {name!r} is no name of a folder; use letters, digits and -")
    path = f"{SWEEPS_FOLDER}/{name}"
    if store.folder.exists(f"{path}/sweep.json"):
        there = read_record(store.folder, f"{path}/sweep.json")
        if words.get("budget", 0) > there.get("budget", 0):
            there |= {"budget": words["budget"]}
        require_same(
            there,
            replace_nonfinite(words),
            f"the sweep {store.folder.display_name}/{path}",
            "give this one another --name",
        )
    return path


def claim_sweep_folder(store: Store, name: str, words: Mapping[str, Any]) -> str:
    """The same, and sweep.json with these words is there: for who holds the store's lock.

    Args:
        store: open.
        name: of the sweep.
        words: all that it was asked for.

    Returns:
        Its path in the store.
    """
    path = resolve_sweep_folder(store, name, words)
    store.folder.replace(f"{path}/sweep.json", encode_record(words))
    return path


def write_sweep(store: Store, path: str, swept: SweepResult) -> None:
    """Write trials.parquet and chosen.json into the folder of a sweep, over those of an earlier run of it."""
    rows = [row | {"role": role} for role, rows in (("tuning", swept.tried), ("judged", swept.judged)) for row in rows]
    store.write_table(f"{path}/trials.parquet", rows_to_table(rows))
    record = {
        "tuned_on": {"forget_set": swept.tuned_on.name, "n": len(swept.tuned_on.rows)},
        "judged_on": {"forget_set": swept.judged_on.name, "n": len(swept.judged_on.rows)},
        "chosen": [
            {
                "contender": one.contender.name,
                "variant": one.contender.variant,
                "select": one.select,
                "steps": [{"algorithm": name, "params": dict(params)} for name, params in one.steps],
                "objective": [found[OBJECTIVE[one.select]] for found in one.found],
                "at_boundary": one.boundary,
                "ended_early": one.over,
                **one.spent,
            }
            for one in swept.paths
        ],
        "regret": [asdict(one) | {"of": list(key)} for key, one in compute_regrets(swept.judged).items()],
        "failed": swept.failed,
        "notes": list(swept.notes),
    }
    store.folder.replace(f"{path}/chosen.json", encode_record(record))


def rows_to_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with every column that one of them has; what is undefined or not there is null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows], from_pandas=True) for name in columns})


def compute_regrets(judged: Sequence[Row], column: str = "tow_test") -> dict[tuple[str, str], Interval]:
    """What choosing without an oracle costs: the column of the oracle's choice minus that of the blind one, paired.

    Args:
        judged: rows of a sweep.
        column: higher is better.

    Returns:
        (contender, variant) -> mean with a 95 % t interval, for those that have both.
    """
    groups = group_by_method(judged)
    names = dict.fromkeys((contender, variant) for contender, variant, select in groups if select)
    both = [key for key in names if (*key, "oracle") in groups and (*key, "blind") in groups]
    return {key: paired_difference(groups[*key, "oracle"], groups[*key, "blind"], column) for key in both}


def compare_automatic(
    judged: Sequence[Row], column: str = "tow_test"
) -> list[tuple[str, str, tuple[str, str], Interval]]:
    """Automatic RUM against the best fixed plan.

    Args:
        judged: rows of a sweep.
        column: higher is better.

    Returns:
        For each automatic contender and selection: its variant, the selection, the fixed plan whose mean over the
        originals that all have is highest (chosen on these very rows, which flatters it), and how much higher that is,
        paired.
    """
    groups, found = restrict_to_shared_originals(group_by_method(judged)), []
    for (name, variant, select), rows in groups.items():
        if name != AUTOMATIC:
            continue
        fixed = {key: own for key, own in groups.items() if key[0] not in {AUTOMATIC, ORACLE, ORIGINAL}}
        fixed = {key: own for key, own in fixed.items() if key[2] == select}
        if fixed:
            best = max(fixed, key=lambda key: mean_or_minus_infinity(fixed[key], column))
            found.append((variant, select, best[:2], paired_difference(fixed[best], rows, column)))
    return found


def mean_or_minus_infinity(rows: Sequence[Row], column: str) -> float:
    """For an order from the highest down: the mean of what is known, and of nothing what comes last."""
    known = [row[column] for row in rows if row[column] == row[column]]
    return float(np.mean(known)) if known else -np.inf


def count_diverged(rows: Sequence[Row]) -> int:
    """How many runs gave no numbers."""
    return len(select_rows(rows, status="diverged"))


def describe_diverged(judged: Sequence[Row]) -> list[str]:
    """A line for each contender some of whose judged runs diverged: its means are of the others, and flatter it."""
    counts = {key: (count_diverged(rows), len(rows)) for key, rows in group_by_method(judged).items()}
    return [
        f"{name} {variant}, chosen by {select}: {gone} of {n} judged runs diverged, and its means are of the others"
        for (name, variant, select), (gone, n) in counts.items()
        if gone
    ]
