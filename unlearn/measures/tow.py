"""Tug of war: near the oracle on the forget set, on the retain set and on unseen data, all three at once.

    ToW(theta_u, theta_r) = (1 - da(S)) (1 - da(R)) (1 - da(T)),   da(X) = |a(theta_u, X) - a(theta_r, X)|

RUM 2; a are accuracies as shares, S the forget set. Paired with the theta_r of the same seed, and averaged afterwards:
the product of mean accuracies is another number. The printed 1 - da, with da already absolute, is read as it stands;
a signed difference would reward forgetting too much. The three da are columns beside it: a product hides which of them
is off.

Tug of war with the attack in place of the accuracy on the forget set.

    ToW-MIA(theta_u, theta_r) = (1 - |m(theta_u) - m(theta_r)|) (1 - da(R)) (1 - da(T)),   m = MIA of mia.py

RUM, appendix. da and the pairing by seed as in tow.py.
"""

import numpy as np

from unlearn.measures.inputs import Column, EvaluationInputs
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


def tow(case: EvaluationInputs) -> dict[str, float]:
    """ToW and the three distances that it is made of."""
    apart = {
        "da_forget": _apart(case, case.forget, case.labels),
        "da_retain": _apart(case, case.retain, case.labels),
        "da_held_out": _apart(case, case.held_out, case.labels_true),
    }
    return {"tow": float(np.prod([1 - da for da in apart.values()])), **apart}


def _apart(case: EvaluationInputs, rows: np.ndarray, labels: np.ndarray) -> float:
    """|a(judged) - a(theta_r)|, counted, so that equal models are 0 apart."""
    if not len(rows):
        return float("nan")
    ours, theirs = (int(views.correct(rows, labels).sum()) for views in (case.judged, case.theta_r))
    return abs(ours - theirs) / len(rows)


COLUMNS_MIA = {
    "tow_mia": Column(
        best="max", unit="share", ideal="1", description="tug of war with the oracle, MIA for forget accuracy"
    )
}


def tow_mia(case: EvaluationInputs) -> dict[str, float]:
    """ToW-MIA; NaN where a set is empty. Its distances on R and T are columns of ToW."""
    apart, ours, theirs = (
        tow(case),
        compute_nonmember_share(case, case.judged),
        compute_nonmember_share(case, case.theta_r),
    )
    return {"tow_mia": (1 - abs(ours - theirs)) * (1 - apart["da_retain"]) * (1 - apart["da_held_out"])}
