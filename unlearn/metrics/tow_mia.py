"""Tug of war with the attack in place of the accuracy on the forget set.

    ToW-MIA(theta_u, theta_r) = (1 - |m(theta_u) - m(theta_r)|) (1 - da(R)) (1 - da(T)),   m = MIA of mia.py

RUM, appendix. da and the pairing by seed as in tow.py.
"""

from unlearn.metrics.case import Case, Column
from unlearn.metrics.mia import called_unseen
from unlearn.metrics.tow import tow

COLUMNS = {
    "tow_mia": Column(best="max", unit="share", ideal="1", says="tug of war with the oracle, MIA for forget accuracy")
}


def tow_mia(case: Case) -> dict[str, float]:
    """ToW-MIA; NaN where a set is empty. Its distances on R and T are columns of ToW."""
    apart, ours, theirs = tow(case), called_unseen(case, case.judged), called_unseen(case, case.theta_r)
    return {"tow_mia": (1 - abs(ours - theirs)) * (1 - apart["da_retain"]) * (1 - apart["da_held_out"])}
