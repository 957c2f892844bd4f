"""Copies of the examples of a page: those with equal images, and near ones where they were looked for."""

from typing import Any

import numpy as np

from memscore.report.omissions import Omission, read_or_omit
from memscore.store.copy_counts import COPIES_PATH, NEAR_COPIES_PATH
from memscore.store.store import Store

MAX_COPIES = 20  # that are listed for one example
EXACT_ABOUT, NEAR_ABOUT = "Training examples with the same image", "and those with nearly the same one"


def collect_twins(store: Store, n: int, omissions: list[Omission]) -> dict[str, Any]:
    """Collect for each training example that has copies among the training examples their rows, exact ones first."""
    twins: dict[int, list[int]] = {}
    for path, what, read_pairs in (
        (COPIES_PATH, "exact copies", read_exact_copies),
        (NEAR_COPIES_PATH, "near copies", read_near_copies),
    ):
        if store.folder.exists(path):
            pairs = read_or_omit(what, omissions, read_pairs, store, n)
            # exact ones first; a near copy that is exact too is listed once
            for row, other in pairs or []:
                others = twins.setdefault(row, [])
                if other not in others:
                    others.append(other)
    about = EXACT_ABOUT + (f", {NEAR_ABOUT}" if store.folder.exists(NEAR_COPIES_PATH) else "")
    return {"twins": {str(row): others for row, others in sorted(twins.items())}, "twin_about": f"{about}."}


def read_exact_copies(store: Store, n: int) -> list[tuple[int, int]]:
    """Read the pairs of training examples with equal images, each in both orders."""
    table = store.read_table(COPIES_PATH)
    # groups are over all splits, and a page shows training examples
    rows, groups = (np.asarray(table[name].to_numpy(), np.int64) for name in ("row", "group"))
    members: dict[int, list[int]] = {}
    for row, group in zip(rows.tolist(), groups.tolist(), strict=True):
        if row < n:
            members.setdefault(group, []).append(row)
    # of a large group, such as blank images, the first ones stand for all
    return [
        (row, other) for each in members.values() for row in each for other in each[: MAX_COPIES + 1] if other != row
    ]


def read_near_copies(store: Store, n: int) -> list[tuple[int, int]]:
    """Read the pairs of training examples with nearly equal images, each in both orders."""
    table = store.read_table(NEAR_COPIES_PATH)
    # the file has each image with its nearest one, which may have another nearest
    pairs = zip(table["row"].to_pylist(), table["nearest_row"].to_pylist(), strict=True)
    return [pair for row, other in pairs if row < n and other < n for pair in ((row, other), (other, row))]
