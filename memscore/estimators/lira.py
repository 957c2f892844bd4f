"""LiRA: likelihood ratio of a model's confidence, trained on an example or not.

    online    L(t, i) = log p(phi | in) - log p(phi | out),    phi = log p_y / (1 - p_y) of target t on example i
    offline   z(t, i),  Phi(z) = P[confidence of a model trained without i <= phi],    one-sided

Carlini et al. 2022 (S&P), Algorithm 1 and equation 4; every model in turn is the target and others of the bank are its
shadows, on two sides: trained with i and without i.

Each density is the Student-t predictive of a normal-inverse-gamma prior, not a Gaussian with the shadows' variance:
BaVarIA-t of the literature (arXiv 2603.11799), with another prior. Its variance is the typical one of all examples,
with the weight of 8 shadows. Its mean is that of the other side moved by what training adds to similar examples
(lira_prior.py), with the weight of 6 n / (6 + n) shadows if the other side has n; offline, where the other side is not
known, the mean of all examples with the weight of .05. There is no switch between a variance per example and a global
one. Each side needs a shadow, and some examples two: with 2 models, or with 4 of an exact or orthogonal design at keep
.75, one side has none after a shadow was dropped, and every score is NaN.

Which models are shadows of target t (shadow_models.py):

- orthogonal designs with two blocks or more: the models of all other blocks.
- otherwise all others but one more that is dropped: of the side above its share, keep * (M - 1) for in and
  (1 - keep) * (M - 1) for out, the next model after the target, cyclically; in a tie an out-model. Otherwise an exact
  design reveals membership: a target trained on the example leaves one shadow fewer on that side. With the drop
  an exact design has n_in - 1 and n_out - 1 shadows for members and non-members alike; in an iid design the drop
  depends on independent models only.

With these shadows noise has an AUC of one half, also where an example's confidence depends on its neighbours, but for
one case: a single orthogonal block and neighbours that matter (benchmarks/null_attacks.py).

Examples that are equal in all models have no evidence and score 0. Outlying models and numbers are limited for shadows
and prior (shadow_models.py); a NaN makes the scores of its own example NaN, of no other.

Compute a ROC curve for each target (memscore.statistics.roc.compute_target_means), not over all pairs at once: two
targets of one example share shadows, so under noise their comparison is not a fair coin flip (AUC .492 with 40
examples, .498 with 300).

The functions external_* attack one model that is not in the bank, with every model of the bank as shadow: the audit of
a user's own model. They use the same predictives and prior. No shadow is left out or dropped: the number of the bank's
models that were trained on an example does not depend on the audited model, so the counts reveal nothing about its
training set. Where target and shadows share one design, they would.

lira_variants.py and rmia.py use the functions for shadows from here.
"""

from collections.abc import Iterable

import numpy as np
from scipy.special import gammaln

from memscore.estimators.lira_prior import (
    PriorSums,
    ShadowPrior,
    SideMoments,
    add_sums,
    compute_moments,
    find_level_bins,
    fit_prior,
    sum_for_prior,
)
from memscore.estimators.shadow_models import ShadowModels, sum_other_blocks, winsorize

VARIANCE_STRENGTH = 8.0
"""Weight of the prior on the variance, in shadows."""
MEAN_STRENGTH = 6.0
"""Weight of the prior on the mean, in shadows, where the other side's mean is known exactly."""
OFFLINE_MEAN_STRENGTH = 0.05
"""The same where it is not, and the prior is the typical mean over examples."""

CHUNK_CELLS = 2**18
"""Models x examples per chunk."""


