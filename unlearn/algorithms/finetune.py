"""Fine-tuning: train on what is retained, and hope that the rest is forgotten (catastrophic forgetting).

    min_theta  E_R[CE(theta(x), y)],  from theta_o

RUM section 5; the baseline to beat: near the oracle where examples are not memorized, and poor where they are.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import Descent, DescentConfig, Watch, copy_of
from unlearn.problem import Batches, Examples
from unlearn.search_space import Log, Space


@dataclass(frozen=True, kw_only=True)
class FineTuneConfig(DescentConfig):
    """RUM A.2: 10 epochs, rate .01 to .1."""

    epochs: int = 10
    lr: float = 0.03

    SPACE: ClassVar[dict[str, Space]] = {
        "lr": Log(low=1e-3, high=0.3, source="RUM A.2 .01 to .1, SCALE .001 to .1; widened upwards"),
    }


def finetune(
    theta_o: nn.Module,
    retain: Examples,
    forget: Examples,
    config: FineTuneConfig,
    rng: np.random.Generator,
    watch: Watch | None = None,
) -> nn.Module:
    """Descend on the retain set; the forget set is not read."""
    theta, kept = copy_of(theta_o), Batches(retain, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in kept:
                yield cross_entropy(theta(images), labels)

    return Descent(theta, config, watch=watch).run(losses())
