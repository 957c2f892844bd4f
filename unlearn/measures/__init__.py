"""All measures by name, with their inputs and their columns (unit, direction, ideal).

To add a measure, write its file here, with a Measure at its end, and one line below.
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
