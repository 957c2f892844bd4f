"""Unlearning trials of a page: tables by forget set, and what each method made of every example where it is stored."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memscore.analysis.trial_rows import Row
from memscore.report.columns import Columns
from memscore.report.forget_sets import ForgetSet
from memscore.report.measures import FIRST
from memscore.report.method_tables import build_method_table, describe_methods
from memscore.report.method_words import name_method_in_words
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.parts import PartGroup
from memscore.report.stored_trials import ORACLE, ORIGINAL, list_readable_trials, name_method, read_trial_rows
from memscore.store.store import Store
from memscore.store.trial_files import has_predictions, read_predictions
from memscore.units import format_count, format_value

MAX_MODELS = 16
"""Methods whose models' answers for every example are in the page."""
CODE_COLUMNS = {
    *("trial", "algorithm", "variant", "config", "before", "rounds", "plan", "forget_set", "n_forget"),
    *("forget_sha256", "index", "seed", "beyond_its_purpose", "status", "examples", "run_wall_s", "sources"),
}
HIDDEN_ENDINGS = ("_gap", "_gap_original", "_validation", "_n_test", "_original")
CORE = {
    *FIRST,
    *("forget_accuracy_true", "class_accuracy_test", "da_forget_test", "da_retain_test", "da_held_out_test"),
    *("mia_losses_test", "mia_confidence_test", "entanglement", "gini_forget", "gini_retain", "rrt_wall", "steps"),
}
"""Columns that every row has; the table shows those of FIRST, and what was requested beyond."""


def collect_trials(store: Store, skipped: set[str], omissions: list[Omission]) -> list[Row]:
    """Read the rows of trials that stand alone, with those of their oracles and originals.

    `skipped` are the trials of sweeps, experiments and searches. What a search that still runs has tried lacks the core
    measures.
    """
    rows = read_trial_rows(store, list_readable_trials(store, skipped, omissions), omissions)
    rows = [row for row in rows if "forget_accuracy" in row]
    alone = [row for row in rows if row["algorithm"] not in {ORACLE, ORIGINAL}]
    sets = {row["forget_sha256"] for row in alone}
    return [row for row in rows if row["forget_sha256"] in sets]


