"""Losses that several algorithms share: KL divergence to a teacher, and the "+" forms of SURE's comparison.

The "+" forms add the retain set's loss to an algorithm's loss on the forget set:

    min_theta  alpha E_R[CE(theta(x), y)] + (1 - alpha) L_F(theta),  from theta_o

SURE 5.1 and appendix G. The paper calls the added term "trained on D_f"; it can only preserve utility on D_r, and alpha
is "the weight of the retain set loss". An epoch is a pass over the retain set, as in NegGrad+; the forget set is cycled
in batches of a separate size, in a new order in each pass. By default that is half of the retain set's, as the paper's
128 beside 256, and for SURE as large. The paper does not state its number of epochs; its latest decay of the learning
rate is after 18. The decay is to a tenth, as in its training of originals.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from unlearn.optimization.loop import FROM_DATA, StepCallback, UnlearningLoop, UnlearningLoopConfig, require
from unlearn.optimization.steps import PAPER
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Choice, Domain, LogUniform, Uniform


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Compute KL(softmax(teacher / T) || softmax(student / T)) per example.

    It is summed over classes: a mean over examples and classes, the default of the library function that released codes
    call, is K times smaller. There is no factor T^2; callers multiply by it.

    Args:
        teacher: logits [B, K].
        student: logits [B, K], through which the gradient flows.
        temperature: T > 0.

    Returns:
        [B], 0 or more up to rounding.
    """
    teacher_log_p, student_log_p = (
        log_softmax(teacher / temperature, dim=-1),
        log_softmax(student / temperature, dim=-1),
    )
    # p log p - p log q from log-probabilities, finite also where p rounds to 0.
    return (teacher_log_p.exp() * (teacher_log_p - student_log_p)).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class RetainLossConfig(UnlearningLoopConfig):
    """Options of the "+" forms and of SURE.

    Attributes:
        alpha: weight of the retain set's loss; the other loss has weight 1 - alpha.
        forget_batch: examples of the forget set per step.
        drop_after: share of the epochs at the full learning rate; a tenth of it afterwards.
    """

    alpha: float = 0.98
    forget_batch: int = FROM_DATA
    drop_after: float = 0.5

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 20, "forget_batch": 128}
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-3, high=0.3, paper=(0.0047, 0.0694), source="SURE tables 3 and 4: .0047 to .0694; widened"
        ),
        "alpha": Uniform(
            low=0.3, high=0.9999, paper=(0.345, 0.998), source="SURE tables 3 and 4: .345 to .998; widened"
        ),
        "forget_batch": Choice(values=(8, 16, 32, 64, 128, 256), source="SURE tables 3 and 4: 8 to 256"),
        "drop_after": Uniform(low=0.2, high=0.9, source="SURE tables 3 and 4: after 4 to 18 of 20 epochs"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require(name, "alpha", self.alpha, "in [0, 1]", holds=0 <= self.alpha <= 1)
        require(
            name,
            "forget_batch",
            self.forget_batch,
            "1 or more",
            holds=self.forget_batch is None or self.forget_batch >= 1,
        )
        rule = "in [0, 1], a share of the epochs"
        require(name, "drop_after", self.drop_after, rule, holds=0 <= self.drop_after <= 1)

    def complete(self, n_forget: int) -> Self:
        """Fill in the forget batch, in the paper's proportion to the retain batch."""
        if self.forget_batch is not None:
            return self
        return replace(self, forget_batch=max(1, self.batch * self.PAPER["forget_batch"] // PAPER["batch"]))

    def lr_at(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 0."""
        return self.lr if epoch < self.drop_after * self.epochs else self.lr / 10


def train_with_retain_loss(
    theta: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RetainLossConfig,
    rng: np.random.Generator,
    forget_loss: Callable[[Tensor, Tensor], Tensor],
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train theta in place by alpha E_R[CE] + (1 - alpha) L_F, L_F = forget_loss(images, labels) of a batch of F."""
    retain_batches, forget_batches = (
        BatchSampler(retain, config.batch, rng),
        BatchSampler(forget, config.forget_batch, rng).cycle(),
    )
    loop = UnlearningLoop(theta, config, step_callback=step_callback)

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            # Read by the next step, since the loop draws a loss only after the step on the one before.
            loop.lr = config.lr_at(epoch)
            for images, labels in retain_batches:
                # Two forward passes: a batch norm normalises each set's batch by that batch's own statistics.
                retain_loss = cross_entropy(theta(images), labels)
                yield config.alpha * retain_loss + (1 - config.alpha) * forget_loss(*next(forget_batches))

    return loop.run(losses())
