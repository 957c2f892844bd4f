"""The figure of gradient inversion: examples, and what is rebuilt from models with and without them."""

from collections.abc import Mapping, Sequence

import numpy as np

from memscore.plots.bank import plot_gallery, shorten_name

KINDS = {
    "rebuilt": "trained on all",
    "rebuilt_held": "half with it",
    "rebuilt_left_out": "half without it",
}
"""Columns of stored images, and what their models were trained on."""
SHOWN = 8  # examples in each of three groups: the highest, the middle and the lowest by the score


def plot_rebuilt_images(
    originals: np.ndarray,
    rebuilt: Mapping[str, np.ndarray],
    labels: Sequence[str],
    values: np.ndarray,
    score: str,
    title: str,
) -> bytes:
    """Plot examples over what is rebuilt from each model, as PNG: the highest, the middle and the lowest by a score.

    `originals` and each of `rebuilt`, whose keys are of KINDS, are uint8 [n, C, H, W]; `labels` are the names of
    their classes, `values` are [n], and examples
    where they are NaN are left out; `score` is what the values, in dB, are called.
    """
    order = np.argsort(-np.nan_to_num(values, nan=-np.inf), kind="stable")[: int((~np.isnan(values)).sum())]
    columns = min(SHOWN, len(order))
    # few examples are shown once, all in one group
    starts = (0, (len(order) - columns) // 2, len(order) - columns) if len(order) >= 3 * SHOWN else (0,)
    images, captions = [], []
    for start in starts:
        shown = order[start : start + columns]
        images.append(originals[shown])
        captions += [[shorten_name(labels[i]), f"{score} {values[i]:.2f} dB"] for i in shown]
        for kind, pictures in rebuilt.items():
            images.append(pictures[shown])
            captions += [[KINDS[kind]]] * columns
    return plot_gallery(np.concatenate(images), captions, len(starts) * (1 + len(rebuilt)), title)
