"""Figures of experiments: means over originals with 95 % intervals, as points or over the steps of a sequence."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from memscore.analysis.trial_rows import estimate_column
from memscore.plots.bank import create_figure, encode_png
from memscore.statistics.intervals import clip_interval
from unlearn.measures import find_limits
from unlearn.trials.config import ORACLE, Row

MARGIN = 0.02
"""Of an axis beyond the largest or smallest possible value."""
Groups = Sequence[Sequence[Row]]
"""Rows of each step in turn."""


def plot_over_steps(
    axis: Axes, positions: Sequence[float], groups: Groups, column: str, label: str, color: str
) -> None:
    """Plot one line over the steps of a sequence, with 95 % intervals; a step without rows is left out.

    Slightly shifted positions keep lines from overlapping.
    """
    means, errors = estimate_with_errors(groups, column)
    axis.errorbar(
        positions, means, yerr=errors, label=label, color=color, marker="o", markersize=3.5, capsize=2, linewidth=1
    )
    limit_axis(axis, column)


def plot_mean_line(axis: Axes, rows: Sequence[Row], column: str, color: str) -> None:
    """Plot a dashed horizontal line at a mean, for the oracle."""
    mean = estimate_column(rows, column).value
    if not np.isnan(mean):
        axis.axhline(mean, color=color, linestyle="--", linewidth=0.8)
        limit_axis(axis, column)


def estimate_with_errors(groups: Groups, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Estimate the mean of each group, [n], and how far its interval goes below and above, [2, n].

    Intervals end where the column can have no value; 0 where a mean has no interval.
    """
    limits = find_limits(column)
    intervals = [clip_interval(estimate_column(rows, column), *limits) for rows in groups]
    # below and above the mean, as errorbar wants them; a mean of equal values may round to a little beyond the limit
    errors = np.array([[each.value - each.lo, each.hi - each.value] for each in intervals]).reshape(-1, 2).T
    return np.array([each.value for each in intervals]), np.maximum(np.nan_to_num(errors), 0)


def limit_axis(axis: Axes, column: str) -> None:
    """Limit the y axis of what was drawn so far to what a column can be, with room for half of a marker."""
    # again after each line, since an axis that was limited does not follow what is added
    axis.autoscale(axis="y")
    low, high = axis.get_ylim()
    lowest, highest = find_limits(column)
    axis.set_ylim(max(low, lowest - MARGIN), min(high, highest + MARGIN))


Group = Mapping[str, Sequence[Row]]
N_COLORS = 10
DETAIL_COLUMNS = {
    "forget_accuracy": "right on F",
    "retain_accuracy": "right on R",
    "accuracy_test": "right on test",
    "mia_test": "MIA",
}
"""The parts of ToW, and the attack: best where the oracle's are."""


def render_points(
    panels: Mapping[str, Group],
    series: Sequence[str],
    places: Sequence[str],
    column: str,
    ylabel: str,
    title: str,
    extra: Mapping[str, str] | None = None,
) -> bytes:
    """Render a panel for each group of methods, PNG: a line per series, over the places on the x axis.

    `panels` is the title of a panel -> "series|place" -> rows; `extra` is further column -> ylabel, each a row of
    panels below.
    """
    ylabels = {column: ylabel} | dict(extra or {})
    figure = create_figure(*compute_figure_size(panels, places, ylabels))
    figure.suptitle(title)
    draw_grid(figure, panels, series, places, ylabels)
    return encode_png(figure)


def compute_figure_size(
    panels: Mapping[str, Group], places: Sequence[str], ylabels: Mapping[str, str]
) -> tuple[float, float]:
    """Compute width and height that the panels need, in inches."""
    return max(4.6, 1.1 * len(places) + 1.5) * len(panels) + 2.2, 1.4 + 2.8 * len(ylabels)


def draw_grid(
    figure: Figure | SubFigure,
    panels: Mapping[str, Group],
    series: Sequence[str],
    places: Sequence[str],
    ylabels: Mapping[str, str],
) -> None:
    """Draw a row of panels for each column; see render_points."""
    axes = figure.subplots(len(ylabels), len(panels), squeeze=False, sharey="row")
    for row, (column, ylabel) in zip(axes, ylabels.items(), strict=True):
        for axis, groups in zip(row, panels.values(), strict=True):
            draw_panel(axis, groups, series, places, column)
        row[0].set_ylabel(ylabel)
    for axis, name in zip(axes[0], panels, strict=True):
        axis.set_title(name, fontsize=10)
    figure.legend(*axes[0][-1].get_legend_handles_labels(), loc="outside right upper", fontsize=8, frameon=False)


def draw_panel(axis: Axes, groups: Group, series: Sequence[str], places: Sequence[str], column: str) -> None:
    """Draw the lines of one panel, slightly shifted so that intervals do not overlap."""
    offsets = np.linspace(-0.18, 0.18, max(len(series), 2))
    for number, name in enumerate(series):
        means, errors = estimate_with_errors([groups.get(f"{name}|{place}", []) for place in places], column)
        # A line continues over a place without rows.
        defined = ~np.isnan(means)
        if not defined.any():
            continue
        linestyle, marker = ("-", "o") if number < N_COLORS else ("--", "s")
        axis.errorbar(
            (np.arange(len(places)) + offsets[number])[defined],
            means[defined],
            yerr=errors[:, defined],
            marker=marker,
            markersize=3.5,
            capsize=2,
            linewidth=1,
            linestyle=linestyle,
            color="black" if name == ORACLE else f"C{number % N_COLORS}",
            label=name,
        )
    limit_axis(axis, column)
    axis.set_xticks(range(len(places)), places, fontsize=8)
    axis.grid(axis="y", alpha=0.3)
