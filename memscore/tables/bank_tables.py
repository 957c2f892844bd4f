"""Tables of a bank in a terminal: options, costs, forecasts, scores, and problems."""

from collections.abc import Mapping

import numpy as np
from rich.console import Console

from memscore.data.class_summary import describe_classes, describe_constant_images
from memscore.data.duplicates import count_copies
from memscore.estimators.memorization_blend import BLEND
from memscore.pipeline.bank_reports import EstimateResult
from memscore.pipeline.config import MAX_MODELS
from memscore.pipeline.jobs import read_recipe
from memscore.pipeline.output_check import format_output_warning
from memscore.pipeline.precision import BETWEEN_BLOCKS, COUNTS, DEFAULT_RMSES, INDEPENDENT, PrecisionForecast
from memscore.pipeline.runner import Bank, count_queries
from memscore.pipeline.scoring import ArmScores
from memscore.pipeline.train_bank import TrainingSummary
from memscore.statistics.intervals import Interval
from memscore.store.class_names import read_names
from memscore.store.remote import join_url
from memscore.subsets.clustering import ORTHOGONAL
from memscore.tables.console import make_table, print_line
from memscore.tables.duplicates_lines import describe_copies, print_copies
from memscore.tables.inversion_table import print_inversion
from memscore.tables.numbers import MIN_MEMBER_ACCURACY, format_with_interval
from memscore.tables.score_tables import format_unfinished, print_attacks, print_most_memorized, print_scores
from memscore.training.augmentation import describe_wide_crop
from memscore.units import format_count, format_duration, format_rate, format_rmse, format_size, format_value

LABEL_WIDTH, SUMMARY_WIDTH = 7, 10  # of the labels before the lines of the heading and of the summary
SECONDS_NOTE = "one worker's wall clock as measured, whatever the machine and its load; median over originals"


def print_heading(console: Console, bank: Bank) -> None:
    """Print what a run will do, before it starts."""
    manifest, recipe = bank.store.manifest, bank.store.manifest.recipe
    train, validation, test = manifest.split_sizes
    shape = "x".join(str(size) for size in manifest.input_shape)
    changes = "".join(f", {name} {format_value(value)}" for name, value in manifest.label_changes.items())
    augmented = "".join(f", {name}" for name in recipe["augment"])
    copies = "; ".join(describe_copies(count_copies(bank.copies)).values())
    constant = describe_constant_images(bank.splits)
    wide_crop = describe_wide_crop(read_recipe(bank.store), manifest.input_shape)
    lines = (
        f"data   {manifest.data}: {train} train, {validation} validation, {test} test; {shape}{changes}",
        f"labels {describe_classes(bank.splits)}",
        *([f"copies {copies}"] if copies else ()),
        f"model  {manifest.architecture}, {format_count(recipe['epochs'], 'epoch')} of batch {recipe['batch']}, "
        f"{recipe['optimizer']} lr {format_value(recipe['lr'])}, {manifest.precision}{augmented}",
        *(f"note   {note}" for note in (*bank.splits.notes, *bank.notes)),
        *([f"warning {format_output_warning(manifest.architecture, bank.output_kind)}"] if bank.output_kind else []),
        *([f"warning {wide_crop}"] if wide_crop else []),
        *([f"warning {constant}"] if constant else []),
        *(
            f"arm    {arm.name}: {format_goal(bank)}, {format_queries(count_queries(bank.config, bank.store, arm))}"
            for arm in bank.arms
        ),
        f"store  {bank.store.folder.display_name}" + (f" on host {bank.host}" if bank.host else ""),
    )
    for line in lines:
        print_line(console, line, indent=LABEL_WIDTH)


def format_queries(count: int) -> str:
    """Format on how many augmentations of an image, itself included, the models of an arm are evaluated."""
    return f"{format_count(count, 'query', 'queries')} an image"


def format_goal(bank: Bank) -> str:
    """Format how many models are trained, or how precise the bank is to be."""
    if bank.config.until_rmse is None:
        return format_count(bank.count, "model")
    maximum = "" if bank.config.models is None else f", at most {format_count(bank.count, 'model')}"
    return f"until the RMSE of {BLEND} is {bank.config.until_rmse:g}{maximum}"


def print_forecast(console: Console, forecast: PrecisionForecast, target_rmse: float | None) -> None:
    """Print models, time and disk for a requested error, or for the default errors."""
    rmses = DEFAULT_RMSES if target_rmse is None else (target_rmse,)
    requirements = [forecast.compute_requirement(rmse) for rmse in rmses]
    if target_rmse is None and all(requirement.models <= forecast.stored for requirement in requirements):
        return  # nothing would be left to do
    measured = forecast.measured
    table = make_table(
        f"{forecast.arm.name}: {format_rmse(measured.score, measured.estimate, measured.rmse)} with "
        f"{format_count(measured.models, 'model')}; others with {format_count(forecast.workers, 'worker')}",
        ("RMSE", "models in all", "time to go", "disk in all"),
    )
    for requirement in requirements:
        table.add_row(
            f"{requirement.rmse:g}",
            format_count(requirement.models),
            format_duration(3600 * requirement.hours),
            format_size(requirement.bytes),
        )
    console.print(table)
    if forecast.arm.design == ORTHOGONAL and measured.lacks_blocks:
        print_line(
            console,
            "from one block the error is that of independent subsets, too high for an orthogonal design; what the "
            "design cancels shows from the second block on",
        )


