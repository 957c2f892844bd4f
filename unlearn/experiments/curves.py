"""Lines over the steps of a sequence: means over originals with 95 % intervals."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from unlearn.trials.config import Row
from unlearn.trials.tables import over_seeds

Groups = Sequence[Sequence[Row]]
"""Rows of each step in turn."""


def over_steps(axis: Axes, at: Sequence[float], groups: Groups, column: str, label: str, colour: str) -> None:
    """One line.

    Args:
        axis: where.
        at: where each step lies; lines a little aside of each other can be told apart.
        groups: rows of each; a step without any is left out.
        column: of the rows.
        label: of the line.
        colour: of the line.
    """
    found = [over_seeds([row[column] for row in rows]) for rows in groups]
    middle = np.array([one.value for one in found])
    half = np.nan_to_num([one.hi - one.value for one in found])
    axis.errorbar(at, middle, yerr=half, label=label, color=colour, marker="o", markersize=3.5, capsize=2, linewidth=1)


def level_line(axis: Axes, rows: Sequence[Row], column: str, colour: str) -> None:
    """A dashed line across all steps, at a mean: what the oracle says."""
    mean = over_seeds([row[column] for row in rows]).value
    if not np.isnan(mean):
        axis.axhline(mean, color=colour, linestyle="--", linewidth=0.8)
