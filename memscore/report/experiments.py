"""Experiments of a page: the claims of a paper with verdicts, the methods of each part, and the stored figures."""

from collections.abc import Mapping, Sequence
from typing import Any

from memscore.analysis.trial_rows import Row
from memscore.report.method_tables import build_method_table, describe_methods
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import PageTable, TableColumn, make_interval, make_number, make_text
from memscore.report.parts import Figure, PartGroup
from memscore.report.stored_trials import read_rows
from memscore.report.sweeps import group_methods
from memscore.store.json_records import read_record
from memscore.store.store import Store

FOLDER = "experiments"
LEVELS = {"holds": "good", "fails": "bad"}
VERDICT_ABOUT = (
    "at 5 % for all claims of one kind together (Holm); undecided: no effect was shown, which is not that there is none"
)
PICTURES = {"figure.png": "Figure of the experiment", "embeddings.png": "Embeddings with the forget sets in them"}


def build_experiments(
    store: Store, descriptions: Mapping[str, Any], omissions: list[Omission]
) -> tuple[list[PartGroup], list[dict[str, Any]], set[str]]:
    """Build the tables of all experiments, what their figures are drawn from, and the names of their trials."""
    groups: list[PartGroup] = []
    drawn: list[dict[str, Any]] = []
    used: set[str] = set()
    for name in store.folder.folders(FOLDER):
        path = f"{FOLDER}/{name}"
        record = read_or_omit(
            f"verdicts of the experiment {name}", omissions, read_record, store.folder, f"{path}/findings.json"
        )
        rows = read_or_omit(f"rows of the experiment {name}", omissions, read_rows, store, f"{path}/rows.parquet")
        # either alone says something
        if record is None and rows is None:
            continue
        used |= {str(row["trial"]) for row in rows or []}
        built = read_or_omit(
            f"the experiment {name}",
            omissions,
            build_experiment,
            store,
            name,
            record or {},
            rows or [],
            descriptions,
            omissions,
        )
        if built:
            groups.append(built[0])
            drawn += built[1]
    return groups, drawn, used


def build_experiment(
    store: Store,
    name: str,
    record: Mapping[str, Any],
    rows: Sequence[Row],
    descriptions: Mapping[str, Any],
    omissions: list[Omission],
) -> tuple[PartGroup, list[dict[str, Any]]]:
    """Build the tables of one experiment: claims, then the methods of each part."""
    parts = {part: [row for row in rows if row["part"] == part] for part in dict.fromkeys(row["part"] for row in rows)}
    tables, drawn = [build_claim_table(name, record)], []
    for part, of_part in parts.items():
        # sequences of requests have steps instead of methods, and are told by their plans
        # by the columns that sweeps add
        methods = group_methods(of_part) if "level" in of_part[0] else group_plans(of_part)
        title = f"{record.get('experiment', name)}: {part}, {of_part[0]['forget_set']}"
        tables.append(
            build_method_table(f"experiment_{name}_{part}", title, methods, descriptions, ("variant", "select"))
        )
        drawn.append({
            "id": f"{name}-{part}",
            "title": title,
            "about": f"Experiment {name}.",
            "measures": describe_methods(methods, descriptions),
        })
    figures = [
        Figure(png=png, caption=caption)
        for file, caption in PICTURES.items()
        if store.folder.exists(f"{FOLDER}/{name}/{file}")
        and (png := read_or_omit(caption, omissions, store.folder.read, f"{FOLDER}/{name}/{file}"))
    ]
    group = PartGroup(
        title=f"Experiment {record.get('experiment', name)}",
        lines=[str(line) for line in record.get("remarks") or []],
        tables=[table for table in tables if table.rows],
        figures=figures,
    )
    return group, drawn


def group_plans(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Group rows without levels by their plan."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((str(row.get("plan", row["algorithm"])), str(row.get("variant", "")), ""), []).append(row)
    return groups


def build_claim_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of a paper's claims, with what was measured here and the verdict."""
    columns = (
        TableColumn("claim", "Claim", is_number=False),
        TableColumn("paper", "In the paper", is_number=False),
        TableColumn("value", "Here", "the effect that the claim is about, with its 95 % interval"),
        TableColumn("p", "p", "of the claim among those of its kind"),
        TableColumn("verdict", "Verdict", VERDICT_ABOUT, is_number=False),
        TableColumn("uncorrected", "Alone", "the verdict on this claim alone", is_number=False),
        TableColumn("family", "Kind", "claims that are corrected together", is_number=False),
    )
    rows = [
        [
            make_text(each["claim"]),
            make_text(each.get("paper")),
            make_interval(each["value"], lambda value: f"{value:+.3f}"),
            make_number(each.get("p_family"), lambda p: "<0.001" if p < 0.001 else f"{p:.3f}"),
            make_text(each["verdict"], level=LEVELS.get(each["verdict"], "muted")),
            make_text(each.get("uncorrected")),
            make_text(each.get("family")),
        ]
        for each in record.get("findings") or []
    ]
    return PageTable(name=f"claims_{name}", title="Claims and verdicts", columns=columns, rows=rows)
