"""Influence on a page: for each training example who helps it and whom it helps, and the strongest pairs with tests."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.report.omissions import Omission, read_or_omit
from memscore.report.page_tables import PageTable, TableColumn, make_number, make_text
from memscore.report.parts import Part, PartGroup
from memscore.store.class_names import format_class
from memscore.store.parquet import decode_metadata
from memscore.store.store import Store

LEAD = (
    "How much less often models are right on a target if they were not trained on an example: P[right | in] - "
    "P[right | out] of the pair. Higher helps the target more."
)
ABOUT = "Drop of the share of models that are right on it when an example is left out."
SHOWN = 30
LISTED = 8
"""Examples that are listed for each one."""
MAX_PAIRS = 100_000
"""Pairs of training examples in a page, those with the largest influence."""
TRAIN, HELD_OUT = "train", "train-held-out"


def build_influence(
    store: Store, n: int, class_names: Sequence[str], omissions: list[Omission]
) -> tuple[Part | None, dict[str, Any] | None]:
    """Build the section of influence, and the pairs among training examples; None each where there are none."""
    names = sorted(name.removesuffix(".parquet") for name in store.folder.names("influence"))
    groups: list[PartGroup] = []
    pairs: dict[str, Any] | None = None
    for name in names:
        table = read_or_omit(f"influence {name}", omissions, store.read_influence, name)
        if table is None:
            continue
        # labels of test examples are in no table of scores
        examples = read_or_omit("the ids of the examples", omissions, store.examples)
        groups.append(PartGroup(title=name, tables=[build_pair_table(name, table, examples, class_names)]))
        targets = decode_metadata(table.schema).get("targets")
        # over all models first; those that were not trained on the target where there is nothing else
        if targets == TRAIN or (targets == HELD_OUT and pairs is None):
            pairs = collect_pairs(table, n)
    part = Part(id="influence", title="Influence", lead=LEAD, groups=groups) if groups else None
    return part, pairs


def collect_pairs(table: pa.Table, n: int) -> dict[str, Any]:
    """Collect for each training example those that help it most and those that it helps most."""
    helpers, targets = (np.asarray(table[name].to_numpy(), np.int64) for name in ("train_row", "test_row"))
    values = np.asarray(table["influence"].to_numpy(), float)
    # of an example on itself is memorization, and of 0 or less is no help
    chosen = np.flatnonzero((helpers < n) & (targets < n) & (helpers != targets) & (values > 0))
    chosen = chosen[np.argsort(-values[chosen], kind="stable")][:MAX_PAIRS]
    helps: dict[str, list[list[float]]] = {}
    helped_by: dict[str, list[list[float]]] = {}
    # from the strongest on, so that the first ones of each example are its strongest
    for place in chosen.tolist():
        helper, target, value = int(helpers[place]), int(targets[place]), float(f"{values[place]:.5g}")
        for pairs, row, other in ((helps, helper, target), (helped_by, target, helper)):
            others = pairs.setdefault(str(row), [])
            if len(others) < LISTED:
                others.append([other, value])
    least = decode_metadata(table.schema).get("least", "")
    return {
        "helps": helps,
        "helped_by": helped_by,
        "unit": "probability",
        "about": ABOUT,
        "min": float(least) if is_number(least) else None,
    }


def is_number(text: str) -> bool:
    """Return whether a text is a finite number."""
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False


def build_pair_table(name: str, table: pa.Table, examples: pa.Table | None, class_names: Sequence[str]) -> PageTable:
    """Build the table of the pairs with the largest influence, one for each target."""
    columns = (
        TableColumn("target", "Target", is_number=False),
        TableColumn("target_label", "Its class", is_number=False),
        TableColumn("helper", "Helped most by", "the training example with the largest influence", is_number=False),
        TableColumn("helper_label", "Its class ", is_number=False),
        TableColumn("influence", "Influence", "higher helps more"),
        TableColumn("se", "Standard error"),
    )
    values = np.asarray(table["influence"].to_numpy(), float)
    targets = np.asarray(table["test_row"].to_numpy(), np.int64)
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")
    # the first of each target in this order is its strongest
    first = np.sort(np.unique(targets[order], return_index=True)[1])[:SHOWN]
    rows = []
    for row in table.take(pa.array(order[first])).to_pylist():
        labels = [find_label(examples, row[key], class_names) for key in ("test_row", "train_row")]
        rows.append([
            make_text(str(row["test_id"])),
            make_text(labels[0]),
            make_text(str(row["train_id"])),
            make_text(labels[1]),
            make_number(row["influence"]),
            make_number(row.get("se")),
        ])
    return PageTable(
        name=f"influence_{name}", title="Targets with the strongest helper", columns=columns, rows=rows, is_open=False
    )


def find_label(examples: pa.Table | None, row: int, class_names: Sequence[str]) -> str | None:
    """Find the name of an example's class; None where it is unknown."""
    if examples is None or "label" not in examples.column_names:
        return None
    label = examples["label"][row].as_py()
    return None if label is None else format_class(label, class_names)
