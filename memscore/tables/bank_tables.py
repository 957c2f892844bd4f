"""Tables of a bank in a terminal: options, costs, forecasts, scores, and problems."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.markup import escape

from memscore.data.duplicates import count_copies
from memscore.pipeline.bank_reports import EstimateResult
from memscore.pipeline.config import MAX_MODELS
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.output_check import format_output_warning
from memscore.pipeline.precision import DEFAULT_RMSES, ForecastCheck, PrecisionForecast
from memscore.pipeline.runner import Bank, count_queries
from memscore.pipeline.scoring import ArmScores
from memscore.pipeline.train_bank import TrainingSummary
from memscore.plots.bank import format_label
from memscore.statistics.correlation import TOP_FRACTION
from memscore.statistics.intervals import Interval
from memscore.statistics.roc import RateAtFpr, TargetMean
from memscore.tables.attack_notes import print_attack_notes
from memscore.tables.attack_success_table import print_attack_success
from memscore.tables.console import make_table
from memscore.tables.decision_table import print_decisions
from memscore.tables.duplicates_lines import describe_copies, print_copies
from memscore.tables.inversion_table import print_inversion
from memscore.tables.outlying_line import format_outlying_models
from memscore.training.augmentation import describe_wide_crop

ROWS_SHOWN = 5  # most memorized examples in the terminal
SECONDS_NOTE = "one worker's wall clock as measured, whatever the machine and its load; median over originals"
MIN_MEMBER_ACCURACY = 0.95  # accuracy on members below which memorization means little


def print_heading(console: Console, bank: Bank) -> None:
    """Print what a run will do, before it starts."""
    manifest, recipe = bank.store.manifest, bank.store.manifest.recipe
    train, validation, test = manifest.split_sizes
    shape = "x".join(str(size) for size in manifest.input_shape)
    changes = "".join(f", {name} {value}" for name, value in manifest.label_changes.items())
    augmented = "".join(f", {name}" for name in recipe["augment"])
    copies = "; ".join(describe_copies(count_copies(bank.copies)).values())
    wide_crop = describe_wide_crop(read_recipe(bank.store), manifest.input_shape)
    lines = (
        f"data   {manifest.data}: {train} train, {validation} validation, {test} test; {shape}{changes}",
        *([f"copies {copies}"] if copies else ()),
        f"model  {manifest.architecture}, {recipe['epochs']} epochs of batch {recipe['batch']}, "
        f"{recipe['optimizer']} lr {recipe['lr']}, {manifest.precision}{augmented}",
        *(f"note   {note}" for note in bank.notes),
        *([f"warning {format_output_warning(manifest.architecture, bank.output_kind)}"] if bank.output_kind else []),
        *([f"warning {wide_crop}"] if wide_crop else []),
        *(
            f"arm    {arm.name}: {format_goal(bank)}, {format_queries(count_queries(bank.config, bank.store, arm))}"
            for arm in bank.arms
        ),
        f"store  {bank.store.folder.display_name}" + (f" on host {bank.host}" if bank.host else ""),
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def format_queries(count: int) -> str:
    """Format on how many augmentations of an image, itself included, the models of an arm are evaluated."""
    return f"{count} {'query' if count == 1 else 'queries'} an image"


def format_goal(bank: Bank) -> str:
    """Format how many models are trained, or how precise the bank is to be."""
    if bank.config.until_rmse is None:
        return f"{bank.count} models"
    maximum = "" if bank.config.models is None else f", at most {bank.count} models"
    return f"until RMSE {bank.config.until_rmse:g}{maximum}"


def print_forecast(console: Console, forecast: PrecisionForecast, target_rmse: float | None) -> None:
    """Print models, hours and disk for a requested error, or for the default errors."""
    workers = "1 worker" if forecast.workers == 1 else f"{forecast.workers} workers"
    title = f"{forecast.arm.name}: RMSE {forecast.rmse:.4f} with {forecast.models} models; with {workers}"
    console.print(title, highlight=False, soft_wrap=True)
    table = make_table("", ("RMSE", "models in all", "hours to go", "MB in all"))
    for requirement in map(forecast.compute_requirement, DEFAULT_RMSES if target_rmse is None else (target_rmse,)):
        table.add_row(
            f"{requirement.rmse:g}",
            str(requirement.models),
            f"{requirement.hours:.3g}",
            f"{requirement.bytes / 1e6:.1f}",
        )
    console.print(table)


def print_forecast_checks(console: Console, checks: Sequence[ForecastCheck]) -> None:
    """Print each forecast beside the result, and what an error that was not reached would take."""
    for check in checks:
        # a forecast from all of the models that there are predicts nothing
        if check.wish is None and check.models == check.planned_from:
            continue
        requested = "" if check.wish is None else f" {check.models_predicted} models for RMSE {check.wish:g}, and"
        console.print(
            f"{check.suffix}: the forecast from {check.planned_from} models was{requested} "
            f"RMSE {check.rmse_predicted:.4f} at {check.models}; it is {check.rmse:.4f}",
            highlight=False,
            soft_wrap=True,
        )
        if check.more is not None:
            console.print(
                f"[yellow]not reached[/] RMSE {check.wish:g} with {check.models} models: about {check.more} are needed"
                + (
                    f"; give --models {check.more} or leave it out"
                    if check.more <= MAX_MODELS
                    else f", and a bank holds {MAX_MODELS}"
                ),
                highlight=False,
                soft_wrap=True,
            )


def print_result(console: Console, result: EstimateResult, store: str) -> None:
    """Print the results of a run of estimate, and where they are stored."""
    # what went wrong first, then the scores, from the whole bank to single examples
    print_problems(console, result.training)
    print_output_warning(console, result)
    print_scores(console, result.table, result.arms)
    print_forecast_checks(console, result.forecast_checks)
    if result.target_rmse is not None and not result.forecast_checks:
        console.print(
            f"[yellow]not reached[/] RMSE {result.target_rmse:g}: it is undefined, no example has two models on each "
            "side; use more --models",
            soft_wrap=True,
        )
    for arm in result.arms:
        print_most_memorized(console, result.table, arm.suffix)
    print_copies(console, result.copies)
    print_proxies(console, result)
    print_inversion(console, result.inversion)
    print_noise_detection(console, result.noise)
    print_accuracy(console, result)
    console.print(
        f"every score, one row per example: {store}/scores.parquet; figures: {store}/reports/",
        soft_wrap=True,
        markup=False,
    )


def print_output_warning(console: Console, result: EstimateResult) -> None:
    """Print a warning if the network returns probabilities instead of logits."""
    if result.output_kind:
        warning = format_output_warning("that was trained", result.output_kind)
        console.print(f"[yellow]warning[/] {escape(warning)}", soft_wrap=True, highlight=False)


def print_accuracy(console: Console, result: EstimateResult) -> None:
    """Print the models' accuracy, a warning where it is low on members, and the speed of training."""
    accuracies = ", ".join(f"{group.replace('_', ' ')} {value:.3f}" for group, value in result.accuracy.items())
    lowest = ", ".join(
        f"{group.replace('_', ' ')} {value:.3f} ({name})" for group, (value, name) in result.lowest_accuracy.items()
    )
    console.print(f"accuracy (median model): {accuracies}; lowest: {lowest}", highlight=False, soft_wrap=True)
    member_accuracy = result.accuracy.get("members", 1.0)
    if member_accuracy < MIN_MEMBER_ACCURACY:
        console.print(
            f"[yellow]warning[/] models are right on {member_accuracy:.3f} of their own members; memorization means "
            f"little below {MIN_MEMBER_ACCURACY}"
            + ("" if result.imported else ": train longer (--epochs) or use a larger --arch"),
            soft_wrap=True,
        )
    if result.training.trained:
        # the time is of both, which are trained side by side
        trained, originals = result.training.trained, result.training.trained_originals
        beside = f" and {originals} original{'' if originals == 1 else 's'}" if originals else ""
        models_per_hour = 3600 * (trained + originals) / result.wall_s
        console.print(
            f"{trained} models{beside} in {result.wall_s:.1f} s, {models_per_hour:.0f} an hour", highlight=False
        )


