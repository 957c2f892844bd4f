"""Sweeps of a page: methods with chosen parameters, the regret of choosing without an oracle, and the searches."""

from collections.abc import Mapping, Sequence
from typing import Any

from memscore.analysis.trial_rows import Row
from memscore.report.method_tables import build_method_table, describe_methods
from memscore.report.method_words import name_method_in_words, name_variant_in_words
from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import PageTable, TableColumn, make_count, make_interval, make_number, make_text
from memscore.report.parts import PartGroup, Warned
from memscore.report.stored_trials import name_method, read_rows
from memscore.store.json_records import read_record
from memscore.store.store import Store
from memscore.units import format_count, format_duration, format_value

FOLDER = "sweeps"
CHOSEN_BY = {"oracle": "oracle", "blind": "oracle-free"}
LOG_FROM = 20.0
"""Ratio of the largest to the smallest value of a parameter from which its axis is logarithmic."""


def group_methods(rows: Sequence[Row]) -> dict[tuple[str, str, str], list[Row]]:
    """Group judged rows of whole sequences by method, variant and who chose."""
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        if row["level"] in {0, row["levels"]}:
            groups.setdefault((name_method(row), str(row["variant"]), str(row["select"])), []).append(row)
    return groups


def build_sweeps(
    store: Store, descriptions: Mapping[str, Any], omissions: list[Omission]
) -> tuple[list[PartGroup], dict[str, Any], set[str]]:
    """Build the tables of all sweeps, what their figures are drawn from, and the names of their trials and searches."""
    groups: list[PartGroup] = []
    methods: list[dict[str, Any]] = []
    searches: list[dict[str, Any]] = []
    used: set[str] = set()
    # what was tried for parameters is no trial of its own
    attempts = read_attempts(store, omissions)
    used |= {trial for _, attempt in attempts for trial in attempt["trials"]}
    for name in store.folder.folders(FOLDER):
        path = f"{FOLDER}/{name}"
        if not store.folder.exists(f"{path}/chosen.json"):
            reason = "it has not ended; the same `python -m unlearn.sweep` goes on"
            omissions.append(Omission(what=f"the sweep {name}", reason=reason, is_fault=False))
            continue
        rows = read_or_omit(f"rows of the sweep {name}", omissions, read_rows, store, f"{path}/trials.parquet")
        record = read_or_omit(
            f"choices of the sweep {name}", omissions, read_record, store.folder, f"{path}/chosen.json"
        )
        if rows is None or record is None:
            continue
        used |= {str(row["trial"]) for row in rows}
        built = read_or_omit(f"the sweep {name}", omissions, build_sweep, name, rows, record, descriptions)
        found = read_or_omit(f"searches of {name}", omissions, describe_searches, name, rows, record, attempts)
        searches += found or []
        if built:
            groups.append(built)
            judged = [row for row in rows if row["role"] == "judged"]
            methods.append({
                "id": name,
                "title": f"Sweep {name}",
                "about": f"Judged on {judged[0]['forget_set'] if judged else 'nothing'}.",
                "measures": describe_methods(group_methods(judged), descriptions),
            })
    return groups, {"experiments": methods, "sweeps": searches}, used


def build_sweep(
    name: str, rows: Sequence[Row], record: Mapping[str, Any], descriptions: Mapping[str, Any]
) -> PartGroup:
    """Build the tables of one sweep: methods, choices, regret."""
    judged = [row for row in rows if row["role"] == "judged"]
    # sweeps of earlier versions had one tuning
    tuned = record.get("tunings") or ([record["tuned_on"]] if record.get("tuned_on") else [])
    place = record.get("judged_on", {}).get("forget_set", "")
    lines = [f"Judged on {place}; parameters chosen on {', '.join(each['forget_set'] for each in tuned) or 'nothing'}."]
    lines += [str(note) for note in record.get("notes") or []]
    warnings = [Warned("error", str(line)) for line in record["failed"]]
    # null where fewer than three originals leave nothing to compare
    second = record.get("second_oracle") or {}
    if second.get("tells_apart") is False:
        text = (
            "this forget set is unable to tell algorithms apart: what retraining changes is within the oracles' spread"
        )
        warnings.append(Warned("warning", text))
    tables = [
        build_method_table(
            f"sweep_{name}",
            f"Sweep {name}: methods on {place}",
            group_methods(judged),
            descriptions,
            ("variant", "select"),
        ),
        build_choice_table(name, record),
        build_regret_table(name, record),
        build_population_table(name, record),
    ]
    return PartGroup(
        title=f"Sweep {name}", lines=lines, warnings=warnings, tables=[table for table in tables if table.rows]
    )


