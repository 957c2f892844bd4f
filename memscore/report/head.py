"""The head of a page: which bank it is, its key numbers, how it was made, and what a reader must know first."""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from memscore.monitoring.run_log import LOG_PATH, OLD_LOG_PATH
from memscore.monitoring.status import BankStatus
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.parts import Warned
from memscore.report.score_words import describe_score
from memscore.statistics.roc import RateAtFpr
from memscore.store.store import Store
from memscore.tables.duplicates_lines import explain_copies, format_copies
from memscore.tables.numbers import MIN_MEMBER_ACCURACY, explain_unrealisable_rates, format_number
from memscore.tables.status_table import format_driver, format_remarks
from memscore.units import format_count, format_error, format_size, format_value
from memscore.visible_text import escape_controls

MARKED = re.compile(r"\[(yellow|red)\](.*?)\[/\]")
"""How lines for a terminal mark what is a warning and what an error."""
LEVELS = {"yellow": "warning", "red": "error"}
BEGAN = re.compile(r"^\S+ \d+ began: (.*)$", re.MULTILINE)
MAX_COMMANDS = 12
GROUPS = {"members": "accuracy on members", "left_out": "accuracy left out", "test": "test accuracy"}
"""Accuracies of the summary, and their labels."""


class Tile(NamedTuple):
    """A key number: its text, its label, and what it means in a line."""

    value: str
    label: str
    about: str = ""


class Rmse(NamedTuple):
    """Root mean square error of memorization, and which score's it is."""

    score: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Head:
    """The head of a page.

    Attributes:
        title: of the page.
        subtitle: models and examples, in a line.
        tiles: key numbers.
        card: how the bank was made, title -> text.
        arms: a row for each arm: its name, models, planned, failed, diverged, and the error of memorization.
        commands: of the bank's log, the last one first.
        warnings: what a reader must know.
        written: when the page was written, UTC.
    """

    title: str
    subtitle: str
    tiles: list[Tile]
    card: dict[str, str]
    arms: list[list[str]]
    commands: list[str]
    warnings: list[Warned]
    written: str


