"""All measures by name, with their inputs and their columns (unit, direction, ideal).

A measure of the user's own is named module:function and needs no line here: see user_measure.py. To add one to the
package: its own file here or its family's, with a Measure at its end; a line below; a test; `make reference`,
which writes docs/reference/measures.md. Do not add a column to an existing Measure, and do not make a new one core:
stored rows are found by the names of requested measures, and would lack it (or raise ROW_VERSION in
unlearn/trials/config.py). A value is NaN where held_out is empty.
"""

import math
import re
from collections.abc import Iterable

from memscore.choices import validate_choice_or_function
from memscore.user_functions import is_user_function
from unlearn.measures import (
    accuracy,
    class_matched,
    confusion,
    entanglement,
    epsilon,
    gini,
    klom,
    mia,
    relearn,
    tow,
    u_lira,
    weight_distance,
)
from unlearn.measures.inputs import Measure
from unlearn.measures.user_measure import load_measure

MEASURES: dict[str, Measure] = {
    "accuracy": accuracy.MEASURE,
    "held-out-accuracy": accuracy.MEASURE_HELD_OUT,
    "kept-class-accuracy": accuracy.MEASURE_KEPT,
    "tow": tow.MEASURE,
    "mia": mia.MEASURE,
    "mia-threshold": mia.MEASURE_THRESHOLD,
    "tow-mia": tow.MEASURE_MIA,
    "mia-losses": mia.MEASURE_LOSSES,
    "mia-confidence": mia.MEASURE_CONFIDENCE,
    "mia-representation": mia.MEASURE_REPRESENTATION,
    "entanglement": entanglement.MEASURE,
    "confusion": confusion.MEASURE,
    "held-out-confusion": confusion.MEASURE_HELD_OUT,
    "gini": gini.MEASURE,
    "class-matched": class_matched.MEASURE,
    "relearn": relearn.MEASURE,
    "weight-distance": weight_distance.MEASURE,
    "u-lira": u_lira.MEASURE,
    "epsilon": epsilon.MEASURE,
    "challenge-score": epsilon.MEASURE_CHALLENGE,
    "klom": klom.MEASURE,
    "held-out-klom": klom.MEASURE_HELD_OUT,
}


SHARE_UNITS = ("share", "area", "Gini", "0 or 1")
"""Units of columns in [0, 1]; the distance between two of them is, too."""
COSTS = ("wall_s", "rrt_wall", "rrt_examples", "steps", "examples")
"""Columns of rows that are no measures, and at least 0."""
ENDINGS = re.compile(r"(_validation|_test)?(_gap_original|_gap)?$")
"""What follows the name of a measure's column in rows: its split, and whether it is a distance."""


def find_limits(column: str) -> tuple[float, float]:
    """Find what limits the values of a column of rows.

    Args:
        column: of a measure, with its split and gap, or a cost.

    Returns:
        The lowest and the highest value; infinite where nothing limits it.

    >>> find_limits("tow_test"), find_limits("mia_test_gap"), find_limits("wall_s"), find_limits("mean_score")
    ((0.0, 1.0), (0.0, 1.0), (0.0, inf), (-inf, inf))
    """
    if column in COSTS:
        return 0.0, math.inf
    # of experiments: the Gini coefficient of a proxy, and the share of a part's examples that are right
    stems = (column, ENDINGS.sub("", column))
    described = [measure.columns[stem] for measure in MEASURES.values() for stem in stems if stem in measure.columns]
    if column == "gini" or column.startswith("right_") or (described and described[0].unit in SHARE_UNITS):
        return 0.0, 1.0
    return -math.inf, math.inf


def get_measure(name: str) -> Measure:
    """Return the measure of that name, or the user's own by module:function.

    Raises:
        ValueError: an unknown name, with the nearest one; a user's function that is no measure, or one whose column has
            the name of another measure's.
    """
    if not is_user_function(name):
        return MEASURES[validate_choice_or_function("measure", name, MEASURES)]
    measure = load_measure(name)
    [stem] = measure.columns
    for other, entry in MEASURES.items():
        if any(column == stem or column.startswith(f"{stem}_") for column in entry.columns):
            raise ValueError(f"measure {name}: {stem} is a column of {other}; give the function another name")
    return measure


def get_measures(names: Iterable[str]) -> dict[str, Measure]:
    """Return name -> measure: those of the table in its order, then the user's own; ValueError for an unknown one."""
    measures = {name: get_measure(name) for name in names}
    return {name: measures[name] for name in (*MEASURES, *measures) if name in measures}