def print_proxies(console: Console, result: EstimateResult) -> None:
    """Print the cost of each proxy, and a note that one original gives no standard errors."""
    if result.proxy_s or result.event_s:
        originals = "1 original" if result.originals == 1 else f"{result.originals} originals"
        title = f"proxies, median of {originals}; training one takes {result.training_s:.2f} s of one worker"
        table = make_table(title, ("proxy", "seconds", "of one training"))
        for name, seconds in result.proxy_s.items():
            again = any(name in names for names in result.training.differing_originals.values())
            label = f"{name} (trained again)" if again else name
            table.add_row(label, f"{seconds:.3f}", f"{100 * seconds / result.training_s:.1f} %")
        for name, seconds in result.event_s.items():  # part of the training: nothing to pay beside it
            share = "-" if np.isnan(seconds) else f"{100 * seconds / result.training_s:.1f} %"
            table.add_row(f"{name} (within training)", format_number(seconds), share)
        console.print(table)
        console.print(f"seconds: {SECONDS_NOTE}", soft_wrap=True, highlight=False)
    if result.originals == 1:
        console.print(
            "one original: learning events, final loss and proxies have no standard error; --originals 3 gives one",
            soft_wrap=True,
        )


def print_problems(console: Console, summary: TrainingSummary) -> None:
    """Print one line for each kind of problem, with what happens next."""
    # reasons are escaped: rich would read a word in brackets as markup
    for path, reason in summary.damaged.items():
        console.print(f"[yellow]damaged[/] {path}: {escape(reason)}; set aside and trained again", soft_wrap=True)
    if summary.diverged:
        names = ", ".join(summary.diverged[:4]) + (" ..." if len(summary.diverged) > 4 else "")
        console.print(
            f"[red]diverged[/] {len(summary.diverged)} models ({names}): their numbers are not finite; they are left "
            "out of every score and not trained again; a smaller --lr gives another bank",
            soft_wrap=True,
        )
    if summary.differing_originals:
        count, first = len(summary.differing_originals), next(iter(summary.differing_originals))
        added = ", ".join(sorted(set().union(*summary.differing_originals.values())))
        console.print(
            f"[yellow]not the same bits[/] {count} originals, first {first}: trained again for {added}, which are of "
            "that training; weights, outputs and the rest are of the stored one. Two trainings differ on a GPU and on "
            "two kinds of CPU; on one kind it means another version, or a network that draws what no seed reaches",
            soft_wrap=True,
        )
    if summary.restored_receipts:
        count, name = len(summary.restored_receipts), summary.restored_receipts[0]
        console.print(
            f"[yellow]receipts lost[/] of {count} models, first {name}: written again from their shards, without "
            "seconds, worker and device, which are unknown",
            soft_wrap=True,
        )
    if summary.failed:
        name, reason = next(iter(summary.failed.items()))
        console.print(
            f"[red]failed[/] {len(summary.failed)} models or proxies, first {name}: {escape(reason)}; "
            "the same command tries them again",
            soft_wrap=True,
        )


