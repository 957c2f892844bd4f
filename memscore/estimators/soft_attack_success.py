"""Soft attack success: the mean posterior probability that a membership attack gives to the truth about an example.

    S(i) = mean over models m of  sigmoid(  L(m, i) + log(keep / (1 - keep)) )   if i is in the training set of m,
                               1 - sigmoid(  L(m, i) + log(keep / (1 - keep)) )   if not

L is the log-likelihood ratio whose sign attack success counts (attack_success.py), every model in turn is the target.
Attack success rounds each posterior to a right or a wrong guess; the mean of the posteriors keeps how sure each guess
was, so fewer models give the same reliability. It is as good as the posteriors: a ratio that is too large in absolute
value counts guesses as surer than they are. An attack without information has L = 0 and keep^2 + (1 - keep)^2, 1/2 at
keep 0.5: as attack success, it must not be compared between keep fractions.

Its error is not that of independent targets. All targets have shadow models in common, and the posteriors of an example
become more or less confident together with the shadows' estimates: the true standard error is 1.2 to 2 times as large.
How many times, disjoint halves of the models show, each with shadows of its own. One example's few halves say little,
so the factor is shared by examples of similar success.

The interval is of the mean over banks of as many models of the design, for this example.
"""

import numpy as np
from scipy.special import expit, logit

from memscore.estimators.statistic import MIN_STD

MIN_GROUP = 50
"""Least number of examples that share a factor of the standard error."""
MAX_GROUPS = 20
UNEVEN = 1.25
"""Further factor of the standard error: examples of one group differ. Chosen on simulated Gaussian confidences."""
QUANTILE_95 = 1.959964


def soft_attack_success(scores: np.ndarray, member: np.ndarray, keep: float) -> dict[str, np.ndarray]:
    """Compute the mean posterior of the truth about each example.

    Args:
        scores: [M, N], log-likelihood ratio of example n against target m, above 0 for members; infinite ones are
            certainty; NaN is not counted.
        member: bool [M, N], example n was in model m's training set.
        keep: the prior probability of a member, in (0, 1): the share of the examples that a model is trained on.

    Returns:
        value, and se as if targets were independent: float64 [N], higher is riskier, NaN where no target has a score,
        se with fewer than two; n: int64 [N], the targets that have one.
    """
    posterior = expit(np.where(member, 1, -1) * (scores + logit(keep)))
    counted = ~np.isnan(posterior)
    n = counted.sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = np.where(counted, posterior, 0).sum(0) / n
        squares = (np.where(counted, posterior - value, 0) ** 2).sum(0)
        # models that agree to the last bit do not prove an error of 0
        se = np.sqrt(np.maximum(squares / (n - 1), MIN_STD**2) / n)
    return {"value": value, "se": np.where(n > 1, se, np.nan), "n": n}


def widen_by_halves(table: dict[str, np.ndarray], difference: np.ndarray) -> dict[str, np.ndarray]:
    """Correct the standard error for shadow models in common, and add the 95 % interval.

    In groups of examples of similar value, the mean square of the error from halves is divided by that of se; se is
    multiplied by the root and by UNEVEN. The interval is symmetric in log-odds,
    logit(value) +- 1.96 se / (value (1 - value)).

    Args:
        table: from soft_attack_success, of all examples.
        difference: float [N], root mean square difference of the values from two halves of the models, mean over pairs
            of halves; NaN where it is undefined.

    Returns:
        value, se, lo, hi, n; se and interval are NaN where no example of the group has a difference.
    """
    value, naive = table["value"], table["se"]
    se = np.full(len(value), np.nan)
    ranked = np.argsort(value, kind="stable")[: int((~np.isnan(value)).sum())]
    groups = int(np.clip(len(ranked) // MIN_GROUP, 1, MAX_GROUPS))
    for rows in np.array_split(ranked, groups):
        known = rows[~np.isnan(difference[rows] + naive[rows])]
        if len(known):
            # an error of all models has half the variance of one of half the models, a difference twice the latter
            factor = UNEVEN * np.sqrt((difference[known] ** 2).mean() / 4 / (naive[known] ** 2).mean())
            se[rows] = factor * naive[rows]
    # at 0 and 1 the log-odds are infinite, and so certain an attack has an error below the last digit
    inside = np.clip(value, 1e-9, 1 - 1e-9)
    reach = QUANTILE_95 * se / (inside * (1 - inside))
    lo, hi = expit(logit(inside) - reach), expit(logit(inside) + reach)
    return {"value": value, "se": se, "lo": np.minimum(lo, value), "hi": np.maximum(hi, value), "n": table["n"]}
