"""Tables of a bank's scores and attacks in a terminal, each arm in its own, and what limits them."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from rich.console import Console

from memscore.estimators.memorization_stacked import STACKED
from memscore.pipeline.scoring import ArmScores
from memscore.plots.bank import format_label
from memscore.statistics.reliability import Reliability
from memscore.tables.attack_notes import print_attack_notes
from memscore.tables.console import make_table, print_line
from memscore.tables.decision_table import print_decisions
from memscore.tables.numbers import (
    explain_unrealisable_rates,
    format_interval,
    format_number,
    format_target_mean,
)
from memscore.tables.outlying_line import format_outlying_models
from memscore.units import format_count, format_error, format_rmse

ROWS_SHOWN = 5  # most memorized examples in the terminal
STEMS = (
    *("memorization_blend", "memorization", "cscore", "memorization_probability", "memorization_probit", STACKED),
    *("attack_success", "soft_attack_success"),
)
"""Scores in the table of scores, in its order."""


def print_attacks(console: Console, arms: Sequence[ArmScores], names: Sequence[str] = ()) -> None:
    """Print how well each attack tells members from non-members, what limits it, and its decisions."""
    # means over targets: models of the bank that are attacked with the others as shadow models
    for arm in arms:
        if not arm.attacks:
            continue
        targets = {curve.targets for curve in arm.attacks.values()}
        every = "" if len(targets) > 1 else f" of {format_count(min(targets), 'target model')}"
        title = f"membership inference, {arm.suffix}: mean and 95 % interval{every}"
        columns = ("attack", *(["targets"] if len(targets) > 1 else []), "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %")
        table = make_table(title, columns)
        for name, curve in arm.attacks.items():
            measures = (curve.measures[key] for key in ("auc", "tpr_at_0.01", "tpr_at_0.001"))
            count = [str(curve.targets)] if len(targets) > 1 else []
            table.add_row(name, *count, *map(format_target_mean, measures))
        console.print(table)
    means = [mean for arm in arms for curve in arm.attacks.values() for mean in curve.measures.values()]
    if means:
        print_line(
            console,
            "±: for other draws of the models, on these examples; at: false positives of the non-members, mean counts",
        )
        for line in explain_unrealisable_rates(mean.rate for mean in means if mean.rate):
            print_line(console, line)
        print_attack_notes(console, arms)
    for arm in arms:
        print_decisions(console, arm.list_decisions(), arm.suffix, names)
        if arm.outlying:
            print_line(console, format_outlying_models(arm.outlying), markup=True)


def print_scores(console: Console, table: pa.Table, arms: Sequence[ArmScores]) -> None:
    """Print each score's distribution, its reliability and its error, an arm in each table."""
    for arm in arms:
        title = f"scores of {format_count(table.num_rows, 'training example')}, {arm.suffix}"
        scores = make_table(title, ("score", "mean", "median", "95 %", "% > .5", "reliability", "RMSE"))
        for stem in STEMS:
            if f"{stem}_{arm.suffix}" in table.column_names:
                values = np.asarray(table[f"{stem}_{arm.suffix}"].to_numpy(), float)
                scores.add_row(stem, *format_spread(values), *format_reliability(arm.reliability.get(stem)))
        if not scores.row_count:
            continue
        console.print(scores)
        print_line(
            console,
            f"columns of scores.parquet end in _{arm.suffix}; 95 %: a quantile; reliability: Spearman correlation of "
            "halves of the models, corrected to all; RMSE: of each score (between halves), corrected to all (more "
            "measures in reports/summary.json)",
        )
        for line in list_score_notes(table, arm):
            print_line(console, line)


def list_score_notes(table: pa.Table, arm: ArmScores) -> list[str]:
    """List what limits the scores of an arm: success without information, undefined values, missing reliabilities."""
    lines = []
    without = [f"{name} {format_number(success.no_information)}" for name, success in arm.success.items()]
    if without:
        lines.append(
            f"attack success without information, on confidences permuted over the models: {', '.join(without)}; it "
            "depends on the keep fraction and the number of models, so attack success must not be compared between "
            "fractions"
        )
    if arm.stacked:
        lines.append(
            f"{format_rmse(STACKED, 'jackknife', arm.stacked.rmse)}; a regression over examples, which underestimates "
            "the most memorized ones (.004 to .11 in banks tried) and ranks them worse than memorization_blend: use it "
            "where the RMSE alone counts; single examples have no standard error"
        )
    undefined = {
        stem: table[f"{stem}_{arm.suffix}"].null_count for stem in STEMS if f"{stem}_{arm.suffix}" in table.column_names
    }
    counts = [f"{stem} for {format_count(count, 'example')}" for stem, count in undefined.items() if count]
    if counts:
        lines.append(f"undefined: {', '.join(counts)}")
    reliabilities = arm.reliability.values()
    if not any(reliability.halves for reliability in reliabilities):
        models = 2 * arm.arm.models_per_block
        lines.append(f"{arm.suffix}: one block of models cannot be split into halves; use --models {models}")
    elif any(np.isnan(each.spearman_full) or np.isnan(each.rmse) for each in reliabilities if each.halves):
        lines.append("-: the halves do not agree (their correlation is below 0), or all values are equal")
    return lines


def format_spread(values: np.ndarray) -> list[str]:
    """Format mean, median, 95 % quantile and share above one half of the defined values; NaN is undefined."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return ["-"] * 4
    numbers = (defined.mean(), np.median(defined), np.quantile(defined, 0.95))
    return [*(f"{number:.3f}" for number in numbers), f"{100 * (defined > 0.5).mean():.1f}"]


def format_reliability(reliability: Reliability | None) -> list[str]:
    """Format the reliability and the error of a score; dashes where the models cannot be split into halves."""
    if reliability is None or not reliability.halves:
        return ["-", "-"]
    return [format_number(reliability.spearman_full), format_error(reliability.rmse)]


def format_unfinished(count: int) -> str:
    """Format how many models are in incomplete blocks; empty without any."""
    return f", {count} of them in unfinished blocks, which help less" if count else ""


def print_most_memorized(console: Console, table: pa.Table, suffix: str) -> None:
    """Print the examples with the highest memorization, ties by row, undefined ones last."""
    name = f"memorization_{suffix}"
    values = np.asarray(table[name].to_numpy(), float)
    top = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:ROWS_SHOWN]
    columns = ["id", "label", "memorization", "95 % interval", "C-score", "attack"]
    # a copy is named only where there is one: one of the training set, else one of validation or test
    twins = [table["twin"][row].as_py() or table["held_out_twin"][row].as_py() for row in top.tolist()]
    columns += ["exact copy"] if any(twins) else []
    examples, attack_column = (
        make_table(f"most memorized, {suffix}", columns, whole=("id", "exact copy")),
        f"attack_success_{suffix}",
    )
    for row, twin in zip(top.tolist(), twins, strict=True):
        values_of_row = {key: table[key][row].as_py() for key in (name, f"{name}_lo", f"{name}_hi")}
        examples.add_row(
            table["id"][row].as_py(),
            format_label(table, row),
            format_number(values_of_row[name]),
            format_interval(values_of_row[f"{name}_lo"], values_of_row[f"{name}_hi"]),
            format_number(table[f"cscore_{suffix}"][row].as_py()),
            format_number(table[attack_column][row].as_py() if attack_column in table.column_names else None),
            *([twin or "-"] if any(twins) else []),
        )
    console.print(examples)
