"""Audits of a user's models on a page: the conclusion first, then what the attacks found, and how far it is trusted."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.report.attacks import describe_rates, to_json
from memscore.report.columns import Columns
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import (
    Cell,
    PageTable,
    TableColumn,
    format_general,
    format_percent,
    make_interval,
    make_number,
    make_text,
)
from memscore.report.parts import Part, PartGroup, Warned
from memscore.report.score_words import describe_score
from memscore.statistics.calibrated_threshold import PRIORS
from memscore.statistics.roc import CURVE_POINTS, count_roc
from memscore.store.class_names import format_class
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.tables.epsilon_lines import METHOD_NAMES
from memscore.units import format_count

LEAD = (
    "Models of your own, attacked with the bank's as shadow models. Read the conclusion first: numbers of an audit "
    "that is not trusted say little about the model."
)
BEGINNING, ENDING = "audit-", ".json"
EVIDENCE = ("lira", "lira_offline", "rmia")
"""Columns of evidence in the table of an audit."""
SHOWN = 20
MAX_COLUMNS = 4
"""Audits whose evidence can be sorted and filtered by in the explorer."""
LOWEST_FPR = 1e-3


def build_audits(store: Store, columns: Columns, n: int, omissions: list[Omission]) -> Part | None:
    """Build the section of audits, and add the evidence of each to the examples' columns; None without any audit."""
    names = [
        name[: -len(ENDING)]
        for name in store.folder.names("reports")
        if name.startswith(BEGINNING) and name.endswith(ENDING)
    ]
    groups: list[PartGroup] = []
    drawn: list[dict[str, Any]] = []
    for name in names:
        record = read_or_omit(f"the audit {name}", omissions, read_record, store.folder, f"reports/{name}.json")
        if record is None:
            continue
        table = read_or_omit(
            f"the examples of the audit {name}", omissions, store.read_table, f"reports/{name}.parquet"
        )
        built = read_or_omit(f"the audit {name}", omissions, build_audit, name, record, table, store.class_names)
        if built is None:
            continue
        groups.append(built[0])
        drawn.append(built[1])
        if table is not None and len(drawn) <= MAX_COLUMNS:
            add_evidence(columns, table, record, n)
    if not groups:
        return None
    return Part(id="audits", title="Audits of your models", lead=LEAD, groups=groups, meta={"audits": drawn})


def build_audit(
    name: str, record: Mapping[str, Any], table: pa.Table | None, class_names: Sequence[str]
) -> tuple[PartGroup, dict[str, Any]]:
    """Build the tables of one audit, and what its figure is drawn from."""
    # the conclusion before any number, since it decides what they are worth
    level = "ok" if record["trusted"] else "error"
    warnings = [Warned(level, record.get("conclusion") or ("trusted" if record["trusted"] else "not trusted"))]
    # one reason is the conclusion, and would stand there twice
    if len(record["reasons"]) > 1:
        warnings += [Warned("warning", f"reason: {reason}") for reason in record["reasons"]]
    warnings += [Warned("warning", f"perhaps {cause}") for cause in record.get("causes") or []]
    model = record.get("model", name.removeprefix(BEGINNING))
    lines = [
        f"{format_count(record['models'], 'shadow model')} of {record['arm']}; flagged as members: "
        f"{record['flagged']} of {format_count(record['examples'])} training examples, LiRA above "
        f"{format_general(record['threshold'])}."
    ]
    tables = [
        build_curve_table(name, record),
        build_threshold_table(name, record),
        build_bound_table(name, record),
        build_accuracy_table(name, record),
        *([] if table is None else [build_evidence_table(name, table, class_names)]),
    ]
    group = PartGroup(
        title=f"{model}, against {record['arm']}",
        lines=lines,
        warnings=warnings,
        tables=[each for each in tables if each.rows],
    )
    curve = record["curves"].get("lira") or {}
    drawn: dict[str, Any] = {"id": name, "title": model, "trusted": record["trusted"], "roc": trace_roc(table)}
    return group, drawn | {"auc": curve.get("auc"), "name": name, "thresholds": describe_thresholds(record)}