def print_forecast_checks(console: Console, result: EstimateResult) -> None:
    """Print each forecast beside the result."""
    estimates = {arm.suffix: arm.precision.estimate for arm in result.arms}
    for check in result.forecast_checks:
        # a forecast from all of the models that there are predicts nothing
        if check.wish is None and check.models == check.planned_from:
            continue
        forecast = f"forecast from {format_count(check.planned_from, 'model')}"
        requested = "" if check.wish is None else f"; for {check.wish:g} it was {check.models_predicted} models"
        print_line(
            console,
            f"forecast  {check.suffix}, {format_count(check.models, 'model')}: "
            f"{format_rmse(check.planned_score, forecast, check.rmse_predicted)}{requested}; measured: "
            f"{format_rmse(check.score, estimates[check.suffix], check.rmse)}",
            indent=SUMMARY_WIDTH,
        )


def print_missed_target(console: Console, result: EstimateResult) -> None:
    """Print that the requested error was not reached, and what it would take; nothing where it was."""
    arm, target = result.missed_arm, result.target_rmse
    if arm is None or target is None:
        return
    precision, models = arm.precision, format_count(arm.models, "model")
    error = format_rmse(precision.score, precision.estimate, precision.rmse)
    if np.isnan(precision.rmse):
        remedy = "no example has two models on each side; use more --models"
    else:
        more = precision.compute_models_needed(arm.arm, target)
        is_possible = more <= MAX_MODELS
        remedy = f"about {more} are needed" + (
            f"; give --models {more} or leave it out" if is_possible else f", and a bank holds {MAX_MODELS}"
        )
    print_line(
        console,
        f"[yellow]not reached[/] --until-rmse {target:g}: {error} with {models}; {remedy}. The models and their scores "
        "are stored, and the exit code is 1",
        markup=True,
    )


def print_result(console: Console, result: EstimateResult, store: str) -> None:
    """Print the results of a run of estimate, and where they are stored: what interests most comes last."""
    print_problems(console, result.training)
    print_output_warning(console, result)
    print_proxies(console, result)
    print_inversion(console, result.inversion)
    print_noise_detection(console, result.noise)
    print_attacks(console, result.arms, read_names(result.table))
    print_copies(console, result.copies)
    print_scores(console, result.table, result.arms)
    for arm in result.arms:
        print_most_memorized(console, result.table, arm.suffix)
    console.print()
    print_summary(console, result, store)


def print_summary(console: Console, result: EstimateResult, store: str) -> None:
    """Print the models, their accuracy, the bank's precision, the speed of training, and where all is stored."""
    for arm in result.arms:
        print_line(console, f"models    {format_models(arm)}", indent=SUMMARY_WIDTH)
        for line in list_errors(arm):
            print_line(console, f"          {line}", indent=SUMMARY_WIDTH)
    print_forecast_checks(console, result)
    print_accuracy(console, result)
    print_speed(console, result)
    print_line(console, f"scores    one row per example: {join_url(store, 'scores.parquet')}", indent=SUMMARY_WIDTH)
    print_line(console, f"figures   {join_url(store, 'reports/')}", indent=SUMMARY_WIDTH)
    print_missed_target(console, result)


def format_models(arm: ArmScores) -> str:
    """Format the models of an arm, and what they leave undefined."""
    return (
        f"{arm.suffix}: {format_count(arm.models, 'model')}, {format_queries(arm.queries)}"
        + format_unfinished(arm.unfinished)
        + (f"; {COUNTS} is undefined for {format_count(arm.undefined, 'example')}" if arm.undefined else "")
    )


def list_errors(arm: ArmScores) -> list[str]:
    """List the errors of memorization from an arm, first the one by which a number of models is chosen."""
    precision = arm.precision
    errors = {
        (precision.score, precision.estimate): precision.rmse,
        # includes the design's smaller variance, and needs three blocks or more
        **({} if np.isnan(arm.rmse_block) else {(COUNTS, BETWEEN_BLOCKS): arm.rmse_block}),
        (COUNTS, INDEPENDENT): arm.rmse,
    }
    return [format_rmse(*names, error) for names, error in errors.items()]


def print_output_warning(console: Console, result: EstimateResult) -> None:
    """Print a warning if the network returns probabilities instead of logits."""
    if result.output_kind:
        warning = format_output_warning("that was trained", result.output_kind)
        print_line(console, f"[yellow]warning[/] {warning}", markup=True)


