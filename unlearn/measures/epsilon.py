"""The NeurIPS 2023 challenge's scores: epsilon of (epsilon, delta)-unlearning, measured per example, and accuracy.

    epsilon_x = max over attacks of max( log(1 - delta - fpr) - log fnr,  log(1 - delta - fnr) - log fpr )
    points: 1 if epsilon_x < .5, 1/2 if < 1, 1/4 if < 1.5, ... down to the ceiling, and 0 above;   F = mean over x

Triantafillou et al. 2024, by the released metric.py. An attack separates unlearned models from oracles by logit
confidence: by one threshold (positive: the side of the larger median), or by an interval (positive: the side of the
smaller range; the right end within 2 of its largest value, the length within 2 of its range). A threshold at which
exactly one rate is 0 is dropped as unproven; both 0 is separation, and so is a range below a hundredth of the other
side's.

Two numbers bound epsilon, and mean different things. If both rates of the best attack are above 0, epsilon is finite
and at most log(n - 1), the ceiling, with n models per side, however different they are. If an attack separates all
models, no finite epsilon holds for them; the code writes 50, to which it also clips, and so do the columns. Hence every
epsilon is in [0, log(n - 1)] or is 50, and the share of 50s is a separate column. The median of an even number of
examples is the upper one of the middle two, since a number and "no finite value" have no mean.

Differs from the code: every threshold that splits the sample is tried, not a grid of .01, so one always remains (the
code asserts an array of them and stops); no GPU is needed. Thresholds are chosen on the models that they are scored on,
so equal distributions do not get 1, but .17 to .22 for normal ones and n from 16 to 512. A null column has the value
for this n and these examples: the same score after each example's models are randomly permuted.

The challenge's final score multiplies forgetting by accuracy ratios:

    F * (RA_u / RA_r) * (TA_u / TA_r)

RA and TA are mean accuracies of unlearned models and oracles on retained and on unseen examples (Triantafillou et al.
2024). It exceeds 1 where unlearned models are more accurate, so a clipped score is a second column.
"""

import math

import numpy as np

from unlearn.measures.inputs import HELD_OUT_SPLITS, Column, Measure, PopulationInputs

DELTA, CAP, WIDTH, BUFFER, PEAKED = 1e-5, 50.0, 0.5, 2.0, 0.01
FEWEST = 3
"""Minimum number of models per side: with two, log(n - 1) is 0."""

COLUMNS = {
    "forgetting_score": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="the challenge's F, forget set"
    ),
    "forgetting_score_null": Column(
        best="none",
        unit="points",
        ideal="0.2",
        description="F after unlearned models and oracles are permuted",
    ),
    "epsilon_median": Column(
        best="min",
        unit="nats",
        ideal="0",
        description="median epsilon over the forget set: up to the ceiling, or 50 where no finite one holds",
        unbounded=CAP,
    ),
    "epsilon_separated": Column(
        best="min",
        unit="share",
        ideal="0",
        description="of the forget set where an attack separates all models: no finite epsilon",
    ),
    "epsilon_ceiling": Column(
        best="none",
        unit="nats",
        ideal="large",
        description="log(n - 1), the largest epsilon of n models short of separation",
    ),
    "epsilon_n": Column(best="none", unit="models a side", ideal="512", description="models used for epsilon"),
}


def epsilon(population: PopulationInputs) -> dict[str, float]:
    """Compute the forgetting score F and its components; NaN with fewer than three models per side."""
    unlearned, retrained = (confidences[:, population.forget] for confidences in population.paired_confidences())
    n = len(unlearned)
    values = dict.fromkeys(COLUMNS, float("nan")) | {"epsilon_n": float(n)}
    if n < FEWEST:
        return values
    epsilons = compute_epsilons(unlearned, retrained)
    return {
        "forgetting_score": score_epsilons(epsilons, n),
        "forgetting_score_null": score_epsilons(
            compute_epsilons(*permute_models(unlearned, retrained, population.rng("epsilon"))), n
        ),
        "epsilon_median": float(np.quantile(epsilons, 0.5, method="higher")),
        "epsilon_separated": float((epsilons == CAP).mean()),
        "epsilon_ceiling": math.log(n - 1),
        "epsilon_n": float(n),
    }


MEASURE = Measure(
    fn=epsilon,
    columns=COLUMNS,
    needs="population",
    summary="the forgetting score of the NeurIPS 2023 challenge, and its value for equal distributions; median "
    "epsilon, its ceiling, and the share that is separated, so that no finite epsilon holds",
    paper="Triantafillou et al. 2024",
)


