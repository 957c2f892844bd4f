"""The forget sets of a store's oracles, found from their learning events, and what oracles answer on what they lack.

A store has no list of forget sets. An oracle has learning events of the examples that it was trained on alone, so the
others are its forget set; the hash of their rows is that of the rows of trials on this set.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscore.report.columns import NO_CLASS
from memscore.store.block_reader import read_columns
from memscore.store.json_records import hash_record
from memscore.store.store import Store


@dataclass(kw_only=True)
class ForgetSet:
    """The rows of a forget set, and the keys of the oracles without it."""

    rows: list[int]
    oracles: list[str]


def find_forget_sets(store: Store, n: int) -> dict[str, ForgetSet]:
    """Find the forget sets of all oracles of a store, by the hash that rows of trials have; n training examples."""
    sets: dict[str, ForgetSet] = {}
    for name in sorted(store.folder.names("receipts")):
        if not name.startswith("oracle-"):
            continue
        receipt = store.read_receipt(name.removesuffix(".json")) or {}
        key = str(receipt.get("key"))
        if not store.has_events(key):
            continue
        events = read_columns(store.folder, f"events/{key}.parquet", ["row", "confidence"])
        visited = events["row"][~np.isnan(events["confidence"])]
        rows = np.setdiff1d(np.arange(n), visited.astype(np.int64)).tolist()
        # an oracle that dropped its last batch each epoch may have missed an example; then the set is not known
        if len(rows) == receipt.get("removed", len(rows)):
            digest = hash_record({"rows": rows})
            sets.setdefault(digest, ForgetSet(rows=rows, oracles=[])).oracles.append(key)
    return sets


def count_left_out_answers(
    store: Store, sets: Mapping[str, ForgetSet], n: int, n_classes: int
) -> dict[str, Any] | None:
    """Count what oracles answer on the examples that they were not trained on.

    Returns the most frequent answer of each example, NO_CLASS without an oracle, its share of the oracles, and the
    number of oracles; None where no oracle's outputs are stored.
    """
    counts: dict[int, np.ndarray] = {}
    n_oracles = 0
    for forget_set in sets.values():
        for key in forget_set.oracles:
            if not store.has_outputs(key):
                continue
            n_oracles += 1
            # logits alone: embeddings may be a hundred times as large
            answers = store.read_logits(key)[forget_set.rows].argmax(axis=1)
            for row, answer in zip(forget_set.rows, answers.tolist(), strict=True):
                counts.setdefault(row, np.zeros(n_classes, np.int64))[answer] += 1
    if not counts:
        return None
    most, share = np.full(n, NO_CLASS, np.int64), np.full(n, np.nan)
    for row, count in counts.items():
        most[row] = int(count.argmax())
        share[row] = count.max() / count.sum()
    return {"answers": most, "share": share, "oracles": n_oracles}