def print_accuracy(console: Console, result: EstimateResult) -> None:
    """Print the models' accuracy, and a warning where it is low on members."""
    accuracies = ", ".join(f"{group.replace('_', ' ')} {value:.3f}" for group, value in result.accuracy.items())
    lowest = ", ".join(
        f"{group.replace('_', ' ')} {value:.3f} ({name})" for group, (value, name) in result.lowest_accuracy.items()
    )
    print_line(console, f"accuracy  median model: {accuracies}", indent=SUMMARY_WIDTH)
    print_line(console, f"          lowest: {lowest}", indent=SUMMARY_WIDTH)
    member_accuracy = result.accuracy.get("members", 1.0)
    if member_accuracy < MIN_MEMBER_ACCURACY:
        print_line(
            console,
            f"[yellow]warning[/] models are right on {member_accuracy:.3f} of their own members; memorization means "
            f"little below {MIN_MEMBER_ACCURACY}"
            + ("" if result.imported else ": train longer (--epochs) or use a larger --arch"),
            markup=True,
        )


def print_speed(console: Console, result: EstimateResult) -> None:
    """Print how many models were trained in which time; nothing where none was."""
    trained, originals = result.training.trained, result.training.trained_originals
    if trained:
        # the time is of both, which are trained side by side
        beside = f" and {format_count(originals, 'original')}" if originals else ""
        rate = format_rate((trained + originals) / result.wall_s)
        print_line(
            console,
            f"training  {format_count(trained, 'model')}{beside} in {format_duration(result.wall_s)}, {rate}",
            indent=SUMMARY_WIDTH,
        )


def print_proxies(console: Console, result: EstimateResult) -> None:
    """Print the cost of each proxy, and a note that one original gives no standard errors."""
    if result.proxy_s or result.event_s:
        originals = format_count(result.originals, "original")
        title = f"proxies, median of {originals}; training one takes {format_duration(result.training_s)} of one worker"
        table = make_table(title, ("proxy", "time", "% of one training"))
        for name, seconds in result.proxy_s.items():
            again = any(name in names for names in result.training.differing_originals.values())
            label = f"{name} (trained again)" if again else name
            table.add_row(label, format_duration(seconds), f"{100 * seconds / result.training_s:.1f}")
        for name, seconds in result.event_s.items():  # part of the training: nothing to pay beside it
            share = "-" if np.isnan(seconds) else f"{100 * seconds / result.training_s:.1f}"
            table.add_row(f"{name} (within training)", format_duration(seconds), share)
        console.print(table)
        print_line(console, f"time: {SECONDS_NOTE}")
    if result.originals == 1:
        print_line(
            console,
            "one original: learning events, final loss and proxies have no standard error; --originals 3 gives one",
        )


def print_problems(console: Console, summary: TrainingSummary) -> None:
    """Print one line for each kind of problem, with what happens next."""
    for path, reason in summary.damaged.items():
        print_line(console, f"[yellow]damaged[/] {path}: {reason}; set aside and trained again", markup=True)
    if summary.diverged:
        names = ", ".join(summary.diverged[:4]) + (" ..." if len(summary.diverged) > 4 else "")
        print_line(
            console,
            f"[red]diverged[/] {format_count(len(summary.diverged), 'model')} ({names}): their numbers are not finite; "
            "they are left out of every score and not trained again; a smaller --lr gives another bank",
            markup=True,
        )
    if summary.differing_originals:
        count, first = len(summary.differing_originals), next(iter(summary.differing_originals))
        added = ", ".join(sorted(set().union(*summary.differing_originals.values())))
        print_line(
            console,
            f"[yellow]not the same bits[/] {format_count(count, 'original')}, first {first}: trained again for "
            f"{added}, which are of that training; weights, outputs and the rest are of the stored one. Two trainings "
            "differ on a GPU and on two kinds of CPU; on one kind it means another version, or a network that draws "
            "what no seed reaches",
            markup=True,
        )
    if summary.restored_receipts:
        count, name = len(summary.restored_receipts), summary.restored_receipts[0]
        print_line(
            console,
            f"[yellow]receipts lost[/] of {format_count(count, 'model')}, first {name}: written again from their "
            "shards, without seconds, worker and device, which are unknown",
            markup=True,
        )
    if summary.failed:
        name, reason = next(iter(summary.failed.items()))
        print_line(
            console,
            f"[red]failed[/] {format_count(len(summary.failed), 'model or proxy', 'models or proxies')}, first {name}: "
            f"{reason}; the same command tries them again",
            markup=True,
        )


def print_noise_detection(console: Console, intervals: Mapping[str, Interval]) -> None:
    """Print how well each score finds the changed labels, best first; nothing without changed labels."""
    if not intervals:
        return
    table = make_table("AUROC for the changed labels", ("score", "AUROC and 95 % interval"))
    for name, interval in sorted(intervals.items(), key=lambda item: -item[1].value):
        table.add_row(name, format_with_interval(interval))
    console.print(table)
