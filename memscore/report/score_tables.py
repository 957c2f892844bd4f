"""The scores of a page in numbers: each score's spread, its reliability and error, its direction, unit and source."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from memscore.report.examples import Examples
from memscore.report.page_tables import PageTable, TableColumn, make_count, make_interval, make_number, make_text
from memscore.report.parts import Part, PartGroup
from memscore.report.score_words import describe_score, split_score_name
from memscore.store.parquet import decode_metadata
from memscore.units import format_error

LEAD = "Every score of the training examples: how it is spread, which way it points, and how precise it is."
DIRECTIONS = {1: "higher", -1: "lower", 0: "neither"}


def build_scores(examples: Examples, summary: Mapping[str, Any] | None) -> Part | None:
    """Build the section of scores; None without any."""
    if not examples.scores:
        return None
    reliabilities = {
        f"{stem}_{arm['suffix']}": reliability
        for arm in (summary or {}).get("arms", [])
        for stem, reliability in (arm.get("reliability") or {}).items()
    }
    columns = (
        TableColumn("score", "Score", is_number=False),
        TableColumn("column", "Column", "its name in scores.parquet", is_number=False),
        TableColumn("riskier", "Riskier", "which values are more memorized or riskier", is_number=False),
        TableColumn("unit", "Unit", is_number=False),
        TableColumn("defined", "Defined", "examples that have a value"),
        TableColumn("mean", "Mean"),
        TableColumn("median", "Median"),
        TableColumn("q95", "95 % quantile"),
        TableColumn(
            "reliability", "Reliability", "Spearman correlation of halves of the models, corrected to all; 1 is best"
        ),
        TableColumn("rmse", "RMSE", "root mean square error, from halves of the models; less is better"),
        TableColumn("source", "Source", is_number=False),
    )
    rows = []
    for name in examples.scores:
        stem = split_score_name(name)[0]
        metadata = decode_metadata(examples.table.schema.field(name))
        values = examples.read(name)
        # undefined values count nowhere but in the number of the defined
        values = values[~np.isnan(values)]
        reliability = reliabilities.get(name, {})
        words = describe_score(stem)
        rows.append([
            make_text(words.title, about=words.about),
            make_text(name),
            make_text(DIRECTIONS[int(metadata["direction"])]),
            make_text(metadata.get("unit")),
            make_count(len(values)),
            *(
                make_number(float(measure(values)) if len(values) else None)
                for measure in (np.mean, np.median, compute_quantile)
            ),
            make_number(reliability.get("spearman_full")),
            make_number(reliability.get("rmse"), format_error),
            make_text(metadata.get("source")),
        ])
    table = PageTable(name="scores", title="Scores", columns=columns, rows=rows)
    noise = build_noise_table((summary or {}).get("auroc_for_changed_labels") or {})
    tables = [noise, table] if noise.rows else [table]
    return Part(id="scores", title="Scores", lead=LEAD, groups=[PartGroup(tables=tables)])


def build_noise_table(areas: Mapping[str, Any]) -> PageTable:
    """Build the table of how well each score finds labels that were changed on purpose, the best first."""
    columns = (
        TableColumn("score", "Score", is_number=False),
        TableColumn(
            "auroc", "AUROC", "probability that a changed label scores above another; 0.5 finds nothing, 1 all"
        ),
    )
    # undefined areas last
    order = sorted(areas.items(), key=lambda item: -(item[1][0] if item[1][0] is not None else -1.0))
    rows = [
        [make_text(describe_score(split_score_name(name)[0]).title, about=name), make_interval(area)]
        for name, area in order
    ]
    return PageTable(name="changed_labels", title="How well scores find the changed labels", columns=columns, rows=rows)


def compute_quantile(values: np.ndarray) -> float:
    """Compute the 95 % quantile."""
    return float(np.quantile(values, 0.95))
