"""SURE: embeddings that do not separate the forget set from unseen examples (SURE section 4, appendix C).

    min over theta, max over d of   alpha E_R[CE(theta(x), y)] - (1 - alpha) L_d,   from theta_o
    L_d = E_F[-log d(f(x))] + E_V[-log(1 - d(f(x)))],   f the input of the last linear layer, d two layers

V holds unseen examples with F's class mix, as many as F where available: a part of the validation set, which no measure
and no selection may then use. Eq. 4's lambda is (1 - alpha) / alpha; the tables give alpha. A gradient reversal between
f and d does both in one backward pass. The paper does not specify the following:

- a step uses one batch of R and one each of F and V, which are cycled; an epoch is a pass over R;
- the three share one forward pass, so that a batch norm normalises F and V equally and cannot separate them; its
  running statistics follow the mixture;
- d has a separate, constant learning rate, and its gradient is not scaled: eq. 9 scales it by lambda, as a reversal of
  weight 1 does, and then d learns too slowly where alpha is near 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

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
from unlearn.search_space import NOT_SEARCHED, Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class SureConfig(RetainLossConfig):
    """SURE table 3: random forget sets. Table 4, part of a class: lr .0372, alpha .4241, batch 128, drop at .2.

    Attributes:
        discriminator_lr: learning rate of d; on small networks .1 forgot where lambda lr, .01, hardly did.
        hidden: width between d's two layers.
        heaviest: largest weight of an example of V, where V is smaller than F.
    """

    lr: float = 0.045
    alpha: float = 0.807
    discriminator_lr: float = 0.1
    hidden: int = 128
    heaviest: float = 10.0

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 20, "forget_batch": 256}
    SPACE: ClassVar[dict[str, Domain]] = {
        **RetainLossConfig.SPACE,
        "discriminator_lr": LogUniform(
            low=3e-3,
            high=1.0,
            paper=NOT_SEARCHED,
            source="no paper has it; from SURE's lambda lr, .011 and .051, upwards",
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
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Minimize the retain loss and maximize the loss of a discriminator that is trained at the same time.

    Args:
        theta_o: the original.
        retain: R.
        forget: F.
        config: learning rates, alpha, sizes.
        rng: draws V, d, orders and augmentations.
        validation: the half of the validation set that training may use; V is drawn from it.
        step_callback: called after each step.

    Returns:
        theta_u, in evaluation mode, without d.

    Raises:
        ValueError: validation has too few examples of a class that F has.
        TrainingDiverged: a loss is not finite.
    """
    theta = copy_model(theta_o)
    # f(x) is the input of this layer, so d's loss never reaches the layer itself.
    head = find_head(theta, forget.images.shape)
    unseen, weights = draw_class_matched(forget, validation, rng, config.heaviest)
    d = build_discriminator(head.in_features, config.hidden, rng).to(head.weight)
    retain_batches = BatchSampler(retain, config.batch, rng)
    forget_batches, unseen_batches = (BatchSampler(part, config.forget_batch, rng) for part in (forget, unseen))
    # theta and d take their steps from the same backward pass, d at a constant learning rate.
    loop = UnlearningLoop(theta, config, step_callback=step_callback, adversary=(d, config.discriminator_lr))

    def losses() -> Iterator[Tensor]:
        forget_stream, unseen_stream = forget_batches.cycle(), _cycle_with_positions(unseen_batches)
        for epoch in range(config.epochs):
            loop.lr = config.lr_at(epoch)
            for images, labels in retain_batches:
                (forget_images, _), (unseen_images, _, positions) = next(forget_stream), next(unseen_stream)
                # One pass over the three batches, in this order, R, F, V: a batch norm must normalise F and V by the
                # same statistics. Its rows are sliced apart below.
                embeddings, logits = forward_with_embedding(
                    theta, head, torch.cat([images, forget_images, unseen_images])
                )
                # Backward, d gets the gradient of L_d as it is, and descends; layers before it get -(1 - alpha) times
                # it, and ascend. The loss below therefore adds L_d without a factor.
                domain_logits = d(gradient_reversal(embeddings[len(images) :], 1 - config.alpha))
                retain_loss = cross_entropy(logits[: len(images)], labels)
                # Only R's logits enter; F and V act through their embeddings.
                yield config.alpha * retain_loss + domain_loss(domain_logits, len(forget_images), weights[positions])

    return loop.run(losses())


def _cycle_with_positions(batches: BatchSampler) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Repeat passes without end; yield each batch with its positions."""
    while True:
        yield from batches.with_positions()
