"""Embeddings of theta_o in the plane, with the forget sets in them (RUM Fig. 5).

    phi(x) - mu, on the two directions of largest variance over the training set (PCA);   mu: the mean embedding

A forget set that lies far from all the rest on one side has a low ES; one that lies among the rest a high one. ES is of
all directions; the share of the variance that the plane has is in the title.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from memscore.plots.bank import create_figure, encode_png

FORGET, RETAIN, CENTROID = "#eab308", "#3b82f6", "#dc2626"
"""Yellow, blue and red, as in the paper."""


def project_on_plane(embeddings: np.ndarray) -> tuple[np.ndarray, float]:
    """Project embeddings [n, E] on the two directions in which they vary most.

    Returns float64 [n, 2] around the mean, the second 0 where E is 1; and the share of the variance in the plane, NaN
    where all embeddings are equal.
    """
    # In float64: the means of many embeddings, which may be far from 0, are subtracted.
    centred = embeddings.astype(np.float64)
    centred -= centred.mean(0)
    # Of E x E numbers, not n x E: eigenvalues are ascending.
    variances, directions = np.linalg.eigh(centred.T @ centred)
    plane = directions[:, ::-1][:, :2]
    # The sign of a direction is free: its largest entry is positive, so that two runs draw the same picture.
    plane = plane * np.sign(plane[np.abs(plane).argmax(0), np.arange(plane.shape[1])])
    total = variances.sum()
    points = np.zeros((len(centred), 2))
    points[:, : plane.shape[1]] = centred @ plane
    return points, float(variances[::-1][:2].sum() / total) if total > 0 else float("nan")


def draw_embeddings(
    embeddings: np.ndarray, forget_sets: Mapping[str, Sequence[int]], titles: Mapping[str, str]
) -> bytes:
    """Draw a panel for each forget set: its examples, all others, and their mean, PNG.

    `embeddings` is float [n_train, E] of theta_o; the two mappings are of a set's name to its rows of the training set,
    and to the title of its panel.
    """
    points, share = project_on_plane(embeddings)
    figure = create_figure(3.4 * len(forget_sets), 3.8)
    figure.suptitle(f"embeddings of theta_o on the plane with {share:.0%} of their variance")
    panels = figure.subplots(1, len(forget_sets), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (name, rows) in zip(panels, forget_sets.items(), strict=True):
        forgotten = np.zeros(len(points), dtype=bool)
        forgotten[list(rows)] = True
        for chosen, color, label in ((~forgotten, RETAIN, "retain set"), (forgotten, FORGET, "forget set")):
            axis.scatter(*points[chosen].T, s=4, alpha=0.5, color=color, linewidths=0, label=label)
        # Embeddings are centred, so the mean of all is the origin.
        axis.scatter(0, 0, s=25, color=CENTROID, label="mean of all")
        axis.set(title=titles[name], xticks=[], yticks=[])
        axis.title.set_fontsize(9)
    # Points are translucent in the panels, and would hardly be seen beside their names.
    legend = figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    for handle in legend.legend_handles:
        if handle is not None:
            handle.set_alpha(1)
    return encode_png(figure)
