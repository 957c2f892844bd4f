"""Reliability of a score that is estimated from models, by two halves of the models.

A score is a true value plus noise, and noise lowers every correlation with it. Two estimates from halves of the models
share the true value but not the noise, so their agreement shows how reliable the score is, and what a correlation with
it would have been without the noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from memscore.seeds import generator
from memscore.statistics.correlation import TOP_FRACTION, group_models_by_block, pearson, rmse, spearman, top_overlap


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """Agreement of two halves of the models on a score; means over random halves.

    Attributes:
        spearman: rank correlation of the halves, as measured.
        spearman_full: the same corrected to all models (Spearman-Brown).
        pearson: correlation of the halves, as measured.
        pearson_full: corrected to all models.
        rmse: root mean square error of the score from all models, half of the halves' root mean square difference.
        top: overlap of the halves' tops.
        halves: number of random splits into halves.
    """

    spearman: float
    spearman_full: float
    pearson: float
    pearson_full: float
    rmse: float
    top: float
    halves: int


def draw_random_halves(
    blocks: np.ndarray, rng: np.random.Generator, halves: int = 10
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw pairs of disjoint sets of models, each half of all.

    Whole blocks go to one half, since the parts of a balanced block depend on each other; of an odd number of blocks a
    random one is left out each time.

    Args:
        blocks: int [M], the block of each model; np.arange(M) where models are independent.
        rng: draws the halves.
        halves: number of pairs.

    Returns:
        Pairs of rising positions in `blocks`; none with fewer than two blocks.
    """
    members = group_models_by_block(blocks)
    # both halves come from one permutation, so that they are disjoint
    half = len(members) // 2
    orders = [rng.permutation(len(members)) for _ in range(halves if half else 0)]
    return [(_merge_blocks(members, order[:half]), _merge_blocks(members, order[half : 2 * half])) for order in orders]


def draw_arm_halves(seed: int, arm: str, numbers: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Draw the halves for an arm's reliabilities; the same ones at every call.

    Args:
        seed: the bank's root seed.
        arm: its name.
        numbers: int [M], the block of each of its valid models.

    Returns:
        draw_random_halves of those models.
    """
    return draw_random_halves(numbers, generator(seed, "halves", arm))


def compute_reliability(pairs: Iterable[tuple[np.ndarray, np.ndarray]], share: float = TOP_FRACTION) -> Reliability:
    """Compute the agreement of a score's estimates from two halves of the models.

    Halves have half of the models, so the correlation r of two is corrected to that of two scores from all models:
    2 r / (1 + r) (Spearman 1910, Brown 1910), of the mean r. That holds for a sum of a true score and independent
    errors, for ranks approximately.

    Args:
        pairs: estimates [N] from either half, one pair for each split of the models; iterated once.
        share: fraction of the examples that counts as the top.

    Returns:
        The means; all NaN without a pair.
    """
    measures = [(spearman(x, y), pearson(x, y), rmse(x, y), top_overlap(x, y, share)) for x, y in pairs]
    # If an estimate from all models has error variance v, one from half of them has 2 v and the difference of two such
    # has 4 v: hence half of the root mean square difference.
    ranks, values, difference, top = np.mean(measures, axis=0).tolist() if measures else [float("nan")] * 4
    return Reliability(
        spearman=ranks,
        spearman_full=spearman_brown(ranks),
        pearson=values,
        pearson_full=spearman_brown(values),
        rmse=difference / 2,
        top=top,
        halves=len(measures),
    )


def spearman_brown(r: float) -> float:
    """Correct the correlation r of two halves to the reliability of all models: 2 r / (1 + r).

    Args:
        r: correlation of two halves.

    Returns:
        In [0, 1]; NaN below 0, where the halves have nothing in common.

    >>> spearman_brown(0.5)
    0.6666666666666666
    """
    return 2 * r / (1 + r) if r >= 0 else float("nan")


def extrapolate_correlation(r: float, halves: float) -> float:
    """Extrapolate a correlation with a noisy estimate to infinitely many models, from all models and from halves.

    The noise of an estimate from M models multiplies a correlation by 1 / sqrt(1 + c / M) (Spearman 1904). From M and
    from M / 2 models c follows:

        1 / r_inf^2 = 2 / r^2 - 1 / r_half^2.

    Dividing by the root of the halves' agreement instead, as Spearman does, takes their noise for independent of the
    truth. Of counts it is not, and in simulated banks of 16 and 64 models that result is 4 to 20 % too high. This one
    is 2 % too low to 3 % too high there (16 models and 400 examples: 6 to 14 %), and 1.5 to 2.5 times as uncertain as
    the correlation itself.

    Args:
        r: the correlation of the estimate from all models.
        halves: mean correlation of the estimates from halves of the models.

    Returns:
        In [-1, 1]; NaN where the signs differ or one is 0, where noise has no such limit, or anything is NaN.

    >>> round(extrapolate_correlation(1 / 1.25**0.5, 1 / 1.5**0.5), 12), extrapolate_correlation(-0.6, -0.6)
    (1.0, -0.6)
    """
    if not r * halves > 0 or not (inverse := 2 / r**2 - 1 / halves**2) > 0:
        return float("nan")
    return float(np.clip(np.sign(r) / np.sqrt(inverse), -1, 1))


def _merge_blocks(members: list[np.ndarray], blocks: np.ndarray) -> np.ndarray:
    """Return the models of some blocks, rising."""
    return np.sort(np.concatenate([members[block] for block in blocks]))
