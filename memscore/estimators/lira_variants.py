"""LiRA variants of papers and their code; lira.py has the default, for fewer models.

    online       L(t, i) = log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out)             Algorithm 1, higher is member
    one-sided    z(t, i) = (phi - mu_out) / s_out,  Phi(z) = Pr[Z <= phi], Z ~ N(mu_out, s_out)             equation 4
    two-sided    -log N(phi; mu_out, s_out)                                                generate_ours_offline

Carlini et al. 2022 (S&P); "released" is the authors' code (plot.py in mi_lira_2021), which differs from the paper in
centre and offline score. phi may be any statistic that rises with membership: logit_confidence, or top_gap (RSU). With
Q fixed augmentations an example has Q statistics, and each score is the mean over them, as in the released code.

Standard deviations divide by n (ddof = 0), and are:

    per-example   of the example's shadows, around their mean whatever the centre is
    shared-a      of all raw in-statistics, for both sides; offline of all raw out-statistics (released, fix_variance)
    shared-b      of the residuals after subtracting each example's centre, separately in and out (advanced_mia.py)

shared-a includes the differences between examples too, so it is far wider than shared-b.

Differs from the released code: every model in turn is the target, and its shadows are those of lira.py, which do not
reveal membership; examples do not lose shadows to match the example with the fewest; a side with one shadow has no
variance, so its score is NaN; the standard deviation of equal shadows is a thousandth of the range of the example's
statistics and not 1e-30, and the online score of an example that is equal in all models is 0. As shadows, outlying
models count as the median of the others, and shared standard deviations are over winsorized statistics of examples that
are not scattered (shadow_models.py): without outlying models and numbers all are the formulas above.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscore.choices import validate_choice
from memscore.estimators.lira import CHUNK_CELLS
from memscore.estimators.shadow_models import (
    ShadowModels,
    find_scattered,
    replace_outlying,
    sum_other_blocks,
    winsorize,
)
from memscore.estimators.shadow_moments import find_in_surplus, find_next_on_side

CENTRES = ("mean", "median")
VARIANCES = ("per-example", "shared-a", "shared-b")
OFFLINE_SCORES = ("one-sided", "two-sided")

_ROUNDING = 1e-12  # relative to a sum of squares: a smaller spread is rounding error
_CONSTANT_STD = 1e-3  # of equal shadows, as a share of the range of the example's statistics


@dataclass(frozen=True, kw_only=True)
class LiraVariant:
    """One variant of LiRA: its centre, variance and offline score."""

    centre: str = "mean"
    variance: str = "per-example"
    offline: str = "one-sided"

    def __post_init__(self) -> None:
        validate_choice("centre of LiRA", self.centre, CENTRES)
        validate_choice("variance of LiRA", self.variance, VARIANCES)
        validate_choice("offline score of LiRA", self.offline, OFFLINE_SCORES)


LIRA_VARIANTS: dict[str, LiraVariant] = {
    "paper": LiraVariant(),
    "released": LiraVariant(centre="median", offline="two-sided"),
    "released-fixed": LiraVariant(centre="median", variance="shared-a", offline="two-sided"),
    "advanced-mia": LiraVariant(centre="median", offline="two-sided"),
    "advanced-mia-fixed": LiraVariant(centre="median", variance="shared-b", offline="two-sided"),
}
"""Carlini et al. 2022; their plot.py without and with fix_variance; TensorFlow Privacy's advanced_mia.py, likewise."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedStd:
    """Standard deviations per side and target [M], over all examples, NaN if unused; and the models."""

    shadows: ShadowModels
    inside: np.ndarray
    outside: np.ndarray


class _Shadows(NamedTuple):
    """Statistics of each target's remaining shadows on one side; [n] and [M, n] each."""

    origin: np.ndarray
    n: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    spread: np.ndarray  # sum of squares around their mean
    centre: np.ndarray  # relative to the origin; NaN without shadows


