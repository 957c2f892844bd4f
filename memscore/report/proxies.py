"""The proxies of a page: how well cheap scores stand in for memorization, at what cost, and how scores are spread."""

from collections.abc import Mapping
from typing import Any

from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import (
    PageTable,
    TableColumn,
    format_percent,
    make_interval,
    make_number,
    make_text,
)
from memscore.report.parts import Part, PartGroup
from memscore.report.score_words import describe_score, split_score_name
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.units import format_count, format_duration

LEAD = (
    "How well scores of one or a few models rank the examples as memorization does, and what they cost. A correlation "
    "far from 0 is good, whatever its sign; time is that of one worker beyond training."
)
BEGINNING, ENDING = "fidelity_", ".json"


def build_proxies(store: Store, columns: Mapping[str, Mapping[str, Any]], omissions: list[Omission]) -> Part | None:
    """Build the section of proxies from stored comparisons; None where none was made. `columns`: by score."""
    names = [name for name in store.folder.names("reports") if name.startswith(BEGINNING) and name.endswith(ENDING)]
    groups: list[PartGroup] = []
    meta: dict[str, Any] = {}
    for name in names:
        what = f"the comparison of scores {name.removesuffix(ENDING)}"
        built = read_or_omit(what, omissions, build_comparison, store, name, columns)
        if built:
            groups.append(built[0])
            # figures show one arm, tables all
            meta = meta or built[1]
    if not groups:
        reason = f"scores were not compared; run `python -m memscore.fidelity {store.folder.display_name}`"
        omissions.append(Omission(what="fidelity of proxies", reason=reason, is_fault=False))
        return None
    return Part(id="proxies", title="Proxies", lead=LEAD, groups=groups, meta=meta)


def build_comparison(
    store: Store, name: str, columns: Mapping[str, Mapping[str, Any]]
) -> tuple[PartGroup, dict[str, Any]]:
    """Build the tables of one comparison, and what its figures are drawn from."""
    record = read_record(store.folder, f"reports/{name}")
    suffix, fidelity = record["suffix"], record["standings"]
    tables = [
        build_proxy_table(suffix, fidelity),
        build_shared_table(suffix, fidelity),
        build_skew_table(suffix, record.get("gini") or {}),
        *(build_loss_table(suffix, signals) for signals in record["signals"]),
        build_claim_table(suffix, record),
    ]
    reference, reliability = fidelity["reference"], fidelity["reliability"]
    lines = [
        f"Against {reference} from {format_count(fidelity['models'], 'model')}; its reliability is Spearman "
        f"{make_number(reliability.get('spearman_full')).text}."
    ]
    meta = {
        "proxies": [
            {
                "id": find_id(columns, row["score"]),
                "name": row["score"],
                "title": describe_score(split_score_name(row["score"])[0]).title,
                "direction": columns.get(row["score"], {}).get("direction", 0),
                "rho": row["spearman"],
                "seconds": row["seconds"],
                "models": 1,
                "about": describe_score(split_score_name(row["score"])[0]).about,
            }
            for row in fidelity["rows"]
            if not row["shares_models"]
        ],
        "proxy_target": {
            "title": describe_score(split_score_name(reference)[0]).title,
            "id": find_id(columns, reference),
        },
        "lorenz": [columns[name]["id"] for name in record.get("gini") or {} if name in columns],
    }
    return PartGroup(title=f"Arm {suffix}", lines=lines, tables=[table for table in tables if table.rows]), meta


def find_id(columns: Mapping[str, Mapping[str, Any]], score: str) -> str | None:
    """Find the id of a score's column in the page; None where the page does not have it."""
    return str(columns[score]["id"]) if score in columns else None