def build_choice_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of the chosen parameters, with what they reached in tuning and which lie at an end of a space."""
    columns = (
        TableColumn("method", "Method", is_number=False),
        TableColumn("variant", "Variant", is_number=False),
        TableColumn("select", "Chosen by", "with an oracle, or by an objective that needs none", is_number=False),
        TableColumn("tuning", "Tuning", "number of the choice; each has a forget set and originals of its own"),
        TableColumn("parameters", "Parameters", is_number=False),
        TableColumn(
            "objective", "Objective", "of the last step in tuning: ToW with an oracle, else the oracle-free one"
        ),
        TableColumn("attempts", "Configurations"),
        TableColumn("tuning_s", "Time", "of one worker for all of them"),
        TableColumn(
            "at_boundary", "At an end", "values at an end of their space: a wider one may do better", is_number=False
        ),
        TableColumn("ended_early", "Ended early", is_number=False),
    )
    rows = [
        [
            make_text(each["contender"]),
            make_text(each["variant"]),
            make_text(CHOSEN_BY.get(each["select"], each["select"])),
            make_number(each.get("tuning", 0), lambda number: "-" if number < 0 else f"{number:.0f}"),
            make_text("; ".join(format_step(step) for step in each["steps"])),
            make_number((each.get("objective") or [None])[-1]),
            make_count(each.get("attempts")),
            make_number(each.get("tuning_s"), format_duration),
            make_text(", ".join(each.get("at_boundary") or []), level="bad" if each.get("at_boundary") else ""),
            make_text(each.get("ended_early"), level="bad" if each.get("ended_early") else ""),
        ]
        for each in record["chosen"]
    ]
    return PageTable(name=f"choices_{name}", title="Chosen parameters", columns=columns, rows=rows, is_open=False)


def format_step(step: Mapping[str, Any]) -> str:
    """Format the algorithm and the parameters of a step."""
    shown = ", ".join(f"{name} {format_value(value)}" for name, value in step["params"].items())
    return f"{step['algorithm']} ({shown})" if shown else str(step["algorithm"])


def build_regret_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of what choosing without an oracle costs."""
    columns = (
        TableColumn("method", "Method", is_number=False),
        TableColumn("variant", "Variant", is_number=False),
        TableColumn(
            "regret",
            "Regret",
            "ToW of the oracle's choice less that of the oracle-free one, paired by original; 0 costs nothing",
        ),
    )
    rows = [
        [make_text(each["of"][0]), make_text(each["of"][1]), make_interval(each, lambda value: f"{value:+.3f}")]
        for each in record.get("regret") or []
    ]
    return PageTable(name=f"regret_{name}", title="Regret of choosing without an oracle", columns=columns, rows=rows)


def build_population_table(name: str, record: Mapping[str, Any]) -> PageTable:
    """Build the table of measures that compare all judged models of a method together."""
    populations = record.get("populations") or []
    measured = list(
        dict.fromkeys(key for row in populations for key in row if key not in {"contender", "variant", "select"})
    )
    columns = (
        TableColumn("method", "Method", is_number=False),
        TableColumn("variant", "Variant", is_number=False),
        TableColumn("select", "Chosen by", is_number=False),
        *(TableColumn(column, column.replace("_", " ")) for column in measured),
    )
    rows = [
        [
            make_text(row["contender"]),
            make_text(row["variant"]),
            make_text(CHOSEN_BY.get(row["select"], row["select"])),
            *(make_number(row.get(column)) for column in measured),
        ]
        for row in populations
    ]
    title = "Measures of all models of a method together"
    return PageTable(name=f"populations_{name}", title=title, columns=columns, rows=rows, is_open=False)


