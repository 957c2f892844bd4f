"""L1-sparse: fine-tune on the retain set with an L1 penalty (Liu et al. 2024; RUM section 5).

    min_theta  E_R[CE(theta(x), y)] + gamma_e |theta|_1,  from theta_o
    gamma_e = gamma (1 - e / E'),  e = 0, ..., E' - 1;  0 in the last E - E' epochs

The norm is summed over all parameters, including scales and shifts of batch norms, as in the released code: smaller
networks need larger gamma. A constant penalty is an option. Zero penalised epochs are refused; the released code then
penalises all epochs equally.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class L1SparseConfig(UnlearningLoopConfig):
    """RUM A.2: 10 epochs, learning rate .005 to .1, gamma 1e-6 to 1e-4.

    Attributes:
        gamma: penalty of the first epoch.
        gamma_decay: "linear" as above, or "none".
        plain_epochs: number of last epochs without penalty; E - E'.
    """

    lr: float = 0.1
    gamma: float = 5e-5
    gamma_decay: Literal["linear", "none"] = "linear"
    plain_epochs: int = 0

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-3,
            high=0.3,
            paper=(0.005, 0.1),
            source="RUM A.2 .005 to .1, SCALE .001 to .1, SURE .0038; widened",
        ),
        "gamma": LogUniform(
            low=1e-6,
            high=1e-2,
            paper=(1e-6, 1e-4),
            source="RUM A.2 1e-6 to 1e-4, SCALE to 5e-4; widened for small networks",
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require("L1SparseConfig", "gamma", self.gamma, "0 or more", holds=self.gamma >= 0)
        is_valid = self.gamma_decay in {"linear", "none"}
        require("L1SparseConfig", "gamma_decay", self.gamma_decay, "linear or none", holds=is_valid)
        # The epochs may follow from the data, and are then compared once they are known.
        rule = "0 or more"
        if self.epochs is not None:
            rule = f"0 or more and under epochs, {self.epochs} (finetune has no penalty at all)"
        holds = self.plain_epochs >= 0 and (self.epochs is None or self.plain_epochs < self.epochs)
        require("L1SparseConfig", "plain_epochs", self.plain_epochs, rule, holds=holds)

    def gamma_at(self, epoch: int) -> float:
        """Return gamma_e; epochs are counted from 0."""
        n_penalised = self.epochs - self.plain_epochs
        if epoch >= n_penalised:
            return 0.0
        return self.gamma * (1 - epoch / n_penalised) if self.gamma_decay == "linear" else self.gamma


def l1_sparse(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: L1SparseConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Minimize the retain loss plus the penalty; the forget set is not read."""
    theta, batches = copy_model(theta_o), BatchSampler(retain, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            gamma = config.gamma_at(epoch)
            for images, labels in batches:
                yield cross_entropy(theta(images), labels) + gamma * l1_norm(theta)

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())


def l1_norm(theta: nn.Module) -> Tensor:
    """Compute the sum of absolute values over all parameters."""
    absolute: Tensor = sum(parameter.abs().sum() for parameter in theta.parameters())  # type: ignore[assignment]
    return absolute