def build_proxy_table(suffix: str, fidelity: Mapping[str, Any]) -> PageTable:
    """Build the table of scores of other models than the estimate's: correlations and costs."""
    columns = (
        TableColumn("proxy", "Proxy", is_number=False),
        TableColumn("spearman", "Spearman", "rank correlation with memorization, with its 95 % interval over models"),
        TableColumn("corrected", "Noiseless", "the same, extrapolated to ever more models of the bank"),
        TableColumn("pearson", "Pearson"),
        TableColumn("top", "Top", "share of the highest examples of one that are among the highest of the other"),
        TableColumn("seconds", "Time", "of one worker beyond training one model"),
        TableColumn("of_bank", "Of the bank", "time as a share of training the bank; less is cheaper"),
        TableColumn("of_training", "Of one training", "time as a share of training one model"),
    )
    rows = [
        [
            make_text(describe_score(split_score_name(row["score"])[0]).title, about=row["score"]),
            make_interval(row["spearman"]),
            *(make_number(row[key]) for key in ("corrected", "pearson", "top")),
            make_number(row["seconds"], format_duration, missing="not timed"),
            *(make_number(row[key], format_percent) for key in ("of_bank", "of_training")),
        ]
        for row in fidelity["rows"]
        if not row["shares_models"]
    ]
    return PageTable(name=f"proxies_{suffix}", title="Proxies, the strongest first", columns=columns, rows=rows)


def build_shared_table(suffix: str, fidelity: Mapping[str, Any]) -> PageTable:
    """Build the table of scores that are made from the models of the estimate, whose noise they share."""
    columns = (
        TableColumn("score", "Score", is_number=False),
        TableColumn("spearman", "Spearman"),
        TableColumn("pearson", "Pearson"),
        TableColumn("top", "Top"),
    )
    rows = [
        [
            make_text(describe_score(split_score_name(row["score"])[0]).title, about=row["score"]),
            make_number(row["spearman"]["value"]),
            make_number(row["pearson"]),
            make_number(row["top"]),
        ]
        for row in fidelity["rows"]
        if row["shares_models"]
    ]
    return PageTable(
        name=f"same_models_{suffix}",
        title="Scores of the same models",
        columns=columns,
        rows=rows,
        notes=["They share the noise of the estimate, which raises their correlations: no proxies."],
        is_open=False,
    )


def build_skew_table(suffix: str, gini: Mapping[str, Any]) -> PageTable:
    """Build the table of how unequally scores are spread over the examples."""
    columns = (
        TableColumn("score", "Score", is_number=False),
        TableColumn("gini", "Gini", "0: all examples alike; 1: a few have all of it"),
    )
    rows = [
        [make_text(describe_score(split_score_name(name)[0]).title, about=name), make_interval(value)]
        for name, value in gini.items()
    ]
    title = "How unequally scores are spread"
    return PageTable(name=f"gini_{suffix}", title=title, columns=columns, rows=rows, is_open=False)


def build_loss_table(suffix: str, signals: Mapping[str, Any]) -> PageTable:
    """Build the table of a risk by tenths of the loss of the originals."""
    # tenths by loss: where attacks succeed although the loss is small, the loss is no guard
    columns = (
        TableColumn("tenth", "Tenth", "of the examples, the lowest loss of the originals first"),
        TableColumn("loss", "Loss", is_number=False),
        TableColumn("risk", "Risk", "mean of the risk score with its 95 % interval; higher is riskier"),
    )
    rows = [
        [
            make_number(number, lambda place: f"{place:.0f}"),
            make_text(f"{group['least']:.2g} to {group['most']:.2g}"),
            make_interval(group["success"]),
        ]
        for number, group in enumerate(signals.get("groups") or [], start=1)
    ]
    title = f"{describe_score(split_score_name(signals['risk'])[0]).title} by loss"
    return PageTable(name=f"loss_{signals['risk']}_{suffix}", title=title, columns=columns, rows=rows, is_open=False)


def build_claim_table(suffix: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of the papers' claims, and whether they hold in this bank."""
    columns = (
        TableColumn("claim", "Claim", is_number=False),
        TableColumn("value", "Here", "with its 95 % interval"),
        TableColumn("verdict", "Verdict", is_number=False),
    )
    trends = [
        *(record["standings"].get("trends") or []),
        *(t for s in record["signals"] for t in s.get("trends") or []),
    ]
    rows = [[make_text(each["claim"]), make_interval(each["value"]), make_text(each["verdict"])] for each in trends]
    title = "What SCALE and RSU report, in this bank"
    return PageTable(name=f"claims_{suffix}", title=title, columns=columns, rows=rows, is_open=False)
