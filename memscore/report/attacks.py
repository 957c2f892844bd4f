"""The attacks of a page: curves with bands, areas, thresholds with what they flag, repeated decisions, and groups."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import (
    Cell,
    PageTable,
    TableColumn,
    format_general,
    format_percent,
    make_count,
    make_interval,
    make_number,
    make_text,
)
from memscore.report.parts import Part, PartGroup
from memscore.report.score_words import describe_score
from memscore.statistics.calibrated_threshold import PRIORS
from memscore.store.class_names import format_class
from memscore.store.store import Store

LEAD = (
    "Each model of the bank is attacked with the others as shadow models: is an example one of its members? "
    "Higher is a larger leak in every column but false positives; an AUC of 0.5 tells nothing."
)
GROUPS_SHOWN = 60
RATE_TITLES = {"tpr_at_0.01": "TPR at FPR 1 %", "tpr_at_0.001": "TPR at FPR 0.1 %"}


def build_attacks(
    store: Store, summary: Mapping[str, Any] | None, class_names: Sequence[str], omissions: list[Omission]
) -> Part | None:
    """Build the section of attacks from the numbers of the last scoring; None where no attack was run."""
    # a bank may have an arm without enough models for an attack
    arms = [arm for arm in (summary or {}).get("arms", []) if arm["attacks"]]
    if not arms:
        return None
    groups, drawn = [], []
    for arm in arms:
        suffix = arm["suffix"]
        curves = read_curves(store, suffix, omissions)
        tables = [build_attack_table(arm), build_threshold_table(arm)]
        tables += [build_decision_table(arm), build_success_table(arm)]
        if arm.get("groups"):
            what = f"leakage by class and cluster, {suffix}"
            table = read_or_omit(what, omissions, build_group_table, store, arm, class_names)
            tables += [table] if table else []
        title = f"Arm {suffix}" if len(arms) > 1 else ""
        groups.append(PartGroup(title=title, tables=[table for table in tables if table.rows]))
        drawn += [
            describe_attack(name, attack, curves.get(name), suffix if len(arms) > 1 else "")
            for name, attack in arm["attacks"].items()
        ]
    return Part(id="attacks", title="Membership attacks", lead=LEAD, groups=groups, meta={"attacks": drawn})


def read_curves(store: Store, suffix: str, omissions: list[Omission]) -> dict[str, dict[str, list[float | None]]]:
    """Read the curves of an arm's attacks; none from a bank of an earlier version, which drew them alone."""
    path = f"reports/roc_{suffix}.parquet"
    what = f"ROC curves, {suffix}"
    if not store.folder.exists(path):
        reason = f"the bank was scored by a version that stored no curves; {store.rebuild_command} stores them"
        omissions.append(Omission(what=what, reason=reason, is_fault=False))
        return {}
    table = read_or_omit(what, omissions, store.read_table, path)
    if table is None:
        return {}
    # an attack's rows are together, from the lowest rate on
    names = np.array(table["attack"].to_pylist())
    columns = {name: np.asarray(table[name].to_numpy(), float) for name in ("fpr", "tpr", "lo", "hi")}
    return {
        str(attack): {name: to_json(values[names == attack]) for name, values in columns.items()}
        for attack in dict.fromkeys(names.tolist())
    }


def to_json(values: np.ndarray) -> list[float | None]:
    """Turn numbers into a list, null where undefined, with the digits that a figure needs."""
    # six digits draw the same curve with half of the bytes
    return [None if math.isnan(value) else float(f"{value:.6g}") for value in values.tolist()]


def describe_attack(
    name: str, attack: Mapping[str, Any], curve: Mapping[str, Any] | None, suffix: str
) -> dict[str, Any]:
    """Describe an attack for the page's script: its curve, area and thresholds."""
    value, lo, hi = attack["auc"]
    title = describe_score(name).title
    return {
        "name": name,
        "title": f"{title} ({suffix})" if suffix else title,
        "targets": attack["targets"],
        "roc": curve,
        "auc": {"value": value, "lo": lo, "hi": hi},
        "thresholds": [
            {"fpr": each["fpr"], "threshold": each["threshold"], **describe_rates(each)}
            for each in attack.get("thresholds", [])
        ],
    }


def describe_rates(rates: Mapping[str, Any]) -> dict[str, Any]:
    """Describe for the page's script what a threshold does; from the precision at one prior it computes all others."""
    realized, tpr = rates["expected_fpr"], rates["tpr"]
    prior = PRIORS[-1]
    value, lo, hi = rates["precision_at_prior"][f"{prior:g}"]
    return {
        **dict(zip(("realized_fpr", "realized_lo", "realized_hi"), realized, strict=True)),
        **dict(zip(("tpr", "tpr_lo", "tpr_hi"), tpr, strict=True)),
        "precision": {"prior": prior, "value": value, "lo": lo, "hi": hi},
    }


def name_attack(name: str) -> Cell:
    """Name an attack in words, and by its code name on pointing at it."""
    return Cell(text=describe_score(name).title, value=name, about=name)


def build_attack_table(arm: Mapping[str, Any]) -> PageTable:
    """Build the table of areas and of true positive rates at low false positive rates."""
    columns = (
        TableColumn("attack", "Attack", is_number=False),
        TableColumn("targets", "Target models"),
        TableColumn(
            "auc",
            "AUC",
            "probability that a member scores above a non-member; 0.5 tells nothing, 1 is a leak of everything; "
            "mean over target models with its 95 % interval",
        ),
        *(
            TableColumn(name, title, "share of the members that are flagged where so few non-members are; higher leaks")
            for name, title in RATE_TITLES.items()
        ),
    )
    rows = [
        [
            name_attack(name),
            make_count(attack["targets"]),
            make_interval(attack["auc"]),
            *(
                make_interval(attack[key], missing=attack.get(f"{key}_counts", {}).get("reason") or "-")
                for key in RATE_TITLES
            ),
        ]
        for name, attack in arm["attacks"].items()
    ]
    return PageTable(
        name=f"attacks_{arm['suffix']}", title="How well members are told from non-members", columns=columns, rows=rows
    )


