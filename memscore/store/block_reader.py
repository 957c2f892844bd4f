"""Read models x examples in blocks of examples that fit in memory."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from memscore.store.damage_error import name_damage
from memscore.store.filesystem import Folder
from memscore.store.parquet import ROW_GROUP_SIZE, CorruptFile, compute_row_group_size, open_parquet, to_columns
from memscore.store.remote import StoreUnavailable

THREADS = 4
MAX_CELLS = 2**18  # models x examples that are processed at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Columns of all models for some consecutive examples.

    Attributes:
        rows: rows of the shards.
        columns: name -> [M, n], models in the requested order, types as stored.
    """

    rows: slice
    columns: dict[str, np.ndarray]


def read_blocks(
    folder: Folder, shards: Sequence[str], columns: Sequence[str], rows: slice, max_bytes: int
) -> Iterator[Block]:
    """Read blocks that cover the rows in order.

    A caller's loop variable keeps the previous block alive while the next one is read, so each takes half of max_bytes.

    Args:
        folder: the store's folder.
        shards: paths within it, one per model.
        columns: names of columns.
        rows: start and stop, both set.
        max_bytes: memory of two neighbouring blocks together.

    Yields:
        Blocks; every page read was verified.

    Raises:
        CorruptFile: a damaged page, or a shard without a row or a column; the message names the file.
    """
    # All models of an arm have the same columns, so one footer tells the types of all.
    types, group = _read_types(folder, shards[0], columns)
    row_bytes = len(shards) * sum(kind.itemsize for kind in types.values())
    boundaries = compute_block_boundaries(rows.start, rows.stop, max(1, max_bytes // 2 // row_bytes), group)
    with ThreadPoolExecutor(THREADS) as pool:
        for start, stop in itertools.pairwise(boundaries):
            arrays = {name: np.empty((len(shards), stop - start), kind) for name, kind in types.items()}

            # Defaults bind this block's start and arrays: threads must not see those of the next block.
            def copy_model(model: int, start: int = start, arrays: dict[str, np.ndarray] = arrays) -> None:
                _copy_rows(folder, shards[model], {name: array[model] for name, array in arrays.items()}, start)

            # Exhausting the map waits for all threads and raises the first error of one.
            for _ in pool.map(copy_model, range(len(shards))):
                pass
            yield Block(rows=slice(start, stop), columns=arrays)
            # Both hold the block too: now a caller that has dropped it frees its memory before the next one is read.
            del arrays, copy_model


def split_blocks(blocks: Iterable[Block], cells: int = MAX_CELLS) -> Iterator[Block]:
    """Split blocks into views of at most `cells` models x examples, so that computations stay in the cache."""
    for block in blocks:
        models = len(next(iter(block.columns.values())))
        boundaries = [*range(block.rows.start, block.rows.stop, max(cells // models, 1)), block.rows.stop]
        for start, stop in itertools.pairwise(boundaries):
            within = slice(start - block.rows.start, stop - block.rows.start)
            yield Block(rows=slice(start, stop), columns={name: v[:, within] for name, v in block.columns.items()})


def read_columns(folder: Folder, path: str, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some columns of a file; only their pages are read, and each is verified; CorruptFile names the file."""
    with name_damage(folder, path), folder.open(path) as stream:
        try:
            return to_columns(open_parquet(stream).read(columns=list(columns), use_threads=False))
        except (CorruptFile, StoreUnavailable):
            raise
        except Exception as error:  # a damaged page makes the parser fail in many ways
            raise CorruptFile(f"unreadable column {' or '.join(columns)}: {error}") from error


def require_ascending(indices: Sequence[int]) -> list[int]:
    """Return the indices of models as a list; ValueError unless they are ascending and unique, and there is one."""
    indices = list(indices)
    if not indices or indices != sorted(set(indices)):
        raise ValueError(f"blocks take models in rising order and at least one, got {indices[:8]}; sort them")
    return indices


def resolve_slice(rows: slice, n_rows: int) -> slice:
    """Set both ends of a slice of the rows; ValueError if it is empty, exceeds them, or skips some."""
    start, stop = rows.start or 0, n_rows if rows.stop is None else rows.stop
    if not 0 <= start < stop <= n_rows or rows.step not in {None, 1}:
        raise ValueError(f"rows must be a slice within 0 to {n_rows} that is not empty, got {rows}")
    return slice(start, stop)


def compute_block_boundaries(start: int, stop: int, fit: int, group: int = ROW_GROUP_SIZE) -> list[int]:
    """Compute boundaries from start to stop of blocks of at most fit rows: at row groups, or in equal parts of one.

    They ascend; apart from the first and the last, they do not depend on start and stop.

    >>> compute_block_boundaries(0, 50_000, 40_000)
    [0, 38912, 50000]
    >>> compute_block_boundaries(0, 5_000, 1_500)
    [0, 1024, 2048, 3072, 4096, 5000]
    """
    # Boundaries count from row 0, not from `start`, so that equal rows are in equal blocks whatever part is asked for.
    if fit >= group:
        boundaries = list(range(0, stop, fit // group * group))
    else:
        # As few equal parts of a row group as fit, rounded up: each part decodes the whole group again.
        part = -(-group // -(-group // fit))
        boundaries = [first + within for first in range(0, stop, group) for within in range(0, group, part)]
    return [start, *(boundary for boundary in boundaries if start < boundary < stop), stop]


def _read_types(folder: Folder, shard: str, columns: Sequence[str]) -> tuple[dict[str, np.dtype], int]:
    """Read NumPy types of the columns and rows of a row group from the footer of one shard."""
    try:
        with folder.open(shard) as stream:
            file = open_parquet(stream)
            schema = file.schema_arrow
    except CorruptFile as error:
        raise _corrupt_file_error(folder, shard, error) from error
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise ValueError(f"{folder.display_path(shard)} has no column {missing[0]!r}; it has {', '.join(schema.names)}")
    types = {name: np.dtype(schema.field(name).type.to_pandas_dtype()) for name in columns}
    return types, compute_row_group_size(file.metadata.num_rows)


def _copy_rows(folder: Folder, shard: str, arrays: dict[str, np.ndarray], start: int) -> None:
    """Copy rows of one shard into one row of each array; decode only the row groups they touch."""
    n = len(next(iter(arrays.values())))
    try:
        with folder.open(shard) as stream:
            file = open_parquet(stream, pre_buffer=not folder.local)
            rows = file.metadata.row_group(0).num_rows  # older versions wrote smaller groups
            groups = list(range(start // rows, -(-(start + n) // rows)))
            skip = start - groups[0] * rows
            table = file.read_row_groups(groups, columns=list(arrays), use_threads=False)
        for name, values in arrays.items():
            values[:] = table[name].to_numpy()[skip : skip + n]
    except (FileNotFoundError, StoreUnavailable):
        raise
    except Exception as error:  # a damaged file makes the parser fail in many ways
        raise _corrupt_file_error(folder, shard, error) from error


def _corrupt_file_error(folder: Folder, shard: str, error: Exception) -> CorruptFile:
    """Return the error that names a shard, the reason and what to do."""
    return CorruptFile(
        f"{folder.display_path(shard)} is damaged: {error}; "
        f"`python -m memscore.bank verify {folder.display_name} --set-aside`, and the next estimate trains it again"
    )