def print_scores(console: Console, table: pa.Table, arms: Sequence[ArmScores]) -> None:
    """Print each score's distribution, the bank's precision, and the attacks' success."""
    # distributions; a bank may lack attack success, as an imported one without logits
    columns = ("score", "mean", "median", "95 %", "max", "> .25", "> .5", "null")
    distribution = make_table(f"{table.num_rows} training examples: mean, quantiles, share above .25 and .5", columns)
    for arm in arms:
        for stem in ("memorization", "cscore", "attack_success", "soft_attack_success"):
            if f"{stem}_{arm.suffix}" in table.column_names:
                distribution.add_row(*build_spread_row(f"{stem}_{arm.suffix}", table))
    console.print(distribution)
    print_reliabilities(console, arms)
    print_attack_success(console, arms)
    # attacks: means over targets, models of the bank that are attacked with the others as shadow models
    title = "membership inference: mean and 95 % interval over targets"
    attacks = make_table(title, ("attack", "n", "AUC", "TPR at FPR 1 %", "TPR at FPR .1 %"))
    for arm in arms:
        for name, curve in arm.attacks.items():
            measures = (curve.measures[key] for key in ("auc", "tpr_at_0.01", "tpr_at_0.001"))
            attacks.add_row(f"{name}_{arm.suffix}", str(curve.targets), *map(format_target_mean, measures))
    if attacks.row_count:
        console.print(attacks)
        means = [mean for arm in arms for curve in arm.attacks.values() for mean in curve.measures.values()]
        console.print(
            "±: for other draws of the models, on these examples; at: false positives of the non-members, mean counts",
            soft_wrap=True,
        )
        for line in explain_unrealisable_rates(mean.rate for mean in means if mean.rate):
            console.print(line, soft_wrap=True, highlight=False)
        print_attack_notes(console, arms)
    for arm in arms:
        print_decisions(console, arm.list_decisions(), arm.suffix)
        if arm.outlying:
            console.print(format_outlying_models(arm.outlying), soft_wrap=True, highlight=False)
    # precision; the error between blocks includes the design's smaller variance, and needs three blocks or more
    for arm in arms:
        console.print(
            f"{arm.suffix}: {arm.models} models, {format_queries(arm.queries)}, memorization RMSE "
            + ("undefined" if np.isnan(arm.rmse) else f"{arm.rmse:.4f}")
            + ("" if np.isnan(arm.rmse_block) else f" (between blocks {arm.rmse_block:.4f})")
            + format_unfinished(arm.unfinished)
            + (f", undefined for {arm.undefined} examples" if arm.undefined else "")
        )


