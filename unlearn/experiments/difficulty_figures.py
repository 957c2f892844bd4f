"""Figures of single unlearnings: Table 1 as a heat map, a scatter of each factor, the easiest and hardest images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memscore.plots.bank import create_figure, draw_cell, encode_png
from memscore.statistics.correlation import spearman
from memscore.statistics.means import MeanEstimate
from unlearn.difficulty.factors import FACTORS
from unlearn.difficulty.summary import Difficulty
from unlearn.trials.config import Row

SHOWN = 3
"""Easiest and hardest examples of a gallery, as in INST Figs 15 to 22."""
NO_COLUMNS = {"trial", "algorithm", "contender", "variant", "select", "index", "row", "gt", "gt_printed", "flipped"}


def draw_correlations(rows: Sequence[Row], algorithms: Sequence[str]) -> bytes:
    """Draw the mean rank correlation of each factor with the FP-score, by algorithm, PNG."""
    factors = [name for name in rows[0] if name not in NO_COLUMNS]
    rhos = np.array([[mean_rho(rows, algorithm, factor) for algorithm in algorithms] for factor in factors])
    figure = create_figure(3.4 + 1.1 * len(algorithms), 1.2 + 0.24 * len(factors))
    axis = figure.subplots()
    image = axis.imshow(rhos, cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    axis.set_xticks(range(len(algorithms)), algorithms, rotation=30, ha="right", fontsize=7)
    axis.set_yticks(range(len(factors)), [title_of(name) for name in factors], fontsize=6)
    for (y, x), rho in np.ndenumerate(rhos):
        if not np.isnan(rho):
            axis.text(x, y, f"{rho:.2f}", ha="center", va="center", fontsize=5.5, color="w" if abs(rho) > 0.6 else "k")
    axis.set_title("rank correlation with the FP-score (high: easy to unlearn)", fontsize=8)
    figure.colorbar(image, ax=axis, shrink=0.5)
    return encode_png(figure)


def mean_rho(rows: Sequence[Row], algorithm: str, factor: str) -> float:
    """Compute Spearman's rho of a factor with the FP-score, mean over originals."""
    own = [row for row in rows if row["contender"] == algorithm]
    rhos = []
    for index in dict.fromkeys(row["index"] for row in own):
        values, gt = (np.array([row[name] for row in own if row["index"] == index]) for name in (factor, "gt"))
        rhos.append(spearman(values, gt))
    return float(np.nanmean(rhos)) if not np.isnan(rhos).all() else float("nan")


def title_of(name: str) -> str:
    """Return a factor's title; scores of the bank have their names."""
    return FACTORS[name].title if name in FACTORS else name


def draw_factor(difficulty: Difficulty, name: str, correlations: Mapping[tuple[str, str], MeanEstimate]) -> bytes:
    """Draw the FP-score over one factor, a panel an algorithm, a colour an original, PNG (INST Figs 1 to 14)."""
    n = len(difficulty.algorithms)
    figure = create_figure(2.4 * n, 2.5)
    axes = figure.subplots(1, n, squeeze=False, sharey=True)[0]
    for a, (axis, algorithm) in enumerate(zip(axes, difficulty.algorithms, strict=True)):
        for o, original in enumerate(difficulty.originals):
            x, y = difficulty.factors[name][a, o], difficulty.gt[a, o]
            axis.scatter(x, y, s=4, alpha=0.4, linewidths=0, color=f"C{o}", label=f"original {original}")
        found = correlations[algorithm, name]
        axis.set_title(f"{algorithm}\nrho {found.value:.2f} [{found.lo:.2f}, {found.hi:.2f}]", fontsize=7)
        axis.set_xlabel(f"{title_of(name)}, {FACTORS[name].unit}", fontsize=5.5)
        axis.tick_params(labelsize=6)
    axes[0].set_ylabel("FP-score (high: easy)", fontsize=7)
    axes[0].legend(fontsize=5)
    return encode_png(figure)


def draw_galleries(difficulty: Difficulty, name: str, images: Any) -> bytes:
    """Draw the examples that one factor calls the easiest and the hardest, a row each an algorithm, PNG.

    `images` are the training images, uint8 [N, C, H, W]; the factor is that of the first original.
    """
    n = len(difficulty.algorithms)
    figure = create_figure(1.1 * 2 * SHOWN, 1.4 * n + 0.4)
    figure.suptitle(f"{title_of(name)}: easiest left, hardest right", fontsize=8)
    axes = figure.subplots(n, 2 * SHOWN, squeeze=False)
    # easiest first: a factor of direction +1 is high for hard examples
    sign = FACTORS[name].direction or 1
    for a, (line, algorithm) in enumerate(zip(axes, difficulty.algorithms, strict=True)):
        values = sign * difficulty.factors[name][a, 0]
        order = [i for i in np.argsort(values, kind="stable") if not np.isnan(values[i])]
        # too few examples are shown in one row, in order
        chosen = [*order[:SHOWN], *order[-SHOWN:]] if len(order) >= 2 * SHOWN else order
        # cells that stay empty have no frame either
        for axis in line:
            axis.axis("off")
        for axis, i in zip(line, chosen, strict=False):
            draw_cell(axis, np.asarray(images[difficulty.rows[i]]), [algorithm, f"{sign * values[i]:.3g}"])
    return encode_png(figure)
