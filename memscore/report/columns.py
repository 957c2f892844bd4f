"""The columns of a page: one value for each example shown, as typed arrays, and what the script knows of each."""

from typing import Any

import numpy as np

NO_CLASS = 65_535
"""Number of a class that is not known."""


class Columns:
    """Columns by their ids in the page, and their descriptions; ids count from c0."""

    def __init__(self) -> None:
        self.values: dict[str, np.ndarray | list[str]] = {}
        self.described: list[dict[str, Any]] = []

    def add_values(self, values: np.ndarray | list[str], name: str = "") -> str:
        """Add values that are not listed by themselves, such as the ends of intervals; return their id.

        A matrix with a row for each example is one column, row by row.
        """
        return self.add(name, values, role="aux", title="")

    def add(self, name: str, values: np.ndarray | list[str], *, role: str, title: str, **more: Any) -> str:
        """Add a column that the reader sees; return its id.

        Numbers become float32, whole numbers the smallest type that holds them, and truth values bytes. `more` may have
        unit, direction, source, about, group, chosen, lo, hi, se and null.
        """
        array = values if isinstance(values, list) else pack(np.asarray(values))
        # short ids: each stands in the page some four times
        column = f"c{len(self.values)}"
        self.values[column] = array
        # a truth value is a byte in the page, and the script must not show it as a number
        is_flag = isinstance(values, np.ndarray) and values.dtype == bool
        kind = "str" if isinstance(array, list) else "bool" if is_flag else describe_type(array)
        described: dict[str, Any] = {
            "id": column,
            "name": name,
            "title": title,
            "role": role,
            "type": kind,
            "unit": "",
            "direction": 0,
            "source": "",
            "about": "",
            "null": "nan" if kind == "f4" else None,
            "lo": None,
            "hi": None,
            "se": None,
        }
        self.described.append(described | more)
        return column


def pack(values: np.ndarray) -> np.ndarray:
    """Convert values to the smallest of the types that the page's script reads: f4, u1, u2 and i4, little endian."""
    if values.dtype.kind == "f":
        return values.astype("<f4")
    if values.dtype.kind == "b":
        return values.astype("u1")
    # the smallest type that holds all values: a page is mailed
    highest, lowest = int(values.max(initial=0)), int(values.min(initial=0))
    if lowest < 0 or highest > np.iinfo(np.uint16).max:
        return values.astype("<i4")
    return values.astype("u1" if highest <= np.iinfo(np.uint8).max else "<u2")


def describe_type(values: np.ndarray) -> str:
    """Name the type of an array as the page's script does.

    >>> describe_type(pack(np.array([1, 300]))), describe_type(pack(np.array([0.5])))
    ('u2', 'f4')
    """
    return f"{values.dtype.kind}{values.dtype.itemsize}"
