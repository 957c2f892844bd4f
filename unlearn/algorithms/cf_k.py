"""CF-k: catastrophic forgetting in the last k layers only (Goel et al. 2022).

    min_(last k layers)  E_R[CE(theta(x), y)],  from theta_o

The last k convolutional or linear layers that run, and the norms between and after them, train; all earlier layers
equal theta_o bit for bit, including running statistics of batch norms (in the released codes they drift; one code
freezes the classifier, the last layer of all). Differs from the released code: that clips gradients to norm 10 and
returns the last network of 30 epochs.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.layers import find_last_layers
from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import NOT_SEARCHED, Choice, Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class CFKConfig(UnlearningLoopConfig):
    """Weight decay and batch (64) of Goel et al.; epochs, k and constant lr of Fan et al. 2024, worst-case forgetting.

    Attributes:
        k: convolutional or linear layers that train.
        schedule: "constant", or "restarts": Goel's cosine from lr to 0 in cycles of 1, 2, 4, ... epochs. It is
            not the default, because a run of other than 1, 3, 7, 15, 31, ... epochs ends within a cycle, where the
            learning rate is high.
    """

    lr: float = 0.01
    weight_decay: float = 5e-5
    k: int = 1
    schedule: Literal["constant", "restarts"] = "constant"

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10, "batch": 64}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-4, high=0.3, paper=(1e-4, 0.1), source="Goel et al. .005 and .1, Fan et al. 1e-4 to .1"
        ),
        "k": Choice(
            values=(1, 2), paper=NOT_SEARCHED, source="Fan et al. 1; two is what the smallest network here has"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require(type(self).__name__, "k", self.k, "1 or more", holds=self.k >= 1)
        is_valid = self.schedule in {"constant", "restarts"}
        require(type(self).__name__, "schedule", self.schedule, "constant or restarts", holds=is_valid)

    def lr_at(self, epochs: float) -> float:
        """Return the learning rate after a number of epochs, which need not be whole."""
        if self.schedule == "constant":
            return self.lr
        # Cycles start after 0, 1, 3, 7, ... epochs, 2^j - 1, and last 2^j: (epochs + 1) / 2^j - 1 in [0, 1) is the
        # place within the present cycle, which the cosine takes from lr to 0.
        cycle = 2 ** math.floor(math.log2(epochs + 1))
        return self.lr * (1 + math.cos(math.pi * ((epochs + 1) / cycle - 1))) / 2


def cf_k(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: CFKConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train the last layers on the retain set; the forget set is not read."""
    layers = find_last_layers(theta_o, retain.images.shape, config.k)
    return train_last_layers(copy_model(theta_o), layers, retain, config, rng, step_callback)


def require_enough_layers(theta: nn.Module, shape: tuple[int, int, int], config: CFKConfig) -> None:
    """Raise ValueError if the network has fewer than k convolutional or linear layers; it may be untrained."""
    find_last_layers(theta, shape, config.k)


def train_last_layers(
    theta: nn.Module,
    layers: list[str],
    retain: ExampleSet,
    config: CFKConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None,
) -> nn.Module:
    """Train these layers of theta in place on the retain set."""
    # Names in theta. The loop keeps every other parameter, and statistics of batch norms without a trainable parameter.
    trainable = {f"{layer}.{name}" for layer in layers for name, _ in theta.get_submodule(layer).named_parameters()}
    batches, loop = (
        BatchSampler(retain, config.batch, rng),
        UnlearningLoop(theta, config, step_callback=step_callback, trainable=trainable),
    )

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            for step, (images, labels) in enumerate(batches):
                loop.lr = config.lr_at(epoch + step / len(batches))
                yield cross_entropy(theta(images), labels)

    return loop.run(losses())
