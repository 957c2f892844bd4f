"""All measures by name, with their inputs and their columns (unit, direction, ideal).

To add a measure: its own file here or its family's, with a Measure at its end; a line below; a test; `make reference`,
which writes docs/reference/measures.md. Do not add a column to an existing Measure, and do not make a new one core:
stored rows are found by the names of requested measures, and would lack it (or raise ROW_VERSION in
unlearn/trials/config.py). A value is NaN where held_out is empty.
"""

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
