"""ROC curves of membership attacks on log axes, where the left end can be seen."""

from collections.abc import Mapping

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memscore.report.figures import png
from memscore.statistics.roc import Band


def roc_bands(curves: Mapping[str, Band], title: str) -> bytes:
    """Mean curve of each attack over its targets, the central 95 % of targets shaded, the diagonal dashed.

    A curve ends where its mean true positive rate is 0, which a log axis cannot show.

    Args:
        curves: by the name of the attack.
        title: what bank this is.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axis = figure.subplots()
    draw_bands(axis, curves)
    axis.set(title=title, ylabel="true positive rate, mean and 95 % of targets")
    return png(figure)


def draw_bands(axis: Axes, curves: Mapping[str, Band]) -> None:
    """Mean curves with shaded bands and the diagonal on log axes, from the lowest false positive rate of any on.

    Args:
        axis: that is drawn on.
        curves: by the name in the legend; none gives the diagonal alone.
    """
    lowest = min((float(curve.fpr[0]) for curve in curves.values()), default=0.001)
    colours = mpl.colormaps["tab10"].colors  # type: ignore[attr-defined]
    for number, (name, curve) in enumerate(curves.items()):
        colour = colours[number % len(colours)]
        shown = np.nan_to_num(curve.mean) > 0
        fpr = curve.fpr[shown]
        axis.plot(fpr, curve.mean[shown], color=colour, label=name, linewidth=1.4)
        lo = np.maximum(curve.lo[shown], lowest / 10)
        axis.fill_between(fpr, lo, curve.hi[shown], color=colour, alpha=0.15, linewidth=0)
    axis.plot([lowest, 1], [lowest, 1], color="#94a3b8", linestyle="--", linewidth=0.8)
    axis.set(xscale="log", yscale="log", xlim=(lowest, 1), ylim=(lowest / 2, 1.05), xlabel="false positive rate")
    if curves:
        axis.legend(frameon=False, loc="lower right")
