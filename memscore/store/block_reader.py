"""Reading models x examples in blocks of examples that fit in memory."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from memscore.store.filesystem import Folder
from memscore.store.parquet import ROW_GROUP_SIZE, CorruptFile, compute_row_group_size, open_parquet
from memscore.store.remote import StoreUnavailable

THREADS = 4
MAX_CELLS = 2**18  # models x examples that are worked on at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """Every model's columns for some consecutive examples.

    Attributes:
        rows: which rows of the shards.
        columns: name -> [M, n], models in the order asked for, types as on file.
    """

    rows: slice
    columns: dict[str, np.ndarray]


def read_blocks(
    folder: Folder, shards: Sequence[str], columns: Sequence[str], rows: slice, max_bytes: int
) -> Iterator[Block]:
    """Blocks that cover the rows in order.

    A caller's loop variable keeps the previous block alive while the next one is read, so each takes half of max_bytes.

    Args:
        folder: the store's folder.
        shards: paths within it, one a model.
        columns: names of columns.
        rows: start and stop, both set.
        max_bytes: what two neighbouring blocks may take together.

    Yields:
        Blocks; every page read was checked.

    Raises:
        CorruptFile: a page, or a shard that lacks a row or a column; names the file.
    """
    types, group = _types(folder, shards[0], columns)
    row_bytes = len(shards) * sum(kind.itemsize for kind in types.values())
    cuts = compute_block_boundaries(rows.start, rows.stop, max(1, max_bytes // 2 // row_bytes), group)
    with ThreadPoolExecutor(THREADS) as pool:
        for start, stop in itertools.pairwise(cuts):
            into = {name: np.empty((len(shards), stop - start), kind) for name, kind in types.items()}

            def fill(model: int, start: int = start, into: dict[str, np.ndarray] = into) -> None:
                _fill(folder, shards[model], {name: array[model] for name, array in into.items()}, start)

            for _ in pool.map(fill, range(len(shards))):
                pass
            yield Block(rows=slice(start, stop), columns=into)
            del into, fill


def split_blocks(blocks: Iterable[Block], cells: int = MAX_CELLS) -> Iterator[Block]:
    """The same blocks a few examples at a time, as views: what is computed from them stays in cache.

    Args:
        blocks: as read.
        cells: models x examples at most, but at least one example.

    Yields:
        Blocks, in order.
    """
    for block in blocks:
        models = len(next(iter(block.columns.values())))
        cuts = [*range(block.rows.start, block.rows.stop, max(cells // models, 1)), block.rows.stop]
        for start, stop in itertools.pairwise(cuts):
            within = slice(start - block.rows.start, stop - block.rows.start)
            yield Block(rows=slice(start, stop), columns={name: v[:, within] for name, v in block.columns.items()})


def require_ascending(indices: Sequence[int]) -> list[int]:
    """The indices as they are, if they name the rows of a block without doubt.

    Args:
        indices: of models.

    Returns:
        The same.

    Raises:
        ValueError: none, one twice, or out of order.
    """
    indices = list(indices)
    if not indices or indices != sorted(set(indices)):
        raise ValueError(f"blocks take models in rising order and at least one, got {indices[:8]}; sort them")
    return indices


def resolve_slice(rows: slice, n_rows: int) -> slice:
    """Rows as a slice with a start and a stop.

    Args:
        rows: a slice of 0 to n_rows; open ends reach to the ends.
        n_rows: rows of a shard.

    Returns:
        The slice, both ends set.

    Raises:
        ValueError: it is empty, reaches outside, or skips rows.
    """
    start, stop = rows.start or 0, n_rows if rows.stop is None else rows.stop
    if not 0 <= start < stop <= n_rows or rows.step not in {None, 1}:
        raise ValueError(f"rows must be a slice within 0 to {n_rows} that is not empty, got {rows}")
    return slice(start, stop)


def compute_block_boundaries(start: int, stop: int, fit: int, group: int = ROW_GROUP_SIZE) -> list[int]:
    """Where blocks of at most fit rows begin and end: between row groups, or in equal parts of one.

    Args:
        start: first row.
        stop: one past the last.
        fit: most rows a block, at least 1.
        group: rows of a row group.

    Returns:
        Rising, from start to stop; the same cuts whatever start and stop are, but for those two.

    >>> edges(0, 50_000, 40_000)
    [0, 38912, 50000]
    >>> edges(0, 5_000, 1_500)
    [0, 1024, 2048, 3072, 4096, 5000]
    """
    if fit >= group:
        cuts = list(range(0, stop, fit // group * group))
    else:
        part = -(-group // -(-group // fit))
        cuts = [first + within for first in range(0, stop, group) for within in range(0, group, part)]
    return [start, *(cut for cut in cuts if start < cut < stop), stop]


def _types(folder: Folder, shard: str, columns: Sequence[str]) -> tuple[dict[str, np.dtype], int]:
    """NumPy types of the columns and rows of a row group, from the footer of one shard."""
    try:
        with folder.open(shard) as stream:
            file = open_parquet(stream)
            schema = file.schema_arrow
    except CorruptFile as error:
        raise _damaged(folder, shard, error) from error
    missing = [name for name in columns if name not in schema.names]
    if missing:
        raise ValueError(f"{folder.display_path(shard)} has no column {missing[0]!r}; it has {', '.join(schema.names)}")
    types = {name: np.dtype(schema.field(name).type.to_pandas_dtype()) for name in columns}
    return types, compute_row_group_size(file.metadata.num_rows)


def _fill(folder: Folder, shard: str, into: dict[str, np.ndarray], start: int) -> None:
    """Copy the rows from start on of one shard into one row of each array, decoding only the row groups they touch."""
    n = len(next(iter(into.values())))
    try:
        with folder.open(shard) as stream:
            file = open_parquet(stream, pre_buffer=not folder.local)
            rows = file.metadata.row_group(0).num_rows  # older versions wrote smaller groups of many rows
            groups = list(range(start // rows, -(-(start + n) // rows)))
            skip = start - groups[0] * rows
            table = file.read_row_groups(groups, columns=list(into), use_threads=False)
        for name, values in into.items():
            values[:] = table[name].to_numpy()[skip : skip + n]
    except (FileNotFoundError, StoreUnavailable):
        raise
    except Exception as error:  # a damaged file misleads the parser in more ways than it has errors for
        raise _damaged(folder, shard, error) from error


def _damaged(folder: Folder, shard: str, error: Exception) -> CorruptFile:
    """The error that names a shard, the reason and the way out."""
    return CorruptFile(
        f"{folder.display_path(shard)} is damaged: {error}; "
        f"`python -m memscore.bank verify {folder.display_name} --set-aside`, and the next estimate trains it again"
    )
