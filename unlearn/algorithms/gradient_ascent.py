"""Gradient ascent, also called NegGrad: maximize the loss of the forget set.

    max_theta  E_F[CE(theta(x), y)],  from theta_o

RUM section 5, RSU. The loss is unbounded, so the learning rate must be small for the number of steps: a loss that is
not finite raises TrainingDiverged, and nothing is clipped, as in the released codes. A pass takes a step for each batch
of F, 12 in RUM: one batch of a whole small F is one step, and its few epochs change nothing.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class GradientAscentConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, learning rate 1e-4 to .1; RSU: 5 epochs, 1e-4 to .01.

    The default is the least: with 3e-4 a small MLP on Fashion-MNIST was destroyed.
    """

    lr: float = 1e-4

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    FORGET_ONLY: ClassVar[bool] = True
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-5,
            high=0.1,
            paper=(1e-4, 0.1),
            source="RUM A.2 1e-4 to .1; the grid of the authors of L1-sparse 1e-5 to .1",
        ),
    }


def gradient_ascent(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: GradientAscentConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Take ascent steps on the forget set; the retain set is not read."""
    theta, batches = copy_model(theta_o), BatchSampler(forget, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in batches:
                yield -cross_entropy(theta(images), labels)

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())
