"""LiRA: would a model have this confidence in an example if it had seen it, or had not?

    online    L(t, i) = log p(phi | in) - log p(phi | out),    phi = log p_y / (1 - p_y) of target t on example i
    offline   z(t, i),  Phi(z) = P[confidence of a model that has not seen i <= phi],    one-sided

Carlini et al. 2022 (S&P), Algorithm 1 and equation 4; every model in turn is the target and the others are shadows.

Differs from the paper:
- each density is the Student-t predictive of a normal-inverse-gamma prior, not a Gaussian with the shadows' variance:
  prior strength 8 on the variance, at the variance pooled over all examples, and .05 on the mean, at the pooled mean.
  So there is no switch between a variance per example and a global one, and one shadow a side is enough.
- from the target's shadows one more is dropped, from the side that exceeds its share of keep * (M - 1). Else an exact
  design gives membership away: a target that held the example leaves one shadow fewer on that side. With the drop an
  exact design has n_in - 1 and n_out - 1 shadows whatever the target held; in an iid design the choice depends on
  independent models only. Either way noise has an AUC of one half.
- what is pooled leaves the target out, and every example weighs the same: in an exact design weights by count would
  tell which examples the target held.

Draw a ROC curve for each target (roc.over_targets), not over all pairs at once: two targets of one example
share shadows, so their comparison is not a coin flip under noise (AUC .492 with 40 examples, .498 with 300).

The shadows of a target: who they are, what is dropped so that their number tells nothing, and their Student-t.

For target t and example i the shadows are the models of a bank other than t, on two sides: those that held i and those
that did not. The attacks in lira.py, lira_modes.py, rmia.py and outside.py are built from what stands here.

From a target's shadows one more is dropped, from the side that exceeds its share of keep * (M - 1): lira.py says why.

LiRA of one model that is not in the bank, every model of the bank a shadow: the audit of a user's own model.

    online    L(i) = log p(phi | in) - log p(phi | out)           offline    z(i), one-sided

with lira.py's predictives (Carlini et al. 2022; Student-t, the same prior). No shadow is left out, and none is dropped
to make counts equal: how many models of the bank held an example was settled without the audited model, so the counts
tell nothing of what it held. In lira.py, where target and shadows share one design, they would.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

VARIANCE_STRENGTH = 8.0
"""Shadows that the prior on the variance counts for."""
MEAN_STRENGTH = 0.05
"""Shadows that the prior on the mean counts for."""

CHUNK_CELLS = 2**18
"""Models x examples that are worked on at a time."""


def iterate_column_chunks(confidence: np.ndarray, member: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Columns in float64, few enough at a time to stay in cache.

    Args:
        confidence: float [M, N].
        member: bool [M, N].

    Yields:
        The same columns of both, from left to right: float64 and bool [M, n], at most CELLS cells and at least one
        column.
    """
    width = max(CHUNK_CELLS // max(len(member), 1), 1)
    for start in range(0, member.shape[1], width):
        yield confidence[:, start : start + width].astype(np.float64), member[:, start : start + width]


def compute_moments(phi: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count, mean and sum of squared deviations of one side of each example.

    Args:
        phi: float64 [M, n].
        side: bool [M, n], the models that count.

    Returns:
        Three arrays [n]; the mean of nobody is 0, its count says so.
    """
    count = side.sum(0)
    mean = np.where(side, phi, 0).sum(0) / np.maximum(count, 1)
    return count, mean, (np.where(side, phi - mean, 0) ** 2).sum(0)


def find_in_surplus(member: np.ndarray, keep: float) -> np.ndarray:
    """Where a target's in-shadows exceed their share, so that one of them is dropped; elsewhere an out-shadow is.

    sum over m != t of member[m, i]  >  keep * (M - 1)

    Args:
        member: bool [M, n], example i was in model m's training set.
        keep: the arm's share of examples a model.

    Returns:
        bool [M, n], for every model as target.
    """
    exceeding: np.ndarray = member.sum(0) - member > keep * (len(member) - 1)
    return exceeding


def find_next_on_side(values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """The value of the next model of that side after each, cyclically: the shadow that is dropped.

    Args:
        values: [M, n].
        side: bool [M, n].

    Returns:
        [M, n] of the type of values; 0 where that side is empty.
    """
    after = np.empty_like(values)
    carried = np.zeros(values.shape[1])
    for last_round in (False, True):
        for m in reversed(range(len(values))):
            if last_round:
                after[m] = carried
            carried = np.where(side[m], values[m], carried)
    return after


def student_t_log_density(t: np.ndarray, scale: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Log-density of Student's t with a scale, at a statistic t.

    log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2 - log scale - (df + 1) / 2 log(1 + t^2 / df)

    Args:
        t: (value - location) / scale, float64.
        scale: above 0, of the same shape.
        df: degrees of freedom, VARIANCE_STRENGTH plus whole numbers, of the same shape: their gamma functions come
            from a table.

    Returns:
        float64 of the same shape; NaN where t or scale is.
    """
    fewest = df.min(initial=VARIANCE_STRENGTH)
    table = np.arange(fewest, df.max(initial=fewest) + 1)
    constant = gammaln((table + 1) / 2) - gammaln(table / 2) - np.log(table * np.pi) / 2
    density: np.ndarray = constant[(df - fewest).astype(np.int64)] - np.log(scale) - (df + 1) / 2 * np.log1p(t**2 / df)
    return density


def student_t_to_normal(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """The z with Phi(z) = CDF of Student's t, by Wallace's formula (1959).

    z = sign(t) (8 df + 1) / (8 df + 3) sqrt(df log(1 + t^2 / df)),    within .03 of the exact z up to 5 if df >= 9

    Args:
        t: a statistic, float64.
        df: its degrees of freedom, of the same shape.

    Returns:
        float64 of the same shape; NaN where t is.
    """
    z: np.ndarray = np.sign(t) * (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))
    return z


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowPrior:
    """What all examples together say of the shadows of each target, itself left out."""

    keep: float
    mean_in: np.ndarray  # [M], mean over examples of their shadows' mean
    variance_in: np.ndarray  # [M], mean over examples of their shadows' variance
    mean_out: np.ndarray
    variance_out: np.ndarray


class PriorSums(NamedTuple):
    """What some examples add to a Pool."""

    total: np.ndarray  # [2, 4, M]: in and out; means summed and counted, variances summed and counted
    included: int
    cells: int


def fit_shadow_prior(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> ShadowPrior:
    """The first of two passes: means and variances to shrink to.

    Args:
        blocks: (confidence, member), float and bool [M, n], for disjoint sets of examples; all models in the same
            order in each.

    Returns:
        One mean and one variance a side for each target, in float64; however the examples are cut, the same to
        rounding. NaN where no example has two shadows on that side.
    """
    return combine_prior_sums(compute_prior_sums(confidence, member) for confidence, member in blocks)


def compute_prior_sums(confidence: np.ndarray, member: np.ndarray) -> PriorSums:
    """What some examples add to the pool, to be handed to combine_prior_sums.

    Args:
        confidence: float [M, n].
        member: bool [M, n].

    Returns:
        Their sums.
    """
    total = np.zeros((2, 4, len(member)))
    for phi, is_in in iterate_column_chunks(confidence, member):
        total += np.array([_pooled_sums(phi, is_in), _pooled_sums(phi, ~is_in)])
    return PriorSums(total, int(member.sum()), member.size)


def combine_prior_sums(parts: Iterable[PriorSums]) -> ShadowPrior:
    """lira_pool from the sums of disjoint sets of examples; the order of the parts decides the last bits.

    Args:
        parts: from compute_prior_sums.

    Returns:
        As fit_shadow_prior.
    """
    total, included, cells = np.zeros((2, 4, 1)), 0, 0
    for part in parts:
        total, included, cells = total + part.total, included + part.included, cells + part.cells
    with np.errstate(invalid="ignore", divide="ignore"):
        means, variances = total[:, 0] / total[:, 1], total[:, 2] / total[:, 3]
        keep = np.divide(included, cells)
    return ShadowPrior(
        keep=float(keep), mean_in=means[0], variance_in=variances[0], mean_out=means[1], variance_out=variances[1]
    )


def lira_online(confidence: np.ndarray, member: np.ndarray, pool: ShadowPrior) -> np.ndarray:
    """Log-likelihood ratio of in against out, every model in turn as target.

    Args:
        confidence: float [M, N], logit confidence of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.
        pool: from fit_shadow_prior, over all examples of the bank.

    Returns:
        float64 [M, N], higher for members; NaN where no shadow is left on one side.
    """
    ratio = np.empty(confidence.shape)
    start = 0
    for phi, is_in in iterate_column_chunks(confidence, member):
        too_many = find_in_surplus(is_in, pool.keep)
        inside = _predictive(phi, is_in, too_many, pool.mean_in, pool.variance_in)
        outside = _predictive(phi, ~is_in, ~too_many, pool.mean_out, pool.variance_out)
        ratio[:, start : start + phi.shape[1]] = student_t_log_density(*inside) - student_t_log_density(*outside)
        start += phi.shape[1]
    return ratio


def lira_offline(confidence: np.ndarray, member: np.ndarray, pool: ShadowPrior) -> np.ndarray:
    """How far above the models that had not seen the example a target's confidence lies, one-sided.

    z with Phi(z) = CDF of the out-predictive at phi, by Wallace's formula (1959; within .03 of the exact z up to
    5).
    Probits, unlike the CDF, do not saturate; unlike t statistics they compare between different numbers of shadows.

    Args:
        confidence: float [M, N].
        member: bool [M, N].
        pool: from fit_shadow_prior, over all examples of the bank.

    Returns:
        float64 [M, N], higher for members; NaN where no shadow is left out.
    """
    deviate = np.empty(confidence.shape)
    start = 0
    for phi, is_in in iterate_column_chunks(confidence, member):
        t, _, df = _predictive(phi, ~is_in, ~find_in_surplus(is_in, pool.keep), pool.mean_out, pool.variance_out)
        deviate[:, start : start + phi.shape[1]] = student_t_to_normal(t, df)
        start += phi.shape[1]
    return deviate


def lira_scores(confidence: np.ndarray, member: np.ndarray, pool: ShadowPrior) -> tuple[np.ndarray, np.ndarray]:
    """Both attacks at once, the same bits as one after the other: they share the out-predictive.

    Args:
        confidence: float [M, N].
        member: bool [M, N].
        pool: from fit_shadow_prior, over all examples of the bank.

    Returns:
        What lira_online and lira_offline return.
    """
    ratio, deviate = np.empty((2, *confidence.shape))
    start = 0
    for phi, is_in in iterate_column_chunks(confidence, member):
        too_many, columns = find_in_surplus(is_in, pool.keep), slice(start, start + phi.shape[1])
        inside = _predictive(phi, is_in, too_many, pool.mean_in, pool.variance_in)
        outside = _predictive(phi, ~is_in, ~too_many, pool.mean_out, pool.variance_out)
        ratio[:, columns] = student_t_log_density(*inside) - student_t_log_density(*outside)
        deviate[:, columns] = student_t_to_normal(outside[0], outside[2])
        start = columns.stop
    return ratio, deviate


def average_by_membership(scores: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """What the attack says of each example, over targets that held it and over those that did not.

    Args:
        scores: [M, N], from lira_online or lira_offline.
        member: bool [M, N].

    Returns:
        mean_in, mean_out: float64 [N], NaN where no target of that kind has a score.
    """
    known = np.nan_to_num(scores, nan=0.0)
    with np.errstate(invalid="ignore"):
        return {
            name: (known * side).sum(0) / (side & ~np.isnan(scores)).sum(0)
            for name, side in (("mean_in", member), ("mean_out", ~member))
        }


def _pooled_sums(phi: np.ndarray, side: np.ndarray) -> np.ndarray:
    """[4, M]: without model m, the examples' means summed and counted, their variances summed and counted."""
    count, mean, squares = compute_moments(phi, side)
    left = count - side
    own = np.where(side, phi - mean, 0)
    means = np.where(left > 0, mean - own / np.maximum(left, 1), 0)
    others = np.maximum(squares - own**2 * count / np.maximum(left, 1), 0)
    variances = np.where(left > 1, others / np.maximum(left - 1, 1), 0)
    return np.stack([means.sum(1), (left > 0).sum(1), variances.sum(1), (left > 1).sum(1)])


def _predictive(
    phi: np.ndarray, side: np.ndarray, drop: np.ndarray, prior_mean: np.ndarray, prior_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target one side's Student-t: the statistic, scale and degrees of freedom, without target and dropped."""
    count, centre, squares = compute_moments(phi, side)
    own = np.where(side, phi - centre, 0)
    extra = np.where(drop, find_next_on_side(phi - centre, side), 0)
    n = np.maximum(count - side - drop.astype(np.int64), 0)
    mean = -(own + extra) / np.maximum(n, 1)  # around the centre, where the side's own sum is 0
    spread = np.maximum(squares - own**2 - extra**2 - n * mean**2, 0)
    strength = MEAN_STRENGTH + n
    from_prior = prior_mean[:, None] - centre
    location = (MEAN_STRENGTH * from_prior + n * mean) / strength
    df = VARIANCE_STRENGTH + n
    sum_of_squares = VARIANCE_STRENGTH * prior_variance[:, None] + spread
    sum_of_squares += MEAN_STRENGTH * n / strength * (mean - from_prior) ** 2
    scale = np.where((n > 0) & (sum_of_squares > 0), np.sqrt(sum_of_squares * (strength + 1) / (df * strength)), np.nan)
    return (phi - centre - location) / scale, scale, df


@dataclass(frozen=True, kw_only=True)
class ExternalPrior:
    """Mean over examples of their shadows' mean and variance, every example weighing the same."""

    mean_in: float
    variance_in: float
    mean_out: float
    variance_out: float


def fit_external_prior(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> ExternalPrior:
    """The first of two passes: what the predictives shrink to.

    Args:
        blocks: (confidence, member), float and bool [M, n], for disjoint sets of examples.

    Returns:
        One mean and one variance a side; NaN where no example has a shadow, or two of them, on that side.
    """
    sums = np.zeros((2, 4))
    for confidence, member in blocks:
        phi = confidence.astype(np.float64)
        for side, held in enumerate((member, ~member)):
            n, mean, squares = compute_moments(phi, held)
            own = np.where(n > 1, squares / np.maximum(n - 1, 1), 0)
            sums[side] += (mean.sum(), (n > 0).sum(), own.sum(), (n > 1).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        (mean_in, mean_out), (variance_in, variance_out) = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
    return ExternalPrior(
        mean_in=float(mean_in), variance_in=float(variance_in), mean_out=float(mean_out),
        variance_out=float(variance_out),
    )  # fmt: skip


def external_lira_scores(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, pool: ExternalPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Both attacks on one outside target.

    Args:
        target: float [N], the target's logit confidence in example n's label.
        confidence: float [M, N], the bank's.
        member: bool [M, N], of the bank.
        pool: from fit_external_prior, over all examples.

    Returns:
        online, a log-likelihood ratio, and offline, a normal deviate: float64 [N], higher for members; NaN where a side
        that is needed has no shadow.
    """
    phi = confidence.astype(np.float64)
    inside = _predictive_of_target(target, phi, member, pool.mean_in, pool.variance_in)
    outside = _predictive_of_target(target, phi, ~member, pool.mean_out, pool.variance_out)
    return student_t_log_density(*inside) - student_t_log_density(*outside), student_t_to_normal(outside[0], outside[2])


def _predictive_of_target(
    target: np.ndarray, phi: np.ndarray, side: np.ndarray, prior_mean: float, prior_variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One side's Student-t: the statistic, scale and degrees of freedom, [n] each."""
    n, mean, squares = compute_moments(phi, side)
    strength, df = MEAN_STRENGTH + n, VARIANCE_STRENGTH + n
    location = (MEAN_STRENGTH * prior_mean + n * mean) / strength
    total = VARIANCE_STRENGTH * prior_variance + squares + MEAN_STRENGTH * n / strength * (mean - prior_mean) ** 2
    scale = np.where((n > 0) & (total > 0), np.sqrt(total * (strength + 1) / (df * strength)), np.nan)
    return (target - location) / scale, scale, df
