"""Names of classes beside their numbers, in tables in memory; stored files hold the numbers alone."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

NAME_COLUMNS = {"label": "label_name", "label_true": "label_true_name"}
"""Columns of labels -> the columns of their names."""


def find_class_names(origin: Mapping[str, Any] | None, n_classes: int) -> tuple[str, ...]:
    """Return the name of each class from data.json, or its number where the data have no names."""
    names = (origin or {}).get("class_names")
    if isinstance(names, list) and len(names) == n_classes:
        return tuple(map(str, names))
    return tuple(map(str, range(n_classes)))


def name_labels(table: pa.Table, names: Sequence[str]) -> pa.Table:
    """Append the columns of NAME_COLUMNS for the labels that a table has; null stays null."""
    for column, name_column in NAME_COLUMNS.items():
        if column in table.column_names:
            labels = table[column].to_pylist()
            values = [None if label is None else format_class(label, names) for label in labels]
            table = table.append_column(name_column, pa.array(values, pa.string()))
    return table


def read_names(table: pa.Table) -> tuple[str, ...]:
    """Return the names of the classes by number, from a table that name_labels made; numbers without its columns."""
    if "label_name" not in table.column_names:
        return ()
    names = dict(zip(table["label"].to_pylist(), table["label_name"].to_pylist(), strict=True))
    known = [label for label in names if label is not None]
    return tuple(names.get(label) or str(label) for label in range(max(known, default=-1) + 1))


def has_names(names: Sequence[str]) -> bool:
    """Return whether names are more than the numbers of their classes."""
    return list(names) != [str(number) for number in range(len(names))]


def format_class(label: int, names: Sequence[str]) -> str:
    """Return the name of a class, or its number where it has none."""
    return names[label] if 0 <= label < len(names) else str(label)
