"""SCRUB: distil the original on the retain set, move away from it on the forget set (Kurmanji et al. 2023).

    d(x) = T^2 KL(softmax(theta_o(x) / T) || softmax(theta(x) / T)),  from theta = theta_o
    epoch e:  if e <= msteps (start "climb"), a pass over F that maximizes E_F[d(x)]
              then a pass over R that minimizes gamma E_R[CE(theta(x), y)] + alpha E_R[d(x)]

Exactly msteps epochs have an ascent pass, and each ends with a descent pass (RUM's code ascends in one more; another
released code does all ascent passes first). The `clip` and `smoothing` of the released code have no effect there and
are left out.

Where student and teacher agree, d is at its minimum 0 and flat: without a batch norm the first ascent changes weights
only by weight decay, and is lost. `start` "descent" begins with an epoch without ascent, so that the climbs are those
of epochs 2 to msteps + 1, from a student that differs.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any, ClassVar, Literal, Self

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.store.json_records import SINCE
from unlearn.optimization.loop import (
    FROM_DATA,
    StepCallback,
    UnlearningLoop,
    UnlearningLoopConfig,
    copy_frozen,
    copy_model,
    require,
)
from unlearn.optimization.losses import kl_divergence
from unlearn.optimization.steps import limit_forget_batch
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Choice, Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class ScrubConfig(UnlearningLoopConfig):
    """The authors' for membership inference: batches of 128 and 32, 3 of 5 epochs climb.

    Their lr is 5e-4, of RUM's code 5e-3. Theirs for small data: Adam, weight decay .1, T 2, 10 epochs.

    Attributes:
        epochs: E, above msteps.
        batch: of the retain set.
        forget_batch: of the forget set; the larger, the fewer ascent steps.
        msteps: epochs with an ascent pass; by default three fifths.
        start: "climb": the first epoch has an ascent pass, the paper's; "descent": the second is the first with one.
        gamma: weight of the cross-entropy.
        alpha: weight of the divergence to the teacher.
        temperature: T.
        decay_after: epochs after which the learning rate decays, from 1; by default the last with an ascent.
        decay: factor of each decay.
    """

    lr: float = 2e-3
    forget_batch: int = FROM_DATA
    msteps: int = FROM_DATA
    start: Literal["climb", "descent"] = field(default="climb", metadata={SINCE: "0.2"})
    gamma: float = 1.0
    alpha: float = 0.5
    temperature: float = 4.0
    decay_after: tuple[int, ...] = FROM_DATA
    decay: float = 0.1

    PAPER: ClassVar[Mapping[str, Any]] = {
        "epochs": 5,
        "batch": 128,
        "forget_batch": 32,
        "msteps": 3,
        "decay_after": (3, 5, 9),
    }
    MIN_EPOCHS: ClassVar[int] = 2
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-5,
            high=0.1,
            paper=(5e-4, 5e-3),
            source="the authors 5e-4, RUM's code .005, SURE .0008 and .001; widened",
        ),
        "alpha": LogUniform(low=1e-3, high=1.0, paper=(1e-3, 0.5), source="the authors .001 and .5, SURE .61 and .997"),
        "forget_batch": Choice(
            values=(4, 8, 16, 32, 64, 128, 256), paper=(32, 64), source="the authors 32 and 64, SURE 8 to 256; widened"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        rules = (
            ("forget_batch", self.forget_batch is None or self.forget_batch >= 1, "1 or more"),
            ("msteps", self.msteps is None or self.msteps >= 0, "0 or more"),
            ("start", self.start in {"climb", "descent"}, "climb or descent"),
            ("gamma", self.gamma >= 0, "0 or more"),
            ("alpha", self.alpha >= 0, "0 or more"),
            ("temperature", self.temperature > 0, "above 0"),
            ("decay", 0 < self.decay <= 1, "above 0 and at most 1"),
        )
        for name, holds, rule in rules:
            require(type(self).__name__, name, getattr(self, name), rule, holds=holds)
        if self.epochs is not None and self.msteps is not None:
            rule = f"under epochs, {self.epochs}: SCRUB ends with descent"
            require(type(self).__name__, "msteps", self.msteps, rule, holds=self.msteps < self.epochs)

    def complete(self, n_forget: int) -> Self:
        """Fill in what follows from the epochs and the size of the forget set."""
        epochs, msteps, decay_after, forget_batch = self.epochs, self.msteps, self.decay_after, self.forget_batch
        if msteps is None:
            # The authors' share, and one at least: without an ascent nothing is forgotten.
            share = self.PAPER["msteps"] / self.PAPER["epochs"]
            msteps = max(1, min(round(share * epochs), epochs - 1))
        # The authors decay after 3 of 5 epochs, the last with an ascent.
        if decay_after is None:
            decay_after = (msteps + (self.start == "descent"),) if msteps else ()
        if forget_batch is None:
            forget_batch = limit_forget_batch(self.PAPER["forget_batch"], n_forget)
        return replace(self, msteps=msteps, decay_after=decay_after, forget_batch=forget_batch)

    def has_ascent(self, epoch: int) -> bool:
        """Return whether an epoch, counted from 1, begins with an ascent pass."""
        first = 1 + (self.start == "descent")
        return first <= epoch < first + self.msteps

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1."""
        return self.lr * self.decay ** sum(epoch > after for after in self.decay_after)

    def epoch_end_steps(self, n_retain: int, n_forget: int) -> list[int]:
        """Return the last step of each epoch 1 to E."""
        # Rounded up, for a smaller last batch.
        ascent_steps, descent_steps = -(-n_forget // self.forget_batch), -(-n_retain // self.batch)
        steps = (descent_steps + self.has_ascent(epoch) * ascent_steps for epoch in range(1, self.epochs + 1))
        return list(accumulate(steps))


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
            if config.has_ascent(epoch):
                for images, _ in forget_batches:
                    # The negative divergence: descent on it moves theta away from the teacher. Labels are not read.
                    yield -(temperature**2) * kl_divergence(teacher(images), theta(images), temperature).mean()
            for images, labels in retain_batches:
                # One forward pass serves both terms.
                logits = theta(images)
                distance = temperature**2 * kl_divergence(teacher(images), logits, temperature).mean()
                yield config.gamma * cross_entropy(logits, labels) + config.alpha * distance

    return loop.run(losses())
