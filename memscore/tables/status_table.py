"""Status of a bank in a terminal."""

from collections.abc import Iterator, Sequence

from rich.console import Console

from memscore.monitoring.status import ArmStatus, BankStatus, TrialsStatus
from memscore.tables.console import make_table, print_line
from memscore.tables.duplicates_lines import format_copies
from memscore.tables.outlying_line import format_outlying_models
from memscore.tables.progress_bar import format_counts, format_progress
from memscore.units import format_count, format_duration, format_error, format_rate, format_size, name_rmse

LABEL_WIDTH = 8  # of the labels before the lines of the heading
MAX_ERROR_LENGTH = 160  # characters of an error


def print_status(console: Console, status: BankStatus) -> None:
    """Print the status of a bank."""
    for line in format_heading(status):
        print_line(console, line, indent=LABEL_WIDTH)
    table = make_table("", ("arm", "models", "planned", "queries", "whole blocks", "failed", "diverged", "RMSE"))
    for arm in status.arms:
        planned = "-" if arm.planned is None else str(arm.planned)
        blocks = "-" if arm.block == 1 else f"{arm.whole_blocks} x {arm.block}"
        counts = (arm.models, planned, arm.queries, blocks, arm.failed, arm.diverged)
        table.add_row(arm.name, *map(str, counts), format_precision(arm))
    if status.arms:
        console.print(table)
    for line in format_remarks(status):
        print_line(console, line, markup=True)


def format_heading(status: BankStatus) -> Iterator[str]:
    """Yield lines about the store, its driver and its rate."""
    yield f"store   {status.store}"
    last = "" if status.last_s is None else f", the last one {format_duration(status.last_s)} ago"
    models = ", ".join(filter(None, (status.data, status.architecture, status.precision)))
    yield f"bank    {models}: {format_size(status.total_bytes)}, {format_size(status.bytes)} of them shards{last}"
    yield f"copies  {format_copies(status.copies)}"
    yield f"driver  {format_driver(status)}"
    if status.rate_per_s and status.driver.state != "running":
        yield f"rate    {format_rate(status.rate_per_s)} between the last shards of models"


def format_driver(status: BankStatus) -> str:
    """Format who works on the store, and the last heartbeat."""
    who, heartbeat = f"pid {status.driver.pid} on host {status.driver.host}", status.beat
    if status.driver.state == "running" and heartbeat:
        progress = format_progress(heartbeat.phase, heartbeat.done, heartbeat.total)
        return f"{who} computes {progress}; {format_counts(heartbeat)}"
    if status.driver.state == "silent":
        return f"{who} holds the lock and writes no record: another command, or one that is frozen or was just started"
    if status.driver.state == "died":
        return f"{who} ended without a last record; finished models are stored, and the same command continues"
    if status.driver.state == "unknown":
        return "unknown: an object store has no lock, and no run has written a record"
    if heartbeat is None:
        return "none"
    duration = format_duration(heartbeat.at - heartbeat.began)
    return f"none; the last run {heartbeat.state} after {duration}: {format_counts(heartbeat)}"


def format_trials(trials: TrialsStatus) -> str:
    """Format the unlearning trials of one store."""
    read = f" of the {trials.read} that were read" if trials.read < trials.trials else ""
    place = f" in {trials.place}" if trials.place else ""
    models = f"originals {trials.originals}, oracles {trials.oracles}"
    return f"unlearning{place}: {format_count(trials.trials, 'trial')}, {trials.diverged} diverged{read}; {models}"


def format_precision(arm: ArmStatus) -> str:
    """Format the error of memorization with the models of an arm."""
    return "-" if arm.rmse is None else format_error(arm.rmse)


def explain_errors(arms: Sequence[ArmStatus]) -> Iterator[str]:
    """Yield a line for each kind of error in the arms' table, which names the arms where there are several kinds."""
    names: dict[tuple[str, str], list[str]] = {}
    for arm in arms:
        if arm.rmse is not None:
            firsts = format_count(arm.rmse_from, "model")
            source = f": from the first {firsts} of an arm, scaled to all" if arm.rmse_from < arm.models else ""
            names.setdefault((name_rmse(arm.rmse_of, arm.rmse_estimate), source), []).append(arm.name)
    for (name, source), of_arms in names.items():
        yield f"{name}{source}" + (f" ({', '.join(of_arms)})" if len(names) > 1 else "")


def format_remarks(status: BankStatus) -> Iterator[str]:
    """Yield lines about precision, failures, stale scores, trials and unreadable files."""
    yield from explain_errors(status.arms)
    for group in status.failures:
        outcome = (
            "diverged, never trained again" if group.kind == "diverged" else "failed, tried again by the next command"
        )
        more = ", ..." if group.count > len(group.models) else ""
        error = group.error if len(group.error) <= MAX_ERROR_LENGTH else f"{group.error[:MAX_ERROR_LENGTH]}..."
        yield f"[yellow]{group.count} {outcome}[/] ({group.kind}): {error} ({', '.join(group.models)}{more})"
    if status.unread:
        yield f"[yellow]{status.unread} more failures[/] were not read"
    stale = [score for score in status.scores if score.fresh is False]
    if status.scores:
        reason = "made from fewer models than there are now, or by an earlier estimator"
        yield f"scores: {len(status.scores)} stored, {len(stale)} {reason}"
    if stale:
        yield f"[yellow]stale[/] {', '.join(score.name for score in stale)}: the next estimate computes them again"
    if status.outputs_are:
        yield (
            f"[yellow]warning[/] the network's outputs are no logits ({status.outputs_are}): confidences and attacks "
            "mean something else"
        )
    if len(status.engines) > 1:
        counts = "; ".join(f"{name} ({count})" for name, count in sorted(status.engines.items()))
        yield f"[yellow]engines[/] more than one trained these models, with other roundings: {counts}"
    if status.outlying_models:
        yield format_outlying_models(status.outlying_models)
    for trials in status.unlearning:
        if trials.trials or trials.oracles:
            yield format_trials(trials)
    for problem in status.problems:
        yield f"[red]problem[/] {problem}"
