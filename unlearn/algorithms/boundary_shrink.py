"""Boundary shrink: train each example of the forget set under its nearest class (Chen et al. 2023, 3.2).

    x' = clamp(x + epsilon sign(grad_x CE(theta_o(x), y)));   y' = argmax_k theta_o(x')_k
    min_theta  E_F[CE(theta(x), y')],  from theta_o;   plus: alpha E_R[CE(theta(x), y)] + (1 - alpha) E_F[...]

Epsilon is in units of pixels in [0, 1], whatever their normalisation: a channel's range is white - black. (A released
code inverts another normalisation than its loader's, so that its x' is not x at epsilon 0, and fails on one channel.)
theta_o is attacked, frozen and in evaluation mode, on the batch that theta is trained on. y' is y where the attack does
not change the predicted class, as released; `other_class` selects the nearest class that is not y. The plus form is
SURE's BS+. It was made to forget a class; on a random forget set it moves boundaries that other examples need.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
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
from unlearn.optimization.losses import RetainLossConfig, train_with_retain_loss
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class BoundaryShrinkConfig(UnlearningLoopConfig):
    """Chen et al. 2023: 10 epochs, epsilon .1, learning rate 1e-5, with which small networks forget nothing.

    Attributes:
        epsilon: the attack's step, as a share of a pixel's range.
        rounded: whether x' is rounded to multiples of 1/255, as released.
        other_class: whether y' is the most likely class of x' that is not y, instead of the most likely.
    """

    lr: float = 1e-3
    epsilon: float = 0.1
    rounded: bool = False
    other_class: bool = False

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    FORGET_ONLY: ClassVar[bool] = True
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-6, high=0.1, paper=(1e-8, 0.1), source="Chen et al. 1e-5; users of its ports search 1e-8 to .1"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require(type(self).__name__, "epsilon", self.epsilon, "in [0, 1]", holds=0 <= self.epsilon <= 1)


@dataclass(frozen=True, kw_only=True)
class BoundaryShrinkPlusConfig(BoundaryShrinkConfig, RetainLossConfig):
    """SURE table 3, BS+, on random forget sets: alpha .998.

    Table 4, on part of a class: lr .0047, alpha .9841, batch 8, drop at .6.
    """

    lr: float = 0.0079
    alpha: float = 0.98

    PAPER: ClassVar[Mapping[str, Any]] = RetainLossConfig.PAPER
    FORGET_ONLY: ClassVar[bool] = False
    SPACE: ClassVar[dict[str, Domain]] = RetainLossConfig.SPACE


def perturb_with_fgsm(
    theta: nn.Module, images: Tensor, labels: Tensor, black: Tensor, white: Tensor, *, epsilon: float, rounded: bool
) -> Tensor:
    """Take one signed step up the loss, in pixels (FGSM, Goodfellow et al. 2015).

    Args:
        theta: frozen.
        images: [B, C, H, W], normalised.
        labels: int64 [B].
        black: [C], normalised value of a black pixel.
        white: [C], normalised value of a white pixel.
        epsilon: share of white - black.
        rounded: whether to round to multiples of 1/255.

    Returns:
        [B, C, H, W] between black and white; the images themselves at epsilon 0, unless rounding moves them.
    """
    # Gradients in the images only, as theta is frozen; the caller's batch, on which another network trains, gets none.
    images = images.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(theta(images), labels), images)
    # [C] to [1, C, 1, 1]. A step of epsilon (high - low) is epsilon in pixels, whatever the normalisation of a channel.
    low, high = black.view(1, -1, 1, 1), white.view(1, -1, 1, 1)
    perturbed: Tensor = (images.detach() + epsilon * (high - low) * gradient.sign()).clamp(low, high)
    if rounded:
        # To pixels 0 to 255, to whole numbers, and back.
        return low + ((perturbed - low) / (high - low) * 255).round() / 255 * (high - low)
    return perturbed


def predict_nearest_class(
    theta: nn.Module, examples: ExampleSet, images: Tensor, labels: Tensor, config: BoundaryShrinkConfig
) -> Tensor:
    """Predict y', int64 [B]: the class that a frozen theta gives the attacked images [B, C, H, W]."""
    pixel_range = examples.images.black, examples.images.white
    perturbed = perturb_with_fgsm(theta, images, labels, *pixel_range, epsilon=config.epsilon, rounded=config.rounded)
    logits: Tensor = theta(perturbed).detach()
    if config.other_class:
        # Now the most likely class is another one.
        logits = logits.scatter(1, labels[:, None], -torch.inf)
    return logits.argmax(1)


def boundary_shrink(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryShrinkConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on the forget set under nearest classes; the retain set is not read."""
    theta, original = copy_model(theta_o), copy_frozen(theta_o)
    batches = BatchSampler(forget, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in batches:
                yield cross_entropy(theta(images), predict_nearest_class(original, forget, images, labels, config))

    return UnlearningLoop(theta, config, step_callback=step_callback).run(losses())


def boundary_shrink_plus(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryShrinkPlusConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on the forget set under nearest classes and on the retain set."""
    theta, original = copy_model(theta_o), copy_frozen(theta_o)

    def nearest_class_loss(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(theta(images), predict_nearest_class(original, forget, images, labels, config))

    return train_with_retain_loss(theta, retain, forget, config, rng, nearest_class_loss, step_callback)
