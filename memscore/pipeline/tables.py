"""Tables of a whole bank: scores per example, models, and detection of changed labels."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from memscore.data.duplicates import Copies, build_copies_table, find_twins
from memscore.pipeline.jobs import ORACLE
from memscore.statistics.intervals import Interval
from memscore.statistics.roc import auc_interval
from memscore.store.copy_counts import COPIES_PATH, COPY_COLUMNS
from memscore.store.store import Receipts, Store


def write_scores_table(store: Store, names: Sequence[str], copies: Copies | None = None) -> pa.Table:
    """Write scores.parquet, per training example every score with its errors and counts; return the table.

    The copies of each example are with its scores; these columns are null where the images are unknown (None).
    """
    n_train = store.manifest.split_sizes[0]
    table = store.examples().slice(0, n_train)
    twins = {} if copies is None else find_twins(copies)
    for column, kind in COPY_COLUMNS.items():
        table = table.append_column(column, pa.array(twins.get(column, [None] * n_train), kind))
    for name in names:
        # the first two columns of a score's file, row and id, are those of the examples
        score = store.read_score(name)
        for column in score.column_names[2:]:
            table = table.append_column(score.schema.field(column), score[column])
    store.write_table("scores.parquet", table)
    return table


def write_copies_table(store: Store, copies: Copies) -> None:
    """Write duplicates.parquet, the examples that have an exact copy, with the counts in its metadata."""
    store.write_table(COPIES_PATH, build_copies_table(copies, store.manifest.fingerprint))


def write_models_table(store: Store, receipts: Receipts | None = None) -> None:
    """Write models.parquet from the receipts: one row per bank model and original."""
    rows = []
    for name, receipt in sorted((store.receipts() if receipts is None else receipts).items()):
        # a proxy is no model, and an oracle is none of the bank
        if "proxy" in receipt or name.startswith(f"{ORACLE}-") or not name.rpartition("-")[2].isdigit():
            continue
        accuracy = receipt.get("accuracy", {})
        rows.append({
            "model": name,
            "arm": name.rpartition("-")[0],
            "index": int(name.rpartition("-")[2]),
            "n_members": receipt.get("n_members"),
            "diverged": receipt["diverged"],
            **{f"accuracy_{group}": accuracy.get(group) for group in ("members", "left_out", "validation", "test")},
            "seconds": receipt["seconds"],
            "worker": receipt.get("worker"),
            "device": receipt.get("device"),
        })
    if rows:
        store.write_table("models.parquet", pa.Table.from_pylist(rows))


def compute_noise_detection(store: Store, names: Sequence[str]) -> dict[str, Interval]:
    """Compute how well each score finds the examples with a changed label, a positive control.

    The AUROC, with its 95 % interval, of a score that is turned so that higher is more memorized; empty if no training
    label was changed.
    """
    examples = store.examples().slice(0, store.manifest.split_sizes[0])
    differs = pc.not_equal(examples["label"], examples["label_true"])
    # labels of an imported bank may be null, which counts as unchanged
    is_changed = np.asarray(pc.fill_null(differs, False).to_numpy(), bool)
    if not is_changed.any():
        return {}
    intervals = {}
    for name in names:
        _, values = store.score(name)
        defined = ~np.isnan(values)
        intervals[name] = auc_interval(values[defined], is_changed[defined])
    return intervals
