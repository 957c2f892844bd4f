"""LiRA in the forms that papers and their code use, by name; lira.py holds the default, which needs fewer models.

    online       L(t, i) = log N(phi; mu_in, s_in) - log N(phi; mu_out, s_out)             Algorithm 1, higher is member
    one-sided    z(t, i) = (phi - mu_out) / s_out,  Phi(z) = Pr[Z <= phi], Z ~ N(mu_out, s_out)             equation 4
    two-sided    -log N(phi; mu_out, s_out)                                                generate_ours_offline

Carlini et al. 2022 (S&P); "released" is the authors' code (plot.py in mi_lira_2021), which follows the paper in neither
centre nor offline score. phi may be any statistic that rises with membership: logit_confidence, or top_gap (RSU). With
Q fixed augmentations an example has Q statistics, and each score is the mean over them, as in the released code.

Standard deviations divide by n (ddof = 0), and:

    per-example   of the example's own shadows, around their mean whatever the centre is
    shared-a      of all raw in-statistics, for both sides; offline of all raw out-statistics (released, fix_variance)
    shared-b      of what is left after each example's centre is taken off, in and out apart (advanced_mia.py)

shared-a holds the differences between examples too, so it is far wider than shared-b.

Differs from the released code: every model in turn is the target, and its shadows are all others but one, the one that
lira.py drops so that an exact design does not give membership away; no example loses shadows to the one that has fewest
of them; a side with one shadow, or with equal ones, has no variance, so its score is NaN and not a density of width
1e-30.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscore.choices import validate_choice
from memscore.estimators.lira import CHUNK_CELLS, find_in_surplus, find_next_on_side

CENTRES = ("mean", "median")
VARIANCES = ("per-example", "shared-a", "shared-b")
OFFLINE_SCORES = ("one-sided", "two-sided")

_ROUNDING = 1e-12  # of a sum of squares: what is left below that is no spread


@dataclass(frozen=True, kw_only=True)
class LiraVariant:
    """One of the classic forms: what is taken as centre, as variance and as offline score."""

    centre: str = "mean"
    variance: str = "per-example"
    offline: str = "one-sided"

    def __post_init__(self) -> None:
        validate_choice("centre of LiRA", self.centre, CENTRES)
        validate_choice("variance of LiRA", self.variance, VARIANCES)
        validate_choice("offline form of LiRA", self.offline, OFFLINE_SCORES)


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
    """One standard deviation a side for each target [M], from its shadows on all examples; NaN where it is not used."""

    keep: float
    inside: np.ndarray
    outside: np.ndarray


class _Left(NamedTuple):
    """The shadows of one side that each target is left with, around one of their values; [n] and [M, n] each."""

    origin: np.ndarray
    n: np.ndarray
    total: np.ndarray
    squares: np.ndarray
    spread: np.ndarray  # sum of squares around their own mean
    centre: np.ndarray  # around the origin; NaN of nobody


def get_lira_variant(name: str) -> LiraVariant:
    """A form by its name; ValueError offers the nearest."""
    return LIRA_VARIANTS[validate_choice("form of LiRA", name, LIRA_VARIANTS)]


def fit_shared_std(blocks: Iterable[tuple[np.ndarray, np.ndarray]], keep: float, form: LiraVariant) -> SharedStd:
    """The first of two passes, which only the shared variances need.

    Args:
        blocks: (statistic, member), float [Q, M, n] or [M, n] and bool [M, n], for disjoint sets of examples; models
            in the same order in each. Not read where the variance is each example's own.
        keep: the arm's share of examples a model; decides which side loses the extra shadow.
        form: which statistic the standard deviation is of.

    Returns:
        One standard deviation a side for each target; NaN for per-example variances.
    """
    if form.variance == "per-example":
        return SharedStd(keep=keep, inside=np.array(np.nan), outside=np.array(np.nan))
    return combine_std_sums((compute_std_sums(statistic, member, keep, form) for statistic, member in blocks), keep)


def compute_std_sums(statistic: np.ndarray, member: np.ndarray, keep: float, form: LiraVariant) -> np.ndarray:
    """What some examples add to a shared spread, to be handed to combine_std_sums.

    Args:
        statistic: float [Q, M, n] or [M, n].
        member: bool [M, n].
        keep: the arm's share of examples a model.
        form: one with a shared variance.

    Returns:
        float64 [2, 3, M]: in and out; number, sum and sum of squares of the deviations.
    """
    sums = np.zeros((2, 3, len(member)))
    for queries, is_in in _pieces(statistic, member):
        for phi in queries:
            sides = _both_sides(phi, is_in, keep, form.centre)
            sums += np.array([_deviation_sums(side, form.variance) for side in sides])
    return sums


def combine_std_sums(parts: Iterable[np.ndarray], keep: float) -> SharedStd:
    """shared_spread from the sums of disjoint sets of examples; the order of the parts decides the last bits.

    Args:
        parts: from compute_std_sums.
        keep: the arm's share of examples a model.

    Returns:
        As fit_shared_std.
    """
    sums = np.zeros((2, 3, 1))
    for part in parts:
        sums = sums + part
    with np.errstate(invalid="ignore", divide="ignore"):
        n, total, squares = sums.transpose(1, 0, 2)
        std = np.sqrt(np.maximum(squares / n - (total / n) ** 2, 0))
    return SharedStd(keep=keep, inside=std[0], outside=std[1])


def lira_variant_scores(
    statistic: np.ndarray, member: np.ndarray, form: LiraVariant, shared: SharedStd
) -> tuple[np.ndarray, np.ndarray]:
    """Both attacks in one classic form, every model in turn as target.

    Args:
        statistic: float [M, N], or [Q, M, N] for Q fixed augmentations; higher for members.
        member: bool [M, N], example n was in model m's training set.
        form: centre, variance and offline score.
        shared: from fit_shared_std, over all examples of the bank, with the same form.

    Returns:
        online and offline: float64 [M, N], higher for members; NaN where a side that is needed has no spread.

    Raises:
        ValueError: statistics and memberships of different shapes.
    """
    online, offline = np.empty((2, *member.shape))
    start = 0
    for queries, is_in in _pieces(statistic, member):
        found = [_scores(phi, is_in, form, shared) for phi in queries]
        columns = slice(start, start + is_in.shape[1])
        online[:, columns], offline[:, columns] = np.mean(found, axis=0)
        start = columns.stop
    return online, offline


def _scores(phi: np.ndarray, member: np.ndarray, form: LiraVariant, shared: SharedStd) -> tuple[np.ndarray, np.ndarray]:
    """Online and offline of one query."""
    inside, outside = _both_sides(phi, member, shared.keep, form.centre)
    if form.variance == "per-example":
        s_in, s_out = _own_spread(inside), _own_spread(outside)
    else:
        s_in, s_out = _positive(shared.inside)[:, None], _positive(shared.outside)[:, None]
    online = _log_normal(phi, inside, s_in) - _log_normal(phi, outside, s_in if form.variance == "shared-a" else s_out)
    if form.offline == "one-sided":
        return online, (phi - outside.origin - outside.centre) / s_out
    return online, -_log_normal(phi, outside, s_out)


def _both_sides(phi: np.ndarray, member: np.ndarray, keep: float, centre: str) -> tuple[_Left, _Left]:
    """In- and out-shadows of every target, as many of each whatever the target held."""
    too_many = find_in_surplus(member, keep)
    return _left(phi, member, too_many, centre), _left(phi, ~member, ~too_many, centre)


def _left(phi: np.ndarray, side: np.ndarray, drop: np.ndarray, centre: str) -> _Left:
    """One side without the target and, where `drop`, without the side's next model."""
    count = side.sum(0)
    origin = np.take_along_axis(phi, side.argmax(0)[None], 0)[0]  # a shadow's value, so that equal ones become 0
    own = np.where(side, phi - origin, 0)
    extra = np.where(drop, find_next_on_side(own, side), 0)
    n = np.maximum(count - side - drop.astype(np.int64), 0)
    total = own.sum(0) - own - extra
    all_squares = (own**2).sum(0)
    squares = np.maximum(all_squares - own**2 - extra**2, 0)
    mean = total / np.maximum(n, 1)
    spread = np.maximum(squares - n * mean**2, 0)
    spread = np.where(spread > _ROUNDING * all_squares, spread, 0)
    middle = mean if centre == "mean" else _median(own, side, drop, n)
    middle = np.where(n > 0, middle, np.nan)
    return _Left(origin=origin, n=n, total=total, squares=squares, spread=spread, centre=middle)


