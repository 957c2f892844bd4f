"""Pictures of experiments: points with 95 % intervals over originals."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from memscore.report.figures import png
from unlearn.summary import over_seeds
from unlearn.trials import Row

Group = Mapping[str, Sequence[Row]]
COLOURS = 10


def points(
    panels: Mapping[str, Group], series: Sequence[str], at: Sequence[str], column: str, ylabel: str, title: str
) -> bytes:
    """A panel for each group of contenders: a line a series, over the places of `at`.

    Args:
        panels: title of a panel -> "series|place" -> rows.
        series: the lines, in the order of the legend.
        at: places on the x axis, in their order.
        column: of the rows.
        ylabel: of the y axis.
        title: of the figure.

    Returns:
        A PNG.
    """
    figure = Figure(figsize=(max(4.6, 1.1 * len(at) + 1.5) * len(panels) + 2.2, 4.2), layout="constrained")
    figure.suptitle(title)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    for axis, (name, groups) in zip(axes, panels.items(), strict=True):
        axis.set_title(name, fontsize=10)
        draw(axis, groups, series, at, column)
    axes[0].set_ylabel(ylabel)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize=8, frameon=False)
    return png(figure)


def draw(axis: Axes, groups: Group, series: Sequence[str], at: Sequence[str], column: str) -> None:
    """The lines of one panel, each a little aside of the others so that intervals can be told apart."""
    aside = np.linspace(-0.18, 0.18, max(len(series), 2))
    for number, name in enumerate(series):
        found = [over_seeds([row[column] for row in groups.get(f"{name}|{place}", [])]) for place in at]
        middle = np.array([one.value for one in found])
        known = ~np.isnan(middle)  # a line goes on over a place without rows
        if not known.any():
            continue
        half = np.array([[one.value - one.lo, one.hi - one.value] for one in found]).T
        line, marker = ("-", "o") if number < COLOURS else ("--", "s")
        axis.errorbar(
            (np.arange(len(at)) + aside[number])[known],
            middle[known],
            yerr=np.nan_to_num(half[:, known]),
            marker=marker,
            markersize=3.5,
            capsize=2,
            linewidth=1,
            linestyle=line,
            color=f"C{number % COLOURS}",
            label=name,
        )
    axis.set_xticks(range(len(at)), at, fontsize=8)
    axis.grid(axis="y", alpha=0.3)