def format_unfinished(count: int) -> str:
    """Format how many models are in incomplete blocks; empty without any."""
    return f", {count} of them in unfinished blocks, which help less" if count else ""


def print_reliabilities(console: Console, arms: Sequence[ArmScores]) -> None:
    """Print how far halves of the models agree on each score, corrected to all models (Spearman-Brown)."""
    columns = ("score", "Spearman", "Pearson", f"top {100 * TOP_FRACTION:.1f} %, halves", "RMSE")
    table = make_table("reliability: halves of the models, stepped up to all", columns)
    for arm in arms:
        for stem, reliability in arm.reliability.items():
            numbers = (reliability.spearman_full, reliability.pearson_full, reliability.top, reliability.rmse)
            if reliability.halves:
                table.add_row(f"{stem}_{arm.suffix}", *map(format_number, numbers))
        if not any(reliability.halves for reliability in arm.reliability.values()):
            models = 2 * arm.arm.models_per_block
            console.print(f"{arm.suffix}: one block of models cannot be split into halves; use --models {models}")
    if table.row_count:
        console.print(table)
        if any("-" in column.cells for column in table.columns[1:]):
            console.print("-: the halves do not agree (their correlation is below 0), or all values are equal")


def build_spread_row(name: str, table: pa.Table) -> list[str]:
    """Build the row of one score's distribution over the examples on which it is defined."""
    # a null of the file is NaN in NumPy
    values = np.asarray(table[name].to_numpy(), float)
    defined = values[~np.isnan(values)]
    if not len(defined):
        return [name, *["-"] * 6, str(len(values))]
    numbers = (defined.mean(), np.median(defined), np.quantile(defined, 0.95), defined.max())
    shares = ((defined > 0.25).mean(), (defined > 0.5).mean())
    return [
        name,
        *(f"{number:.3f}" for number in numbers),
        *(f"{100 * share:.1f} %" for share in shares),
        str(len(values) - len(defined)),
    ]


