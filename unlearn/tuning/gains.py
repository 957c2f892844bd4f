"""What a method gains for what it reads: the rise of ToW over doing nothing, by passes over the training set.

    passes_i = examples read / training examples
    gain_per_pass_i = (ToW(theta_u,i) - ToW(theta_o,i)) / passes_i     for original i, NaN where nothing was read

Parts that are forgotten one after the other read more than one run on the whole set, so a higher ToW alone does not say
that parts help; an equal cost does (variant vanilla-long), and so does the gain of each pass.
"""

from collections.abc import Sequence

import numpy as np

from memscore.analysis.trial_rows import get_value
from unlearn.trials.config import ORIGINAL, Row
from unlearn.trials.second_oracle import select_references

COST_COLUMNS = ("steps", "passes", "rrt_examples", "rrt_wall", "gain_per_pass")
"""Columns of the table of costs."""


def add_gains(rows: Sequence[Row], n_train: int) -> list[Row]:
    """Add passes and gain_per_pass to judged rows of one forget set, of a training set of `n_train` examples."""
    nothing = {int(row["index"]): float(row["tow_test"]) for row in select_references(rows, ORIGINAL)}
    return [row | compute_gain(row, nothing.get(int(row["index"]), np.nan), n_train) for row in rows]


def compute_gain(row: Row, nothing: float, n_train: int) -> dict[str, float]:
    """Compute the two columns of a row, where `nothing` is the ToW of its theta_o.

    A step within a sequence is judged on what is forgotten so far, where doing nothing has another ToW: NaN.
    """
    passes = float(row["examples"]) / n_train
    whole = row["level"] in {0, row["levels"]}
    # a diverged run counts a ToW of 0, as in every average
    gain = (get_value(row, "tow_test") - nothing) / passes if whole and passes > 0 else np.nan
    return {"passes": passes, "gain_per_pass": gain}
