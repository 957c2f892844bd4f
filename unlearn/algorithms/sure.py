"""SURE: embeddings that do not tell what is to be forgotten from what was never seen (SURE section 4, appendix C).

    min over theta, max over d of   alpha E_R[CE(theta(x), y)] - (1 - alpha) L_d,   from theta_o
    L_d = E_F[-log d(f(x))] + E_V[-log(1 - d(f(x)))],   f what the last linear layer reads, d two layers

V is of unseen examples with F's class mix, as many as F where there are: a part of the validation set, which no
measure and no selection may then use. Eq. 4's lambda is (1 - alpha) / alpha; the tables have alpha. A gradient reversal
between f and d does both in one backward pass. Where the paper is silent:

- a step is one batch of R and one each of F and V, which go round; an epoch is a pass over R;
- the three go forward together, so that a batch norm normalises F and V alike and cannot itself tell them apart; its
  running statistics follow the mixture;
- d has a rate of its own, constant, and its gradient is not scaled: eq. 9 scales it by lambda, which is how a reversal
  of weight 1 happens to work, and leaves d behind what it must find where alpha is near 1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.domain_adversarial import (
    build_discriminator,
    domain_loss,
    draw_class_matched,
    gradient_reversal,
)
from unlearn.optimization.layers import find_head, forward_with_embedding
from unlearn.optimization.loop import StepCallback, UnlearningLoop, copy_model, require
from unlearn.optimization.losses import RetainLossConfig
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class SureConfig(RetainLossConfig):
    """SURE table 3: random forget sets. Table 4, part of a class: rate .0372, alpha .4241, batch 128, drop at 4.

    Attributes:
        discriminator_lr: d's own rate; on small networks .1 forgot where lambda lr, .01, hardly did.
        hidden: width between d's two layers.
        heaviest: what one example of V may count for at most, where V is smaller than F.
    """

    lr: float = 0.045
    alpha: float = 0.807
    forget_batch: int = 256
    discriminator_lr: float = 0.1
    hidden: int = 128
    heaviest: float = 10.0

    SPACE: ClassVar[dict[str, Domain]] = {
        **RetainLossConfig.SPACE,
        "discriminator_lr": LogUniform(
            low=3e-3, high=1.0, source="no paper has it; from SURE's lambda lr, .011 and .051, upwards"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require("SureConfig", "discriminator_lr", self.discriminator_lr, "above 0", holds=self.discriminator_lr > 0)
        require("SureConfig", "hidden", self.hidden, "1 or more", holds=self.hidden >= 1)
        require("SureConfig", "heaviest", self.heaviest, "1 or more", holds=self.heaviest >= 1)


def sure(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: SureConfig,
    rng: np.random.Generator,
    validation: ExampleSet,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Descend on the retain set and on the reversed loss of a discriminator that learns beside.

    Args:
        theta_o: the original.
        retain: R.
        forget: F.
        config: rates, alpha, sizes.
        rng: draws V, d, orders and augmentations.
        validation: the half of the validation set that training may use; V is drawn of it.
        watch: sees each step; domain_adversarial.domain_accuracy tells what a new discriminator would find in it.

    Returns:
        theta_u, in evaluation mode; d is dropped.

    Raises:
        ValueError: validation has too few examples of a class that F has.
        TrainingDiverged: a loss is not finite.
    """
    theta = copy_model(theta_o)
    head = find_head(theta, forget.images.shape)
    unseen, weight = draw_class_matched(forget, validation, rng, config.heaviest)
    d = build_discriminator(head.in_features, config.hidden, rng).to(head.weight)
    kept = BatchSampler(retain, config.batch, rng)
    dropped, never = (BatchSampler(part, config.forget_batch, rng) for part in (forget, unseen))
    descent = UnlearningLoop(theta, config, watch=watch, beside=(d, config.discriminator_lr))

    def losses() -> Iterator[Tensor]:
        going_round, beside = dropped.cycle(), _endless(never)
        for epoch in range(config.epochs):
            descent.lr = config.lr_at(epoch)
            for images, labels in kept:
                (seen, _), (other, _, positions) = next(going_round), next(beside)
                read, logits = forward_with_embedding(theta, head, torch.cat([images, seen, other]))
                said = d(gradient_reversal(read[len(images) :], 1 - config.alpha))
                descend = cross_entropy(logits[: len(images)], labels)
                yield config.alpha * descend + domain_loss(said, len(seen), weight[positions])

    return descent.run(losses())


def _endless(batches: BatchSampler) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Pass after pass, each batch with its positions."""
    while True:
        yield from batches.with_positions()