def _median(values: np.ndarray, side: np.ndarray, drop: np.ndarray, n: np.ndarray) -> np.ndarray:
    """[M, n]: the median of one side without two of its models, from one sort: their ranks are stepped over."""
    order = np.argsort(np.where(side, values, np.inf), axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, 0)
    models = len(values)
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(models)[:, None], 0)
    own = np.where(side, rank, models)
    extra = np.where(drop, find_next_on_side(rank, side), models)
    first, second = np.minimum(own, extra), np.maximum(own, extra)

    def at(position: np.ndarray) -> np.ndarray:
        stepped = position + (position >= first)
        stepped = np.minimum(stepped + (stepped >= second), models - 1)
        return np.take_along_axis(ordered, stepped, 0)

    middle: np.ndarray = (at(np.maximum(n - 1, 0) // 2) + at(n // 2)) / 2
    return middle


def _own_spread(side: _Left) -> np.ndarray:
    """[M, n]: standard deviation of an example's own shadows; NaN of fewer than two, or of equal ones."""
    return _positive(np.where(side.n > 1, np.sqrt(side.spread / np.maximum(side.n, 1)), 0))


def _deviation_sums(side: _Left, variance: str) -> np.ndarray:
    """[3, M]: number, sum and sum of squares of one side's shadows, raw (a) or around their example's centre (b)."""
    zero = -side.origin if variance == "shared-a" else side.centre
    total = side.total - side.n * zero
    squares = side.squares - 2 * zero * side.total + side.n * zero**2
    sums: np.ndarray = np.where(side.n > 0, np.stack([side.n, total, squares]), 0).sum(-1)
    return sums


def _positive(std: np.ndarray) -> np.ndarray:
    """NaN instead of 0."""
    return np.where(std > 0, std, np.nan)


def _log_normal(phi: np.ndarray, side: _Left, std: np.ndarray) -> np.ndarray:
    """Log of N(phi; centre, std)."""
    density: np.ndarray = -(((phi - side.origin - side.centre) / std) ** 2) / 2 - np.log(std) - np.log(2 * np.pi) / 2
    return density


def _pieces(statistic: np.ndarray, member: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Columns as float64 [Q, M, n] with their memberships, few enough at a time to stay in cache."""
    queries = statistic if statistic.ndim == 3 else statistic[None]
    if queries.ndim != 3 or queries.shape[1:] != member.shape:
        raise ValueError(
            f"statistics are [M, N] or [Q, M, N] and memberships [M, N], got {statistic.shape} and {member.shape}; "
            "take both from the same block of the bank"
        )
    width = max(CHUNK_CELLS // max(len(member) * len(queries), 1), 1)
    for start in range(0, member.shape[1], width):
        columns = slice(start, start + width)
        yield queries[:, :, columns].astype(np.float64), member[:, columns]
