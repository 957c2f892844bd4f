"""The NeurIPS 2023 challenge's final score: forgetting, times what is left of the accuracies.

    F * (RA_u / RA_r) * (TA_u / TA_r)

F of epsilon.py; RA and TA mean accuracies of unlearned models and oracles on retained and on unseen examples
(Triantafillou et al. 2024). It exceeds 1 where unlearned models are the more accurate, so a clipped one stands beside.
"""

import numpy as np

from unlearn.metrics.case import Column, Population
from unlearn.metrics.epsilon import epsilon

COLUMNS = {
    "challenge_score": Column(best="max", unit="points", ideal="forgetting_score_null", says="F times kept accuracies"),
    "challenge_score_clipped": Column(
        best="max", unit="points", ideal="forgetting_score_null", says="the same, no more than 1"
    ),
}


def challenge_score(models: Population) -> dict[str, float]:
    """The score as published, and at most 1; NaN where F is, where a set is empty or an oracle is never right."""
    found = epsilon(models)["forgetting_score"]
    for rows in (models.retain, models.held_out):
        ours, theirs = (_accuracy(side, rows) for side in (models.margin_unlearned, models.margin_retrained))
        found = found * ours / theirs if theirs > 0 else float("nan")
    return {"challenge_score": found, "challenge_score_clipped": min(found, 1.0) if found == found else found}


def _accuracy(margins: np.ndarray, rows: np.ndarray) -> float:
    return float((margins[:, rows] > 0).mean()) if len(rows) else float("nan")
