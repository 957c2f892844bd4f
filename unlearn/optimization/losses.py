"""The + forms of SURE's comparison: what an algorithm does to the forget set, with the retain set held beside it.

    min_theta  alpha E_R[CE(theta(x), y)] + (1 - alpha) L_F(theta),  from theta_o

SURE 5.1 and appendix G. The paper calls the added term "trained on D_f"; it can only hold utility on D_r, and alpha is
"the weight of the retain set loss". An epoch is a pass over the retain set, as in NegGrad+; the forget set goes round
beside it in batches of its own size, in a new order each time. How many epochs the paper trains is not said; its
latest drop of the rate is after 18. The drop is to a tenth, as in its training of originals.

How far one network's answers are from another's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, log_softmax

from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, require
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Choice, Domain, Integer, LogUniform, Uniform


def kl_divergence(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(softmax(teacher / T) || softmax(student / T)) for each example.

    A sum over classes: a mean over examples and classes, the default of the library function that released codes call,
    is K times smaller. No factor T^2; who wants it says so.

    Args:
        teacher: logits [B, K].
        student: logits [B, K], through which the gradient flows.
        temperature: T > 0.

    Returns:
        [B], 0 or more up to rounding.
    """
    theirs, ours = log_softmax(teacher / temperature, dim=-1), log_softmax(student / temperature, dim=-1)
    return (theirs.exp() * (theirs - ours)).sum(dim=-1)


@dataclass(frozen=True, kw_only=True)
class RetainLossConfig(UnlearningLoopConfig):
    """Of the + forms and of SURE itself.

    Attributes:
        alpha: weight of the retain set's loss; the other has 1 - alpha.
        forget_batch: examples of the forget set a step.
        drop_after: epochs at the full rate; a tenth of it afterwards.
    """

    epochs: int = 20
    alpha: float = 0.98
    forget_batch: int = 128
    drop_after: int = 10

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(low=1e-3, high=0.3, source="SURE tables 3 and 4: .0047 to .0694; widened"),
        "alpha": Uniform(low=0.3, high=0.9999, source="SURE tables 3 and 4: .345 to .998; widened"),
        "forget_batch": Choice(values=(8, 16, 32, 64, 128, 256), source="SURE tables 3 and 4: 8 to 256"),
        "drop_after": Integer(low=4, high=18, source="SURE tables 3 and 4: 4 to 18"),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        name = type(self).__name__
        require(name, "alpha", self.alpha, "in [0, 1]", holds=0 <= self.alpha <= 1)
        require(name, "forget_batch", self.forget_batch, "1 or more", holds=self.forget_batch >= 1)
        require(name, "drop_after", self.drop_after, "0 or more", holds=self.drop_after >= 0)

    def lr_at(self, epoch: int) -> float:
        """The rate of an epoch, counted from 0."""
        return self.lr if epoch < self.drop_after else self.lr / 10


def train_with_retain_loss(
    theta: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: RetainLossConfig,
    rng: np.random.Generator,
    of_forget: Callable[[Tensor, Tensor], Tensor],
    watch: StepCallback | None = None,
) -> nn.Module:
    """One step for each batch of the retain set, on it and on a batch of the forget set, each in a forward of its own.

    Args:
        theta: a copy of theta_o; changed in place.
        retain: what stays.
        forget: what goes.
        config: alpha, sizes, rates.
        rng: draws orders and augmentations.
        of_forget: L_F of a batch of the forget set: its images and labels.
        watch: sees each step.

    Returns:
        theta, in evaluation mode.
    """
    kept, dropped = BatchSampler(retain, config.batch, rng), BatchSampler(forget, config.forget_batch, rng).cycle()
    descent = UnlearningLoop(theta, config, watch=watch)

    def losses() -> Iterator[Tensor]:
        for epoch in range(config.epochs):
            descent.lr = config.lr_at(epoch)
            for images, labels in kept:
                descend = cross_entropy(theta(images), labels)
                yield config.alpha * descend + (1 - config.alpha) * of_forget(*next(dropped))

    return descent.run(losses())