def get_lira_variant(name: str) -> LiraVariant:
    """Return the variant of that name; ValueError suggests the nearest."""
    return LIRA_VARIANTS[validate_choice("variant of LiRA", name, LIRA_VARIANTS)]


def compute_std_sums(
    statistic: np.ndarray, member: np.ndarray, shadows: ShadowModels, variant: LiraVariant
) -> np.ndarray:
    """Compute the sums of some examples for the shared standard deviations, the first of two passes.

    Args:
        statistic: float [Q, M, n] or [M, n].
        member: bool [M, n].
        shadows: the models; their keep fraction decides which side loses the extra shadow.
        variant: one with a shared variance.

    Returns:
        float64 [2, 3, M]: in and out; number, sum and sum of squares of the deviations.
    """
    sums = np.zeros((2, 3, len(member)))
    for statistics, is_in in _iterate_chunks(statistic, member):
        for phi in statistics:
            # an example that is scattered or has a NaN is passed over; the rule does not look at memberships
            regular = ~(find_scattered(phi, shadows) | np.isnan(phi).any(0))
            limited = winsorize(phi[:, regular], shadows)
            sides = _select_shadows(limited, is_in[:, regular], shadows, variant.centre)
            sums += np.array([_sum_deviations(side, variant.variance) for side in sides])
    return sums


def combine_std_sums(parts: Iterable[np.ndarray], shadows: ShadowModels) -> SharedStd:
    """Combine sums of disjoint examples; the order of the parts decides the last bits.

    Args:
        parts: from compute_std_sums; none for per-example variances.
        shadows: the models.

    Returns:
        One standard deviation per side for each target; NaN without parts.
    """
    sums = np.zeros((2, 3, 1))
    for part in parts:
        sums = sums + part
    # transposed, sums unpack by kind: [2, M] each, in and out
    with np.errstate(invalid="ignore", divide="ignore"):
        n, total, squares = sums.transpose(1, 0, 2)
        std = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    return SharedStd(shadows=shadows, inside=std[0], outside=std[1])


def lira_variant_scores(
    statistic: np.ndarray, member: np.ndarray, variant: LiraVariant, shared: SharedStd
) -> tuple[np.ndarray, np.ndarray]:
    """Compute both attacks of one variant, every model in turn as target.

    Args:
        statistic: float [M, N], or [Q, M, N] for Q fixed augmentations; higher for members.
        member: bool [M, N], example n was in model m's training set.
        variant: centre, variance and offline score.
        shared: from combine_std_sums, over all examples of the bank, with the same variant.

    Returns:
        online and offline: float64 [M, N], higher for members; NaN where a required side has no spread.

    Raises:
        ValueError: statistics and memberships have different shapes.
    """
    online, offline = np.empty((2, *member.shape))
    start = 0
    for statistics, is_in in _iterate_chunks(statistic, member):
        scores = [_score_augmentation(phi, is_in, variant, shared) for phi in statistics]
        columns = slice(start, start + is_in.shape[1])
        online[:, columns], offline[:, columns] = np.mean(scores, axis=0)
        start = columns.stop
    return online, offline


