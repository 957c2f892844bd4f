"""The models of a bank that are far from the others: found in a pass, or read from reports/summary.json alone."""

from collections.abc import Sequence

import numpy as np

from memscore.statistics.outlying_models import (
    MAX_EXAMPLES,
    SIGNALS,
    Deviation,
    find_outlying_models,
    sum_model_outputs,
)
from memscore.store.block_reader import split_blocks
from memscore.store.filesystem import Folder
from memscore.store.json_records import read_record
from memscore.store.shards import format_model_name
from memscore.store.store import Store

SUMMARY = "reports/summary.json"
BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of the bank


def read_outlying_models(folder: Folder) -> dict[str, tuple[Deviation, ...]]:
    """Read the names of models far from the others, and in which measures.

    Empty for a bank that was not scored yet, or by a version before there was such a list.
    """
    if not folder.exists(SUMMARY):
        return {}
    return {
        model["model"]: tuple(Deviation(**deviation) for deviation in model["deviations"])
        for arm in read_record(folder, SUMMARY)["arms"]
        for model in arm.get("outlying_models", ())
    }


def name_outlying_models(arm: str, indices: Sequence[int], sums: np.ndarray) -> dict[str, tuple[Deviation, ...]]:
    """Find the models far from the others by the sums of sum_model_outputs; name -> in which measures."""
    found = find_outlying_models(sums)
    return {format_model_name(arm, indices[model.position]): model.deviations for model in found}


def compute_outlying_models(store: Store, arm: str, indices: Sequence[int]) -> dict[str, tuple[Deviation, ...]]:
    """Find them in a pass over the training examples, for commands that score no bank."""
    n, stored = store.manifest.split_sizes[0], store.read_shard_columns(arm, indices[0])
    columns = ["member", "correct", *[name for name in SIGNALS if name in stored][:1]]
    blocks = store.read_blocks(arm, indices, columns, slice(0, n), BLOCK_BYTES)
    step = -(-n // MAX_EXAMPLES)
    sums = [sum_model_outputs(part.columns, step) for part in split_blocks(blocks)]
    return name_outlying_models(arm, indices, np.sum(sums, axis=0))
