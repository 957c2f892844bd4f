"""Tug of war (ToW): how near the oracle's accuracies are on the forget set, the retain set and unseen data.

    ToW(theta_u, theta_r) = (1 - da(S)) (1 - da(R)) (1 - da(T)),   da(X) = |a(theta_u, X) - a(theta_r, X)|

RUM 2; a are accuracies as shares, S the forget set. Paired with the theta_r of the same seed, and averaged afterwards:
the product of mean accuracies is another number. The printed 1 - da, with da already absolute, is taken literally; a
signed difference would reward forgetting too much. The three da are separate columns, since the product does not show
which of them is large.

ToW-MIA uses a membership inference attack instead of the accuracy on the forget set:

    ToW-MIA(theta_u, theta_r) = (1 - |m(theta_u) - m(theta_r)|) (1 - da(R)) (1 - da(T)),   m = MIA of mia.py

RUM, appendix. da and the pairing by seed are those of ToW.
"""

import numpy as np

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, EvaluationInputs, Measure
from unlearn.measures.mia import compute_nonmember_share

COLUMNS = {
    "tow": Column(best="max", unit="share", ideal="1", description="tug of war with the oracle"),
    "da_forget": Column(
        best="min", unit="share", ideal="0", description="distance in accuracy to the oracle, forget set"
    ),
    "da_retain": Column(
        best="min", unit="share", ideal="0", description="distance in accuracy to the oracle, retain set"
    ),
    "da_held_out": Column(
        best="min", unit="share", ideal="0", description="distance in accuracy to the oracle, unseen data"
    ),
}


def tow(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute ToW and its three distances."""
    distances = {
        "da_forget": _accuracy_distance(inputs, inputs.forget, inputs.labels),
        "da_retain": _accuracy_distance(inputs, inputs.retain, inputs.labels),
        "da_held_out": _accuracy_distance(inputs, inputs.held_out, inputs.labels_true),
    }
    # A factor is NaN where its set is empty, and the product with it.
    return {"tow": float(np.prod([1 - da for da in distances.values()])), **distances}


MEASURE = Measure(
    fn=tow,
    columns=COLUMNS,
    needs="outputs",
    summary="tug of war, and the three distances that it is a product of",
    paper="RUM",
    core=True,
    splits=HELD_OUT_SPLITS,
)


def _accuracy_distance(inputs: EvaluationInputs, rows: np.ndarray, labels: np.ndarray) -> float:
    """Compute |a(judged) - a(theta_r)| from counts, so that equal models have distance 0."""
    if not len(rows):
        return float("nan")
    judged, oracle = (int(outputs.correct(rows, labels).sum()) for outputs in (inputs.judged, inputs.theta_r))
    return abs(judged - oracle) / len(rows)


COLUMNS_MIA = {
    "tow_mia": Column(
        best="max", unit="share", ideal="1", description="tug of war with the oracle, MIA for forget accuracy"
    )
}


def tow_mia(inputs: EvaluationInputs) -> dict[str, float]:
    """Compute ToW-MIA; NaN where a set is empty. Its distances on R and T are columns of ToW."""
    distances = tow(inputs)
    # theta_r's attack is fitted once and cached with its outputs.
    judged, oracle = (compute_nonmember_share(inputs, outputs) for outputs in (inputs.judged, inputs.theta_r))
    return {"tow_mia": (1 - abs(judged - oracle)) * (1 - distances["da_retain"]) * (1 - distances["da_held_out"])}


MEASURE_MIA = Measure(
    fn=tow_mia,
    columns=COLUMNS_MIA,
    needs="outputs",
    summary="tug of war with MIA in place of the forget accuracy",
    paper="RUM",
    core=True,
    splits=HELD_OUT_SPLITS,
)
