"""How confident the models with and without an example are: two histograms of the logit confidence of its label."""

from typing import Any

import numpy as np

from memscore.report.columns import Columns
from memscore.report.omissions import Omission, read_or_omit
from memscore.store.parquet import CorruptFile
from memscore.store.store import Store
from memscore.units import format_count

BINS = 24
COLUMN = "logit_confidence"
SAMPLED_MODELS = 16  # whose confidences set the edges
SAMPLED_EXAMPLES = 4096
MAX_CELLS = 200 * 10**6  # models x examples that are read; more models change a histogram little
TAIL = 0.002  # share of confidences beyond each outer edge, which are counted in the outer bins
ABOUT = (
    "Models by the logit of the probability that they give to its label, log p / (1 - p): 0 is one half, higher is "
    "surer. What lies beyond the ends is counted in the outer bins."
)


def add_confidences(columns: Columns, store: Store, n: int, omissions: list[Omission]) -> list[dict[str, Any]]:
    """Add the histograms of each arm; return what the page's script knows of them."""
    described = []
    for arm in sorted(store.arms()):
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
    indices = indices[: max(MAX_CELLS // n, 1)]
    if COLUMN not in store.read_shard_columns(arm, indices[0]):
        raise ValueError(f"the models of {arm} have no column {COLUMN}; an import with --logit-confidence has one")
    edges = choose_edges(store, arm, indices, n)
    kind = np.uint8 if len(indices) <= np.iinfo(np.uint8).max else np.uint16
    counts = {side: np.zeros((n, BINS), kind) for side in ("in", "out")}
    for block in store.read_blocks(arm, indices, ["member", COLUMN], slice(0, n)):
        confidences, member = block.columns[COLUMN], block.columns["member"]
        places = np.clip(np.searchsorted(edges[1:-1], confidences, side="right"), 0, BINS - 1)
        width = block.rows.stop - block.rows.start
        cells = places + BINS * np.arange(width)
        defined = ~np.isnan(confidences)
        for side, chosen in (("in", member), ("out", ~member)):
            flat = np.bincount(cells[chosen & defined], minlength=width * BINS)
            counts[side][block.rows] = flat.reshape(width, BINS)
    models = format_count(len(indices), "model")
    of_all = f" of {format_count(stored)}" if len(indices) < stored else ""
    return {
        "arm": arm,
        "title": "Confidence in its label",
        "about": f"{ABOUT} {models}{of_all}.",
        "edges": [round(float(edge), 4) for edge in edges],
        **counts,
    }


def choose_edges(store: Store, arm: str, indices: list[int], n: int) -> np.ndarray:
    """Choose the edges of equal bins from the confidences of a few models on a few examples."""
    step = -(-len(indices) // SAMPLED_MODELS)
    blocks = store.read_blocks(arm, indices[::step], [COLUMN], slice(0, min(n, SAMPLED_EXAMPLES)))
    values = np.concatenate([block.columns[COLUMN].ravel() for block in blocks])
    values = values[np.isfinite(values)]
    if not len(values):
        return np.linspace(-1, 1, BINS + 1)
    lowest, highest = np.quantile(values, (TAIL, 1 - TAIL))
    if lowest == highest:
        lowest, highest = lowest - 1, highest + 1
    return np.linspace(lowest, highest, BINS + 1)
