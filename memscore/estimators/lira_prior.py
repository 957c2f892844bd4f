"""The prior of LiRA's predictives: what an example's mean and variance are likely to be, learned from all examples.

A model that was trained on an example is about as confident in it as a model that was not, plus what training on it
adds, so with few shadows on one side the mean of the other side says most. The prior means are

    of in     mean_out + gain          gain = average of (mean_in - mean_out) over examples of a similar level
    of out    mean_in - gain           level = mean confidence of an example in all models

a hierarchical model, fitted to the bank by averages within bins of about equally many examples. The prior variance of a
side is the median of its variances over examples, each divided by the median of chi^2 / df at its df, which is
1 - 2 / 9 df cubed (Wilson and Hilferty 1931): a mean would follow a few wide examples.

What the target was trained on must not show in its prior. Levels are over all models, whatever the memberships, and
every target has gains and variances of its own, from its shadows. With those over all models, a target whose members
are a little more confident or vary more by chance would be attacked with that knowledge: under noise, AUC .508 with 4
models and 100 examples.

Single numbers and models are limited (shadow_models.py), and scattered examples add nothing, so that one example or one
model does not change the scores of all others.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscore.estimators.shadow_models import ShadowModels, find_scattered
from memscore.estimators.shadow_moments import SideMoments

BINS_PER_OCTAVE, LOWEST_OCTAVE, OCTAVES = 4, -16, 24
"""Resolution and extent of the histograms of variances, relative to the square of the typical range."""
SMALLEST_STD = 1e-6
"""Prior standard deviation where no shadows of any example differ: a share of the typical range."""


class PriorSums(NamedTuple):
    """Sums over some examples for a ShadowPrior; sums of disjoint sets of examples add."""

    gains: np.ndarray  # [2, B, M]: sums of mean_in - mean_out of each target's shadows, and how many were summed
    out: np.ndarray  # [2, M]: sums of mean_out, and how many were summed
    variances: np.ndarray  # int [2, M, bins]: in and out; numbers of variances above 0, by their logarithm
    constant: np.ndarray  # int [2, M]: numbers of variances of 0
    included: int
    cells: int


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowPrior:
    """What the predictives shrink to.

    Attributes:
        shadows: the models.
        keep: observed, the share of true cells in member over all models and examples.
        gains: [B, T], how far the mean of the in-side exceeds that of the out-side for each target, by bin of level.
        mean_out: [T], mean over examples of the mean of the out-side; the offline attack knows no in-side.
        variance_in: [T], of the in-side.
        variance_out: [T], of the out-side.
    """

    shadows: ShadowModels
    keep: float
    gains: np.ndarray
    mean_out: np.ndarray
    variance_in: np.ndarray
    variance_out: np.ndarray


def find_level_bins(phi: np.ndarray, shadows: ShadowModels) -> np.ndarray:
    """Find the bin [n] of each example's level, the mean of its winsorized confidences; the last one for NaN."""
    number: np.ndarray = np.searchsorted(shadows.level_edges, phi.mean(0), side="right")
    return number


def sum_for_prior(
    phi: np.ndarray,
    included: int,
    means: Sequence[np.ndarray],
    sides: Sequence[SideMoments],
    shadows: ShadowModels,
) -> PriorSums:
    """Sum what the prior needs of some examples.

    Args:
        phi: float64 [M, n], winsorized.
        included: cells of models that were trained on the example.
        means: float64 [T, n] each, of each target's in- and out-shadows, NaN without one.
        sides: in and out, for the variances.
        shadows: the models.

    Returns:
        The sums.
    """
    regular = ~(find_scattered(phi, shadows) | np.isnan(phi).any(0))
    mean_in, mean_out = means
    difference, in_bin = mean_in - mean_out, np.eye(len(shadows.level_edges) + 1)[find_level_bins(phi, shadows)]
    ones = np.ones_like(difference)
    gains = [np.where(regular & ~np.isnan(difference), values, 0) @ in_bin for values in (difference, ones)]
    out = [np.where(regular & ~np.isnan(mean_out), values, 0).sum(1) for values in (mean_out, ones)]
    variances = [_count_variances(side, regular, shadows.unit) for side in sides]
    return PriorSums(
        gains=np.array(gains).transpose(0, 2, 1),
        out=np.array(out),
        variances=np.array([histogram for histogram, _ in variances]),
        constant=np.array([constant for _, constant in variances]),
        included=included,
        cells=phi.size,
    )


