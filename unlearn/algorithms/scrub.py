"""SCRUB: distil the original on the retain set, move away from it on the forget set (Kurmanji et al. 2023).

    d(x) = T^2 KL(softmax(theta_o(x) / T) || softmax(theta(x) / T)),  from theta = theta_o
    epoch e:  if e <= msteps, a pass over F that maximizes E_F[d(x)]
              then a pass over R that minimizes gamma E_R[CE(theta(x), y)] + alpha E_R[d(x)]

Exactly msteps epochs have an ascent pass, and each ends with a descent pass (RUM's code ascends in one more; another
released code does all ascent passes first). Where student and teacher agree, d is at its minimum 0 and flat: without a
batch norm the first ascent step changes weights only by weight decay. The `clip` and `smoothing` of the released code
have no effect there and are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

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
from unlearn.search_space import Choice, Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class ScrubConfig(UnlearningLoopConfig):
    """The authors' settings for membership inference. Theirs for small data: Adam, weight decay .1, T 2, 10 epochs.

    Attributes:
        epochs: E, above msteps.
        batch: of the retain set.
        forget_batch: of the forget set; the larger, the fewer ascent steps.
        msteps: epochs with an ascent pass.
        gamma: weight of the cross-entropy.
        alpha: weight of the divergence to the teacher.
        temperature: T.
        decay_after: epochs after which the learning rate decays, counted from 1.
        decay: factor of each decay.
    """

    epochs: int = 5
    lr: float = 5e-4
    batch: int = 128
    forget_batch: int = 32
    msteps: int = 3
    gamma: float = 1.0
    alpha: float = 0.5
    temperature: float = 4.0
    decay_after: tuple[int, ...] = (3, 5, 9)
    decay: float = 0.1

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(low=1e-5, high=0.1, source="the authors 5e-4, RUM's code .005, SURE .0008 and .001; widened"),
        "alpha": LogUniform(low=1e-3, high=1.0, source="the authors .001 and .5, SURE .61 and .997"),
        "forget_batch": Choice(values=(16, 32, 64, 128, 256), source="the authors 32 and 64, SURE 8 to 256"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = (
            ("forget_batch", self.forget_batch >= 1, "1 or more"),
            (
                "msteps",
                0 <= self.msteps < self.epochs,
                f"0 or more and under epochs, {self.epochs}: SCRUB ends with descent",
            ),
            ("gamma", self.gamma >= 0, "0 or more"),
            ("alpha", self.alpha >= 0, "0 or more"),
            ("temperature", self.temperature > 0, "above 0"),
            ("decay", 0 < self.decay <= 1, "above 0 and at most 1"),
        )
        for name, holds, rule in rules:
            require(type(self).__name__, name, getattr(self, name), rule, holds=holds)

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        return self.lr * self.decay ** sum(epoch > after for after in self.decay_after)

    def epoch_end_steps(self, n_retain: int, n_forget: int) -> list[int]:
        """Return the last step of each epoch 1 to E."""
        # Rounded up, for a smaller last batch. Epochs up to msteps have an ascent pass as well.
        ascent_steps, descent_steps = -(-n_forget // self.forget_batch), -(-n_retain // self.batch)
        return [epoch * descent_steps + min(epoch, self.msteps) * ascent_steps for epoch in range(1, self.epochs + 1)]


def scrub(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: ScrubConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Alternate ascent on the forget set and descent on the retain set."""
    theta, teacher, temperature = copy_model(theta_o), copy_frozen(theta_o), config.temperature
    retain_batches, forget_batches = (
        BatchSampler(retain, config.batch, rng),
        BatchSampler(forget, config.forget_batch, rng),
    )
    loop = UnlearningLoop(theta, config, step_callback=step_callback)

    def losses() -> Iterator[Tensor]:
        for epoch in range(1, config.epochs + 1):
            loop.lr = config.lr_at(epoch)
            if epoch <= config.msteps:
                for images, _ in forget_batches:
                    # The negative divergence: descent on it moves theta away from the teacher. Labels are not read.
                    yield -(temperature**2) * kl_divergence(teacher(images), theta(images), temperature).mean()
            for images, labels in retain_batches:
                # One forward pass serves both terms.
                logits = theta(images)
                distance = temperature**2 * kl_divergence(teacher(images), logits, temperature).mean()
                yield config.gamma * cross_entropy(logits, labels) + config.alpha * distance

    return loop.run(losses())
