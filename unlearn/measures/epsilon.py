"""The NeurIPS 2023 challenge's forgetting score: epsilon of (epsilon, delta)-unlearning, measured example by example.

    epsilon_x = max over attacks of max( log(1 - delta - fpr) - log fnr,  log(1 - delta - fnr) - log fpr )
    points: 1 if epsilon_x < .5, 1/2 if < 1, 1/4 if < 1.5, ... down to the ceiling, and 0 above;   F = mean over x

Triantafillou et al. 2024, by the released metric.py. An attack tells unlearned models from oracles by logit confidence:
above a threshold (for the side of the larger median), or between two (for the side of the smaller range: the right
one within 2 of its largest value, their distance within 2 of its range). A threshold at which exactly one rate is 0 is
dropped as unproven; both 0 is separation, and so is a range under a hundredth of the other side's.

Two numbers bound epsilon, and mean different things. Where both rates of the best attack are above 0 it is finite and
at most log(n - 1), the ceiling, with n models a side, however much they give away. Where an attack separates all
models, no finite epsilon holds for them; the code writes 50, to which it also clips, and so do the columns. Hence every
epsilon is in [0, log(n - 1)] or is 50, and the share of 50s has a column of its own. The median of an even number of
examples is the upper one of the middle two: a mean of a number and of "none" is neither.

Differs from the code: every threshold that parts the sample is tried, not a grid of .01, so one is always left (the
code asserts an array of them and stops); no GPU is needed. Thresholds are chosen on the models that they are scored on,
so equal distributions do not get 1, but .17 to .22 for normal ones and n from 16 to 512. What they get for this n and
these examples is a column: the same score after each example's models were dealt out at random.

The NeurIPS 2023 challenge's final score: forgetting, times what is left of the accuracies.

    F * (RA_u / RA_r) * (TA_u / TA_r)

F of epsilon.py; RA and TA mean accuracies of unlearned models and oracles on retained and on unseen examples
(Triantafillou et al. 2024). It exceeds 1 where unlearned models are the more accurate, so a clipped one stands beside.
"""

import math

import numpy as np

from unlearn.measures.inputs import Column, PopulationInputs

DELTA, CAP, WIDTH, BUFFER, PEAKED = 1e-5, 50.0, 0.5, 2.0, 0.01
FEWEST = 3
"""Models a side: with two, log(n - 1) is 0."""

COLUMNS = {
    "forgetting_score": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="the challenge's F, forget set"
    ),
    "forgetting_score_null": Column(
        best="none",
        unit="points",
        ideal="0.2",
        description="F where unlearned models and oracles are dealt out at random",
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
        description="of the forget set: an attack tells all models apart, no finite epsilon",
    ),
    "epsilon_ceiling": Column(
        best="none",
        unit="nats",
        ideal="large",
        description="log(n - 1), the largest epsilon of n models short of separation",
    ),
    "epsilon_n": Column(best="none", unit="models a side", ideal="512", description="models that epsilon rests on"),
}


def epsilon(models: PopulationInputs) -> dict[str, float]:
    """The score and what it rests on; NaN with fewer than three models a side."""
    unlearned, retrained = (said[:, models.forget] for said in models.paired_confidences())
    n = len(unlearned)
    values = dict.fromkeys(COLUMNS, float("nan")) | {"epsilon_n": float(n)}
    if n < FEWEST:
        return values
    found = compute_epsilons(unlearned, retrained)
    return {
        "forgetting_score": score_epsilons(found, n),
        "forgetting_score_null": score_epsilons(
            compute_epsilons(*permute_models(unlearned, retrained, models.rng("epsilon"))), n
        ),
        "epsilon_median": float(np.quantile(found, 0.5, method="higher")),
        "epsilon_separated": float((found == CAP).mean()),
        "epsilon_ceiling": math.log(n - 1),
        "epsilon_n": float(n),
    }


