"""One pass over a bank, block of examples by block, in this process or on the workers of a pool.

What is asked of each block is a function of the block alone; blocks are cut by the size of the bank, never by the
number of workers; what they say comes back in the order of the examples. So a pass gives the same bits wherever it is
made. Each worker reads the row groups of its own blocks and no others.

What halves of the models say of every example, kept on disk until all of it is there.

Twenty halves of a million examples are half a gigabyte, of which a reliability needs two rows at a time.
"""

import itertools
import tempfile
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from threadpoolctl import threadpool_limits

from cluster.pool import Failure, Pool
from memscore.store.block_reader import Block, compute_block_boundaries, resolve_slice
from memscore.store.parquet import compute_row_group_size
from memscore.store.shards import SHARD_COLUMNS
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store

BLOCK_BYTES = 42 * 2**20
"""Of a block as read: one row group of 2,000 models of a bank with up to 262,144 examples."""
MAX_BLOCK_BYTES = 336 * 2**20
"""Of a block that is one row group, which is decoded once only if it is read whole: 2,000 models of ImageNet's size."""
MIN_PARALLEL_CELLS = 20_000_000
"""Models x examples from which on a bank goes to the workers: some seconds of one process, as starting workers is."""


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
        models: its models, rising.
        columns: of their shards.
        made: from a Block with these columns to what is wanted of it; it must be picklable, as a partial of a function.
    """

    store: str
    arm: str
    models: tuple[int, ...]
    columns: tuple[str, ...]
    made: Callable[[Block], Any]


class ColumnBuffer:
    """Tables of one value an example, filled block by block: arrays are made once, at their full length.

    Args:
        n: examples.

    Attributes:
        columns: name of each table -> its columns [n].
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self.columns: dict[str, dict[str, np.ndarray]] = {}

    def add(self, rows: slice, tables: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Take up what is known of some examples; every call has the same tables and columns."""
        for name, table in tables.items():
            into = self.columns.setdefault(name, {})
            for key, values in table.items():
                into.setdefault(key, np.empty(self.n, values.dtype))[rows] = values


def map_blocks(
    store: Store,
    arm: str,
    models: Sequence[int],
    columns: Sequence[str],
    made: Callable[[Block], Any],
    *,
    rows: slice | None = None,
    pool: Pool | None = None,
) -> Generator[tuple[slice, Any], None, None]:
    """One pass: what `made` says of each block.

    Args:
        store: open.
        arm: name of the arm.
        models: its models, rising.
        columns: of their shards.
        made: see Pass.
        rows: start and stop within train, validation, test; all of train if None.
        pool: where large banks are reduced, if it has several workers; None for here.

    Yields:
        The rows of a block and what was made of it, in the order of the examples.

    Raises:
        OSError: a block could not be reduced by any worker; says why.
    """
    n_rows = store.manifest.n_rows
    wanted = resolve_slice(rows or slice(0, store.manifest.split_sizes[0]), n_rows)
    jobs = split_into_jobs(wanted, n_rows, len(models), columns)
    shared = MapSpec(store=store.url, arm=arm, models=tuple(models), columns=tuple(columns), made=made)
    small = len(models) * (wanted.stop - wanted.start) < MIN_PARALLEL_CELLS
    if pool is None or small or pool.workers < 2:
        for job in jobs:
            yield slice(job.start, job.stop), _made(store, job, shared)
        return
    waiting: dict[int, Any] = {}
    following = iter(jobs)
    due = next(following, None)
    for job, outcome in pool.run(run_block_job, jobs, shared):
        if isinstance(outcome, Failure):
            raise OSError(
                f"examples {job.start} to {job.stop} of {arm} could not be scored: {outcome.error}; models are kept, "
                "and the same command scores them again"
            )
        waiting[job.start] = outcome
        del outcome
        while due is not None and due.start in waiting:
            yield slice(due.start, due.stop), waiting.pop(due.start)
            due = next(following, None)


def run_block_job(job: BlockJob, shared: MapSpec) -> Any:
    """Do one job on a worker.

    Args:
        job: which examples.
        shared: of which models, and what is made of them.

    Returns:
        What was made.

    Raises:
        StoreNotVisible: the store cannot be seen from here; names this node.
    """
    return _made(open_visible_store(shared.store), job, shared)


def split_into_jobs(rows: slice, n_rows: int, models: int, columns: Sequence[str]) -> list[BlockJob]:
    """The blocks of a pass: whole row groups, as many as BLOCK_BYTES hold, one, or equal parts of a large one.

    Args:
        rows: start and stop.
        n_rows: of a shard.
        models: how many.
        columns: of their shards.

    Returns:
        Jobs in the order of the examples.

    >>> split_into_jobs(slice(0, 20_000), 1_331_167, 2000, ["correct", "member", "logit_confidence", "gap"])
    [BlockJob(start=0, stop=16384), BlockJob(start=16384, stop=20000)]
    """
    row_bytes = models * sum(SHARD_COLUMNS[column.partition("_q")[0]].itemsize for column in columns)
    group = compute_row_group_size(n_rows)
    fit = max(BLOCK_BYTES // row_bytes, min(group, MAX_BLOCK_BYTES // row_bytes), 1)
    cuts = compute_block_boundaries(rows.start, rows.stop, fit, group)
    return [BlockJob(start=start, stop=stop) for start, stop in itertools.pairwise(cuts)]


def _made(store: Store, job: BlockJob, shared: MapSpec) -> Any:
    """Read one block and reduce it, with one BLAS thread: on busy cores more wait for each other."""
    whole = 2**62  # the job is the block
    [block] = store.read_blocks(shared.arm, shared.models, shared.columns, slice(job.start, job.stop), max_bytes=whole)
    with threadpool_limits(limits=1, user_api="blas"):
        return shared.made(block)


class DiskBuffer:
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
