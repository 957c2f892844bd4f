"""How confident the models with and without an example are: two histograms of the logit confidence of its label."""

from typing import Any

import numpy as np

from memscore.report.columns import Columns
from memscore.report.omissions import Omission, read_or_omit
from memscore.store.parquet import CorruptFile
from memscore.store.store import Store
from memscore.units import format_count

BINS = 24
COLUMNS = {
    "logit_confidence": (
        "Confidence in its label",
        "Models by the logit of the probability that they give to its label, log p / (1 - p): 0 is one half, higher is "
        "surer.",
    ),
    "gap": (
        "Margin of its label",
        "Models by the logit of its label less the largest other one: above 0 they are right, higher is surer.",
    ),
}
"""Columns of shards that are counted, the first one that a bank has -> title and meaning."""
SAMPLED_MODELS = 16  # whose confidences set the edges
SAMPLED_EXAMPLES = 4096
MAX_CELLS = 200 * 10**6  # models x examples that are read; more models change a histogram little
TAIL = 0.002  # share of confidences beyond each outer edge, which are counted in the outer bins
ENDS = "What lies beyond the ends is counted in the outer bins."
BLOCK_BYTES = 32 * 2**20  # places and cells of a block take some five times as much


def add_confidences(columns: Columns, store: Store, n: int, omissions: list[Omission]) -> list[dict[str, Any]]:
    """Add the histograms of each arm; return what the page's script knows of them."""
    described = []
    for arm in sorted(read_or_omit("arms", omissions, store.arms) or {}):
        what = f"confidences of the models of {arm}"
        histogram = read_or_omit(what, omissions, count_confidences, store, arm, n)
        if histogram:
            inside, outside = (columns.add_values(histogram.pop(side)) for side in ("in", "out"))
            described.append(histogram | {"in": inside, "out": outside})
    return described


def count_confidences(store: Store, arm: str, n: int) -> dict[str, Any] | None:
    """Count the models of one arm by confidence, for each of the first n examples; None without any model.

    A damaged shard is left out, and ValueError raised where all of them are.
    """
    # footers alone: hashing every shard would take as long as reading it
    valid = sorted(store.find_valid_shards(arm, verify=False))
    if not valid:
        return None
    try:
        return count_models(store, arm, valid, n)
    except CorruptFile:
        # a page of values is damaged: the whole checksums tell which shards are, and the others are enough
        intact = sorted(store.find_valid_shards(arm))
        if not intact:
            raise
        counts = count_models(store, arm, intact, n)
        left_out = format_count(len(valid) - len(intact), "damaged model")
        return counts | {"about": f"{counts['about']} Without {left_out}."}


def count_models(store: Store, arm: str, indices: list[int], n: int) -> dict[str, Any]:
    """Count models by confidence in two matrices [n, BINS], of those trained on an example and of the others."""
    stored = len(indices)
    # the first models are whole blocks, which have each example equally often
    indices = indices[: max(MAX_CELLS // n, 1)]
    stored_columns = store.read_shard_columns(arm, indices[0])
    column = next((name for name in COLUMNS if name in stored_columns), None)
    if column is None:
        raise ValueError(
            f"the models of {arm} have none of the columns {', '.join(COLUMNS)}; an import with one has them"
        )
    title, about = COLUMNS[column]
    edges = choose_edges(store, arm, indices, n, column)
    # a cell counts models, so that a byte is enough for most banks
    kind = np.uint8 if len(indices) <= np.iinfo(np.uint8).max else np.uint16
    counts = {side: np.zeros((n, BINS), kind) for side in ("in", "out")}
    for block in store.read_blocks(arm, indices, ["member", column], slice(0, n), BLOCK_BYTES):
        confidences, member = block.columns[column], block.columns["member"]
        # the outer edges are left out of the search, so that what lies beyond them falls into the outer bins
        places = np.clip(np.searchsorted(edges[1:-1], confidences, side="right"), 0, BINS - 1)
        width = block.rows.stop - block.rows.start
        # one count for all examples of the block: a cell is an example and a bin
        cells = places + BINS * np.arange(width)
        defined = ~np.isnan(confidences)
        for side, chosen in (("in", member), ("out", ~member)):
            flat = np.bincount(cells[chosen & defined], minlength=width * BINS)
            counts[side][block.rows] = flat.reshape(width, BINS)
    models = format_count(len(indices), "model")
    of_all = f" of {format_count(stored)}" if len(indices) < stored else ""
    return {
        "arm": arm,
        "title": title,
        "about": f"{about} {ENDS} {models}{of_all}.",
        "edges": [round(float(edge), 4) for edge in edges],
        **counts,
    }


def choose_edges(store: Store, arm: str, indices: list[int], n: int, column: str) -> np.ndarray:
    """Choose the edges of equal bins from the confidences of a few models on a few examples."""
    # spread over the bank, whose first models may have another engine
    step = -(-len(indices) // SAMPLED_MODELS)
    blocks = store.read_blocks(arm, indices[::step], [column], slice(0, min(n, SAMPLED_EXAMPLES)))
    values = np.concatenate([block.columns[column].ravel() for block in blocks])
    values = values[np.isfinite(values)]
    if not len(values):
        return np.linspace(-1, 1, BINS + 1)
    lowest, highest = np.quantile(values, (TAIL, 1 - TAIL))
    # constant confidences, as of a network that returns one number
    if lowest == highest:
        lowest, highest = lowest - 1, highest + 1
    return np.linspace(lowest, highest, BINS + 1)
