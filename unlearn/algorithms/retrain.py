"""Retraining on the retain set alone: the reference for every other algorithm, in quality and in cost.

theta_r of a table is the stored oracle, which has the seed of the original that it is paired with. This is the same
training under another seed: a second oracle, which shows how far two oracles are apart.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import nn

from memscore.pipeline.start_weights import build_started_network
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import is_finite
from memscore.training.recipes import count_steps
from unlearn.optimization.loop import StepCallback, TrainingDiverged
from unlearn.optimization.step_count import count_steps_taken
from unlearn.problem import ExampleSet
from unlearn.search_space import Domain


@dataclass(frozen=True, kw_only=True)
class RetrainConfig:
    """The recipe is theta_o's; only the architecture cannot be inferred from its weights.

    Attributes:
        architecture: the manifest's, as memscore.pipeline.start_weights.build_started_network takes it.
    """

    architecture: str

    SPACE: ClassVar[dict[str, Domain]] = {}


class StopTraining(Exception):
    """Ends the training, because the callback returned a true value."""


def retrain(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RetrainConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train a new network on the retain set by the recipe of theta_o; nothing of theta_o is used.

    Args:
        theta_o: not read.
        retain: the training set.
        forget: not read.
        config: the architecture.
        rng: draws the initial weights, orders and augmentations.
        step_callback: called after each epoch, not after each step.

    Returns:
        The network, in evaluation mode.

    Raises:
        TrainingDiverged: its weights are not finite.
    """
    images, recipe = retain.images, retain.recipe
    # Spawning does not move rng itself, from which the network's seed is drawn.
    order_rng, augmentation_rng = rng.spawn(2)
    theta = build_started_network(config.architecture, images.shape, retain.n_classes, int(rng.integers(2**63)))
    theta = theta.to(images.pixels.device)
    # The trainer takes a label for every image of the data set; those outside R are never read.
    labels = torch.zeros(len(images), dtype=torch.int64, device=retain.labels.device)
    labels[retain.rows] = retain.labels
    run = TrainingRun(
        model=theta, rows=retain.rows.cpu().numpy(), order_rng=order_rng, augmentation_rng=augmentation_rng
    )
    n_steps = count_steps(recipe, 1, len(retain))

    def on_epoch_end(epoch: int) -> None:
        if step_callback is not None and step_callback(round(epoch * n_steps / recipe.epochs), theta):
            # The trainer's callback has no return value that ends it.
            raise StopTraining

    with suppress(StopTraining):
        train([run], images, labels, recipe, n_steps, on_epoch_end=on_epoch_end)
    theta.zero_grad(set_to_none=True)
    # The trainer reads images itself, not by retain.take, which would count them.
    retain.read_counter.examples += n_steps * recipe.batch
    count_steps_taken(n_steps)
    if not is_finite(theta):
        raise TrainingDiverged(n_steps, float("nan"))
    return theta.eval()