def _count_variances(side: SideMoments, regular: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Count the variances of each target's shadows by their logarithm, [T, bins], and those that are 0, [T]."""
    df = np.maximum(side.n - 1, 1)
    variance = side.spread / side.groups.expand(df)
    variance /= side.groups.expand((1 - 2 / (9 * df)) ** 3)
    # undefined ones are counted apart
    variance += side.groups.expand(np.where(regular & (side.n > 1), 0.0, np.nan))
    targets, bins = len(variance), BINS_PER_OCTAVE * OCTAVES
    with np.errstate(divide="ignore", invalid="ignore"):
        place = BINS_PER_OCTAVE * (np.log2(variance / unit**2) - LOWEST_OCTAVE)
        is_counted = variance > 0
        place = np.clip(place, 0, bins - 1).astype(np.int64)
    place = np.where(is_counted, place, bins) + np.arange(targets)[:, None] * (bins + 1)
    histogram = np.bincount(place.ravel(), minlength=targets * (bins + 1)).reshape(targets, bins + 1)[:, :bins]
    return histogram, (variance == 0).sum(1)


def add_sums(parts: Iterable[PriorSums]) -> PriorSums:
    """Add sums of disjoint examples; the order of the parts decides the last bits."""
    iterator = iter(parts)
    gains, out, variances, constant, included, cells = next(iterator)
    for part in iterator:
        gains, out, variances = gains + part.gains, out + part.out, variances + part.variances
        constant, included, cells = constant + part.constant, included + part.included, cells + part.cells
    return PriorSums(gains, out, variances, constant, included, cells)


def fit_prior(sums: PriorSums, shadows: ShadowModels) -> ShadowPrior:
    """Fit the prior; NaN where no example has a shadow, or two of them for variances, on that side."""
    with np.errstate(invalid="ignore", divide="ignore"):
        # a bin without any example has the gain of all examples
        whole = sums.gains[0].sum(0) / sums.gains[1].sum(0)
        gains = np.where(sums.gains[1] > 0, sums.gains[0] / sums.gains[1], whole)
        mean_out = sums.out[0] / sums.out[1]
    variances = [_find_medians(*side, shadows.unit) for side in zip(sums.variances, sums.constant, strict=True)]
    return ShadowPrior(
        shadows=shadows,
        keep=sums.included / sums.cells,
        gains=gains,
        mean_out=mean_out,
        variance_in=variances[0],
        variance_out=variances[1],
    )


def _find_medians(histogram: np.ndarray, constant: np.ndarray, unit: float) -> np.ndarray:
    """Find each target's median of the variances above 0; the smallest one if all are 0, NaN if there is none."""
    smallest = (SMALLEST_STD * unit) ** 2
    # linear within the bin that holds the middle: the last one with fewer than half before it
    before, number = np.cumsum(histogram, axis=1) - histogram, histogram.sum(1)
    place = np.maximum((before < number[:, None] / 2).sum(1) - 1, 0)
    rows = np.arange(len(histogram))
    within = (number / 2 - before[rows, place]) / np.maximum(histogram[rows, place], 1)
    median = unit**2 * 2 ** ((place + within) / BINS_PER_OCTAVE + LOWEST_OCTAVE)
    return np.where(number > 0, median, np.where(constant > 0, smallest, np.nan))
