"""How a bank stands, in a terminal."""

from collections.abc import Iterator

from rich.console import Console
from rich.markup import escape

from memscore.monitoring.status import ArmStatus, BankStatus, TrialsStatus
from memscore.tables.console import make_table
from memscore.tables.progress_bar import format_counts, format_duration

LONGEST = 160  # of an error


def print_status(console: Console, found: BankStatus) -> None:
    """All of it, on a screen."""
    for line in heading(found):
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    table = make_table("", ("arm", "models", "planned", "whole blocks", "failed", "diverged", "RMSE"))
    for arm in found.arms:
        planned = "-" if arm.planned is None else str(arm.planned)
        blocks = "-" if arm.block == 1 else f"{arm.whole_blocks} x {arm.block}"
        table.add_row(arm.name, str(arm.models), planned, blocks, str(arm.failed), str(arm.diverged), precision(arm))
    if found.arms:
        console.print(table)
    for line in remarks(found):
        console.print(line, soft_wrap=True, highlight=False)


def heading(found: BankStatus) -> Iterator[str]:
    """What it is, who works on it, and how fast."""
    yield f"store   {found.store}"
    last = "" if found.last_s is None else f", the last one {format_duration(found.last_s)} ago"
    yield f"bank    {found.data}, {found.architecture}: {found.bytes / 1e6:.1f} MB of shards{last}"
    yield f"driver  {driver(found)}"
    if found.rate_per_s and found.driver.state != "running":
        yield f"rate    {3600 * found.rate_per_s:.0f} models an hour between the last shards"


def driver(found: BankStatus) -> str:
    """Who works on it, and what it says of itself."""
    who, beat = f"pid {found.driver.pid} on host {found.driver.host}", found.beat
    if found.driver.state == "running" and beat:
        return f"{who} is at {beat.phase} {beat.done}/{beat.total}: {format_counts(beat)}"
    if found.driver.state == "silent":
        return f"{who} holds the store and says nothing: another command, or one that is frozen or was just begun"
    if found.driver.state == "died":
        return f"{who} ended without a word; what is finished is kept, and the same command goes on"
    if found.driver.state == "unknown":
        return "not known: an object store has no lock, and no run has left a record"
    if beat is None:
        return "none"
    return f"none; the last run {beat.state} after {format_duration(beat.at - beat.began)}: {format_counts(beat)}"


def unlearned(some: TrialsStatus) -> str:
    """What trials left in one store."""
    read = f" of the {some.read} that were read" if some.read < some.trials else ""
    place = f" in {escape(some.place)}" if some.place else ""
    models = f"originals {some.originals}, oracles {some.oracles}"
    return f"unlearning{place}: {some.trials} trials, {some.diverged} diverged{read}; {models}"


def precision(arm: ArmStatus) -> str:
    """The error that so many models leave."""
    return "-" if arm.rmse is None else f"{arm.rmse:.4f}"


def remarks(found: BankStatus) -> Iterator[str]:
    """What the numbers mean, what failed and why, which scores are old, and what could not be read."""
    measured = [arm for arm in found.arms if arm.rmse is not None]
    if measured:
        firsts = ", ".join(sorted({str(arm.rmse_from) for arm in measured}))
        scaled = ", and scaled" if any(arm.rmse_from < arm.models for arm in measured) else ""
        yield f"RMSE: of memorization with the models on file, computed from the first {firsts} of an arm{scaled}"
    for group in found.failures:
        word = (
            "diverged, never trained again" if group.kind == "diverged" else "failed, tried again by the next command"
        )
        more = ", ..." if group.count > len(group.models) else ""
        error = group.error if len(group.error) <= LONGEST else f"{group.error[:LONGEST]}..."
        yield f"[yellow]{group.count} {word}[/] ({group.kind}): {escape(error)} ({', '.join(group.models)}{more})"
    if found.unread:
        yield f"[yellow]{found.unread} more failures[/] were not read"
    stale = [score for score in found.scores if score.fresh is False]
    if found.scores:
        yield f"scores: {len(found.scores)} on file, {len(stale)} made from fewer models than there are now"
    if stale:
        yield f"[yellow]stale[/] {', '.join(score.name for score in stale)}: the next estimate makes them again"
    for some in found.unlearning:
        if some.trials or some.oracles:
            yield unlearned(some)
    for problem in found.problems:
        yield f"[red]problem[/] {escape(problem)}"
