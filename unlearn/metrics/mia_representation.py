"""MIARS: MIA-I and MIA-II where the attacker sees the representation, not the output.

    5 nearest neighbours, Euclidean, on phi(x) / ||phi(x)||,  phi = what the last linear layer reads
    MIARS-I:  F against held-out examples of F's classes; balanced accuracy of 5 stratified folds
    MIARS-II: R against held-out examples; share of F called NON-member

SURE 5: a model can give the right outputs and still keep what it has learned in its inner layers. The ideal is
theta_r's value. SURE names neither k, nor the distance, nor the folds; these are the project's. As in MIA-II members
are R, not D: an example of F would be its own nearest neighbour. Undefined below 10 examples a side.
"""

import numpy as np
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from unlearn.metrics.case import Case, Column
from unlearn.metrics.membership import FEWEST, forgotten_and_others, members_and_others, told_apart

NEIGHBOURS, FOLDS = 5, 5

COLUMNS = {
    "miars_1": Column(
        best="oracle", unit="share", ideal="theta_r's, near 0.5", says="MIARS-I: forget set told from unseen by kNN"
    ),
    "miars_2": Column(
        best="oracle", unit="share", ideal="theta_r's", says="MIARS-II: of the forget set called NON-member, by kNN"
    ),
}


def mia_representation(case: Case) -> dict[str, float]:
    """Both attacks."""
    rng = case.rng("mia-representation")
    forgotten, others = forgotten_and_others(case, rng)
    members, unseen = members_and_others(case, rng)
    values = dict.fromkeys(COLUMNS, float("nan"))
    nearest = KNeighborsClassifier(NEIGHBOURS)
    if len(forgotten) >= FEWEST:
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=int(rng.integers(2**31)))
        sides = told_apart(_directions(case, forgotten), _directions(case, others))
        values["miars_1"] = float(cross_val_score(nearest, *sides, cv=folds, scoring="balanced_accuracy").mean())
    if len(members) >= FEWEST and len(case.forget):
        nearest.fit(*told_apart(_directions(case, members), _directions(case, unseen)))
        values["miars_2"] = float(1 - nearest.predict(_directions(case, case.forget)).mean())
    return values


def _directions(case: Case, rows: np.ndarray) -> np.ndarray:
    """Embeddings of length 1; one that is all zeros stays so."""
    found = case.judged.embeddings[rows].astype(np.float64)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    directions: np.ndarray = found / np.where(lengths > 0, lengths, 1)
    return directions
