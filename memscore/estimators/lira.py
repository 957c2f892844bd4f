"""LiRA: likelihood ratio of a model's confidence, trained on an example or not.

    online    L(t, i) = log p(phi | in) - log p(phi | out),    phi = log p_y / (1 - p_y) of target t on example i
    offline   z(t, i),  Phi(z) = P[confidence of a model trained without i <= phi],    one-sided

Carlini et al. 2022 (S&P), Algorithm 1 and equation 4; every model in turn is the target and the others are shadows. For
target t and example i the shadows are the models of a bank other than t, on two sides: trained with i and without i.

Differs from the paper:
- each density is the Student-t predictive of a normal-inverse-gamma prior, not a Gaussian with the shadows' variance:
  prior strength 8 on the variance, at the variance pooled over all examples, and .05 on the mean, at the pooled mean.
  So there is no switch between a variance per example and a global one, and one shadow per side is enough.
- from the target's shadows one more is dropped: of the side above its share, keep * (M - 1) for in and
  (1 - keep) * (M - 1) for out, the next model after the target, cyclically; in a tie an out-model. Otherwise an exact
  design reveals membership: a target trained on the example leaves one shadow fewer on that side. With the drop
  an exact design has n_in - 1 and n_out - 1 shadows for members and non-members alike; in an iid design the drop
  depends on independent models only. In both cases noise has an AUC of one half.
- the pooled values leave the target out, and every example has the same weight: in an exact design weights by count
  would reveal the target's training examples.

Compute a ROC curve for each target (memscore.statistics.roc.compute_target_means), not over all pairs at once: two
targets of one example share shadows, so under noise their comparison is not a fair coin flip (AUC .492 with 40
examples, .498 with 300).

The functions external_* attack one model that is not in the bank, with every model of the bank as shadow: the audit of
a user's own model.

    online    L(i) = log p(phi | in) - log p(phi | out)           offline    z(i), one-sided

They use the same predictives (Student-t, the same prior). No shadow is left out or dropped: the number of the bank's
models that were trained on an example does not depend on the audited model, so the counts reveal nothing about its
training set. Where target and shadows share one design, they would.

lira_variants.py and rmia.py use the functions for shadows from here.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import gammaln

VARIANCE_STRENGTH = 8.0
"""Weight of the prior on the variance, in shadows."""
MEAN_STRENGTH = 0.05
"""Weight of the prior on the mean, in shadows."""

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


def compute_moments(phi: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute count, mean and sum of squared deviations of one side of each example.

    Args:
        phi: float64 [M, n].
        side: bool [M, n], the models that count.

    Returns:
        Three arrays [n]; mean and sum of an empty side are 0.
    """
    # deviations from the mean, not squares of phi, which would cancel
    count = side.sum(0)
    mean = np.where(side, phi, 0).sum(0) / np.maximum(count, 1)
    return count, mean, (np.where(side, phi - mean, 0) ** 2).sum(0)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowPrior:
    """Mean and variance of each target's shadows over all examples, without the target.

    Attributes:
        keep: observed, the share of true cells in member over all models and examples.
        mean_in: [M], mean over examples of the mean of their in-shadows.
        variance_in: [M], mean over examples of the variance of their in-shadows.
        mean_out: [M], the same of out-shadows.
        variance_out: [M].
    """

    keep: float
    mean_in: np.ndarray
    variance_in: np.ndarray
    mean_out: np.ndarray
    variance_out: np.ndarray


class PriorSums(NamedTuple):
    """Sums over some examples for a ShadowPrior; sums of disjoint sets of examples add."""

    total: np.ndarray  # [2, 4, M]: in and out; means summed and counted, variances summed and counted
    included: int
    cells: int


def compute_prior_sums(confidence: np.ndarray, member: np.ndarray) -> PriorSums:
    """Compute the sums of some examples for the prior, the first of two passes; combine_prior_sums takes them.

    Args:
        confidence: float [M, n].
        member: bool [M, n].

    Returns:
        The sums.
    """
    total = np.zeros((2, 4, len(member)))
    for phi, is_in in iterate_column_chunks(confidence, member):
        total += np.array([_pooled_sums(phi, is_in), _pooled_sums(phi, ~is_in)])
    return PriorSums(total, int(member.sum()), member.size)


