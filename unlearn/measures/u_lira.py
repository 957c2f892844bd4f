"""U-LiRA: attack that tells unlearned models from oracles by their confidence in a forgotten example.

    phi = logit confidence;  A = models that were trained on x and unlearned it,  B = models that never saw it
    "unlearned" if log N(phi; mean_A(x), sd_A(x)) > log N(phi; mean_B(x), sd_B(x))

Hayes et al. 2024, after Carlini et al. 2022: the strongest attack of the literature, since it knows the algorithm and
each example. Every model is the target once. Its pair, one unlearned model and one oracle of the same index, is left
out on both sides, so both Gaussians are fitted to equally many models without the target and its twin. If unlearning
leaves no trace, expected accuracy and area are exactly .5. The ROC curve is computed for each pair over the forget set,
and areas are averaged.

Differs from the paper in the number of models, which is reported, and in a floor: no standard deviation is below a
tenth of the root mean square over the forget set, in which no variance counts as more than 900 times the median, so
that one outlying number sets no floor for all. (deepunlearn fits Gaussians to right-or-wrong, which often have
standard deviation 0.)
"""

import numpy as np

from memscore.statistics.roc import auc, compute_tprs
from unlearn.measures.inputs import Column, Measure, PopulationInputs

FLOOR, FPR = 0.1, 0.01
LARGEST_VARIANCE = 900.0
"""Times the median variance, as which a larger one counts in the floor."""
FEWEST = 3
"""Minimum number of pairs: with one left out, two models per side give a variance."""

COLUMNS = {
    "u_lira_accuracy": Column(
        best="min",
        unit="share",
        ideal="0.5",
        description="accuracy of calling models unlearned or retrained, forget set",
    ),
    "u_lira_auc": Column(best="min", unit="area", ideal="0.5", description="ROC area of the same, mean over targets"),
    "u_lira_tpr_at_0.01": Column(
        best="min",
        unit="share",
        ideal="0.01",
        description="true positives at 1 % false; NaN for a forget set under 100",
    ),
    "u_lira_n": Column(best="none", unit="models a side", ideal="64 or more", description="models used for U-LiRA"),
}


def u_lira(population: PopulationInputs) -> dict[str, float]:
    """Compute how well the attack separates unlearned models from oracles; NaN with fewer than three pairs."""
    unlearned, retrained = (confidences[:, population.forget] for confidences in population.paired_confidences())
    values = dict.fromkeys(COLUMNS, float("nan")) | {"u_lira_n": float(len(unlearned))}
    if len(unlearned) < FEWEST:
        return values
    # [2, n, F]: side, pair, example of the forget set.
    scores = u_lira_scores(unlearned, retrained)
    # A curve for each pair: 2 F scores, the unlearned model's first. Scores of different pairs come from different
    # fits, and are not pooled.
    is_unlearned = np.repeat([True, False], scores.shape[2])
    curves = [scores[:, pair].ravel() for pair in range(len(unlearned))]
    # A positive score says "unlearned", which is right on side 0 and wrong on side 1; a tie counts half.
    correct = (np.sign(scores) * np.array([1, -1])[:, None, None] + 1) / 2
    values["u_lira_accuracy"] = float(correct.mean())
    values["u_lira_auc"] = float(np.mean([auc(curve, is_unlearned) for curve in curves]))
    # With fewer than 100 scores of oracles in a curve, 1 % of them is less than one.
    if FPR * scores.shape[2] >= 1:
        rates = [compute_tprs(curve, is_unlearned, np.array([FPR])) for curve in curves]
        values["u_lira_tpr_at_0.01"] = float(np.mean(rates))
    return values


MEASURE = Measure(
    fn=u_lira,
    columns=COLUMNS,
    needs="population",
    summary="AUC and accuracy of an attack that separates unlearned models from retrained ones, per example",
    paper="Hayes et al. 2024",
)


def u_lira_scores(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Compute log-likelihood ratios of every model as target.

    Args:
        unlearned: float64 [n, F], n >= 3.
        retrained: float64 [n, F]; models of equal index are left out together.

    Returns:
        float64 [2, n, F], higher means more likely unlearned: of the unlearned models, then of the oracles.
    """
    sides = [_leave_one_out_moments(phi) for phi in (unlearned, retrained)]
    # [n], over both sides and all of F, each without its pair: the target must not influence its own floor.
    variances = np.array([spread for _, spread in sides])
    limit = LARGEST_VARIANCE * np.nanmedian(variances, axis=(0, 2), keepdims=True)
    limited = np.where(limit > 0, np.minimum(variances, limit), variances)
    # an example with a NaN has no score, and sets no floor
    typical_variance = np.nanmean(limited, axis=(0, 2))
    floor = np.maximum(FLOOR**2 * typical_variance, np.finfo(np.float64).tiny)[:, None]
    (mean_a, var_a), (mean_b, var_b) = ((mean, np.maximum(spread, floor)) for mean, spread in sides)
    phi = np.stack([unlearned, retrained])
    # log N(phi; A) - log N(phi; B); the target is in neither fit, whichever side it is from.
    ratio: np.ndarray = ((phi - mean_b) ** 2 / var_b - (phi - mean_a) ** 2 / var_a + np.log(var_b / var_a)) / 2
    return ratio


def _leave_one_out_moments(phi: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute mean and variance of the other models, [n, F] each."""
    # By subtraction from sums over all n, instead of n fits. With d = phi - mean: the others' d sum to -d_i, so their
    # mean is -d_i / (n - 1), and their squares about it are sum d^2 - d_i^2 - (n - 1) mean^2.
    n, mean_all = len(phi), phi.mean(0)
    deviation = phi - mean_all
    mean = -deviation / (n - 1)
    squares = (deviation**2).sum(0) - deviation**2 - (n - 1) * mean**2
    # n - 1 others have n - 2 degrees of freedom; rounding may leave a sum of squares below 0.
    return mean + mean_all, np.maximum(squares, 0) / (n - 2)
