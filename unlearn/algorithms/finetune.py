"""Fine-tuning: train on the retain set only, so that the forget set is forgotten (catastrophic forgetting).

    min_theta  E_R[CE(theta(x), y)],  from theta_o

RUM section 5; the baseline: near the oracle where examples are not memorized, and poor where they are.
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
class FineTuneConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, learning rate .01 to .1."""

    lr: float = 0.1

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-3, high=0.3, paper=(0.01, 0.1), source="RUM A.2 .01 to .1, SCALE .001 to .1; widened upwards"
        ),
    }


def finetune(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: FineTuneConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on the retain set; the forget set is not read."""
    theta, batches = copy_model(theta_o), BatchSampler(retain, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in batches:
                yield cross_entropy(theta(images), labels)

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())
