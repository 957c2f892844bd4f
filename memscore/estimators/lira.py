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

from collections.abc import Callable, Iterable

import numpy as np

from memscore.estimators.lira_prior import (
    PriorSums,
    ShadowPrior,
    add_sums,
    find_level_bins,
    fit_prior,
    sum_for_prior,
)
from memscore.estimators.shadow_models import ShadowModels, winsorize
from memscore.estimators.shadow_moments import SideMoments, summarize_sides, summarize_whole_side
from memscore.estimators.student_t import predict

MEAN_STRENGTH = 6.0
"""Weight of the prior on the mean, in shadows, where the other side's mean is known exactly."""
OFFLINE_MEAN_STRENGTH = 0.05
"""The same where it is not, and the prior is the typical mean over examples."""

CHUNK_CELLS, MIN_WIDTH = 2**15, 16
"""Models x examples per chunk, and the least number of examples: so that most arrays of a chunk stay in a cache."""


def iterate_column_chunks(confidence: np.ndarray, member: np.ndarray) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Iterate over chunks of columns in float64, small enough to stay in cache.

    Args:
        confidence: float [M, N].
        member: bool [M, N].

    Yields:
        The same columns of both, from left to right: float64 and bool [M, n], at most CHUNK_CELLS cells or
        MIN_WIDTH columns.
    """
    width = max(CHUNK_CELLS // max(len(member), 1), MIN_WIDTH)
    for start in range(0, member.shape[1], width):
        yield confidence[:, start : start + width].astype(np.float64), member[:, start : start + width]


def compute_prior_sums(confidence: np.ndarray, member: np.ndarray, shadows: ShadowModels) -> PriorSums:
    """Compute the sums of some examples for the prior, the first of two passes; combine_prior_sums takes them.

    Args:
        confidence: float [M, n].
        member: bool [M, n].
        shadows: the models.

    Returns:
        The sums.
    """

    def summarize(phi: np.ndarray, is_in: np.ndarray) -> tuple[list[np.ndarray], list[SideMoments]]:
        # variances are of all others: with four models, two on a side, a drop would leave none
        shadow_sides, other_sides = summarize_sides(phi, is_in, shadows.keep, shadows)
        return [side.compute_mean() for side in shadow_sides], other_sides

    return _sum_chunks(confidence, member, shadows, summarize)


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
        [inside, outside], _ = summarize_sides(phi, is_in, prior.keep, prior.shadows)
        ratio[:, columns], deviate[:, columns] = _compare_sides(raw, phi, inside, outside, prior)
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
        inside, outside = (summarize_whole_side(phi, side) for side in (is_in, ~is_in))
        own = target[None, columns].astype(np.float64)
        [online[columns]], [offline[columns]] = _compare_sides(own, phi, inside, outside, prior)
        start = columns.stop
    return online, offline


def _sum_for_external_target(confidence: np.ndarray, member: np.ndarray, shadows: ShadowModels) -> PriorSums:
    """Sum some examples for the prior of a target outside the bank."""

    def summarize(phi: np.ndarray, is_in: np.ndarray) -> tuple[list[np.ndarray], list[SideMoments]]:
        sides = [summarize_whole_side(phi, side) for side in (is_in, ~is_in)]
        return [side.compute_mean() for side in sides], sides

    return _sum_chunks(confidence, member, shadows, summarize)


def _sum_chunks(
    confidence: np.ndarray,
    member: np.ndarray,
    shadows: ShadowModels,
    summarize: Callable[[np.ndarray, np.ndarray], tuple[list[np.ndarray], list[SideMoments]]],
) -> PriorSums:
    """Sum chunk by chunk, given how winsorized confidences and memberships give means and sides for variances."""
    parts = []
    for raw, is_in in iterate_column_chunks(confidence, member):
        phi = winsorize(raw, shadows)
        parts.append(sum_for_prior(phi, int(is_in.sum()), *summarize(phi, is_in), shadows))
    return add_sums(parts)


def _compare_sides(
    targets: np.ndarray, phi: np.ndarray, inside: SideMoments, outside: SideMoments, prior: ShadowPrior
) -> tuple[np.ndarray, np.ndarray]:
    """Compute online and offline scores [T, n] of targets from the shadows of both sides; 0 where all are equal."""
    gain = prior.gains[find_level_bins(phi, prior.shadows)].T
    # Each side's prior mean is that of the other side's n shadows moved by the gain, so it is not better known than
    # from n shadows: strengths add as variances do, 1 / strength = 1 / MEAN_STRENGTH + 1 / n.
    of_in, of_out = (MEAN_STRENGTH * side.n / (MEAN_STRENGTH + side.n) for side in (outside, inside))
    from_in = predict(targets, inside, outside.compute_mean() + gain, of_in, prior.variance_in)
    from_out = predict(targets, outside, inside.compute_mean() - gain, of_out, prior.variance_out)
    weak = predict(targets, outside, prior.mean_out[:, None], OFFLINE_MEAN_STRENGTH, prior.variance_out)
    online, offline = from_in.compute_log_ratio(from_out), weak.compute_normal_deviate()
    # where no two models differ, only the prior would speak
    for column in np.flatnonzero(phi.max(0) == phi.min(0)):
        equal = targets[:, column] == phi[0, column]
        for scores in (online, offline):
            scores[equal & ~np.isnan(scores[:, column]), column] = 0
    return online, offline
