"""One pass over a bank, block by block of examples, in this process or on a pool.

The result for a block is a function of the block alone; blocks are cut by the size of the bank, never by the number of
workers; results come back in the order of the examples. So a pass gives the same bits wherever it runs. Each worker
reads only the row groups of its own blocks.

`DiskBuffer` holds the estimates of halves of the models on disk until all examples are done: twenty halves of a million
examples are half a gigabyte, of which a reliability needs two rows at a time.
"""

import itertools
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from cluster.leftovers import create_temporary_folder
from cluster.pool import Failure, Pool
from memscore.store.block_reader import Block, compute_block_boundaries, resolve_slice
from memscore.store.parquet import compute_row_group_size
from memscore.store.shards import SHARD_COLUMNS
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store

BLOCK_BYTES = 42 * 2**20
"""Size of a block as read: one row group of 2,000 models of a bank with up to 262,144 examples."""
MAX_BLOCK_BYTES = 336 * 2**20
"""Maximum size of a block that is one row group, which is decoded only once if it is read whole: 2,000 models of
ImageNet's size."""
MIN_PARALLEL_CELLS = 20_000_000
"""Models x examples from which on a bank is reduced on workers: some seconds of one process, as long as starting
workers takes."""


@dataclass(frozen=True, kw_only=True)
class BlockJob:
    """Reduce the examples in rows start to stop of every shard."""

    start: int
    stop: int


@dataclass(frozen=True, kw_only=True, eq=False)
class MapSpec:
    """What all jobs of one pass share.

    Attributes:
        store: path or URL.
        arm: name of the arm.
        models: its models, ascending.
        columns: of their shards.
        map_fn: function of a Block with these columns; it must be picklable, such as a partial of a function.
    """

    store: str
    arm: str
    models: tuple[int, ...]
    columns: tuple[str, ...]
    map_fn: Callable[[Block], Any]


class ColumnBuffer:
    """Tables with one value per example, filled block by block; arrays are allocated once.

    Args:
        n: examples.

    Attributes:
        columns: name of each table -> its columns [n].
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.columns: dict[str, dict[str, np.ndarray]] = {}

    def write(self, rows: slice, tables: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Write the values of some examples; every call has the same tables and columns."""
        for name, table in tables.items():
            columns = self.columns.setdefault(name, {})
            for key, values in table.items():
                columns.setdefault(key, np.empty(self.n, values.dtype))[rows] = values


def map_blocks(
    store: Store,
    arm: str,
    models: Sequence[int],
    columns: Sequence[str],
    map_fn: Callable[[Block], Any],
    *,
    rows: slice | None = None,
    pool: Pool | None = None,
) -> Generator[tuple[slice, Any], None, None]:
    """Apply a function to every block of one pass; yield rows and result in the order of the examples.

    `rows` are start and stop within train, validation, test; all of train if None. A pool reduces large banks, if it
    has several workers. OSError if a block could not be reduced by any worker; the message has the reason.
    """
    n_rows = store.manifest.n_rows
    example_rows = resolve_slice(rows or slice(0, store.manifest.split_sizes[0]), n_rows)
    jobs = split_into_jobs(example_rows, n_rows, len(models), columns)
    shared = MapSpec(store=store.url, arm=arm, models=tuple(models), columns=tuple(columns), map_fn=map_fn)
    is_small = len(models) * (example_rows.stop - example_rows.start) < MIN_PARALLEL_CELLS
    if pool is None or is_small or pool.workers < 2:
        for job in jobs:
            yield slice(job.start, job.stop), _map_block(store, job, shared)
        return
    results_by_start: dict[int, Any] = {}
    remaining_jobs = iter(jobs)
    next_job = next(remaining_jobs, None)
    for job, result in pool.run(run_block_job, jobs, shared):
        if isinstance(result, Failure):
            raise OSError(
                f"examples {job.start} to {job.stop} of {arm} could not be scored: {result.error}; models stay "
                "stored, and the same command scores them again"
            )
        # workers finish in any order; results wait here until all examples before theirs are done
        results_by_start[job.start] = result
        # the loop's variable would keep it in memory until the next one arrives
        del result
        while next_job is not None and next_job.start in results_by_start:
            yield slice(next_job.start, next_job.stop), results_by_start.pop(next_job.start)
            next_job = next(remaining_jobs, None)


def run_block_job(job: BlockJob, shared: MapSpec) -> Any:
    """Run one job on a worker; StoreNotVisible names a node on which the store is not visible."""
    return _map_block(open_visible_store(shared.store), job, shared)


def split_into_jobs(rows: slice, n_rows: int, models: int, columns: Sequence[str]) -> list[BlockJob]:
    """Split a pass over rows start to stop of shards of n_rows rows into blocks of examples, in their order.

    A block is as many whole row groups as fit into BLOCK_BYTES, or one row group, or a part of one that is larger than
    MAX_BLOCK_BYTES.

    >>> split_into_jobs(slice(0, 20_000), 1_331_167, 2000, ["correct", "member", "logit_confidence", "gap"])
    [BlockJob(start=0, stop=16384), BlockJob(start=16384, stop=20000)]
    """
    row_bytes = models * sum(SHARD_COLUMNS[column.partition("_q")[0]].itemsize for column in columns)
    group_size = compute_row_group_size(n_rows)
    rows_per_block = max(BLOCK_BYTES // row_bytes, min(group_size, MAX_BLOCK_BYTES // row_bytes), 1)
    boundaries = compute_block_boundaries(rows.start, rows.stop, rows_per_block, group_size)
    return [BlockJob(start=start, stop=stop) for start, stop in itertools.pairwise(boundaries)]


def _map_block(store: Store, job: BlockJob, shared: MapSpec) -> Any:
    """Read one block and reduce it with one BLAS thread; on busy cores more would wait."""
    whole = 2**62  # the job is the block
    [block] = store.read_blocks(shared.arm, shared.models, shared.columns, slice(job.start, job.stop), max_bytes=whole)
    with threadpool_limits(limits=1, user_api="blas"):
        return shared.map_fn(block)


class DiskBuffer:
    """Arrays [S, n] by name in a temporary folder, written by columns and read by rows.

    Args:
        n: columns of every array.

    Attributes:
        names: in the order in which they were first written.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._dtypes: dict[str, tuple[np.dtype, int]] = {}
        self._folder = create_temporary_folder("scores")

    @property
    def names(self) -> list[str]:
        """Names of the arrays."""
        return list(self._dtypes)

    def write(self, name: str, columns: slice, values: np.ndarray) -> None:
        """Write some columns of an array.

        Args:
            name: of the array.
            columns: which, start and stop set.
            values: [S, stop - start]; S and type are the same in every call of a name.
        """
        new = name not in self._dtypes
        self._dtypes[name] = (values.dtype, len(values))
        with open(Path(self._folder.name) / name, "w+b" if new else "r+b") as file:
            for number, row in enumerate(values):
                file.seek((number * self.n + columns.start) * values.itemsize)
                file.write(row.tobytes())

    def read_pairs(self, name: str, sign: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield rows 0 and 1, 2 and 3 and so on of an array times a sign, once all are written."""
        dtype, count = self._dtypes[name]
        for number in range(0, count, 2):
            with open(Path(self._folder.name) / name, "rb") as file:
                file.seek(number * self.n * dtype.itemsize)
                pair = np.frombuffer(file.read(2 * self.n * dtype.itemsize), dtype).reshape(2, self.n) * sign
            yield pair[0], pair[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Delete the temporary folder."""
        self._folder.cleanup()