def build_head(
    store: Store, status: BankStatus, summary: Mapping[str, Any] | None, n: int, omissions: list[Omission]
) -> Head:
    """Build the head from the status of a bank and the numbers of its last scoring, None without any."""
    manifest, n_models = store.manifest, sum(arm.models for arm in status.arms)
    train, validation, test = manifest.split_sizes
    # the errors of the last scoring, which the tiles show too; those of status are scaled from the first models
    rmses = {arm["suffix"]: find_rmse(arm) for arm in (summary or {}).get("arms", [])}
    suffixes = {name: record["suffix"] for name, record in (read_or_omit("arms", omissions, store.arms) or {}).items()}
    return Head(
        title=f"{manifest.data}: what its models have memorized",
        subtitle=f"{format_count(n_models, 'model')} of {manifest.architecture}, "
        f"{format_count(n, 'training example')}, {format_count(validation)} validation, {format_count(test)} test",
        tiles=[*list_tiles(store, status, summary, n_models, train)],
        card=build_card(store, status, omissions),
        arms=[
            [
                arm.name,
                format_count(arm.models),
                "-" if arm.planned is None else format_count(arm.planned),
                str(arm.queries),
                str(arm.failed),
                str(arm.diverged),
                format_rmse(rmses.get(suffixes.get(arm.name, ""))),
            ]
            for arm in status.arms
        ],
        commands=read_or_omit("the commands of the bank", omissions, read_commands, store) or [],
        warnings=[*list_warnings(store, status, summary)],
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def list_tiles(
    store: Store, status: BankStatus, summary: Mapping[str, Any] | None, n_models: int, n_train: int
) -> Iterator[Tile]:
    """List the key numbers: models, examples, precision, accuracies, and how well members are told."""
    yield Tile(format_count(n_models), "models", "trained on subsets, of all arms")
    yield Tile(format_count(n_train), "training examples", format_count(store.manifest.n_classes, "class", "classes"))
    arms = (summary or {}).get("arms", [])
    # a tile is one number: of the first arm; the table of arms has the others
    for arm in arms[:1]:
        if rmse := find_rmse(arm):
            models = format_count(arm["models"], "model")
            about = f"root mean square error of {rmse.score}_{arm['suffix']} from {models}"
            yield Tile(format_error(rmse.value), "RMSE of memorization", about)
    for group, label in GROUPS.items():
        value = (summary or {}).get("accuracy", {}).get(group)
        if value is not None:
            yield Tile(f"{value:.3f}", label, "median model")
    for arm in arms[:1]:
        for name, attack in list(arm["attacks"].items())[:1]:
            value, lo, hi = (number if number is not None else math.nan for number in attack["auc"])
            about = f"{format_number(value)} [{format_number(lo)}, {format_number(hi)}]; 0.5 tells nothing"
            yield Tile(format_number(value), f"AUC of {describe_score(name).title}", about)


def find_rmse(arm: Mapping[str, Any]) -> Rmse | None:
    """Find the error of an arm's memorization: of the blend, where there is one; None where it is undefined."""
    blend = arm.get("blend") or {}
    if blend.get("rmse") is not None:
        return Rmse("memorization_blend", float(blend["rmse"]))
    value = arm.get("memorization_rmse")
    return None if value is None else Rmse("memorization", float(value))


def format_rmse(rmse: Rmse | None) -> str:
    """Format an error with the name of its score, or a dash."""
    return f"{format_error(rmse.value)} ({rmse.score})" if rmse else "-"


def build_card(store: Store, status: BankStatus, omissions: list[Omission]) -> dict[str, str]:
    """Build the run card: data, recipe, seed, versions, size."""
    manifest, origin = store.manifest, store.read_origin() or {}
    train, validation, test = manifest.split_sizes
    card = {"data": f"{manifest.data}: {train} train, {validation} validation, {test} test"}
    if not manifest.imported:
        shape = " x ".join(map(str, manifest.input_shape))
        card["images"] = f"{shape} (channels, height, width)"
        changes = ", ".join(f"{name} {format_value(value)}" for name, value in manifest.label_changes.items())
        card |= {"label changes": changes} if changes else {}
    # where the data were read tells one bank of a name from another
    if place := origin.get("path") or origin.get("folder"):
        card["read from"] = str(place)
    card["network"] = manifest.architecture
    card["classes"] = str(manifest.n_classes)
    if manifest.imported:
        card["recipe"] = "unknown: the models were trained elsewhere and imported"
    else:
        # what a recipe does not use says nothing
        recipe = {name: value for name, value in manifest.recipe.items() if value not in (None, "", [], ())}
        card["recipe"] = ", ".join(f"{name} {format_value(value)}" for name, value in recipe.items())
        card["precision"] = manifest.precision
    card["seed"] = str(manifest.seed)
    if versions := read_or_omit("versions", omissions, read_versions, store):
        card["versions"] = versions
    card["originals"] = f"{status.originals} models trained on everything"
    if engines := ", ".join(f"{name} ({count})" for name, count in status.engines.items()):
        card["trained by"] = engines
    card["copies"] = format_copies(status.copies)
    card["run"] = format_driver(status)
    card["size"] = format_size(status.total_bytes)
    card["fingerprint of data"] = manifest.fingerprint[:16]
    card["store"] = store.folder.display_name
    return {name: escape_controls(text) for name, text in card.items()}


def read_versions(store: Store) -> str:
    """Read the versions that trained the models from some receipts; several where they differ."""
    # receipts over the whole bank: a continued one may have two versions
    names = sorted(name for name in store.folder.names("receipts") if name.endswith(".json"))
    found: dict[str, None] = {}
    for name in names[:: max(len(names) // 16, 1)][:16]:
        receipt = store.read_receipt(name.removesuffix(".json")) or {}
        versions = [f"{entry} {receipt[entry]}" for entry in ("python", "torch", "numpy") if receipt.get(entry)]
        if versions:
            found[", ".join(versions)] = None
    return "; ".join(found)


def read_commands(store: Store) -> list[str]:
    """Read the commands of the bank's logs, the last one first and each once; none on an object store."""
    commands: dict[str, None] = {}
    # the newer log first, and in each the last command first
    for path in (LOG_PATH, OLD_LOG_PATH):
        if store.folder.exists(path):
            text = store.folder.read(path).decode(errors="replace")
            commands |= dict.fromkeys(map(escape_controls, reversed(BEGAN.findall(text))))
    return list(commands)[:MAX_COMMANDS]


def list_warnings(store: Store, status: BankStatus, summary: Mapping[str, Any] | None) -> Iterator[Warned]:
    """List what a reader must know: a running writer, copies, members not fitted, rates without a value, failures."""
    # first what makes all other numbers preliminary
    if status.driver.state == "running":
        yield Warned("warning", f"the bank is being written: {format_driver(status)}; this page is of what was there")
    elif status.driver.state == "died":
        yield Warned("warning", f"the last run: {format_driver(status)}")
    if status.copies is not None and any(pair["groups"] for pair in status.copies.values()):
        for line in explain_copies(status.copies):
            yield Warned("warning", f"copies: {line}")
    accuracy = (summary or {}).get("accuracy", {}).get("members")
    if accuracy is not None and accuracy < MIN_MEMBER_ACCURACY:
        advice = "" if store.manifest.imported else ": train longer (--epochs) or use a larger --arch"
        yield Warned(
            "warning",
            f"members are not fitted: models are right on {accuracy:.3f} of their own members; memorization means "
            f"little below {MIN_MEMBER_ACCURACY}{advice}",
        )
    for line in explain_unrealisable_rates(list_rates((summary or {}).get("arms", []))):
        yield Warned("warning", line)
    for arm in (summary or {}).get("arms", []):
        if arm.get("undefined"):
            count = format_count(arm["undefined"], "example")
            yield Warned("warning", f"memorization of {arm['suffix']} is undefined for {count}")
        if arm.get("models_in_unfinished_blocks"):
            count = format_count(arm["models_in_unfinished_blocks"], "model")
            yield Warned("warning", f"{arm['suffix']}: {count} in unfinished blocks, which help less")
    # what status marks in colour; its other lines are in the card
    for line in format_remarks(status):
        if marked := MARKED.search(line):
            yield Warned(LEVELS[marked[1]], escape_controls(MARKED.sub(r"\2", line)))


def list_rates(arms: Sequence[Mapping[str, Any]]) -> Iterator[RateAtFpr]:
    """List the true positive rates of all attacks that have no value, with the reason."""
    for arm in arms:
        for attack in arm["attacks"].values():
            for name, counts in attack.items():
                if name.endswith("_counts") and counts["reason"]:
                    yield RateAtFpr(value=math.nan, lo=math.nan, hi=math.nan, **counts)
