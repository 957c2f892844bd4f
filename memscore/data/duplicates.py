"""Exact copies: images of a data set that are equal, pixel for pixel, within a split and across splits.

Images are compared by a hash of their uint8 pixels, so the cost is that of reading each image once, and 16 bytes an
image are kept. Images that look alike are no exact copies: see memscore/analysis/near_copies.py.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.data.splits import Splits

SPLIT_NAMES = ("train", "validation", "test")
PAIRS = (
    *(("train", "train"), ("train", "validation"), ("train", "test")),
    *(("validation", "validation"), ("validation", "test"), ("test", "test")),
)
"""Splits that are compared with each other, and with themselves."""

CopyCounts = Mapping[str, Mapping[str, Any]]
"""Splits, as "train" or "train-test", -> what count_copies says of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """Groups of equal images; rows = train, validation, test.

    Attributes:
        groups: int32 [N], number of the group of equal images that a row is in; -1 for an image without a copy.
        ids: str [N].
        labels: int64 [N], as trained.
        sizes: examples of each split.
    """

    groups: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    sizes: tuple[int, int, int]

    @property
    def split_numbers(self) -> np.ndarray:
        """int64 [N], position of a row's split in SPLIT_NAMES."""
        return np.repeat(np.arange(3), self.sizes)


def find_copies(splits: Splits, sizes: tuple[int, int, int] | None = None) -> Copies:
    """Find the exact copies of a data set within and across its splits, or among the first examples of each."""
    datasets = (splits.train, splits.validation, splits.test)
    sizes = sizes or (len(datasets[0]), len(datasets[1]), len(datasets[2]))
    parts = list(zip(datasets, sizes, strict=True))
    return Copies(
        groups=group_equal(np.concatenate([part.image_digests[:size] for part, size in parts])),
        ids=np.concatenate([part.ids[:size] for part, size in parts]),
        labels=np.concatenate([part.labels[:size] for part, size in parts]),
        sizes=sizes,
    )


def group_equal(digests: np.ndarray) -> np.ndarray:
    """Number the groups of equal digests by their first rows: int32 [N], -1 for one that is equal to no other."""
    _, first, inverse, counts = np.unique(digests, return_index=True, return_inverse=True, return_counts=True)
    copied = counts > 1
    # The sorted digests are in a random order. argsort of argsort is the rank of each group's first row.
    numbers = np.full(len(counts), -1, np.int32)
    numbers[copied] = np.argsort(np.argsort(first[copied]))
    return numbers[inverse]


def count_copies(copies: Copies) -> dict[str, dict[str, Any]]:
    """Count the copies within each split and between each two.

    Returns:
        "train", "train-test", ... -> `examples`, split -> number of its examples with a copy in the other split (in
        the same one); `groups`, number of different images that these are; `groups_with_other_labels`, those whose
        copies have two labels or more; `first`, the ids of the first two copies, null if there are none.
    """
    numbers, n_groups = copies.split_numbers, int(copies.groups.max(initial=-1)) + 1
    rows = np.flatnonzero(copies.groups >= 0)
    group, split, label = copies.groups[rows], numbers[rows], copies.labels[rows]
    # sizes[s, g] is the number of examples of split s in group g.
    sizes = np.stack([np.bincount(group[split == s], minlength=n_groups) for s in range(3)])
    counts: dict[str, dict[str, Any]] = {}
    for pair in PAIRS:
        a, b = (SPLIT_NAMES.index(name) for name in pair)
        joined = sizes[a] > 1 if a == b else (sizes[a] > 0) & (sizes[b] > 0)
        inside = np.flatnonzero(joined[group] & ((split == a) | (split == b)))
        lowest, highest = np.full(n_groups, np.iinfo(np.int64).max), np.full(n_groups, -1)
        np.minimum.at(lowest, group[inside], label[inside])
        np.maximum.at(highest, group[inside], label[inside])
        first = None
        if len(inside):
            # Rows are train, validation, test: the first row is in split a; its copy is the next one that is in b.
            others = inside[(group[inside] == group[inside[0]]) & (split[inside] == b)]
            first = copies.ids[rows[[inside[0], others[int(a == b)]]]].tolist()
        counts["-".join(dict.fromkeys(pair))] = {
            "examples": {SPLIT_NAMES[s]: int(sizes[s][joined].sum()) for s in dict.fromkeys((a, b))},
            "groups": int(joined.sum()),
            "groups_with_other_labels": int((highest > lowest)[joined].sum()),
            "first": first,
        }
    return counts


def find_twins(copies: Copies) -> dict[str, list[Any]]:
    """Find the copies of each training example.

    Returns:
        Columns [n_train]: `twin`, id of the first other copy in the training set, None if there is none; `copies`,
        number of these; `held_out_twin`, id of the first copy in validation or test, None if there is none.
    """
    n_train = copies.sizes[0]
    columns: dict[str, list[Any]] = {
        "twin": [None] * n_train,
        "copies": [0] * n_train,
        "held_out_twin": [None] * n_train,
    }
    for rows in split_by_group(copies.groups):
        trained, held_out = rows[rows < n_train].tolist(), rows[rows >= n_train]
        for row in trained:
            columns["copies"][row] = len(trained) - 1
            if len(trained) > 1:
                columns["twin"][row] = str(copies.ids[trained[row == trained[0]]])
            if len(held_out):
                columns["held_out_twin"][row] = str(copies.ids[held_out[0]])
    return columns


def split_by_group(groups: np.ndarray) -> list[np.ndarray]:
    """Split the rows that have a copy into one array of ascending rows for each group."""
    rows = np.flatnonzero(groups >= 0)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    return np.split(rows, np.flatnonzero(np.diff(groups[rows])) + 1) if len(rows) else []


def build_copies_table(copies: Copies, fingerprint: str) -> pa.Table:
    """Build a table of the examples that have an exact copy: row, id, split, label, group; counts in its metadata."""
    rows = np.concatenate([np.empty(0, np.int64), *split_by_group(copies.groups)]).astype(np.int64)
    metadata = {"fingerprint": fingerprint, "counts": json.dumps(count_copies(copies))}
    columns = {
        "row": pa.array(rows.astype(np.int32)),
        "id": pa.array(copies.ids[rows].tolist(), pa.string()),
        "split": pa.array(np.array(SPLIT_NAMES)[copies.split_numbers[rows]].tolist(), pa.string()),
        "label": pa.array(copies.labels[rows]),
        "group": pa.array(copies.groups[rows]),
    }
    return pa.table(columns).replace_schema_metadata(metadata)
