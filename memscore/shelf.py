"""What halves of the models say of every example, kept on disk until all of it is there.

Twenty halves of a million examples are half a gigabyte, of which a reliability needs two rows at a time.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np


class Shelf:
    """Arrays [S, n] by name in a temporary folder, written some columns at a time and read some rows at a time.

    Args:
        n: columns of every array.

    Attributes:
        names: in the order in which they were first put.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._kinds: dict[str, tuple[np.dtype, int]] = {}
        self._folder = tempfile.TemporaryDirectory(prefix="memscore-")

    @property
    def names(self) -> list[str]:
        """Of what is here."""
        return list(self._kinds)

    def put(self, name: str, columns: slice, values: np.ndarray) -> None:
        """Keep some columns of an array.

        Args:
            name: of the array.
            columns: which, start and stop set.
            values: [S, stop - start]; S and type are the same in every call of a name.
        """
        new = name not in self._kinds
        self._kinds[name] = (values.dtype, len(values))
        with open(Path(self._folder.name) / name, "w+b" if new else "r+b") as file:
            for number, row in enumerate(values):
                file.seek((number * self.n + columns.start) * values.itemsize)
                file.write(row.tobytes())

    def pairs(self, name: str, sign: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows 0 and 1, 2 and 3 and so on of an array, each times a sign; every column must have been put."""
        kind, count = self._kinds[name]
        for number in range(0, count, 2):
            with open(Path(self._folder.name) / name, "rb") as file:
                file.seek(number * self.n * kind.itemsize)
                both = np.frombuffer(file.read(2 * self.n * kind.itemsize), kind).reshape(2, self.n) * sign
            yield both[0], both[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the disk back."""
        self._folder.cleanup()
