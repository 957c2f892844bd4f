"""What an experiment leaves: its rows, its verdicts and its picture on file, and tables in a terminal."""

from rich.console import Console

from memscore.records import plain, sealed, sha256_of
from memscore.report.terminal import new_table
from memscore.store import Store
from unlearn.experiments.parts import Asked, Carried, Experiment, record_of
from unlearn.pairing import contest
from unlearn.summary import DIRECTIONS, shown
from unlearn.sweep_results import as_table
from unlearn.sweep_tables import interval

FOLDER = "experiments"
COLUMNS = (
    ("tow_test", "tow_mia_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("mia_test", "mia_test_gap", "rrt_examples"),
)
"""Columns of one table each, the experiment's own in the last: more do not fit beside the names of plans."""


def keep(store: Store, name: str, entry: Experiment, asked: Asked, carried: Carried) -> str:
    """Write rows.parquet, findings.json and figure.png, over those of the same request.

    Args:
        store: open.
        name: of the experiment.
        entry: its line of the table.
        asked: what it was asked for.
        carried: what came of it.

    Returns:
        The folder in the store.
    """
    record = record_of(name, asked, carried)
    path = f"{FOLDER}/{name}-{sha256_of(plain(record['asked']))[:8]}"
    rows = [row | {"part": part} for part, own in carried.results.items() for row in own]
    store.write_table(f"{path}/rows.parquet", as_table(rows))
    store.folder.replace(f"{path}/findings.json", sealed(record))
    store.folder.replace(f"{path}/figure.png", entry.figure(carried.results, asked))
    return path


def print_experiment(console: Console, entry: Experiment, carried: Carried, where: str) -> None:
    """Tables of all parts, then the verdicts.

    Args:
        console: where to.
        entry: the experiment.
        carried: what came of it.
        where: the folder that keeps it.
    """
    first, last = COLUMNS
    for part, rows in carried.results.items():
        groups = contest(rows)
        title = f"{entry.source}: {part}, {rows[0]['forget_set'] if rows else ''}"
        for columns in (first, (*last, *entry.columns)):
            table = new_table(title, ("", "variant", "chosen by", "n", *columns))
            for (contender, variant, select), own in groups.items():
                n = len({row["index"] for row in own})
                table.add_row(contender, variant, select, str(n), *(shown([row[c] for row in own]) for c in columns))
            console.print(table)
            title = ""
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    table = new_table(
        f"what {entry.source.split()[0]} says, and what was measured", ("claim", "paper", "here", "verdict")
    )
    for wordy in table.columns[:2]:
        wordy.justify = "left"
    for one in carried.findings:
        table.add_row(one.claim, one.paper, interval(one.value), one.verdict)
    console.print(table)
    for line in carried.remarks:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    spent = carried.spent
    if spent:
        seconds = spent["tuning_s"]
        took = f"{seconds / 3600:.2f} worker-hours" if seconds >= 360 else f"{seconds:.0f} s of workers"
        words = f"{spent['attempts']:.0f} attempts, {spent['runs']:.0f} tuning runs that took {took}"
        console.print(words, highlight=False, soft_wrap=True)
    console.print(f"rows, verdicts and picture: {where}", highlight=False, soft_wrap=True, markup=False)