def group_by_set(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Group rows by their forget set, in their order by its name."""
    sets: dict[str, list[Row]] = {}
    # the hash tells sets of one name apart, as another draw
    for row in sorted(rows, key=lambda row: (str(row["forget_set"]), str(row["forget_sha256"]))):
        sets.setdefault(str(row["forget_sha256"]), []).append(row)
    return sets


def group_methods(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Group the rows of one forget set by method and parameters; of one original each method counts once."""
    groups: dict[tuple[str, str, str], dict[int, Row]] = {}
    for row in rows:
        is_reference = row["algorithm"] in {ORACLE, ORIGINAL}
        # an oracle has no parameters, and its config is empty
        key = (name_method(row), "" if is_reference else format_parameters(row), "")
        groups.setdefault(key, {})[int(row["index"])] = row
    return {key: [by_index[index] for index in sorted(by_index)] for key, by_index in groups.items()}


def format_parameters(row: Row) -> str:
    """Format the parameters of a row's algorithm."""
    config = json.loads(row["config"] or "{}")
    shown = {name: value for name, value in config.items() if value is not None and name != "architecture"}
    return ", ".join(f"{name} {format_value(value)}" for name, value in shown.items())


def build_trial_groups(
    rows: Sequence[Row], descriptions: Mapping[str, Any]
) -> tuple[list[PartGroup], list[dict[str, Any]]]:
    """Build the tables of trials, one for each forget set, and what their figures are drawn from."""
    groups, drawn = [], []
    for number, (digest, of_set) in enumerate(group_by_set(rows).items()):
        methods = group_methods(of_set)
        # core columns beyond the usual ones would make every table too wide
        requested = [
            column
            for column in dict.fromkeys(name for row in of_set for name in row)
            if column not in CODE_COLUMNS | CORE and not column.endswith(HIDDEN_ENDINGS)
        ]
        first = of_set[0]
        title = f"Trials: {first['forget_set']}, {format_count(first['n_forget'], 'example')}"
        table = build_method_table(
            f"trials_{digest[:8]}", title, methods, descriptions, ("params", "select"), requested
        )
        groups.append(PartGroup(title=title, tables=[table]))
        drawn.append({
            "id": f"trials{number}",
            "title": title,
            "about": "Trials of single algorithms.",
            "measures": describe_methods(shorten_parameters(methods), descriptions, requested),
        })
    return groups, drawn


def shorten_parameters(methods: Mapping[tuple[str, str, str], list[Row]]) -> dict[tuple[str, str, str], list[Row]]:
    """Name methods in figures without their parameters, where that tells them apart, else by a number."""
    counts: dict[str, int] = {}
    short = {}
    for key, rows in methods.items():
        counts[key[0]] = number = counts.get(key[0], 0) + 1
        short[key[0], "" if number == 1 else f"({number})", ""] = rows
    return short


def add_models(
    columns: Columns,
    store: Store,
    rows: Sequence[Row],
    sets: Mapping[str, ForgetSet],
    n: int,
    omissions: list[Omission],
) -> list[dict[str, Any]]:
    """Add what models answer on every example before and after unlearning, means over originals, for the script."""
    described: list[dict[str, Any]] = []
    left_out = 0
    for digest, of_set in group_by_set(rows).items():
        forget_set = sets.get(digest)
        references: dict[str, str | None] | None = None
        for number, (key, of_method) in enumerate(group_methods(of_set).items()):
            stored = [row for row in of_method if has_predictions(store, str(row["trial"]))]
            if key[0] in {ORACLE, ORIGINAL} or not stored:
                continue
            if len(described) == MAX_MODELS:
                left_out += 1
                continue
            what = f"answers of the models of {key[0]}"
            after = read_or_omit(what, omissions, average_predictions, store, stored, n)
            if after is None:
                continue
            # originals and oracles are those of the forget set, shared by its methods
            if references is None:
                references = add_references(columns, store, of_set, forget_set, n, omissions)
            first = of_method[0]
            described.append({
                "id": f"{digest[:8]}-{number}",
                "title": f"{name_method_in_words(key[0])}, {first['forget_set']}",
                "algorithm": key[0],
                "params": key[1],
                "forget_rows": [] if forget_set is None else forget_set.rows,
                "after": columns.add_values(after[0], f"{key[0]} after"),
                "right_after": columns.add_values(after[1], f"{key[0]} right after"),
                **references,
            })
    if left_out:
        reason = f"the page has those of {MAX_MODELS} methods"
        omissions.append(
            Omission(what=f"answers of the models of {left_out} further methods", reason=reason, is_fault=False)
        )
    return described


def average_predictions(store: Store, rows: Sequence[Row], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Average the probability of the label over the models of some trials, and say where most of them are right."""
    probabilities, right = np.zeros(n), np.zeros(n)
    for row in rows:
        predictions = read_predictions(store, str(row["trial"])) or {}
        probabilities += to_probability(predictions["logit_confidence"][:n])
        right += predictions["gap"][:n] > 0
    return probabilities / len(rows), right > len(rows) / 2


def to_probability(logit_confidence: np.ndarray) -> np.ndarray:
    """Turn the logit of a probability into the probability."""
    # as float64, where exp of a large number is finite
    return 1 / (1 + np.exp(-np.clip(np.asarray(logit_confidence, np.float64), -500, 500)))


def add_references(
    columns: Columns, store: Store, rows: Sequence[Row], forget_set: ForgetSet | None, n: int, omissions: list[Omission]
) -> dict[str, str | None]:
    """Add the answers of the originals of some trials, and of the oracles of their forget set."""
    labels = np.asarray(store.examples()["label"].to_numpy(), np.int64)[:n]
    indices = sorted({int(row["index"]) for row in rows})
    receipts = {index: f"original-{index:05}" for index in indices}
    keys = [
        str(receipt["key"]) for name in receipts.values() if (receipt := store.read_receipt(name)) and "key" in receipt
    ]
    added: dict[str, str | None] = {"before": None, "right_before": None, "oracle": None}
    before = read_or_omit("answers of the originals", omissions, average_outputs, store, keys, labels)
    if before is not None:
        added["before"] = columns.add_values(before[0], "original")
        added["right_before"] = columns.add_values(before[1], "original right")
    if forget_set is not None:
        oracles = read_or_omit("answers of the oracles", omissions, average_outputs, store, forget_set.oracles, labels)
        if oracles is not None:
            added["oracle"] = columns.add_values(oracles[0], "oracle")
    return added


def average_outputs(store: Store, keys: Sequence[str], labels: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Average the probability of the label over stored models, and say where most are right; None without a model."""
    stored = [key for key in keys if store.has_outputs(key)]
    if not stored:
        return None
    n = len(labels)
    probabilities, right = np.zeros(n), np.zeros(n)
    for key in stored:
        logits = np.asarray(store.read_logits(key)[:n], np.float64)
        # the largest logit is taken off, so that no power overflows
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities += shifted[np.arange(n), labels] / shifted.sum(axis=1)
        right += logits.argmax(axis=1) == labels
    return probabilities / len(stored), right > len(stored) / 2