def permute_models(first: np.ndarray, second: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Permute the models of both sides, [n, X] each, per example: the null of "no difference" with n per side."""
    mixed = rng.permuted(np.concatenate([first, second]), axis=0)
    return mixed[: len(first)], mixed[len(first) :]


def score_epsilons(epsilons: np.ndarray, n: int) -> float:
    """Compute F, the mean points of epsilons.

    Args:
        epsilons: [X], at least 0.
        n: models per side; bins end at the first whole number above log(n - 1).

    Returns:
        In [0, 1].

    >>> score_epsilons(np.array([0.1, 0.5, 1.49, 50.0]), n=64)
    0.4375
    """
    # [0, .5), [.5, 1), ... up to the ceiling, the first whole number above log(n - 1); above it, and for 50, no points.
    n_bins = math.floor(math.ceil(math.log(n - 1)) / WIDTH)
    bin_index = np.floor(epsilons / WIDTH)
    return float(np.where(bin_index < n_bins, 0.5 ** np.minimum(bin_index, 60), 0.0).mean())


def compute_epsilons(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Compute epsilon of each example.

    Args:
        unlearned: float64 [n, X], logit confidence.
        retrained: float64 [n, X].

    Returns:
        float64 [X], in [0, log(n - 1)], or 50 where an attack separates the models.
    """
    return np.array([_compute_epsilon(a, b) for a, b in zip(unlearned.T, retrained.T, strict=True)])


def _compute_epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Compute epsilon of one example."""
    # Before any threshold: two constant sides are equal or separated, and a side whose range is below a hundredth of
    # the other's counts as separated.
    smaller, larger = sorted((float(np.ptp(unlearned)), float(np.ptp(retrained))))
    if larger == 0:
        return 0.0 if unlearned[0] == retrained[0] else CAP
    if smaller / larger < PEAKED:
        return CAP
    # Each attack has its own positive side: the threshold's has the larger median, the interval's the smaller range.
    high, low = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    narrower, wider = (high, low) if np.ptp(high) < np.ptp(low) else (low, high)
    # Rates of all thresholds and all intervals together: epsilon is the maximum over both attacks.
    rates = _rates_above_threshold(high, low), _rates_in_interval(narrower, wider)
    fpr, fnr = (np.concatenate(both) for both in zip(*rates, strict=True))
    # A rate of 0 makes epsilon infinite. If an attack has both rates 0, it separates all models; where only one is 0,
    # the threshold is dropped as unproven.
    is_proven = (fpr > 0) & (fnr > 0)
    if ((fpr == 0) & (fnr == 0)).any():
        return CAP
    # Not empty: an interval with all of the narrower side but one end, and some of the wider side.
    fpr, fnr = fpr[is_proven], fnr[is_proven]
    # log(1 - delta - fnr) and log(1 - delta - fpr); a rate of 1 would make their arguments negative.
    log_tpr, log_tnr = (np.log(np.maximum(1 - DELTA - rate, np.finfo(np.float64).tiny)) for rate in (fnr, fpr))
    return float(np.clip(max((log_tnr - np.log(fnr)).max(), (log_tpr - np.log(fpr)).max()), 0, CAP))


def _rates_above_threshold(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute false positive and false negative rates of "high if at or above t" for every value t."""
    thresholds = np.unique(np.concatenate([high, low]))
    # Shares strictly below each threshold: false negatives of the high side, true negatives of the low side.
    missed, passed = (np.searchsorted(np.sort(side), thresholds) / len(side) for side in (high, low))
    return 1 - passed, missed


def _rates_in_interval(narrower: np.ndarray, wider: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the same rates of "narrower side if in an interval", for the challenge's intervals."""
    # An interval matters by the values it holds, from values[i] to values[j] of both sides. So all pairs (i, j) are
    # tried instead of a grid, and a pair counts if some interval that the challenge allows holds just these values.
    values = np.unique(np.concatenate([narrower, wider]))
    previous, following = np.append(-np.inf, values[:-1]), np.append(values[1:], np.inf)
    # [left, right] holds values[i] to values[j] if previous[i] < left <= values[i], values[j] <= right < following[j].
    # The challenge's rule for the right end, within 2 of the narrower side's maximum: right is its least value, [j].
    right, right_end = np.maximum(values, narrower.max() - BUFFER), np.minimum(following, narrower.max() + BUFFER)
    reachable = (right < following) & (right <= right_end)
    # [i, j]: lengths that are possible; the rule asks for one within 2 of the narrower side's range. The longest one is
    # not reached, as previous[i] is excluded.
    shortest, longest = right - values[:, None], right_end - previous[:, None]
    narrower_range = np.ptp(narrower)
    considered = reachable & (shortest <= narrower_range + BUFFER) & (longest > narrower_range - BUFFER)
    # Pairs with i <= j.
    first, last = np.nonzero(np.triu(considered))
    inside = [
        (np.searchsorted(np.sort(side), values[last], "right") - np.searchsorted(np.sort(side), values[first]))
        for side in (narrower, wider)
    ]
    return inside[1] / len(wider), (len(narrower) - inside[0]) / len(narrower)


COLUMNS_CHALLENGE = {
    "challenge_score": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="F times accuracy ratios"
    ),
    "challenge_score_clipped": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="the same, at most 1"
    ),
}


def challenge_score(population: PopulationInputs) -> dict[str, float]:
    """Compute the score as published and clipped; NaN where F is, a set is empty, or oracles are never right."""
    score = epsilon(population)["forgetting_score"]
    # Ratios of accuracies over all models, not means of ratios of pairs.
    for rows in (population.retain, population.held_out):
        unlearned_accuracy, retrained_accuracy = (
            _mean_accuracy(side, rows) for side in (population.margin_unlearned, population.margin_retrained)
        )
        score = score * unlearned_accuracy / retrained_accuracy if retrained_accuracy > 0 else float("nan")
    return {
        "challenge_score": score,
        # score == score is false for NaN, of which min would depend on the order of its arguments.
        "challenge_score_clipped": min(score, 1.0) if score == score else score,
    }


MEASURE_CHALLENGE = Measure(
    fn=challenge_score,
    columns=COLUMNS_CHALLENGE,
    needs="population",
    summary="epsilon's forgetting score times the remaining accuracies",
    paper="Triantafillou et al. 2024",
    splits=HELD_OUT_SPLITS,
)


def _mean_accuracy(margins: np.ndarray, rows: np.ndarray) -> float:
    return float((margins[:, rows] > 0).mean()) if len(rows) else float("nan")