def _score_augmentation(
    phi: np.ndarray, member: np.ndarray, variant: LiraVariant, shared: SharedStd
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the online and offline scores of one augmentation."""
    replaced = replace_outlying(phi, shared.shadows)
    inside, outside = _select_shadows(replaced, member, shared.shadows, variant.centre)
    # the width of equal shadows, [n]; where all models are equal it is of no account, since centres are
    smallest = _CONSTANT_STD * (replaced.max(0) - replaced.min(0))
    smallest = np.where(smallest > 0, smallest, 1.0)
    if variant.variance == "per-example":
        s_in, s_out = _compute_std(inside, smallest), _compute_std(outside, smallest)
    else:
        # [M, 1]: one value for all examples of a target; 0 if the shadows of every example are equal
        stds = shared.inside[:, None], shared.outside[:, None]
        s_in, s_out = (np.where(std == 0, smallest, std) for std in stds)
    # shared-a has one width for both sides, that of the in-statistics; its offline score has that of the out-statistics
    online = _log_normal(phi, inside, s_in) - _log_normal(
        phi, outside, s_in if variant.variance == "shared-a" else s_out
    )
    if variant.offline == "one-sided":
        return online, (phi - outside.origin - outside.centre) / s_out
    return online, -_log_normal(phi, outside, s_out)


def _select_shadows(
    phi: np.ndarray, member: np.ndarray, shadows: ShadowModels, centre: str
) -> tuple[_Shadows, _Shadows]:
    """Return every target's in- and out-shadows; their numbers do not reveal membership."""
    if shadows.blocks is not None:
        blocks = shadows.blocks
        return _take_other_blocks(phi, member, blocks, centre), _take_other_blocks(phi, ~member, blocks, centre)
    drop_in = find_in_surplus(member, shadows.keep)
    return _drop_shadows(phi, member, drop_in, centre), _drop_shadows(phi, ~member, ~drop_in, centre)


def _take_other_blocks(phi: np.ndarray, side: np.ndarray, blocks: np.ndarray, centre: str) -> _Shadows:
    """Return one side of the models of all blocks but the target's."""
    origin = np.take_along_axis(phi, side.argmax(0)[None], 0)[0]
    deviations = np.where(side, phi - origin, 0)
    n, total, squares = (sum_other_blocks(values, blocks) for values in (side, deviations, deviations**2))
    if centre == "mean":
        centre_value = total / np.maximum(n, 1)
    else:
        # one sort serves all blocks; the models of the side and of other blocks are counted in that order
        order = np.argsort(np.where(side, deviations, np.inf), axis=0, kind="stable")
        ordered, centre_value = np.take_along_axis(deviations, order, 0), np.empty(phi.shape)
        for block in np.unique(blocks):
            targets = blocks == block
            places = np.cumsum(np.take_along_axis(side & ~targets[:, None], order, 0), axis=0)
            count = places[-1]
            middle = [(places > np.maximum(rank, 0)).argmax(0) for rank in ((count - 1) // 2, count // 2)]
            centre_value[targets] = np.mean([np.take_along_axis(ordered, m[None], 0)[0] for m in middle], axis=0)
    return _build_shadows(origin, n, total, squares, (deviations**2).sum(0), centre_value)


def _drop_shadows(phi: np.ndarray, side: np.ndarray, drop: np.ndarray, centre: str) -> _Shadows:
    """Return one side without the target and, where `drop`, without the side's next model."""
    # Sums are of deviations from one value of the side, [n], that of its first model: squares of large statistics would
    # cancel, and equal shadows become exactly 0.
    count = side.sum(0)
    origin = np.take_along_axis(phi, side.argmax(0)[None], 0)[0]
    deviations = np.where(side, phi - origin, 0)
    dropped = np.where(drop, find_next_on_side(deviations, side), 0)
    # The sums of the whole side, less the target, which is 0 where it is on the other side, less the dropped shadow:
    # [M, n]. Where the target is the side's only model it is also its own next one, and n is 0.
    n = np.maximum(count - side - drop.astype(np.int64), 0)
    total = deviations.sum(0) - deviations - dropped
    all_squares = (deviations**2).sum(0)
    squares = np.maximum(all_squares - deviations**2 - dropped**2, 0)
    centre_value = total / np.maximum(n, 1) if centre == "mean" else _median(deviations, side, drop, n)
    return _build_shadows(origin, n, total, squares, all_squares, centre_value)


def _build_shadows(
    origin: np.ndarray,
    n: np.ndarray,
    total: np.ndarray,
    squares: np.ndarray,
    all_squares: np.ndarray,
    centre_value: np.ndarray,
) -> _Shadows:
    """Build the shadows from sums that were made by subtracting from those of the whole side."""
    # What subtracting leaves of equal shadows is rounding error, relative to the squares of the whole side.
    mean = total / np.maximum(n, 1)
    spread = np.maximum(squares - n * mean**2, 0)
    spread = np.where(spread > _ROUNDING * all_squares, spread, 0)
    centre_value = np.where(n > 0, centre_value, np.nan)
    return _Shadows(origin=origin, n=n, total=total, squares=squares, spread=spread, centre=centre_value)


def _median(values: np.ndarray, side: np.ndarray, drop: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Compute the median [M, n] of one side without two of its models, from one sort."""
    # The side's models in order, the others behind them; rank [M, n] is each model's place. Both are shared by all
    # targets, so M medians of each example cost one sort.
    order = np.argsort(np.where(side, values, np.inf), axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, 0)
    models = len(values)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(models)[:, None], 0)
    # The places of the two models to leave out. A target of the other side, or nothing to drop, gets the place behind
    # all, where leaving it out changes nothing.
    target_rank = np.where(side, rank, models)
    dropped_rank = np.where(drop, find_next_on_side(rank, side), models)
    first, second = np.minimum(target_rank, dropped_rank), np.maximum(target_rank, dropped_rank)

    # A position among the remaining models becomes one in `ordered` by stepping over the two places, lower one first.
    # The minimum only keeps indices valid where n is 0; the caller sets those to NaN.
    def value_at(position: np.ndarray) -> np.ndarray:
        index = position + (position >= first)
        index = np.minimum(index + (index >= second), models - 1)
        return np.take_along_axis(ordered, index, 0)

    # the two middle values, which are one and the same for an odd n
    median: np.ndarray = (value_at(np.maximum(n - 1, 0) // 2) + value_at(n // 2)) / 2
    return median


def _compute_std(side: _Shadows, smallest: np.ndarray) -> np.ndarray:
    """Compute the standard deviation [M, n] of an example's shadows; the smallest if they are equal, NaN of one."""
    std = np.where(side.spread > 0, np.sqrt(side.spread / np.maximum(side.n, 1)), smallest + 0 * side.spread)
    return np.where(side.n > 1, std, np.nan)


def _sum_deviations(side: _Shadows, variance: str) -> np.ndarray:
    """Sum one side's shadows, raw (a) or centred (b): number, sum, sum of squares [3, M]."""
    # Sums are relative to the origin. Moved to `zero`, they are of raw statistics (a) or of residuals (b).
    zero = -side.origin if variance == "shared-a" else side.centre
    total = side.total - side.n * zero
    squares = side.squares - 2 * zero * side.total + side.n * zero**2
    sums: np.ndarray = np.where(side.n > 0, np.stack([side.n, total, squares]), 0).sum(-1)
    return sums


def _log_normal(phi: np.ndarray, side: _Shadows, std: np.ndarray) -> np.ndarray:
    """Compute log N(phi; centre, std)."""
    density: np.ndarray = -(((phi - side.origin - side.centre) / std) ** 2) / 2 - np.log(std) - np.log(2 * np.pi) / 2
    return density


def _iterate_chunks(statistic: np.ndarray, member: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Iterate over columns as float64 [Q, M, n] with memberships, in chunks that stay in cache."""
    statistics = statistic if statistic.ndim == 3 else statistic[None]
    if statistics.ndim != 3 or statistics.shape[1:] != member.shape:
        raise ValueError(
            f"statistics are [M, N] or [Q, M, N] and memberships [M, N], got {statistic.shape} and {member.shape}; "
            "take both from the same block of the bank"
        )
    width = max(CHUNK_CELLS // max(len(member) * len(statistics), 1), 1)
    for start in range(0, member.shape[1], width):
        columns = slice(start, start + width)
        yield statistics[:, :, columns].astype(np.float64), member[:, columns]