def read_attempts(store: Store, omissions: list[Omission]) -> list[tuple[str, dict[str, Any]]]:
    """Read every configuration that searches evaluated, with the name of its search."""
    attempts = []
    for search in store.folder.folders("attempts"):
        for name in store.folder.names(f"attempts/{search}"):
            path = f"attempts/{search}/{name}"
            record = read_or_omit("a configuration", omissions, read_record, store.folder, path)
            if record:
                attempts.append((search, record))
    return attempts


def describe_searches(
    name: str, rows: Sequence[Row], record: Mapping[str, Any], attempts: Sequence[tuple[str, dict[str, Any]]]
) -> list[dict[str, Any]]:
    """Describe the searches of a sweep for the page's script: each configuration with its objective, and the chosen."""
    tuning = {str(row["trial"]): row for row in rows if row["role"] == "tuning"}
    by_search: dict[str, list[tuple[Row, dict[str, Any]]]] = {}
    for search, attempt in attempts:
        # a configuration belongs to the sweep that has its trials
        found = next((tuning[trial] for trial in attempt["trials"] if trial in tuning), None)
        if found is not None and attempt["values"]:
            by_search.setdefault(search, []).append((found, attempt))
    # parameters are compared as they are printed, since files round no number
    chosen = {
        (step["algorithm"], format_step(step)): CHOSEN_BY.get(each["select"], each["select"])
        for each in record["chosen"]
        for step in each["steps"]
    }
    return [
        describe_search(name, search, found, chosen)
        for search, found in sorted(by_search.items(), key=lambda item: (name_method(item[1][0][0]), item[0]))
    ]


def describe_search(
    name: str, search: str, found: Sequence[tuple[Row, dict[str, Any]]], chosen: Mapping[tuple[str, str], str]
) -> dict[str, Any]:
    """Describe one search for the page's script."""
    first = found[0][0]
    # a refined search may add a parameter later
    parameters = list(dict.fromkeys(key for _, attempt in found for key in attempt["values"]))
    numbers = {
        key: [float(attempt["values"][key]) for _, attempt in found if is_number(attempt["values"].get(key))]
        for key in parameters
    }
    # a sequence is tuned step by step, each on what the steps before left
    step = f", step {first['level']}" if first["levels"] > 1 else ""
    return {
        "id": f"{name}-{search[:8]}",
        "title": f"{name_method_in_words(name_method(first))}, {name_variant_in_words(str(first['variant']))}{step}, "
        f"search {search[:8]}",
        "about": f"{format_count(len(found), 'configuration')} of sweep {name}, judged on {first['forget_set']}.",
        "objective": {"title": "ToW in tuning", "direction": 1},
        "parameters": [
            {
                "name": key,
                "log": min(values, default=0) > 0 and max(values) / min(values) >= LOG_FROM,
                "lo": min(values, default=None),
                "hi": max(values, default=None),
            }
            for key, values in numbers.items()
        ],
        "attempts": [
            {
                "values": [attempt["values"].get(key) for key in parameters],
                "objective": attempt["tow"],
                "oracle_free": attempt["blind"],
                "chosen": find_choice(row, attempt, chosen),
                **({"failed": "diverged"} if attempt["diverged"] else {}),
            }
            for row, attempt in found
        ],
    }


def find_choice(row: Row, attempt: Mapping[str, Any], chosen: Mapping[tuple[str, str], str]) -> list[str]:
    """Find who chose a configuration; nobody for most."""
    step = {"algorithm": row["algorithm"], "params": attempt["values"]}
    who = chosen.get((str(row["algorithm"]), format_step(step)))
    return [who] if who else []


def is_number(value: Any) -> bool:
    """Return whether a parameter's value is a number."""
    return isinstance(value, int | float) and not isinstance(value, bool)
