"""Retraining on the retain set alone: what every other algorithm is compared with, and the cost it must beat.

theta_r of a table is the oracle in the store, which has the seed of the original that it is paired with. This is the
same training under a seed of its own: a second oracle, whose row says how far two of them are apart.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from memscore.models.architectures import build_network
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import is_finite
from memscore.training.recipes import count_steps
from unlearn.optimization.loop import StepCallback, TrainingDiverged
from unlearn.problem import ExampleSet
from unlearn.search_space import Domain


@dataclass(frozen=True, kw_only=True)
class RetrainConfig:
    """theta_o's own recipe; only the architecture cannot be read off its weights.

    Attributes:
        architecture: as memscore.models.architectures.build_network takes it.
    """

    architecture: str

    SPACE: ClassVar[dict[str, Domain]] = {}


class StopTraining(Exception):
    """The watch ended the training."""


def retrain(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RetrainConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Train a new network on the retain set by the recipe of theta_o; nothing of theta_o is used.

    Args:
        theta_o: not read.
        retain: what is trained on.
        forget: not read.
        config: the architecture.
        rng: draws the initial weights, orders and augmentations.
        watch: sees the network after each epoch, not after each step.

    Returns:
        The network, in evaluation mode.

    Raises:
        TrainingDiverged: its weights are not finite.
    """
    images, recipe = retain.images, retain.recipe
    order, chance = rng.spawn(2)
    theta = build_network(config.architecture, images.shape, retain.n_classes, int(rng.integers(2**63)))
    theta = theta.to(images.pixels.device)
    labels = torch.zeros(len(images), dtype=torch.int64, device=retain.labels.device)
    labels[retain.rows] = retain.labels
    assignment = TrainingRun(model=theta, rows=retain.rows.cpu().numpy(), order_rng=order, augmentation_rng=chance)
    taken = count_steps(recipe, 1, len(retain))

    def at_epoch(epoch: int) -> None:
        if watch is not None and watch(round(epoch * taken / recipe.epochs), theta):
            raise StopTraining

    with suppress(StopTraining):
        train([assignment], images, labels, recipe, taken, on_epoch_end=at_epoch)
    theta.zero_grad(set_to_none=True)
    retain.read_counter.examples += taken * recipe.batch
    if not is_finite(theta):
        raise TrainingDiverged(taken, float("nan"))
    return theta.eval()
