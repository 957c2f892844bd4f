"""The sets of an arm's models from which estimates are made beside those from all models."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from memscore.estimators.statistic import count_set_weights
from memscore.statistics.reliability import draw_arm_halves
from memscore.subsets.designs import Arm


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelSets:
    """Sets of an arm's models from which estimates are made beside those from all models.

    They are rows of one matrix, so that the bank is read once for all sets.

    Attributes:
        weights: [sets, M], how often each model is in each set.
        halves: rows of pairs of halves, for reliabilities; none where there is only one block.
        fit: rows of pairs of halves that the blend is fitted on.
        blocks: rows of the whole blocks of an orthogonal design; None for other designs.
        block_share: share of the models in each half of `fit`, where these are of whole blocks of models that depend on
            each other; None where models are independent, or one block had to be split.
    """

    weights: np.ndarray
    halves: slice
    fit: slice
    blocks: slice | None
    block_share: float | None


def draw_model_sets(seed: int, name: str, indices: Sequence[int], arm: Arm) -> ModelSets:
    """Draw the sets of an arm, given the bank's seed, the arm's name and the indices of its valid models."""
    # halves of whole blocks: the models of a balanced block depend on each other
    halves = draw_arm_halves(seed, name, np.asarray(indices) // arm.models_per_block)
    whole = find_whole_blocks(indices, arm.models_per_block)
    # fitting needs halves of equal size; one block is split, whose models depend on each other little enough for that
    fit = halves if len(whole) > 1 else draw_arm_halves(seed, name, np.arange(len(indices)))
    half_sets, fit_sets = ([half for pair in pairs for half in pair] for pairs in (halves, fit))
    blocks = whole if arm.design == "orthogonal" else []
    all_sets = [*half_sets, *(() if fit is halves else fit_sets), *blocks]
    stop = len(all_sets) - len(blocks)
    return ModelSets(
        weights=count_set_weights(all_sets, len(indices)),
        halves=slice(0, len(half_sets)),
        fit=slice(stop - len(fit_sets), stop),
        blocks=slice(stop, len(all_sets)) if arm.design == "orthogonal" else None,
        block_share=float(np.mean([len(half) for half in fit_sets])) / len(indices)
        if arm.models_per_block > 1 and fit is halves
        else None,
    )


def find_whole_blocks(indices: Sequence[int], block: int) -> list[np.ndarray]:
    """Find the positions of the models of each block that has all of its models."""
    # failures, divergence and stopped runs leave blocks incomplete
    numbers = np.asarray(indices) // block
    return [np.flatnonzero(numbers == number) for number in np.flatnonzero(np.bincount(numbers) == block)]
