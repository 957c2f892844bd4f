"""MIA-I: can a classifier tell the losses of the forget set from those of unseen examples?

    logistic regression on CE(theta(x), y), clipped to [-100, 100]:   F against held-out examples of F's classes
    MIA-I = its accuracy, mean of 5 stratified splits that hold out 10 %

Kurmanji et al. 2023; SURE 5. The ideal is theta_r's value, near .5; well above it the losses of F still stand out, too
low or too high. The sides are equal in number, by a seeded draw. The released code changes the test loader in place;
the NeurIPS challenge's kit has 10 splits and does not match classes. Undefined below 10 examples a side.
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedShuffleSplit, cross_val_score

from unlearn.metrics.case import Case, Column
from unlearn.metrics.membership import FEWEST, forgotten_and_others, told_apart

SPLITS, HELD, CLIP = 5, 0.1, 100.0

COLUMNS = {
    "mia_losses": Column(
        best="oracle", unit="share", ideal="theta_r's, near 0.5", says="MIA-I: forget set told from unseen by losses"
    ),
    "mia_losses_n": Column(best="none", unit="examples", ideal="hundreds", says="examples a side of MIA-I and MIARS-I"),
}


def mia_losses(case: Case) -> dict[str, float]:
    """Accuracy of the attack, and how many examples a side it rests on."""
    rng = case.rng("mia-losses")
    forgotten, others = forgotten_and_others(case, rng)
    if len(forgotten) < FEWEST:
        return {"mia_losses": float("nan"), "mia_losses_n": float(len(forgotten))}
    losses = [
        np.clip(-case.judged.label_log_probabilities(rows, case.labels), -CLIP, CLIP) for rows in (forgotten, others)
    ]
    splits = StratifiedShuffleSplit(SPLITS, test_size=HELD, random_state=int(rng.integers(2**31)))
    right = cross_val_score(LogisticRegression(), *told_apart(*losses), cv=splits)
    return {"mia_losses": float(right.mean()), "mia_losses_n": float(len(forgotten))}
