"""Tables of unlearning methods: a row a method with means over originals, the oracle first and the original last."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from memscore.analysis.trial_rows import Row, count_diverged
from memscore.report.measures import (
    MeasureWords,
    choose_columns,
    clip,
    describe_measure,
    estimate_present,
    make_measure_cell,
)
from memscore.report.method_words import name_method_in_words, name_variant_in_words
from memscore.report.page_tables import PageTable, TableColumn, make_count, make_text
from memscore.report.stored_trials import ORACLE, ORIGINAL

MethodKey = tuple[str, str, str]
"""Method, variant or parameters, and who chose its parameters."""
Groups = Mapping[MethodKey, Sequence[Row]]
BAND_NOTE = (
    "Means over originals with 95 % t intervals. Where the oracle's value is best, green is within the oracle's own "
    "interval; pointing at a value shows how far it is from it."
)
HEADINGS = {"variant": "Variant", "params": "Parameters", "select": "Chosen by"}
CHOICES = {"oracle": "the oracle", "blind": "no oracle", "": ""}


def sort_methods(groups: Groups) -> list[MethodKey]:
    """Sort methods: the oracle, then by ToW from the highest, then the original."""

    def rank(key: MethodKey) -> tuple[int, float, MethodKey]:
        place = {ORACLE: 0, ORIGINAL: 2}.get(key[0], 1)
        # a trial of a class has no ToW on some splits
        has_tow = all("tow_test" in row for row in groups[key])
        tow = estimate_present(groups[key], "tow_test").value if has_tow else np.nan
        return place, -float(np.nan_to_num(tow, nan=-np.inf)), key

    return sorted(groups, key=rank)


def build_method_table(
    name: str,
    title: str,
    groups: Groups,
    descriptions: Mapping[str, Any],
    headings: tuple[str, str],
    requested: Sequence[str] = (),
) -> PageTable:
    """Build the table of some methods on one forget set; headings are those of the second and third part of the key."""
    rows_of_all = [row for rows in groups.values() for row in rows]
    columns = [describe_measure(column, descriptions) for column in choose_columns(rows_of_all, requested)]
    # a column that is empty for all methods is left out
    used = [place for place in (1, 2) if any(key[place] for key in groups)]
    oracle = next((rows for key, rows in groups.items() if key[0] == ORACLE), [])
    # the band is of the same forget set and originals as the methods
    bands = {words.column: estimate_present(oracle, words.column) if oracle else None for words in columns}
    any_diverged = count_diverged(rows_of_all) > 0
    cells = []
    for key in sort_methods(groups):
        rows = groups[key]
        is_reference = key[0] in {ORACLE, ORIGINAL}
        row = [make_text(name_reference(key[0]), level="muted" if is_reference else "")]
        row += [make_text(CHOICES.get(key[place], key[place]) if place == 2 else key[place]) for place in used]
        row.append(make_count(len({each["index"] for each in rows})))
        row += [make_count(count_diverged(rows))] * any_diverged
        row += [
            make_measure_cell(
                estimate_present(rows, words.column), words, None if is_reference else bands[words.column], len(rows)
            )
            for words in columns
        ]
        cells.append(row)
    heads = [TableColumn("method", "Method", is_number=False)]
    heads += [TableColumn(headings[place - 1], HEADINGS[headings[place - 1]], is_number=False) for place in used]
    heads.append(TableColumn("n", "Originals", "models that unlearned, each with an oracle of its own"))
    heads += [
        TableColumn("diverged", "Diverged", "runs whose numbers became infinite; they count 0 in ToW")
    ] * any_diverged
    heads += [TableColumn(words.column, words.title, words.about) for words in columns]
    return PageTable(name=name, title=title, columns=heads, rows=cells, notes=[BAND_NOTE])


def name_reference(method: str) -> str:
    """Name the retrained model and theta_o in words; other methods keep their names."""
    return {ORACLE: "oracle (retrained)", ORIGINAL: "original (nothing done)"}.get(method, method)


def describe_methods(
    groups: Groups, descriptions: Mapping[str, Any], requested: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Describe the measures of some methods for the page's script: values with intervals, oracle and original."""
    columns = choose_columns([row for rows in groups.values() for row in rows], requested)
    described = []
    for words in (describe_measure(column, descriptions) for column in columns):
        entries = {key: describe_estimate(groups[key], words) for key in sort_methods(groups)}
        oracle, original = (
            next((entry for key, entry in entries.items() if key[0] == name), None) for name in (ORACLE, ORIGINAL)
        )
        # oracle and original are lines in a figure, not methods
        methods = [
            {"name": name_in_figure(key, entries), **entry}
            for key, entry in entries.items()
            if key[0] not in {ORACLE, ORIGINAL} and entry["value"] is not None
        ]
        if methods:
            described.append({
                "name": words.column,
                "title": words.title,
                "about": words.about,
                "direction": {"max": 1, "min": -1}.get(words.best, 0),
                "unit": "share" if words.is_share else "",
                "range": [0, 1] if words.is_share else [None, None],
                "oracle": oracle if words.best == "oracle" else None,
                "original": original,
                "methods": methods,
            })
    return described


def name_in_figure(key: MethodKey, keys: Iterable[MethodKey]) -> str:
    """Name a method in a figure by those parts of its key in which the methods differ."""
    methods = [each for each in keys if each[0] not in {ORACLE, ORIGINAL}]
    differing = [len({each[place] for each in methods}) > 1 for place in range(3)]
    choice = f"by {CHOICES.get(key[2], key[2])}" if key[2] else ""
    variant = name_variant_in_words(key[1])
    return ", ".join(filter(None, (name_method_in_words(key[0]), differing[1] * variant, differing[2] * choice)))


def describe_estimate(rows: Sequence[Row], words: MeasureWords) -> dict[str, Any]:
    """Describe a mean over originals and its values for the page's script; undefined is null."""
    estimate = estimate_present(rows, words.column)
    points = [row.get(words.column) for row in rows]
    return {
        "value": to_json(estimate.value),
        "lo": to_json(clip(estimate.lo, words)),
        "hi": to_json(clip(estimate.hi, words)),
        "n": estimate.n,
        "points": [float(f"{point:.5g}") for point in points if point is not None and point == point],
    }


def to_json(value: float) -> float | None:
    """Return a number, or null where it is undefined."""
    return None if value != value else float(value)