def iterate_column_chunks(confidence: np.ndarray, member: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Iterate over chunks of columns in float64, small enough to stay in cache.

    Args:
        confidence: float [M, N].
        member: bool [M, N].

    Yields:
        The same columns of both, from left to right: float64 and bool [M, n], at most CHUNK_CELLS cells and at
        least one column.
    """
    width = max(CHUNK_CELLS // max(len(member), 1), 1)
    for start in range(0, member.shape[1], width):
        yield confidence[:, start : start + width].astype(np.float64), member[:, start : start + width]


def find_in_surplus(member: np.ndarray, keep: float) -> np.ndarray:
    """Find where in-shadows exceed their share, so that one of them is dropped.

    sum over m != t of member[m, i]  >  keep * (M - 1)

    Args:
        member: bool [M, n], example i was in model m's training set.
        keep: the share of in-cells. The functions here pass ShadowPrior.keep, the share observed over all models and
            examples; lira_variants.py and rmia.py pass the keep fraction that the arm was drawn with.

    Returns:
        bool [M, n], for every model as target: true to drop an in-shadow, false, also in a tie, to drop an out-shadow.
    """
    # member.sum(0) - member counts the in-shadows of each target, that is without the target
    exceeding: np.ndarray = member.sum(0) - member > keep * (len(member) - 1)
    return exceeding


def find_next_on_side(values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Find the value of the next model after the target on that side, cyclically: the dropped shadow.

    Args:
        values: [M, n].
        side: bool [M, n].

    Returns:
        [M, n] of the type of values; 0 where that side is empty.
    """
    following = np.empty_like(values)
    latest = np.zeros(values.shape[1])
    # backwards, `latest` is the next model of the side; the first round only finds what follows the last model
    for last_round in (False, True):
        for m in reversed(range(len(values))):
            if last_round:
                following[m] = latest
            latest = np.where(side[m], values[m], latest)
    return following


def student_t_log_density(t: np.ndarray, scale: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Compute the log-density of Student's t with a scale, at a statistic t.

    log Gamma((df + 1) / 2) - log Gamma(df / 2) - log(df pi) / 2 - log scale - (df + 1) / 2 log(1 + t^2 / df)

    Args:
        t: (value - location) / scale, float64.
        scale: above 0, of the same shape.
        df: degrees of freedom, VARIANCE_STRENGTH plus whole numbers, of the same shape: their gamma functions are
            read from a table.

    Returns:
        float64 of the same shape; NaN where t or scale is.
    """
    # few values of df occur, all of them a whole number above the smallest: gammaln of each once, then a look-up
    fewest = df.min(initial=VARIANCE_STRENGTH)
    table = np.arange(fewest, df.max(initial=fewest) + 1)
    constant = gammaln((table + 1) / 2) - gammaln(table / 2) - np.log(table * np.pi) / 2
    density: np.ndarray = constant[(df - fewest).astype(np.int64)] - np.log(scale) - (df + 1) / 2 * np.log1p(t**2 / df)
    return density


def student_t_to_normal(t: np.ndarray, df: np.ndarray) -> np.ndarray:
    """Compute the z with Phi(z) = CDF of Student's t, by Wallace's formula (1959).

    z = sign(t) (8 df + 1) / (8 df + 3) sqrt(df log(1 + t^2 / df)),    within .03 of the exact z up to 5 if df >= 9

    Args:
        t: a statistic, float64.
        df: its degrees of freedom, of the same shape.

    Returns:
        float64 of the same shape; NaN where t is.
    """
    z: np.ndarray = np.sign(t) * (8 * df + 1) / (8 * df + 3) * np.sqrt(df * np.log1p(t**2 / df))
    return z


def compute_prior_sums(confidence: np.ndarray, member: np.ndarray, shadows: ShadowModels) -> PriorSums:
    """Compute the sums of some examples for the prior, the first of two passes; combine_prior_sums takes them.

    Args:
        confidence: float [M, n].
        member: bool [M, n].
        shadows: the models.

    Returns:
        The sums.
    """
    parts = []
    for raw, is_in in iterate_column_chunks(confidence, member):
        phi = winsorize(raw, shadows)
        # variances are of all others: with four models, two on a side, a drop would leave none
        shadow_sides, other_sides = _summarize_sides(phi, is_in, shadows.keep, shadows)
        means = [side.compute_mean() for side in shadow_sides]
        parts.append(sum_for_prior(phi, int(is_in.sum()), means, other_sides, shadows))
    return add_sums(parts)


def combine_prior_sums(parts: Iterable[PriorSums], shadows: ShadowModels) -> ShadowPrior:
    """Combine sums of disjoint examples to the prior: what the predictives shrink to.

    Args:
        parts: from compute_prior_sums; the order of the parts decides the last bits.
        shadows: the models.

    Returns:
        The prior, the same up to rounding however the examples are split; NaN where no example has two shadows on a
        side.
    """
    return fit_prior(add_sums(parts), shadows)


def lira_scores(confidence: np.ndarray, member: np.ndarray, prior: ShadowPrior) -> tuple[np.ndarray, np.ndarray]:
    """Compute both attacks, every model in turn as target.

    Online is the log-likelihood ratio of in against out. Offline is how far a target's confidence exceeds the
    out-shadows': the z with Phi(z) = CDF of the out-predictive at phi, by Wallace's formula (1959; within .03 of the
    exact z up to 5). Probits, unlike the CDF, do not saturate; unlike t statistics they compare between different
    numbers of shadows.

    Args:
        confidence: float [M, N], logit confidence of model m in example n's label.
        member: bool [M, N], example n was in model m's training set.
        prior: from combine_prior_sums, over all examples of the bank.

    Returns:
        Online and offline, float64 [M, N], both higher for members; NaN where one side has no shadow, offline where no
        out-shadow is left.
    """
    ratio, deviate = np.empty((2, *confidence.shape))
    start = 0
    for raw, is_in in iterate_column_chunks(confidence, member):
        phi = winsorize(raw, prior.shadows)
        columns = slice(start, start + phi.shape[1])
        [inside, outside], _ = _summarize_sides(phi, is_in, prior.keep, prior.shadows)
        equal = (raw == phi[0]) & (phi.max(0) == phi.min(0))
        gain = prior.gains[find_level_bins(phi, prior.shadows)].T
        ratio[:, columns], deviate[:, columns] = _compare_sides(raw, inside, outside, gain, equal, prior)
        start = columns.stop
    return ratio, deviate


def average_by_membership(scores: np.ndarray, member: np.ndarray) -> dict[str, np.ndarray]:
    """Average an attack's scores over targets trained on an example, and over others.

    Args:
        scores: [M, N], one of lira_scores.
        member: bool [M, N].

    Returns:
        mean_in, mean_out: float64 [N], NaN where no such target has a score.
    """
    # NaN times a false cell would still be NaN, so undefined scores add 0 and are not counted
    defined = np.nan_to_num(scores, nan=0.0)
    with np.errstate(invalid="ignore"):
        return {
            name: (defined * side).sum(0) / (side & ~np.isnan(scores)).sum(0)
            for name, side in (("mean_in", member), ("mean_out", ~member))
        }


def fit_external_prior(blocks: Iterable[tuple[np.ndarray, np.ndarray]], shadows: ShadowModels) -> ShadowPrior:
    """Fit the prior for an external target, the first of two passes.

    Args:
        blocks: (confidence, member), float and bool [M, n], for disjoint sets of examples.
        shadows: the bank's models.

    Returns:
        The prior; NaN where no example has two shadows on a side.
    """
    return combine_prior_sums((_sum_for_external_target(*block, shadows) for block in blocks), shadows)


def external_lira_scores(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, prior: ShadowPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Compute both attacks on one target outside the bank.

    Args:
        target: float [N], the target's logit confidence in example n's label.
        confidence: float [M, N], the bank's.
        member: bool [M, N], of the bank.
        prior: from fit_external_prior, over all examples.

    Returns:
        online, a log-likelihood ratio, and offline, a normal deviate: float64 [N], higher for members; NaN where a
        required side has no shadow.
    """
    online, offline = np.empty((2, len(target)))
    start = 0
    for raw, is_in in iterate_column_chunks(confidence, member):
        columns, phi = slice(start, start + raw.shape[1]), winsorize(raw, prior.shadows)
        inside, outside = (_summarize_whole_side(phi, side) for side in (is_in, ~is_in))
        own = target[None, columns].astype(np.float64)
        equal = (own == phi[0]) & (phi.max(0) == phi.min(0))
        gain = prior.gains[find_level_bins(phi, prior.shadows)].T
        [online[columns]], [offline[columns]] = _compare_sides(own, inside, outside, gain, equal, prior)
        start = columns.stop
    return online, offline


def _summarize_whole_side(phi: np.ndarray, side: np.ndarray) -> SideMoments:
    """Summarize all models of one side, [1, n], as shadows of a target outside the bank."""
    count, centre, squares = compute_moments(phi, side)
    return SideMoments(count[None], np.zeros((1, len(count))), squares[None], centre)


def _sum_for_external_target(confidence: np.ndarray, member: np.ndarray, shadows: ShadowModels) -> PriorSums:
    """Sum some examples for the prior of a target outside the bank."""
    parts = []
    for raw, is_in in iterate_column_chunks(confidence, member):
        phi = winsorize(raw, shadows)
        sides = [_summarize_whole_side(phi, side) for side in (is_in, ~is_in)]
        means = [side.compute_mean() for side in sides]
        parts.append(sum_for_prior(phi, int(is_in.sum()), means, sides, shadows))
    return add_sums(parts)


def _leave_out_target(phi: np.ndarray, side: np.ndarray, shadows: ShadowModels) -> SideMoments:
    """Summarize one side without each target, or without its block if shadows are of other blocks."""
    # moments of the side less those of what is left out, [M, n]; relative to the centre, since squares of large
    # confidences would cancel
    count, centre, squares = compute_moments(phi, side)
    deviation = np.where(side, phi - centre, 0)
    if shadows.blocks is None:
        n, total, remaining = count - side, -deviation, squares - deviation**2
    else:
        sums = (sum_other_blocks(values, shadows.blocks) for values in (side, deviation, deviation**2))
        n, total, remaining = sums
    mean = total / np.maximum(n, 1)
    return SideMoments(n, mean, np.maximum(remaining - n * mean**2, 0), centre)


def _drop_next(moments: SideMoments, phi: np.ndarray, side: np.ndarray, drop: np.ndarray) -> SideMoments:
    """Leave out the next model after the target too, where `drop`."""
    dropped = np.where(drop, find_next_on_side(phi - moments.centre, side), 0)
    n = np.maximum(moments.n - drop, 0)
    mean = (moments.n * moments.mean - dropped) / np.maximum(n, 1)
    spread = moments.spread + moments.n * moments.mean**2 - dropped**2 - n * mean**2
    return SideMoments(n, mean, np.maximum(spread, 0), moments.centre)


def _summarize_sides(
    phi: np.ndarray, member: np.ndarray, keep: float, shadows: ShadowModels
) -> tuple[list[SideMoments], list[SideMoments]]:
    """Summarize the shadows of every target, in and out: those that it is compared with, and before one is dropped."""
    sides = member, ~member
    others = [_leave_out_target(phi, side, shadows) for side in sides]
    if shadows.blocks is not None:
        return others, others
    drop_in = find_in_surplus(member, keep)
    drops = zip(others, sides, (drop_in, ~drop_in), strict=True)
    return [_drop_next(moments, phi, side, drop) for moments, side, drop in drops], others


def _compare_sides(
    targets: np.ndarray,
    inside: SideMoments,
    outside: SideMoments,
    gain: np.ndarray,
    equal: np.ndarray,
    prior: ShadowPrior,
) -> tuple[np.ndarray, np.ndarray]:
    """Compute online and offline scores [T, n] of targets from the shadows of both sides; 0 where all are equal."""
    # Each side's prior mean is that of the other side's n shadows moved by the gain, so it is not better known than
    # from n shadows: strengths add as variances do, 1 / strength = 1 / MEAN_STRENGTH + 1 / n.
    of_in, of_out = (MEAN_STRENGTH * side.n / (MEAN_STRENGTH + side.n) for side in (outside, inside))
    from_in = _predict(targets, inside, outside.compute_mean() + gain, of_in, prior.variance_in)
    from_out = _predict(targets, outside, inside.compute_mean() - gain, of_out, prior.variance_out)
    mean_out = prior.mean_out[:, None]
    t, _, df = _predict(targets, outside, mean_out, OFFLINE_MEAN_STRENGTH, prior.variance_out)
    online, offline = student_t_log_density(*from_in) - student_t_log_density(*from_out), student_t_to_normal(t, df)
    # where no two models differ, only the prior would speak
    return np.where(equal & ~np.isnan(online), 0, online), np.where(equal & ~np.isnan(offline), 0, offline)


def _predict(
    targets: np.ndarray,
    side: SideMoments,
    prior_mean: np.ndarray,
    mean_strength: np.ndarray | float,
    prior_variance: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute one side's Student-t for each target: statistic, scale and df."""
    # posterior of a normal-inverse-gamma prior at that mean and variance, then its predictive; relative to the centre
    # (without any shadow on either side nothing is defined, and the strength of 0 stands in no result)
    strength, df = np.maximum(mean_strength + side.n, OFFLINE_MEAN_STRENGTH), VARIANCE_STRENGTH + side.n
    from_prior = prior_mean - side.centre
    location = (mean_strength * from_prior + side.n * side.mean) / strength
    sum_of_squares = VARIANCE_STRENGTH * prior_variance[:, None] + side.spread
    sum_of_squares += mean_strength * side.n / strength * (side.mean - from_prior) ** 2
    defined = (side.n > 0) & (sum_of_squares > 0)
    scale = np.where(defined, np.sqrt(sum_of_squares * (strength + 1) / (df * strength)), np.nan)
    return (targets - side.centre - location) / scale, scale, df
