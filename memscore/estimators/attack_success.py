"""Attack success: the probability that a membership attack is right about an example.

    ASR(i) = P over models m of [ (L(m, i) > tau) = (i in the training set of m) ]

Equation 1 of RSU (the privacy score that orders its forget set), with LiRA's log-likelihood ratio for L and every
model in turn as target. tau is fixed, never fitted to the pairs that it scores; 0 predicts "in" where in is likelier.
An attack without information has at best max(keep, 1 - keep), which is 1/2 at keep 0.5.
"""

import numpy as np

from memscore.statistics.intervals import shared_wilson, smoothed_variance


def attack_success(scores: np.ndarray, member: np.ndarray, threshold: float = 0.0) -> dict[str, np.ndarray]:
    """Compute the fraction of targets on which the attack is right about each example.

    Targets share their shadow models, which the interval takes into account and the error does not.

    Args:
        scores: [M, N], the attack's score of example n against target m, higher for members; NaN is not counted.
        member: bool [M, N], example n was in model m's training set.
        threshold: tau; the attack predicts "in" above it.

    Returns:
        value, se (smoothed, never 0), lo, hi (95 %): float64 [N], higher is riskier, NaN where no target
        has a score; n: int64 [N], the targets that have one.
    """
    # NaN compares as not above the threshold, which would be right for non-members
    counted = ~np.isnan(scores)
    hits = (((scores > threshold) == member) & counted).sum(0)
    n = counted.sum(0)
    lo, hi = shared_wilson(hits, n)
    with np.errstate(invalid="ignore"):
        value = hits / n
    return {"value": value, "se": np.sqrt(smoothed_variance(hits, n)), "lo": lo, "hi": hi, "n": n}
