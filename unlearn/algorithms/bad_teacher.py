"""Bad teacher: distil theta_o on the retain set and a randomly initialized network on the forget set.

    min_theta  E[KL(l softmax(bad(x) / T) + (1 - l) softmax(theta_o(x) / T) || softmax(theta(x) / T))],  from theta_o

over F (l = 1) and 30 % of R (l = 0), drawn once, shuffled together (Chundawat et al. 2023). KL is summed over classes
and averaged over examples; the released code averages over classes too, which makes its loss K times smaller: nothing
to Adam, which divides by the size of gradients, and a learning rate K times smaller to SGD.
The bad teacher is a new network of the same architecture, whatever the architecture (`reinitialize`).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unlearn.optimization.layers import reinitialize
from unlearn.optimization.loop import (
    StepCallback,
    UnlearningLoop,
    UnlearningLoopConfig,
    copy_frozen,
    copy_model,
    require,
)
from unlearn.optimization.losses import kl_divergence
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import NOT_SEARCHED, Domain, LogUniform, Uniform


@dataclass(frozen=True, kw_only=True)
class BadTeacherConfig(UnlearningLoopConfig):
    """The authors': Adam at 1e-4, one epoch over F and the share of R. RSU: 5 epochs, lr 1e-4 to 1e-3.

    Attributes:
        retain_share: of R, drawn once.
        temperature: T.
        alpha: SURE's weight of retained against forgotten examples: 2 alpha and 2 (1 - alpha); .5 is the authors'.
    """

    lr: float = 1e-3
    optimizer: Literal["sgd", "adam"] = "adam"
    weight_decay: float = 0.0
    retain_share: float = 0.3
    temperature: float = 1.0
    alpha: float = 0.5

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 5}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-5, high=0.1, paper=(1e-4, 1e-3), source="the authors 1e-4, RSU 1e-4 to 1e-3, SURE .032 and .035"
        ),
        "alpha": Uniform(low=0.2, high=0.999, paper=NOT_SEARCHED, source="the authors .5, SURE .345 and .954"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = (
            ("retain_share", 0 < self.retain_share <= 1, "above 0 and at most 1"),
            ("temperature", self.temperature > 0, "above 0"),
            ("alpha", 0 <= self.alpha <= 1, "in [0, 1]"),
        )
        for name, holds, rule in rules:
            require("BadTeacherConfig", name, getattr(self, name), rule, holds=holds)


def bad_teacher(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BadTeacherConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Minimize the divergence to two teachers; labels are not read."""
    # rng is read in this order: bad teacher, share of R, batches. Another order is another theta_u for the same seed.
    theta, good, bad = copy_model(theta_o), copy_frozen(theta_o), copy_frozen(reinitialize(theta_o, rng))
    retain_rows = rng.permutation(len(retain))[: max(1, int(config.retain_share * len(retain)))]
    mixed = forget.concatenate(retain.select(torch.from_numpy(retain_rows).to(retain.rows.device)))
    batches = BatchSampler(mixed, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, _, positions in batches.with_positions():
                # Positions in the mixed set, where F comes first.
                is_forget = positions < len(forget)
                # [B, K]. l is 0 or 1, so mixing the teachers' probabilities is choosing between their logits, row by
                # row.
                targets = torch.where(is_forget[:, None], bad(images), good(images))
                # Factors of mean 1 over both kinds; both are 1 at alpha .5.
                weight = 2 * torch.where(is_forget, 1 - config.alpha, config.alpha)
                yield (weight * kl_divergence(targets, theta(images), config.temperature)).mean()

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())
