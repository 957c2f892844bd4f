"""Read columns of a user's Parquet file a few rows at a time, since small pages may unpack to any size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from memscore.reading_limit import require_memory

BATCH_BYTES, MOST_ROWS = 2**28, 2**16
"""Bytes that a batch may take, and its rows where these are small."""
VALUE_BYTES = 64
"""What Python adds to a value."""


def read_schema(path: Path, advice: str) -> pa.Schema:
    """Read the schema of a Parquet file.

    Args:
        path: the file.
        advice: what to do where it is none, for the message.

    Returns:
        The schema.

    Raises:
        ValueError: no readable Parquet file.
    """
    try:
        return pq.read_schema(path)
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError(_describe_damage(path, error, advice)) from error


def iterate_columns(
    path: Path, columns: Sequence[str], advice: str, most_rows: int = MOST_ROWS
) -> Iterator[pa.RecordBatch]:
    """Read columns in batches that take little memory.

    Args:
        path: the file.
        columns: their names.
        advice: what to do where it cannot be read, for the message.
        most_rows: of a batch.

    Yields:
        The batches, in the order of rows.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            n_rows = min(most_rows, _count_rows(file.metadata, set(columns)))
            yield from file.iter_batches(n_rows, columns=list(columns))
    except (pa.ArrowException, OSError, MemoryError) as error:
        raise ValueError(_describe_damage(path, error, advice)) from error


def read_columns(path: Path, columns: Sequence[str], advice: str) -> dict[str, list[Any]]:
    """Read columns as lists.

    Args:
        path: the file.
        columns: their names.
        advice: what to do where it cannot be read, for the message.

    Returns:
        Name -> values.

    Raises:
        ValueError: the file is damaged, or its values are larger than the limit.
    """
    # Read twice: nothing is kept before it is known that all of it fits. What is stored does not tell, since a
    # dictionary of one value and a run of a million rows take some hundred bytes.
    n_bytes = 0
    for batch in iterate_columns(path, columns, advice):
        n_bytes += batch.nbytes + VALUE_BYTES * batch.num_rows * len(columns)
        require_memory(n_bytes, f"{path}, unpacked,")
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for batch in iterate_columns(path, columns, advice):
        for name in columns:
            values[name] += batch.column(name).to_pylist()
    return values


def _count_rows(metadata: pq.FileMetaData, columns: set[str]) -> int:
    """Count the rows of a batch that cannot take more than BATCH_BYTES."""
    # A dictionary page stores a value once for all rows that have it, so a row may be as large as its row group.
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        chunks = (chunk for chunk in map(group.column, range(group.num_columns)))
        named = [chunk for chunk in chunks if chunk.path_in_schema.partition(".")[0] in columns]
        # numbers have one size, whatever their pages hold
        sizes = [chunk.total_uncompressed_size for chunk in named if chunk.physical_type == "BYTE_ARRAY"]
        largest = max(largest, *sizes, 0)
    return max(1, BATCH_BYTES // largest)


def _describe_damage(path: Path, error: Exception, advice: str) -> str:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path} is no readable Parquet file ({reason}); {advice}"
