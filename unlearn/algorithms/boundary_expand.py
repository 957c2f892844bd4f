"""Boundary expand: train the forget set as an extra class, then remove that class (Chen et al. 2023, 3.3).

    theta_o with K + 1 outputs;  min_theta  E_F[CE(theta(x), K)];   row K of the head removed
    plus: alpha E_R[CE(theta(x), y)] + (1 - alpha) E_F[CE(theta(x), K)]

The new row is drawn as torch draws a linear layer. The returned network, and the network that the callback gets, has K
outputs and the names and shapes of theta_o; ports of the released code leave the class in. The plus form is SURE's BE+.
It was made to forget a class; on a random forget set it moves boundaries that other examples need.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.layers import add_output, find_head, hide_last_output, remove_output
from unlearn.optimization.loop import StepCallback, UnlearningLoop, UnlearningLoopConfig, copy_model
from unlearn.optimization.losses import RetainLossConfig, train_with_retain_loss
from unlearn.problem import BatchSampler, ExampleSet
from unlearn.search_space import Domain, LogUniform


@dataclass(frozen=True, kw_only=True)
class BoundaryExpandConfig(UnlearningLoopConfig):
    """Chen et al. 2023: 10 epochs, learning rate 1e-5, with which small networks forget nothing."""

    lr: float = 1e-4

    PAPER: ClassVar[Mapping[str, Any]] = {"epochs": 10}
    FORGET_ONLY: ClassVar[bool] = True
    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-6, high=0.1, paper=(1e-8, 0.1), source="Chen et al. 1e-5; users of its ports search 1e-8 to .1"
        ),
    }


@dataclass(frozen=True, kw_only=True)
class BoundaryExpandPlusConfig(RetainLossConfig):
    """SURE table 3, BE+: random forget sets. Table 4, part of a class: lr .0058, alpha .4639, drop at .2."""

    lr: float = 0.0092
    alpha: float = 0.982
    drop_after: float = 0.7


def boundary_expand(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryExpandConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on the forget set under an extra class; the retain set is not read."""
    theta = copy_model(theta_o)
    head = find_head(theta, forget.images.shape)
    # Before the loop is built: its optimizer takes the parameters as they are, and add_output makes new ones.
    add_output(head, rng)
    batches = BatchSampler(forget, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in batches:
                # Outputs are 0 to K, so the label n_classes = K is the new one.
                yield cross_entropy(theta(images), torch.full_like(labels, forget.n_classes))

    UnlearningLoop(theta, config, step_callback=_hide_class_in_callback(step_callback, head)).run(losses())
    remove_output(head)
    return theta


def boundary_expand_plus(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryExpandPlusConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train on the forget set under an extra class and on the retain set."""
    theta = copy_model(theta_o)
    head = find_head(theta, forget.images.shape)
    add_output(head, rng)

    def extra_class_loss(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(theta(images), torch.full_like(labels, forget.n_classes))

    train_with_retain_loss(
        theta, retain, forget, config, rng, extra_class_loss, _hide_class_in_callback(step_callback, head)
    )
    remove_output(head)
    return theta


def _hide_class_in_callback(step_callback: StepCallback | None, head: nn.Linear) -> StepCallback | None:
    """Wrap the callback, which may evaluate or copy the network, so that it sees K outputs."""
    if step_callback is None:
        return None

    # theta and its head share weights, so that hiding the head's last output changes what the callback sees.
    def call_without_class(step: int, theta: nn.Module) -> object:
        with hide_last_output(head):
            return step_callback(step, theta)

    return call_without_class
