"""Store the rows, verdicts and figure of an experiment, and print its tables."""

import math
from collections.abc import Sequence

from rich.console import Console

from memscore.analysis.trial_rows import count_diverged
from memscore.statistics.claims import Claim
from memscore.store.json_records import encode_record, hash_record, replace_nonfinite
from memscore.store.store import Store
from memscore.tables.console import make_table, print_line
from memscore.units import format_count, format_duration
from unlearn.algorithms import ALGORITHMS
from unlearn.experiments.base import Experiment, ExperimentResult, make_record
from unlearn.experiments.config import ExperimentConfig
from unlearn.trials.config import Row
from unlearn.trials.tables import DIRECTIONS
from unlearn.tuning.results import format_cell, group_by_method, restrict_to_shared_originals, rows_to_table
from unlearn.tuning.tables import GAIN_NOTE, format_interval, shorten_variants, sort_methods

EXPERIMENTS_FOLDER = "experiments"
GAIN = "gain_per_pass"
COLUMNS = (
    ("tow_test", "tow_mia_test", "forget_accuracy", "retain_accuracy", "accuracy_test"),
    ("mia_test", "mia_test_gap", "rrt_examples", "steps", GAIN),
)
"""Columns of each table, the experiment's own in the last: more do not fit besides the names of plans."""
RUM_NOTE = (
    "RUM^F: the forget set is divided by the score, and one algorithm forgets the parts one after the other (variant "
    "rum; rum-reversed starts at the highest score); a>b>c names an algorithm for each part, nothing leaves it as it is"
)


def write_experiment(store: Store, experiment: Experiment, config: ExperimentConfig, result: ExperimentResult) -> str:
    """Write rows.parquet, findings.json, figure.png and further pictures, replacing those of the same experiment."""
    record = make_record(config, result)
    path = f"{EXPERIMENTS_FOLDER}/{config.name}-{hash_record(replace_nonfinite(record['asked']))[:8]}"
    rows = [row | {"part": part} for part, part_rows in result.results.items() for row in part_rows]
    store.write_table(f"{path}/rows.parquet", rows_to_table(rows))
    store.folder.replace(f"{path}/findings.json", encode_record(record))
    for name, table_rows in result.tables.items():
        store.write_table(f"{path}/table-{name}.parquet", rows_to_table(table_rows))
    pictures = {"figure": experiment.draw_figure(result.results, config)} | result.pictures
    for name, picture in pictures.items():
        store.folder.replace(f"{path}/{name}.png", picture)
    return path


def print_experiment(console: Console, experiment: Experiment, result: ExperimentResult, folder: str) -> None:
    """Print the tables of all parts, then the verdicts."""
    if result.tables:
        print_correlations(console, result.tables["correlations"])
    else:
        for part, rows in result.results.items():
            print_part(console, experiment, part, rows)
        print_line(console, DIRECTIONS)
        print_line(console, GAIN_NOTE)
    print_claims(console, experiment, result.claims)
    for line in result.remarks:
        print_line(console, line)
    if cost := result.cost:
        configurations = format_count(int(cost["attempts"]), "configuration")
        runs = format_count(int(cost["runs"]), "tuning run")
        print_line(console, f"{configurations}, {runs} that took {format_duration(cost['tuning_s'])} of one worker")
    print_line(console, f"rows, verdicts and picture: {folder}")


def print_correlations(console: Console, rows: Sequence[Row]) -> None:
    """Print the rank correlation of each factor with the FP-score, a column an algorithm."""
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    title = (
        "rank correlation with the FP-score (above 0: the higher, the easier to unlearn), 95 % interval over examples "
        "and originals"
    )
    table = make_table(title, ("factor", *algorithms))
    for factor in dict.fromkeys(row["factor"] for row in rows):
        own = {row["algorithm"]: row for row in rows if row["factor"] == factor}
        cells = [format_range(own[name]) for name in algorithms]
        table.add_row(next(iter(own.values()))["title"], *cells)
    console.print(table)


def format_range(row: Row) -> str:
    """Format a correlation with its interval."""
    if math.isnan(row["rho"]):
        return "-"
    return f"{row['rho']:+.2f}" + ("" if math.isnan(row["lo"]) else f" [{row['lo']:+.2f}, {row['hi']:+.2f}]")