def print_most_memorized(console: Console, table: pa.Table, suffix: str) -> None:
    """Print the examples with the highest memorization, ties by row, undefined ones last."""
    name = f"memorization_{suffix}"
    values = np.asarray(table[name].to_numpy(), float)
    top = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[:ROWS_SHOWN]
    columns = ["id", "label", "memorization", "95 % interval", "C-score", "attack"]
    # a copy is named only where there is one: one of the training set, else one of validation or test
    twins = [table["twin"][row].as_py() or table["held_out_twin"][row].as_py() for row in top.tolist()]
    columns += ["exact copy"] if any(twins) else []
    examples, attack_column = make_table(f"most memorized, {suffix}", columns), f"attack_success_{suffix}"
    for row, twin in zip(top.tolist(), twins, strict=True):
        values_of_row = {key: table[key][row].as_py() for key in (name, f"{name}_lo", f"{name}_hi")}
        examples.add_row(
            escape(table["id"][row].as_py()),
            format_label(table, row),
            format_number(values_of_row[name]),
            format_interval(values_of_row[f"{name}_lo"], values_of_row[f"{name}_hi"]),
            format_number(table[f"cscore_{suffix}"][row].as_py()),
            format_number(table[attack_column][row].as_py() if attack_column in table.column_names else None),
            *([escape(twin or "-")] if any(twins) else []),
        )
    console.print(examples)


def print_noise_detection(console: Console, intervals: Mapping[str, Interval]) -> None:
    """Print how well each score finds the changed labels, best first; nothing without changed labels."""
    if not intervals:
        return
    table = make_table("AUROC for the changed labels", ("score", "AUROC and 95 % interval"))
    for name, interval in sorted(intervals.items(), key=lambda item: -item[1].value):
        table.add_row(name, format_with_interval(interval))
    console.print(table)


def format_number(value: float | None) -> str:
    """Format three digits, or a dash where undefined: null in a file, NaN in memory."""
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"


def format_interval(lo: float | None, hi: float | None) -> str:
    """Format the ends of an interval, or a dash where there is none."""
    ends = (format_number(lo), format_number(hi))
    return "-" if ends == ("-", "-") else f"[{', '.join(ends)}]"


def format_target_mean(mean: TargetMean) -> str:
    """Format a mean over targets with its error, and for a rate the mean counts of false positives and negatives."""
    if np.isnan(mean.value):
        return format_reason(mean.rate.reason if mean.rate else "")
    text = f"{format_number(mean.value)} ± {format_number(max(mean.hi - mean.value, mean.value - mean.lo))}"
    if mean.rate is None:
        return text
    targets = int((~np.isnan(mean.per_target)).sum())
    return f"{text} at {mean.rate.false_positives / targets:.3g}/{mean.rate.negatives / targets:.0f}"


def format_rate(rate: RateAtFpr) -> str:
    """Format a rate with its interval and the counts of its realised false positive rate, or why it has no value."""
    if np.isnan(rate.value):
        return format_reason(rate.reason)
    interval = format_interval(rate.lo, rate.hi)
    return f"{format_number(rate.value)} {interval} at {rate.false_positives}/{rate.negatives}"


def format_reason(reason: str) -> str:
    """Format why there is no rate: that it is finer than the examples allow, else a dash."""
    return reason if reason.startswith("finer") else "-"


def explain_unrealisable_rates(rates: Iterable[RateAtFpr]) -> list[str]:
    """Explain each false positive rate that the non-members are too few for, in a line."""
    reasons = {rate.fpr: rate.reason for rate in rates if rate.reason.startswith("finer")}
    return [
        f"TPR at FPR {format_percent(fpr)} has no value: that false positive rate is {reasons[fpr]}, one of the "
        f"non-members; it needs {math.ceil(1 / fpr):,} of them"
        for fpr in sorted(reasons, reverse=True)
    ]


def format_percent(share: float) -> str:
    """Format a share as in the tables' headers, .1 % for a thousandth."""
    return f"{100 * share:g} %".removeprefix("0")


def format_with_interval(interval: Interval) -> str:
    """Format a number and its interval, or one dash where both are undefined."""
    value, ends = format_number(interval.value), format_interval(interval.lo, interval.hi)
    return value if value == ends else f"{value} {ends}"
