"""Gradient ascent, also called NegGrad: climb the loss of what is to be forgotten.

    max_theta  E_F[CE(theta(x), y)],  from theta_o

RUM section 5, RSU. Nothing holds the loss, so the rate has to end the run in time: what is not a number ends it by
name, and nothing is clipped, as in the released codes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class GradientAscentConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, rate 1e-4 to .1; RSU: 5 epochs, rate 1e-4 to .01."""

    epochs: int = 5
    lr: float = 1e-3

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-5, high=0.1, source="RUM A.2 1e-4 to .1; the grid of the authors of L1-sparse 1e-5 to .1"
        ),
    }


def gradient_ascent(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: GradientAscentConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Ascend on the forget set; the retain set is not read."""
    theta, dropped = copy_model(theta_o), BatchSampler(forget, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in dropped:
                yield -cross_entropy(theta(images), labels)

    return UnlearningLoop(theta, config, watch=watch).run(losses())