def build_threshold_table(arm: Mapping[str, Any]) -> PageTable:
    """Build the table of thresholds, with the rates that they have on other target models, and the precision."""
    precision = tuple(f"{prior:g}" for prior in PRIORS)
    # PPV at the priors of the summary, which a reader compares with the slider above
    columns = (
        TableColumn("attack", "Attack", is_number=False),
        TableColumn("fpr", "Requested FPR", "false positive rate for which the threshold was set on target models"),
        TableColumn("threshold", "Threshold", "an example is flagged as a member above it"),
        TableColumn(
            "realized_fpr", "Realized FPR", "share of non-members flagged, on target models that did not set it"
        ),
        TableColumn("tpr", "TPR", "share of members flagged, on the same"),
        *(
            TableColumn(
                f"ppv_{prior}",
                f"PPV at {100 * float(prior):g} %",
                f"of the flagged, the share of members where {100 * float(prior):g} % of those in question are",
            )
            for prior in precision
        ),
    )
    rows = [
        [
            name_attack(name),
            make_number(each["fpr"], format_percent),
            make_number(each["threshold"], format_general, missing="not realizable"),
            make_interval(each["expected_fpr"], format_percent),
            make_interval(each["tpr"], format_percent),
            *(make_interval(each["precision_at_prior"][prior], format_percent) for prior in precision),
        ]
        for name, attack in arm["attacks"].items()
        for each in attack.get("thresholds", [])
    ]
    notes = ["Rates are means over target models that took no part in setting the threshold, with 95 % intervals."]
    return PageTable(
        name=f"thresholds_{arm['suffix']}",
        title="Thresholds and what they flag",
        columns=columns,
        rows=rows,
        notes=notes,
        is_open=False,  # the figure above has the same at any prior
    )


def build_decision_table(arm: Mapping[str, Any]) -> PageTable:
    """Build the table that says whether decisions hold from one model to another."""
    columns = (
        TableColumn("attack", "Attack", is_number=False),
        TableColumn("decided_at", "Threshold"),
        TableColumn("flagged_again", "Member flagged again", "probability in another model trained on it; 1 is stable"),
        TableColumn("wrongly_again", "Non-member flagged again", "probability in another model not trained on it"),
        TableColumn("coin_flips", "Undecided", "share of examples flagged in 25 to 75 % of the models trained on them"),
    )
    rows = [
        [
            name_attack(name),
            make_number(attack["decided_at"], format_general),
            *(make_number(attack["decisions"].get(key)) for key in ("flagged_again", "wrongly_again", "coin_flips")),
        ]
        for name, attack in arm["attacks"].items()
        if "decisions" in attack
    ]
    return PageTable(
        name=f"decisions_{arm['suffix']}", title="Whether a decision holds in another model", columns=columns, rows=rows
    )


def build_success_table(arm: Mapping[str, Any]) -> PageTable:
    """Build the table of attack success beside that of an attack without information."""
    columns = (
        TableColumn("score", "Score", is_number=False),
        TableColumn("mean", "Mean", "share of right decisions, mean over examples; higher leaks"),
        TableColumn("no_information", "Without information", "the same on confidences permuted over the models"),
    )
    rows = [
        [name_attack(name), make_number(success["mean"]), make_number(success["no_information"])]
        for name, success in (arm.get("attack_success") or {}).items()
    ]
    return PageTable(name=f"success_{arm['suffix']}", title="Attack success", columns=columns, rows=rows, is_open=False)


def build_group_table(store: Store, arm: Mapping[str, Any], class_names: Sequence[str]) -> PageTable:
    """Build the table of the classes and clusters that leak most."""
    table = store.read_table(f"reports/groups_{arm['suffix']}.parquet")
    rows = table.to_pylist()
    # groups of the first attack: of all attacks the table would repeat itself
    first = rows[0]["attack"] if rows else ""
    shown = sorted(
        (row for row in rows if row["attack"] == first and row["auc"] is not None), key=lambda row: -row["auc"]
    )
    columns = (
        TableColumn("kind", "Group", is_number=False),
        TableColumn("group", "Name", is_number=False),
        TableColumn("examples", "Examples"),
        TableColumn(
            "auc", "AUC", "of its members against its own non-members; of many groups the largest is partly chance"
        ),
        TableColumn("tpr", "TPR", "at the threshold of the whole bank"),
        TableColumn("fpr", "FPR", "at the threshold of the whole bank"),
    )
    cells = [
        [
            make_text(row["kind"]),
            make_text(format_class(row["group"], class_names if row["kind"] == "class" else ())),
            make_count(row["examples"]),
            *(make_interval((row[key], row[f"{key}_lo"], row[f"{key}_hi"])) for key in ("auc", "tpr", "fpr")),
        ]
        for row in shown[:GROUPS_SHOWN]
    ]
    rest = len(shown) - GROUPS_SHOWN
    notes = [f"{rest} more are in reports/groups_{arm['suffix']}.parquet."] if rest > 0 else []
    return PageTable(
        name=f"groups_{arm['suffix']}",
        title=f"Leakage by class and cluster, {describe_score(first).title if first else ''}",
        columns=columns,
        rows=cells,
        notes=notes,
        is_open=False,
    )
