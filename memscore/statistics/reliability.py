"""How far a score that is estimated from models can be trusted: two halves of the models against each other.

A score is a true value and noise, and noise lowers every correlation with it. Two estimates from halves of the models
share the true value but not the noise, so how they agree says how reliable the score is, and what a correlation with it
would have been without the noise.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from memscore.seeds import generator
from memscore.statistics.correlation import TOP_FRACTION, group_models_by_block, pearson, rmse, spearman, top_overlap


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How far two halves of the models agree on a score; means over random halves.

    Attributes:
        spearman: rank correlation of the halves, as measured.
        spearman_full: the same stepped up to all models (Spearman-Brown).
        pearson: correlation of the halves, as measured.
        pearson_full: stepped up.
        rmse: root mean square error of the score from all models, half of the halves' root mean square difference.
        top: overlap of the halves' tops.
        halves: how many times the models were halved.
    """

    spearman: float
    spearman_full: float
    pearson: float
    pearson_full: float
    rmse: float
    top: float
    halves: int


def split_half(
    estimate: Callable[[np.ndarray], np.ndarray],
    blocks: np.ndarray,
    rng: np.random.Generator,
    halves: int = 10,
    share: float = TOP_FRACTION,
) -> Reliability:
    """How reliable a score is: estimated twice, from random halves of the models, and compared.

    Args:
        estimate: from models (int [n]) to the score [N] that they give.
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: draws the halves.
        halves: how often the models are halved.
        share: what counts as the top.

    Returns:
        reliability of those pairs.
    """
    drawn = draw_random_halves(blocks, rng, halves)
    return compute_reliability([(estimate(x), estimate(y)) for x, y in drawn], share)


def draw_random_halves(
    blocks: np.ndarray, rng: np.random.Generator, halves: int = 10
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pairs of disjoint sets of models, each half of all.

    Whole blocks go to one half, since parts of a balanced block are tied to each other; of an odd number of blocks one
    is left out, another each time.

    Args:
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: draws the halves.
        halves: how many pairs.

    Returns:
        Pairs of rising positions in `blocks`; none with fewer than two blocks.
    """
    members = group_models_by_block(blocks)
    half = len(members) // 2
    orders = [rng.permutation(len(members)) for _ in range(halves if half else 0)]
    return [(_together(members, order[:half]), _together(members, order[half : 2 * half])) for order in orders]


def draw_arm_halves(seed: int, arm: str, numbers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """The halves that an arm's reliabilities are measured on, the same ones wherever they are asked for.

    Args:
        seed: the bank's root seed.
        arm: its name.
        numbers: int [M], the block of each of its valid models.

    Returns:
        draw_random_halves of those models.
    """
    return draw_random_halves(numbers, generator(seed, "halves", arm))


def compute_reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]], share: float = TOP_FRACTION) -> Reliability:
    """How far estimates of a score from two halves of the models agree.

    Halves have half of the models, so the correlation r of two is stepped up to that of two scores from all models:
    2 r / (1 + r) (Spearman 1910, Brown 1910), of the mean r. That holds for a sum of a true score and independent
    errors, for ranks only nearly so.

    Args:
        pairs: estimates [N] from either half, one pair for each time that the models were halved; read once.
        share: what counts as the top.

    Returns:
        The means; all NaN without a pair.
    """
    found = [(spearman(x, y), pearson(x, y), rmse(x, y), top_overlap(x, y, share)) for x, y in pairs]
    ranks, values, difference, top = np.mean(found, axis=0).tolist() if found else [float("nan")] * 4
    return Reliability(
        spearman=ranks,
        spearman_full=spearman_brown(ranks),
        pearson=values,
        pearson_full=spearman_brown(values),
        rmse=difference / 2,
        top=top,
        halves=len(found),
    )


def spearman_brown(r: float) -> float:
    """The reliability of a score from twice the models whose halves correlate by r: 2 r / (1 + r).

    Args:
        r: correlation of two halves.

    Returns:
        In [0, 1]; NaN below 0, where the halves have nothing in common.

    >>> spearman_brown(0.5)
    0.6666666666666666
    """
    return 2 * r / (1 + r) if r >= 0 else float("nan")


def disattenuate(r: float, reliability: float, other: float = 1.0) -> float:
    """The correlation that two scores would have without their noise (Spearman 1904).

        r / sqrt(reliability * other)

    That is right for errors that are independent of each other and of both scores. Noise in the reliabilities can
    carry it past 1, where it is cut off: 1 then says "no less than the reliability allows", not "the same score".

    Args:
        r: their correlation.
        reliability: of the one, split_half's for all models, of the same kind of correlation.
        other: of the other; 1 takes it as it stands.

    Returns:
        In [-1, 1]; NaN where a reliability is not above 0, or anything is NaN.

    >>> disattenuated(0.6, 0.81), disattenuated(-0.9, 0.25)
    (0.6666666666666666, -1.0)
    """
    if not (reliability > 0 and other > 0) or np.isnan(r):
        return float("nan")
    return float(np.clip(r / np.sqrt(reliability * other), -1, 1))


def _together(members: list[np.ndarray], blocks: np.ndarray) -> np.ndarray:
    """The models of some blocks, rising."""
    return np.sort(np.concatenate([members[block] for block in blocks]))
