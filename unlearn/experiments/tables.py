"""Store the rows, verdicts and figure of an experiment, and print its tables."""

from rich.console import Console

from memscore.store.json_records import encode_record, hash_record, replace_nonfinite
from memscore.store.store import Store
from memscore.tables.console import make_table
from unlearn.experiments.base import Experiment, ExperimentResult, make_record
from unlearn.experiments.config import ExperimentConfig
from unlearn.trials.tables import DIRECTIONS, format_mean
from unlearn.tuning.results import group_by_method, rows_to_table
from unlearn.tuning.tables import format_interval

EXPERIMENTS_FOLDER = "experiments"
COLUMNS = (
    ("tow_test", "tow_mia_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("mia_test", "mia_test_gap", "rrt_examples"),
)
"""Columns of each table, the experiment's own in the last: more do not fit besides the names of plans."""


def write_experiment(store: Store, experiment: Experiment, config: ExperimentConfig, result: ExperimentResult) -> str:
    """Write rows.parquet, findings.json and figure.png, replacing those of the same experiment."""
    record = make_record(config, result)
    path = f"{EXPERIMENTS_FOLDER}/{config.name}-{hash_record(replace_nonfinite(record['asked']))[:8]}"
    rows = [row | {"part": part} for part, part_rows in result.results.items() for row in part_rows]
    store.write_table(f"{path}/rows.parquet", rows_to_table(rows))
    store.folder.replace(f"{path}/findings.json", encode_record(record))
    store.folder.replace(f"{path}/figure.png", experiment.draw_figure(result.results, config))
    return path


def print_experiment(console: Console, experiment: Experiment, result: ExperimentResult, folder: str) -> None:
    """Print the tables of all parts, then the verdicts."""
    first, last = COLUMNS
    for part, rows in result.results.items():
        groups = group_by_method(rows)
        title = f"{experiment.source}: {part}, {rows[0]['forget_set'] if rows else ''}"
        for columns in (first, (*last, *experiment.columns)):
            table = make_table(title, ("", "variant", "chosen by", "n", *columns))
            for (method, variant, select), method_rows in groups.items():
                n = len({row["index"] for row in method_rows})
                table.add_row(
                    method, variant, select, str(n), *(format_mean([row[c] for row in method_rows]) for c in columns)
                )
            console.print(table)
            title = ""
    console.print(DIRECTIONS, highlight=False, soft_wrap=True)
    table = make_table(
        f"what {experiment.source.split()[0]} says, and what was measured", ("claim", "paper", "here", "verdict")
    )
    for column in table.columns[:2]:
        column.justify = "left"
    for claim in result.claims:
        table.add_row(claim.claim, claim.paper, format_interval(claim.value), claim.verdict)
    console.print(table)
    for line in result.remarks:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    cost = result.cost
    if cost:
        seconds = cost["tuning_s"]
        duration = f"{seconds / 3600:.2f} worker-hours" if seconds >= 360 else f"{seconds:.0f} s of workers"
        summary = f"{cost['attempts']:.0f} attempts, {cost['runs']:.0f} tuning runs that took {duration}"
        console.print(summary, highlight=False, soft_wrap=True)
    console.print(f"rows, verdicts and picture: {folder}", highlight=False, soft_wrap=True, markup=False)