def print_part(console: Console, experiment: Experiment, part: str, rows: Sequence[Row]) -> None:
    """Print the methods of one part, those of each selection in tables of their own, the nearest to retraining first.

    The oracle and theta_o, which are of no selection, stand above and below in each.
    """
    groups = group_by_method(rows)
    shared_rows = restrict_to_shared_originals(groups)
    counts = {key: len({row["index"] for row in group}) for key, group in groups.items()}
    uneven, any_diverged = len(set(counts.values())) > 1, count_diverged(rows) > 0
    variants, score = shorten_variants([variant for _, variant, _ in groups])
    originals = "" if uneven or not counts else f", {format_count(next(iter(counts.values())), 'original')}"
    order = sort_methods(groups, shared_rows)
    # a row of no selection is the oracle, theta_o, or of an experiment that chooses nothing
    selections = list(dict.fromkeys(select for *_, select in order if select)) or [""]
    first, last = COLUMNS
    for selection in selections:
        chosen = f", chosen by {selection}" if selection else ""
        title = f"{experiment.source}: {part}, {rows[0]['forget_set'] if rows else ''}{chosen}{originals}{score}"
        # the requests of five-steps have no gain: each round is judged on what is forgotten so far
        gains = any(GAIN in row for row in rows)
        later = [column for column in (*last, *experiment.columns) if gains or column != GAIN]
        for columns in (first, later):
            table = make_table(title, ("method", "variant", *["n"] * uneven, *["diverged"] * any_diverged, *columns))
            for key in (key for key in order if key[2] in {"", selection}):
                count = [str(counts[key])] * uneven + [str(count_diverged(groups[key]))] * any_diverged
                cells = (format_cell(groups[key], column) for column in columns)
                table.add_row(key[0], variants[key[1]], *count, *cells)
            console.print(table)
            title = ""


def print_claims(console: Console, experiment: Experiment, claims: Sequence[Claim]) -> None:
    """Print the verdicts, those on one claim below each other, the largest value first."""
    paper = experiment.source.split()[0]
    title = f"what {paper} says, and what was measured"
    table = make_table(title, ("claim", "paper", "here", "p", "verdict", "uncorrected"))
    for column in table.columns[:2]:
        column.justify = "left"
    subjects = list(dict.fromkeys(_split_subject(claim)[1] for claim in claims))
    # -value of NaN would leave the order undefined
    for claim in sorted(
        claims,
        key=lambda claim: (
            subjects.index(_split_subject(claim)[1]),
            math.inf if math.isnan(claim.value.value) else -claim.value.value,
        ),
    ):
        value = format_interval(claim.value)
        table.add_row(claim.claim, claim.paper, value, format_p(claim.p_family), claim.verdict, claim.uncorrected)
    console.print(table)
    for line in list_claim_notes(claims):
        print_line(console, line)


def list_claim_notes(claims: Sequence[Claim]) -> list[str]:
    """List what a reader of these claims needs: how verdicts are corrected, what they rest on, what RUM^F is."""
    families = {claim.family: sum(each.family == claim.family for each in claims) for claim in claims}
    several = [f"{name} ({n})" for name, n in families.items() if n > 1]
    notes = [
        "verdict: at 5 % for all claims of one kind together (Holm), and p is of that; uncorrected: at 5 % for each "
        "claim alone. Undecided: no effect was shown, which is not that there is none; so is a difference without any "
        "spread, which has no test"
    ] * bool(claims)
    notes += [f"claims of one kind: {', '.join(several)}"] * bool(several)
    if any(claim.value.conditional for claim in claims):
        notes.append(
            "given this tuning: parameters were chosen once, and the interval leaves out how the result changes with "
            "another choice; several tunings would show it"
        )
    return notes + [RUM_NOTE] * any("RUM^F" in claim.claim for claim in claims)


def format_p(p: float) -> str:
    """Format a p value.

    >>> format_p(0.0301), format_p(2e-5), format_p(float("nan"))
    ('0.030', '<0.001', '-')
    """
    return "-" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def _split_subject(claim: Claim) -> tuple[str, str]:
    """Split a claim into the algorithm that it is of, if it names one first, and what is claimed."""
    name, colon, rest = claim.claim.partition(": ")
    return (name, rest) if colon and name in ALGORITHMS else ("", claim.claim)
