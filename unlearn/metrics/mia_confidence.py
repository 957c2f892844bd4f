"""MIA-II: an attack that learns members from non-members by confidence, then is asked about the forget set.

    logistic regression on p_y:   R against held-out examples, balanced;   value = share of F called NON-member

SURE 5, after Song & Mittal 2021 and Jia et al. 2023. The ideal is theta_r's value, not 1. SURE's members are all of D,
F included, whose examples would then testify about themselves: here they are R. It is mia.py with the classifier that
SURE calls usual, which puts its threshold higher.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression

from unlearn.metrics.case import Case, Column
from unlearn.metrics.membership import members_and_others, told_apart

COLUMNS = {
    "mia_confidence": Column(
        best="oracle",
        unit="share",
        ideal="theta_r's",
        says="MIA-II: of the forget set called NON-member, by logistic regression",
    )
}


def mia_confidence(case: Case) -> dict[str, float]:
    """The share of the forget set that the attack takes for unseen data; NaN where a set is empty."""
    members, others = members_and_others(case, case.rng("mia-confidence"))
    if not len(members) or not len(case.forget):
        return {"mia_confidence": float("nan")}
    inside, outside, asked = (
        np.exp(case.judged.label_log_probabilities(rows, case.labels)) for rows in (members, others, case.forget)
    )
    attack = LogisticRegression().fit(*told_apart(inside, outside))
    return {"mia_confidence": float(1 - attack.predict(asked[:, None]).mean())}
