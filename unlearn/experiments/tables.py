"""What an experiment leaves: its rows, its verdicts and its picture on file, and tables in a terminal."""

from rich.console import Console

from memscore.store.json_records import encode_record, hash_record, replace_nonfinite
from memscore.store.store import Store
from memscore.tables.console import make_table
from unlearn.experiments.base import Experiment, ExperimentContext, ExperimentResult, make_record
from unlearn.trials.tables import DIRECTIONS, format_mean
from unlearn.tuning.results import group_by_method, rows_to_table
from unlearn.tuning.tables import format_interval

EXPERIMENTS_FOLDER = "experiments"
COLUMNS = (
    ("tow_test", "tow_mia_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("mia_test", "mia_test_gap", "rrt_examples"),
)
"""Columns of one table each, the experiment's own in the last: more do not fit beside the names of plans."""


def write_experiment(
    store: Store, name: str, entry: Experiment, asked: ExperimentContext, carried: ExperimentResult
) -> str:
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
    record = make_record(name, asked, carried)
    path = f"{EXPERIMENTS_FOLDER}/{name}-{hash_record(replace_nonfinite(record['asked']))[:8]}"
    rows = [row | {"part": part} for part, own in carried.results.items() for row in own]
    store.write_table(f"{path}/rows.parquet", rows_to_table(rows))
    store.folder.replace(f"{path}/findings.json", encode_record(record))
    store.folder.replace(f"{path}/figure.png", entry.figure(carried.results, asked))
    return path


def print_experiment(console: Console, entry: Experiment, carried: ExperimentResult, where: str) -> None:
    """Tables of all parts, then the verdicts.

    Args:
        console: where to.
        entry: the experiment.
        carried: what came of it.
        where: the folder that keeps it.
    """
    first, last = COLUMNS
    for part, rows in carried.results.items():
        groups = group_by_method(rows)
        title = f"{entry.source}: {part}, {rows[0]['forget_set'] if rows else ''}"
        for columns in (first, (*last, *entry.columns)):
            table = make_table(title, ("", "variant", "chosen by", "n", *columns))
            for (contender, variant, select), own in groups.items():
                n = len({row["index"] for row in own})
                table.add_row(
                    contender, variant, select, str(n), *(format_mean([row[c] for row in own]) for c in columns)
                )
            console.print(table)
            title = ""
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    table = make_table(
        f"what {entry.source.split()[0]} says, and what was measured", ("claim", "paper", "here", "verdict")
    )
    for wordy in table.columns[:2]:
        wordy.justify = "left"
    for one in carried.findings:
        table.add_row(one.claim, one.paper, format_interval(one.value), one.verdict)
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