def trace_roc(table: pa.Table | None) -> dict[str, list[float | None]] | None:
    """Trace the ROC curve of LiRA's evidence; None where members are not known."""
    if table is None or "member" not in table.column_names:
        return None
    scores, member = (np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in ("lira", "member"))
    # an example that every shadow model held has no evidence
    defined = ~np.isnan(scores.astype(float))
    # on the log axis of the bank's own curves
    fpr = np.geomspace(LOWEST_FPR, 1, CURVE_POINTS)
    tpr = count_roc(scores[defined].astype(float), member[defined].astype(bool)).compute_tprs(fpr)
    return {"fpr": to_json(fpr), "tpr": to_json(tpr), "lo": [], "hi": []}


def describe_thresholds(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Describe the thresholds of an audit for the page's script."""
    return [
        {"fpr": each["nominal_fpr"], "threshold": each["threshold"], **describe_rates(each["expected"])}
        for each in record["decisions"]["thresholds"]
    ]


def build_curve_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of areas and rates, where members are known."""
    columns = (
        TableColumn("attack", "Attack", is_number=False),
        TableColumn("auc", "AUC", "probability that a member scores above another; 0.5 tells nothing; 95 % interval"),
        TableColumn("tpr_at_0.01", "TPR at FPR 1 %", "share of the members flagged; higher leaks"),
        TableColumn("tpr_at_0.001", "TPR at FPR 0.1 %", "the same where one in a thousand others is flagged"),
    )
    rows = [
        [
            make_text(describe_score(kind).title),
            make_interval(curve["auc"]),
            *(make_interval(curve[key], missing=curve[key]["reason"] or "-") for key in ("tpr_at_01", "tpr_at_001")),
        ]
        for kind, curve in record["curves"].items()
        if record.get("members")
    ]
    members = record.get("members")
    title = f"{format_count(members, 'member')} and {record['examples'] - members} others" if members else "Attacks"
    return PageTable(name=f"{name}_attacks", title=title, columns=columns, rows=rows)


def build_threshold_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of thresholds: what they flag here, and what they do to models of the bank."""
    precision = tuple(f"{prior:g}" for prior in PRIORS)
    columns = (
        TableColumn("threshold", "Threshold", "of LiRA; above it an example is flagged as a member"),
        TableColumn("flagged", "Flagged"),
        TableColumn("expected_fpr", "Expected FPR", "share of non-members flagged in the bank's own models"),
        TableColumn("realized_fpr", "FPR here", "share of the others flagged in this model, where members are known"),
        TableColumn("tpr", "Expected TPR", "share of members flagged in the bank's own models"),
        *(
            TableColumn(
                f"ppv_{prior}", f"PPV at {100 * float(prior):g} %", "of the flagged, the expected share of members"
            )
            for prior in precision
        ),
    )
    rows = [
        [
            make_number(each["threshold"], format_general, missing="not realizable"),
            Cell(text=f"{each['flagged']} of {each['of']}", value=each["flagged"]),
            make_interval(each["expected"]["expected_fpr"], format_percent),
            make_interval(each["realised_fpr"], format_percent) if each["realised_fpr"] else make_text(None),
            make_interval(each["expected"]["tpr"], format_percent),
            *(make_interval(each["expected"]["precision_at_prior"][prior], format_percent) for prior in precision),
        ]
        for each in record["decisions"]["thresholds"]
    ]
    return PageTable(name=f"{name}_thresholds", title="Thresholds and what they flag", columns=columns, rows=rows)


def build_bound_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of lower bounds on the privacy loss."""
    columns = (
        TableColumn("method", "Lower bound of", is_number=False),
        TableColumn(
            "value", "Value", "the model's privacy loss is at least this; higher is a larger leak, 0 shows none"
        ),
        TableColumn("ceiling", "At most", "what an attack without an error would reach with these numbers"),
        TableColumn("median", "Median of halves", "over draws of the halves, with the lowest and the highest"),
        TableColumn("level", "Confidence", "of each bound"),
        TableColumn("delta", "Delta"),
    )
    rows = [
        [
            make_text(METHOD_NAMES.get(bound["method"], bound["method"])),
            make_number(bound["value"]),
            make_number(bound["ceiling"]),
            make_interval((bound["median"], bound["lowest"], bound["highest"])),
            make_number(bound["level"], format_percent),
            make_number(bound["delta"], format_general),
        ]
        for bound in record.get("epsilon_bounds") or []
    ]
    return PageTable(name=f"{name}_bounds", title="Lower bounds on privacy loss", columns=columns, rows=rows)


def build_accuracy_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of the model's accuracies beside the bank's, and whether they fit."""
    columns = (
        TableColumn("group", "Examples", is_number=False),
        TableColumn("value", "This model", "share that it is right on"),
        TableColumn("bank", "Bank", "of its median model"),
        TableColumn("limits", "Fits between", is_number=False),
        TableColumn("fits", "Fits", "shadow models that behave otherwise cannot tell its members", is_number=False),
    )
    rows = [
        [
            make_text(group),
            make_number(each["value"]),
            make_number(each["bank"]),
            make_text(f"{each['limits']['lo']:.3f} and {each['limits']['hi']:.3f}" if each.get("limits") else None),
            make_text("yes" if each["fits"] else "no", level="good" if each["fits"] else "bad"),
        ]
        for group, each in (record.get("accuracy_by_group") or {}).items()
    ]
    return PageTable(
        name=f"{name}_accuracy", title="Accuracy beside the bank's models", columns=columns, rows=rows, is_open=False
    )


def build_evidence_table(name: str, table: pa.Table, class_names: Sequence[str]) -> PageTable:
    """Build the table of the examples with the strongest evidence of membership."""
    kinds = [kind for kind in EVIDENCE if kind in table.column_names]
    has_truth = "member" in table.column_names
    columns = (
        TableColumn("id", "Id", is_number=False),
        TableColumn("label", "Class", is_number=False),
        *(
            TableColumn(kind, describe_score(kind).title, "evidence of membership; higher is stronger")
            for kind in kinds
        ),
        *([TableColumn("member", "Member", is_number=False)] if has_truth else []),
    )
    # undefined evidence is the weakest
    evidence = np.asarray(table["lira"].to_numpy(), float)
    order = np.argsort(-np.nan_to_num(evidence, nan=-np.inf), kind="stable")[:SHOWN]
    rows = []
    for row in table.take(pa.array(order)).to_pylist():
        truth = [make_text("yes" if row["member"] else "no")] if has_truth else []
        label = None if row["label"] is None else format_class(row["label"], class_names)
        rows.append([make_text(row["id"]), make_text(label), *(make_number(row[kind]) for kind in kinds), *truth])
    return PageTable(name=f"{name}_strongest", title="Strongest evidence", columns=columns, rows=rows, is_open=False)


def add_evidence(columns: Columns, table: pa.Table, record: Mapping[str, Any], n: int) -> None:
    """Add LiRA's evidence on each training example to the columns, so that the explorer sorts and filters by it."""
    # by rows: a table that was moved here from another bank would have others
    values = np.full(n, np.nan)
    rows = np.asarray(table["row"].to_numpy(), np.int64)
    inside = rows < n
    values[rows[inside]] = np.asarray(table["lira"].to_numpy(), float)[inside]
    model = record.get("model", "model")
    columns.add(
        f"audit {model}",
        values,
        role="score",
        title=f"Evidence in {model}",
        group="Audits",
        about="Log-likelihood ratio that your model was trained on it. Higher is stronger evidence.",
        direction=1,
        unit="nat",
        source="LiRA online, memscore.attack",
        chosen=False,
    )