def combine_prior_sums(parts: Iterable[PriorSums]) -> ShadowPrior:
    """Combine sums of disjoint examples to the prior: what the predictives shrink to.

    Args:
        parts: from compute_prior_sums, of all models in the same order; the order of the parts decides the last bits.

    Returns:
        One mean and one variance per side for each target, in float64; the same up to rounding however the examples are
        split. NaN where no example has two shadows on that side.
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
    for phi, is_in in iterate_column_chunks(confidence, member):
        # One shadow is dropped for each target and example: from the in-side where drop_in, else from the out-side.
        # Ratio and deviate are of the target's own phi under the predictives of its remaining shadows, [M, n].
        drop_in, columns = find_in_surplus(is_in, prior.keep), slice(start, start + phi.shape[1])
        inside = _predictive(phi, is_in, drop_in, prior.mean_in, prior.variance_in)
        outside = _predictive(phi, ~is_in, ~drop_in, prior.mean_out, prior.variance_out)
        ratio[:, columns] = student_t_log_density(*inside) - student_t_log_density(*outside)
        deviate[:, columns] = student_t_to_normal(outside[0], outside[2])
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


def _pooled_sums(phi: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Return [4, M] without model m: sums and counts of the means and of the variances."""
    count, mean, squares = compute_moments(phi, side)
    # leave-one-out by downdating: without a model of deviation d the mean falls by d / (count - 1) and the squares by
    # d^2 count / (count - 1); a target of the other side has d = 0 and changes nothing
    remaining = count - side
    deviation = np.where(side, phi - mean, 0)
    means = np.where(remaining > 0, mean - deviation / np.maximum(remaining, 1), 0)
    squares_without = np.maximum(squares - deviation**2 * count / np.maximum(remaining, 1), 0)
    variances = np.where(remaining > 1, squares_without / np.maximum(remaining - 1, 1), 0)
    return np.stack([means.sum(1), (remaining > 0).sum(1), variances.sum(1), (remaining > 1).sum(1)])


def _predictive(
    phi: np.ndarray, side: np.ndarray, drop: np.ndarray, prior_mean: np.ndarray, prior_variance: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute one side's Student-t for each target: statistic, scale and df."""
    # moments of the side without the target and without the dropped shadow, [M, n]; relative to the centre, since
    # squares of large confidences would cancel
    count, centre, squares = compute_moments(phi, side)
    deviation = np.where(side, phi - centre, 0)
    dropped = np.where(drop, find_next_on_side(phi - centre, side), 0)
    n = np.maximum(count - side - drop.astype(np.int64), 0)
    mean = -(deviation + dropped) / np.maximum(n, 1)  # relative to the centre, where the side's sum is 0
    spread = np.maximum(squares - deviation**2 - dropped**2 - n * mean**2, 0)
    # posterior of a normal-inverse-gamma prior at the pooled mean and variance, then its predictive
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
    """Mean over examples of their shadows' mean and variance, equally weighted."""

    mean_in: float
    variance_in: float
    mean_out: float
    variance_out: float


def fit_external_prior(blocks: Iterable[tuple[np.ndarray, np.ndarray]]) -> ExternalPrior:
    """Fit the prior for an external target, the first of two passes.

    Args:
        blocks: (confidence, member), float and bool [M, n], for disjoint sets of examples.

    Returns:
        One mean and one variance per side; NaN where no example has a shadow, or two of them, on that side.
    """
    sums = np.zeros((2, 4))
    for confidence, member in blocks:
        phi = confidence.astype(np.float64)
        for side, selected in enumerate((member, ~member)):
            n, mean, squares = compute_moments(phi, selected)
            # each example adds one mean and one variance, however many shadows it has
            variance = np.where(n > 1, squares / np.maximum(n - 1, 1), 0)
            sums[side] += (mean.sum(), (n > 0).sum(), variance.sum(), (n > 1).sum())
    with np.errstate(invalid="ignore", divide="ignore"):
        (mean_in, mean_out), (variance_in, variance_out) = sums[:, 0] / sums[:, 1], sums[:, 2] / sums[:, 3]
    return ExternalPrior(
        mean_in=float(mean_in), variance_in=float(variance_in), mean_out=float(mean_out),
        variance_out=float(variance_out),
    )  # fmt: skip


def external_lira_scores(
    target: np.ndarray, confidence: np.ndarray, member: np.ndarray, prior: ExternalPrior
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
    phi = confidence.astype(np.float64)
    inside = _external_predictive(target, phi, member, prior.mean_in, prior.variance_in)
    outside = _external_predictive(target, phi, ~member, prior.mean_out, prior.variance_out)
    return student_t_log_density(*inside) - student_t_log_density(*outside), student_t_to_normal(outside[0], outside[2])


def _external_predictive(
    target: np.ndarray, phi: np.ndarray, side: np.ndarray, prior_mean: float, prior_variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Compute one side's Student-t: the statistic, scale and degrees of freedom, [n] each."""
    # as _predictive, with one target, of which the bank's models are all shadows
    n, mean, squares = compute_moments(phi, side)
    strength, df = MEAN_STRENGTH + n, VARIANCE_STRENGTH + n
    location = (MEAN_STRENGTH * prior_mean + n * mean) / strength
    total = VARIANCE_STRENGTH * prior_variance + squares + MEAN_STRENGTH * n / strength * (mean - prior_mean) ** 2
    scale = np.where((n > 0) & (total > 0), np.sqrt(total * (strength + 1) / (df * strength)), np.nan)
    return (target - location) / scale, scale, df
