"""Memorization by regression of an arm, where it is requested: a pass that fits, and one that applies."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from cluster.pool import Pool
from memscore.estimators.memorization_stacked import (
    MIN_EXAMPLES,
    MIN_MODELS,
    SIGNALS,
    STACKED,
    StackedFit,
    StackedSets,
    complete_stacked,
    compute_stacked_columns,
    draw_stacked_sets,
    fit_stacked,
    sum_for_stacked,
)
from memscore.pipeline.map_reduce import ColumnBuffer, map_blocks
from memscore.seeds import generator
from memscore.store.block_reader import Block, split_blocks
from memscore.store.store import Store
from memscore.subsets.designs import Arm


def check_stacked(examples: int, models: int) -> None:
    """Raise ValueError if the regression has too few examples or models."""
    if examples < MIN_EXAMPLES:
        raise ValueError(
            f"--stacked fits a regression over examples and needs {MIN_EXAMPLES} of them or more, got {examples}; "
            "leave it out, memorization_blend has no such limit"
        )
    if models < MIN_MODELS:
        raise ValueError(f"--stacked needs {MIN_MODELS} models or more, got {models}; leave it out, or give --models")


def is_stacked_stored(store: Store, suffix: str) -> bool:
    """Whether an arm was scored with the regression before, so that a new run computes it again."""
    return f"{STACKED}_{suffix}.parquet" in store.folder.names("scores")


def compute_stacked(
    store: Store, arm: Arm, indices: Sequence[int], pool: Pool | None = None
) -> tuple[dict[str, np.ndarray], StackedFit] | None:
    """Compute the columns of the regression's score, and its precision.

    None if the valid models or the examples are too few, or a column is missing, as in some imported banks.
    """
    n, stored = store.manifest.split_sizes[0], store.read_shard_columns(arm.name, indices[0])
    if n < MIN_EXAMPLES or len(indices) < MIN_MODELS or not all(signal in stored for signal in SIGNALS):
        return None
    blocks = np.asarray(indices) // arm.models_per_block
    sets = draw_stacked_sets(blocks, generator(store.manifest.seed, "halves", f"{STACKED} {arm.name}"))
    columns = ["member", *SIGNALS]
    sums = map_blocks(store, arm.name, indices, columns, partial(sum_block, sets=sets), pool=pool)
    coefficients = fit_stacked([part for _, parts in sums for part in parts])
    apply = partial(apply_to_block, sets=sets, coefficients=coefficients)
    tables = ColumnBuffer(n)
    for rows, table in map_blocks(store, arm.name, indices, columns, apply, pool=pool):
        tables.write(rows, {STACKED: table})
    return complete_stacked(tables.columns[STACKED])


def sum_block(block: Block, sets: StackedSets) -> list[np.ndarray]:
    """Sum what the regressions follow from over one block."""
    return [sum_for_stacked(part.columns, sets) for part in split_blocks([block])]


def apply_to_block(block: Block, sets: StackedSets, coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Apply the regressions to one block."""
    tables = ColumnBuffer(block.rows.stop - block.rows.start)
    for part in split_blocks([block]):
        within = slice(part.rows.start - block.rows.start, part.rows.stop - block.rows.start)
        tables.write(within, {STACKED: compute_stacked_columns(part.columns, sets, coefficients)})
    return tables.columns[STACKED]
