"""Boundary expand: give the forget set a class of its own, then take that class away (Chen et al. 2023, 3.3).

    theta_o widened to K + 1 outputs;  min_theta  E_F[CE(theta(x), K)];   row K of the head dropped
    plus: alpha E_R[CE(theta(x), y)] + (1 - alpha) E_F[CE(theta(x), K)]

The new row is drawn as torch draws a linear layer. What is returned, and what the watch sees, has K outputs and the
names and shapes of theta_o; ports of the released code leave the class in. The plus form is SURE's BE+. Made to forget
a class; on a random forget set it moves boundaries that others need.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

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
    """Chen et al. 2023: 10 epochs, rate 1e-5."""

    epochs: int = 10
    lr: float = 1e-5

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(low=1e-6, high=0.1, source="Chen et al. 1e-5; users of its ports search 1e-8 to .1"),
    }


@dataclass(frozen=True, kw_only=True)
class BoundaryExpandPlusConfig(RetainLossConfig):
    """SURE table 3, BE+: random forget sets. Table 4, part of a class: rate .0058, alpha .4639, drop at 4."""

    lr: float = 0.0092
    alpha: float = 0.982
    drop_after: int = 14


def boundary_expand(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryExpandConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Descend on the forget set as a class of its own; the retain set is not read."""
    theta = copy_model(theta_o)
    head = find_head(theta, forget.images.shape)
    add_output(head, rng)
    dropped = BatchSampler(forget, config.batch, rng)

    def losses() -> Iterator[Tensor]:
        for _ in range(config.epochs):
            for images, labels in dropped:
                yield cross_entropy(theta(images), torch.full_like(labels, forget.n_classes))

    UnlearningLoop(theta, config, watch=_shown(watch, head)).run(losses())
    remove_output(head)
    return theta


def boundary_expand_plus(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: BoundaryExpandPlusConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """The same, with the retain set beside it."""
    theta = copy_model(theta_o)
    head = find_head(theta, forget.images.shape)
    add_output(head, rng)

    def towards_the_class(images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(theta(images), torch.full_like(labels, forget.n_classes))

    train_with_retain_loss(theta, retain, forget, config, rng, towards_the_class, _shown(watch, head))
    remove_output(head)
    return theta


def _shown(watch: StepCallback | None, head: nn.Linear) -> StepCallback | None:
    """The watch, shown K outputs."""
    if watch is None:
        return None

    def see(step: int, theta: nn.Module) -> object:
        with hide_last_output(head):
            return watch(step, theta)

    return see
