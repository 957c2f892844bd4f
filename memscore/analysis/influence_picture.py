"""Plot the targets with the strongest influences, each with the train examples that help it most."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.analysis.influence_pairs import InfluenceResult
from memscore.data.splits import Splits
from memscore.pipeline.reload_data import reload_splits
from memscore.plots.bank import format_label, plot_influence
from memscore.store.class_names import name_labels
from memscore.store.store import Store
from memscore.units import format_count

EXAMPLES_PER_TARGET = 5
"""Train examples shown with each target in the picture."""
MAX_PICTURES = 100
"""Targets in one picture; some 300 would exceed the pixels of a PNG in matplotlib."""


def reload_images(store: Store, data: str | None, folder: str | None) -> Splits:
    """Load the bank's data again, for the picture; the error, always ValueError, says how to do without."""
    try:
        return reload_splits(store, data, folder)
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{error}; --pictures 0 does without images") from error


def write_picture(store: Store, result: InfluenceResult, splits: Splits, pictures: int) -> str | None:
    """Plot the targets with the strongest influences, each with the train examples that help it most.

    Returns the picture's path within the store; None if there is no pair to show.
    """
    # the first targets in the order of their strongest pair, each once
    rows = result.table["test_row"].to_numpy()
    targets = list(dict.fromkeys(rows[result.strongest()].tolist()))[:pictures]
    if not targets:
        return None
    # rows of targets are the store's: test examples come after train and validation
    part = splits.test if result.targets == "test" else splits.train
    first = sum(store.manifest.split_sizes[:2]) if result.targets == "test" else 0
    examples, strong = name_labels(store.examples(), store.class_names), result.strong
    images: list[list[np.ndarray]] = []
    captions: list[list[list[str]]] = []
    is_faint: list[list[bool]] = []
    for target in targets:
        # the table is sorted by target, then falling influence: the first rows of a target are its most helpful pairs
        start, stop = np.searchsorted(rows, [target, target + 1])
        stop = min(stop, start + EXAMPLES_PER_TARGET)
        pairs = result.table.slice(start, stop - start).to_pylist()
        images.append([part.images[target - first], *(splits.train.images[pair["train_row"]] for pair in pairs)])
        captions.append([[f"label {format_label(examples, target)}", f"row {target}"]])
        captions[-1] += [format_caption(pair, examples) for pair in pairs]
        is_faint.append([False, *~strong[start:stop]])
    faint = f"faint where influence < {result.least:g} or memorization < {result.least_memorization:g}"
    if np.isinf(result.least):
        faint = "faint, since no pair is strong"
    title = (
        f"{splits.name}, {format_count(result.models, 'model')}, {result.suffix}, {result.targets}: each target "
        "(framed) and the\n"
        "training examples that help it most; label as trained, influence ± standard error,\n"
        f"memorization; {faint}"
    )
    relpath = f"reports/influence_{result.name}.png"
    store.folder.replace(relpath, plot_influence(images, captions, is_faint, title))
    return relpath


def format_caption(pair: Mapping[str, Any], examples: pa.Table) -> list[str]:
    """Return the lines of text under a training example."""
    return [
        f"label {format_label(examples, pair['train_row'])}",
        f"{pair['influence']:.2f} ± {pair['se']:.2f}",
        f"row {pair['train_row']}, mem {pair['memorization']:.2f}",
    ]
