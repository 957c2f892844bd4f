"""U-LiRA: from how sure a model is of a forgotten example, was it unlearned or had it never seen it?

    phi = logit confidence;  A = models that were trained on x and unlearned it,  B = models that never saw it
    "unlearned" if log N(phi; mean_A(x), sd_A(x)) > log N(phi; mean_B(x), sd_B(x))

Hayes et al. 2024, after Carlini et al. 2022: the strongest attack of the literature, as it knows the algorithm and each
example. Every model is the target once, and its pair, one unlearned model and one oracle of the same index, is left out
of both sides: so both are fitted to equally many models, none of them the target or its twin, and where unlearning
leaves no trace accuracy and area are .5 on average, exactly. The curve is drawn for each pair over the forget set, and
averaged.

Differs from the paper in the number of models, which is stated, and in a floor: no standard deviation is under a tenth
of the root mean square over the forget set. (deepunlearn fits Gaussians to right-or-wrong, where they are often 0.)
"""

import numpy as np

from memscore.statistics.roc import auc, tpr_at_fpr
from unlearn.measures.inputs import Column, PopulationInputs

FLOOR, FPR = 0.1, 0.01
FEWEST = 3
"""Pairs: with one left out, two models a side are the fewest that have a spread."""

COLUMNS = {
    "u_lira_accuracy": Column(
        best="min", unit="share", ideal="0.5", description="right calls of unlearned against never seen, forget set"
    ),
    "u_lira_auc": Column(best="min", unit="area", ideal="0.5", description="ROC area of the same, mean over targets"),
    "u_lira_tpr_at_0.01": Column(
        best="min",
        unit="share",
        ideal="0.01",
        description="true positives at 1 % false; NaN for a forget set under 100",
    ),
    "u_lira_n": Column(
        best="none", unit="models a side", ideal="64 or more", description="models that U-LiRA rests on"
    ),
}


def u_lira(models: PopulationInputs) -> dict[str, float]:
    """How well the attack tells unlearned models from oracles on the forget set; NaN with fewer than three pairs."""
    unlearned, retrained = (said[:, models.forget] for said in models.paired_confidences())
    values = dict.fromkeys(COLUMNS, float("nan")) | {"u_lira_n": float(len(unlearned))}
    if len(unlearned) < FEWEST:
        return values
    scores = u_lira_scores(unlearned, retrained)
    truth = np.repeat([True, False], scores.shape[2])
    curves = [scores[:, pair].ravel() for pair in range(len(unlearned))]
    right = (np.sign(scores) * np.array([1, -1])[:, None, None] + 1) / 2  # a tie is half right
    values["u_lira_accuracy"] = float(right.mean())
    values["u_lira_auc"] = float(np.mean([auc(curve, truth) for curve in curves]))
    if FPR * scores.shape[2] >= 1:
        values["u_lira_tpr_at_0.01"] = float(np.mean([tpr_at_fpr(curve, truth, FPR).value for curve in curves]))
    return values


def u_lira_scores(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Log-likelihood ratios of every model as target.

    Args:
        unlearned: float64 [n, F], n >= 3.
        retrained: float64 [n, F], index by index the pairs that are left out together.

    Returns:
        float64 [2, n, F], higher for "was unlearned": of the unlearned models, then of the oracles.
    """
    sides = [_without_each(phi) for phi in (unlearned, retrained)]
    typical = np.mean([spread for _, spread in sides], axis=(0, 2))  # [n], each without its own pair
    floor = np.maximum(FLOOR**2 * typical, np.finfo(np.float64).tiny)[:, None]
    (mean_a, var_a), (mean_b, var_b) = ((mean, np.maximum(spread, floor)) for mean, spread in sides)
    phi = np.stack([unlearned, retrained])
    ratio: np.ndarray = ((phi - mean_b) ** 2 / var_b - (phi - mean_a) ** 2 / var_a + np.log(var_b / var_a)) / 2
    return ratio


def _without_each(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance of the other models, [n, F] each."""
    n, middle = len(phi), phi.mean(0)
    away = phi - middle
    mean = -away / (n - 1)
    squares = (away**2).sum(0) - away**2 - (n - 1) * mean**2
    return mean + middle, np.maximum(squares, 0) / (n - 2)