def permute_models(one: np.ndarray, other: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """For each example, all its values in two halves at random: what "no difference" looks like with n a side.

    Args:
        one: [n, X].
        other: [n, X].
        rng: deals, for each example anew.

    Returns:
        Two arrays [n, X].
    """
    mixed = rng.permuted(np.concatenate([one, other]), axis=0)
    return mixed[: len(one)], mixed[len(one) :]


def score_epsilons(found: np.ndarray, n: int) -> float:
    """F: the mean of what each epsilon earns.

    Args:
        found: [X], at least 0.
        n: models a side; bins end at the first whole number above log(n - 1).

    Returns:
        In [0, 1].

    >>> points(np.array([0.1, 0.5, 1.49, 50.0]), n=64)
    0.4375
    """
    bins = math.floor(math.ceil(math.log(n - 1)) / WIDTH)
    at = np.floor(found / WIDTH)
    return float(np.where(at < bins, 0.5 ** np.minimum(at, 60), 0.0).mean())


def compute_epsilons(unlearned: np.ndarray, retrained: np.ndarray) -> np.ndarray:
    """Epsilon of each example.

    Args:
        unlearned: float64 [n, X], logit confidence.
        retrained: float64 [n, X].

    Returns:
        float64 [X], in [0, log(n - 1)], or 50 where an attack separates the models.
    """
    return np.array([_epsilon(a, b) for a, b in zip(unlearned.T, retrained.T, strict=True)])


def _epsilon(unlearned: np.ndarray, retrained: np.ndarray) -> float:
    """Of one example."""
    smaller, larger = sorted((float(np.ptp(unlearned)), float(np.ptp(retrained))))
    if larger == 0:
        return 0.0 if unlearned[0] == retrained[0] else CAP
    if smaller / larger < PEAKED:
        return CAP
    high, low = (retrained, unlearned) if np.median(retrained) > np.median(unlearned) else (unlearned, retrained)
    narrow, wide = (high, low) if np.ptp(high) < np.ptp(low) else (low, high)
    (fpr_one, fnr_one), (fpr_two, fnr_two) = _above_one(high, low), _between_two(narrow, wide)
    fpr, fnr = np.concatenate([fpr_one, fpr_two]), np.concatenate([fnr_one, fnr_two])
    proven = (fpr > 0) & (fnr > 0)
    if ((fpr == 0) & (fnr == 0)).any():
        return CAP
    fpr, fnr = fpr[proven], fnr[proven]  # not empty: all of the narrow side but an end, with some of the wide one
    missed, false = (np.log(np.maximum(1 - DELTA - rate, np.finfo(np.float64).tiny)) for rate in (fnr, fpr))
    return float(np.clip(max((false - np.log(fnr)).max(), (missed - np.log(fpr)).max()), 0, CAP))


def _above_one(high: np.ndarray, low: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """False positive and false negative rates of "high if at or above t", t every value."""
    cuts = np.unique(np.concatenate([high, low]))
    missed, passed = (np.searchsorted(np.sort(side), cuts) / len(side) for side in (high, low))
    return 1 - passed, missed


def _between_two(narrow: np.ndarray, wide: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same of "narrow if between two values", for the intervals that the challenge looks at."""
    values = np.unique(np.concatenate([narrow, wide]))
    before, after = np.append(-np.inf, values[:-1]), np.append(values[1:], np.inf)
    # [left, right] holds values[i] to values[j] if before[i] < left <= values[i] and values[j] <= right < after[j]
    right, right_end = np.maximum(values, narrow.max() - BUFFER), np.minimum(after, narrow.max() + BUFFER)
    reachable = (right < after) & (right <= right_end)
    shortest, longest = right - values[:, None], right_end - before[:, None]
    span = np.ptp(narrow)
    seen = reachable & (shortest <= span + BUFFER) & (longest > span - BUFFER)
    first, last = np.nonzero(np.triu(seen))
    inside = [
        (np.searchsorted(np.sort(side), values[last], "right") - np.searchsorted(np.sort(side), values[first]))
        for side in (narrow, wide)
    ]
    return inside[1] / len(wide), (len(narrow) - inside[0]) / len(narrow)


COLUMNS_CHALLENGE = {
    "challenge_score": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="F times kept accuracies"
    ),
    "challenge_score_clipped": Column(
        best="max", unit="points", ideal="forgetting_score_null", description="the same, no more than 1"
    ),
}


def challenge_score(models: PopulationInputs) -> dict[str, float]:
    """The score as published, and at most 1; NaN where F is, where a set is empty or an oracle is never right."""
    found = epsilon(models)["forgetting_score"]
    for rows in (models.retain, models.held_out):
        ours, theirs = (_accuracy(side, rows) for side in (models.margin_unlearned, models.margin_retrained))
        found = found * ours / theirs if theirs > 0 else float("nan")
    return {"challenge_score": found, "challenge_score_clipped": min(found, 1.0) if found == found else found}


def _accuracy(margins: np.ndarray, rows: np.ndarray) -> float:
    return float((margins[:, rows] > 0).mean()) if len(rows) else float("nan")
