"""Pictures of experiments: points with 95 % intervals over originals.

Lines over the steps of a sequence: means over originals with 95 % intervals.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from memscore.plots.bank import encode_png
from unlearn.trials.config import ORACLE, Row
from unlearn.trials.tables import mean_with_interval

Groups = Sequence[Sequence[Row]]
"""Rows of each step in turn."""


def plot_over_steps(axis: Axes, at: Sequence[float], groups: Groups, column: str, label: str, colour: str) -> None:
    """One line.

    Args:
        axis: where.
        at: where each step lies; lines a little aside of each other can be told apart.
        groups: rows of each; a step without any is left out.
        column: of the rows.
        label: of the line.
        colour: of the line.
    """
    found = [mean_with_interval([row[column] for row in rows]) for rows in groups]
    middle = np.array([one.value for one in found])
    half = np.nan_to_num([one.hi - one.value for one in found])
    axis.errorbar(at, middle, yerr=half, label=label, color=colour, marker="o", markersize=3.5, capsize=2, linewidth=1)


def plot_mean_line(axis: Axes, rows: Sequence[Row], column: str, colour: str) -> None:
    """A dashed line across all steps, at a mean: what the oracle says."""
    mean = mean_with_interval([row[column] for row in rows]).value
    if not np.isnan(mean):
        axis.axhline(mean, color=colour, linestyle="--", linewidth=0.8)


Group = Mapping[str, Sequence[Row]]
COLOURS = 10
DETAIL_COLUMNS = {
    "forget_accuracy": "right on F",
    "retain_accuracy": "right on R",
    "accuracy_test": "right on test",
    "mia_test": "MIA",
}
"""What ToW is made of, and the attack: best where the oracle's are."""


def render_points(
    panels: Mapping[str, Group],
    series: Sequence[str],
    at: Sequence[str],
    column: str,
    ylabel: str,
    title: str,
    more: Mapping[str, str] | None = None,
) -> bytes:
    """A panel for each group of contenders: a line a series, over the places of `at`.

    Args:
        panels: title of a panel -> "series|place" -> rows.
        series: the lines, in the order of the legend.
        at: places on the x axis, in their order.
        column: of the rows.
        ylabel: of the y axis.
        title: of the figure.
        more: further column -> ylabel, each a row of panels beneath.

    Returns:
        A PNG.
    """
    measured = {column: ylabel} | dict(more or {})
    figure = Figure(figsize=compute_figure_size(panels, at, measured), layout="constrained")
    figure.suptitle(title)
    draw_grid(figure, panels, series, at, measured)
    return encode_png(figure)


def compute_figure_size(
    panels: Mapping[str, Group], at: Sequence[str], measured: Mapping[str, str]
) -> tuple[float, float]:
    """Width and height that the panels need, in inches."""
    return max(4.6, 1.1 * len(at) + 1.5) * len(panels) + 2.2, 1.4 + 2.8 * len(measured)


def draw_grid(
    figure: Figure | SubFigure,
    panels: Mapping[str, Group],
    series: Sequence[str],
    at: Sequence[str],
    measured: Mapping[str, str],
) -> None:
    """A row of panels for each column -> ylabel; see points."""
    axes = figure.subplots(len(measured), len(panels), squeeze=False, sharey="row")
    for line, (column, ylabel) in zip(axes, measured.items(), strict=True):
        for axis, groups in zip(line, panels.values(), strict=True):
            draw_panel(axis, groups, series, at, column)
        line[0].set_ylabel(ylabel)
    for axis, name in zip(axes[0], panels, strict=True):
        axis.set_title(name, fontsize=10)
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)


def draw_panel(axis: Axes, groups: Group, series: Sequence[str], at: Sequence[str], column: str) -> None:
    """The lines of one panel, each a little aside of the others so that intervals can be told apart."""
    aside = np.linspace(-0.18, 0.18, max(len(series), 2))
    for number, name in enumerate(series):
        found = [mean_with_interval([row[column] for row in groups.get(f"{name}|{place}", [])]) for place in at]
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
            color="black" if name == ORACLE else f"C{number % COLOURS}",
            label=name,
        )
    axis.set_xticks(range(len(at)), at, fontsize=8)
    axis.grid(axis="y", alpha=0.3)
