"""NegGrad+: retain-set descent and forget-set ascent in the same step (Kurmanji et al. 2023; RUM section 5).

    min_theta  beta E_R[CE(theta(x), y)] - (1 - beta) E_F[CE(theta(x), y)],  from theta_o

An epoch is a pass over the retain set; the forget set is cycled, in a new order in each pass (the released codes cache
its first pass). The last batch may have any size. Batches of both sets have one size, so a forget set of less than a
batch is read whole in each step: the same expected step as by smaller batches.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform, Uniform


@dataclass(frozen=True, kw_only=True)
class NegGradPlusConfig(UnlearningLoopConfig):
    """RUM A.2: 5 epochs, learning rate .01 to .05, beta .85 to .99 (`alpha` in its code).

    Attributes:
        beta: weight of the retain set's loss; the forget set's is 1 - beta.
    """

    lr: float = 0.02
    beta: float = 0.95

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 5}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-3, high=0.3, paper=(0.01, 0.05), source="RUM A.2 .01 to .05, SCALE .001 to .05; widened"
        ),
        "beta": Uniform(
            low=0.8, high=0.999, paper=(0.85, 0.99), source="RUM A.2 .85 to .99; SCRUB's authors .95 and .9999"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require("NegGradPlusConfig", "beta", self.beta, "in [0, 1]", holds=0 <= self.beta <= 1)


def neggrad_plus(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: NegGradPlusConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Take one step per batch of the retain set, on it and on a batch of the forget set."""
    theta = copy_model(theta_o)
    retain_batches, forget_batches = (BatchSampler(part, config.batch, rng) for part in (retain, forget))

    def losses() -> Iterator[Tensor]:
        # F is smaller than R as a rule: it starts over, newly shuffled and augmented, while R is passed through.
        forget_stream = forget_batches.cycle()
        for _ in range(config.epochs):
            for images, labels in retain_batches:
                forget_images, forget_labels = next(forget_stream)
                # Two forward passes: a batch norm normalises each set's batch by that batch's own statistics.
                retain_loss = cross_entropy(theta(images), labels)
                yield config.beta * retain_loss - (1 - config.beta) * cross_entropy(theta(forget_images), forget_labels)

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())
