"""What a sweep leaves: all trials in one table, what was chosen, and what choosing without an oracle costs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.statistics.intervals import Interval
from memscore.store.json_records import plain, read_record, refuse_other, sealed
from memscore.store.store import Store
from unlearn.contenders import AUTOMATIC, NOTHING
from unlearn.hunting import OBJECTIVE
from unlearn.pairing import contest, paired, shared, where
from unlearn.paths import Swept
from unlearn.trials.config import ORACLE, Row

SWEEPS = "sweeps"


def folder_of(store: Store, name: str, words: Mapping[str, Any]) -> str:
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
    path = f"{SWEEPS}/{name}"
    if store.folder.exists(f"{path}/sweep.json"):
        there = read_record(store.folder, f"{path}/sweep.json")
        if words.get("budget", 0) > there.get("budget", 0):
            there |= {"budget": words["budget"]}
        refuse_other(there, plain(words), f"the sweep {store.folder.shown}/{path}", "give this one another --name")
    return path


def claim(store: Store, name: str, words: Mapping[str, Any]) -> str:
    """The same, and sweep.json with these words is there: for who holds the store's lock.

    Args:
        store: open.
        name: of the sweep.
        words: all that it was asked for.

    Returns:
        Its path in the store.
    """
    path = folder_of(store, name, words)
    store.folder.replace(f"{path}/sweep.json", sealed(words))
    return path


def keep(store: Store, path: str, swept: Swept) -> None:
    """Write trials.parquet and chosen.json into the folder of a sweep, over those of an earlier run of it."""
    rows = [row | {"role": role} for role, rows in (("tuning", swept.tried), ("judged", swept.judged)) for row in rows]
    store.write_table(f"{path}/trials.parquet", as_table(rows))
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
        "regret": [asdict(one) | {"of": list(key)} for key, one in regrets(swept.judged).items()],
        "failed": swept.failed,
        "notes": list(swept.notes),
    }
    store.folder.replace(f"{path}/chosen.json", sealed(record))


def as_table(rows: Sequence[Row]) -> pa.Table:
    """Rows as a table with every column that one of them has; what is undefined or not there is null."""
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.table({name: pa.array([row.get(name) for row in rows], from_pandas=True) for name in columns})


def regrets(judged: Sequence[Row], column: str = "tow_test") -> dict[tuple[str, str], Interval]:
    """What choosing without an oracle costs: the column of the oracle's choice minus that of the blind one, paired.

    Args:
        judged: rows of a sweep.
        column: higher is better.

    Returns:
        (contender, variant) -> mean with a 95 % t interval, for those that have both.
    """
    groups = contest(judged)
    names = dict.fromkeys((contender, variant) for contender, variant, select in groups if select)
    both = [key for key in names if (*key, "oracle") in groups and (*key, "blind") in groups]
    return {key: paired(groups[*key, "oracle"], groups[*key, "blind"], column) for key in both}


def of_automatic(judged: Sequence[Row], column: str = "tow_test") -> list[tuple[str, str, tuple[str, str], Interval]]:
    """Automatic RUM against the best fixed plan.

    Args:
        judged: rows of a sweep.
        column: higher is better.

    Returns:
        For each automatic contender and selection: its variant, the selection, the fixed plan whose mean over the
        originals that all have is highest (chosen on these very rows, which flatters it), and how much higher that is,
        paired.
    """
    groups, found = shared(contest(judged)), []
    for (name, variant, select), rows in groups.items():
        if name != AUTOMATIC:
            continue
        fixed = {key: own for key, own in groups.items() if key[0] not in {AUTOMATIC, ORACLE, NOTHING}}
        fixed = {key: own for key, own in fixed.items() if key[2] == select}
        if fixed:
            best = max(fixed, key=lambda key: mean_or_last(fixed[key], column))
            found.append((variant, select, best[:2], paired(fixed[best], rows, column)))
    return found


def mean_or_last(rows: Sequence[Row], column: str) -> float:
    """For an order from the highest down: the mean of what is known, and of nothing what comes last."""
    known = [row[column] for row in rows if row[column] == row[column]]
    return float(np.mean(known)) if known else -np.inf


def diverged(rows: Sequence[Row]) -> int:
    """How many runs gave no numbers."""
    return len(where(rows, status="diverged"))


def without_numbers(judged: Sequence[Row]) -> list[str]:
    """A line for each contender some of whose judged runs diverged: its means are of the others, and flatter it."""
    counts = {key: (diverged(rows), len(rows)) for key, rows in contest(judged).items()}
    return [
        f"{name} {variant}, chosen by {select}: {gone} of {n} judged runs diverged, and its means are of the others"
        for (name, variant, select), (gone, n) in counts.items()
        if gone
    ]
