"""Selective synaptic dampening: shrink weights that matter far more to the forget set than to all training data.

    I_X(i) = mean over batches of X of (d mean CE / d theta_i)^2,   X = F and X = D = R and F
    where I_F(i) > alpha I_D(i):   theta_i <- theta_i min(lam I_D(i) / I_F(i), 1)

Foster et al. 2024; beyond the five papers. No optimizer step is taken, and no label is changed. The square of a batch's
mean gradient depends on the batch size, so the batch size is part of the method: other batch sizes give other
importances, and a forget set smaller than a batch is one batch. Examples are read in a random order without
augmentation; the released code reads R, then F, so that its last batches hold F alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import FROM_DATA, StepCallback, copy_model, finish_one_shot, require
from unlearn.optimization.step_count import count_steps_taken
from unlearn.problem import ExampleSet, iterate_in_order
from unlearn.search_space import NOT_SEARCHED, Domain, LogUniform, Uniform


@dataclass(frozen=True, kw_only=True)
class SSDConfig:
    """The released code: alpha 10, which destroys small networks, lam 1, batches of 128.

    Attributes:
        alpha: factor by which a weight must be more important to F than to D.
        lam: strength of dampening; the smaller, the closer to 0.
        batch: number of examples whose gradients are averaged before squaring.
    """

    alpha: float = 25.0
    lam: float = 1.0
    batch: int = FROM_DATA

    PAPER: ClassVar[Mapping[str, Any]] = {"batch": 128}
    FORGET_ONLY: ClassVar[bool] = True
    SPACE: ClassVar[dict[str, Domain]] = {
        "alpha": LogUniform(
            low=1.0,
            high=100.0,
            paper=NOT_SEARCHED,
            source="Foster et al. 10, to be chosen by architecture; widened",
        ),
        "lam": Uniform(low=0.1, high=1.0, paper=NOT_SEARCHED, source="Foster et al. 1; widened downwards"),
    }

    def __post_init__(self) -> None:
        require("SSDConfig", "alpha", self.alpha, "above 0", holds=self.alpha > 0)
        require("SSDConfig", "lam", self.lam, "above 0", holds=self.lam > 0)
        require("SSDConfig", "batch", self.batch, "1 or more", holds=self.batch is None or self.batch >= 1)


def ssd(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: SSDConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Compare importances to the forget set and to the whole training set, and dampen once."""
    theta = copy_model(theta_o)
    # Both importances are of the undampened weights.
    all_importances = compute_importances(theta, retain.concatenate(forget), config.batch, rng)
    forget_importances = compute_importances(theta, forget, config.batch, rng)
    with torch.no_grad():
        for name, importance in all_importances.items():
            weight, forget_importance = theta.get_parameter(name), forget_importances[name]
            # 0 / 0 where a weight matters to no example: NaN, which where() does not take, as 0 > 0 is false.
            dampened = weight * (config.lam * importance / forget_importance).clamp(max=1)
            weight.copy_(torch.where(forget_importance > config.alpha * importance, dampened, weight))
    return finish_one_shot(theta, step_callback, "theta_o gives gradients that are not finite")


def compute_importances(
    theta: nn.Module, examples: ExampleSet, batch: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """Compute I_X, the importance of each weight to a set of examples.

    Args:
        theta: set to evaluation mode.
        examples: X.
        batch: number of examples whose gradients are averaged before squaring; a smaller last batch has equal weight.
        rng: draws the order of the examples.

    Returns:
        For each trainable parameter, by name, mean squared gradients in its shape.
    """
    theta.eval()
    named = {name: weight for name, weight in theta.named_parameters() if weight.requires_grad}
    # R and F are concatenated: unshuffled, the last batches would hold F alone, and I_X depends on batches.
    shuffled = examples.select(torch.from_numpy(rng.permutation(len(examples))).to(examples.rows.device))
    sums = {name: torch.zeros_like(weight) for name, weight in named.items()}
    # Rounded up: the smaller last batch counts as one.
    n_batches = -(-len(shuffled) // batch)
    for images, labels in iterate_in_order(shuffled, batch):
        # The mean over the batch, squared below: (mean gradient)^2, not the mean of squared gradients.
        loss = cross_entropy(theta(images), labels)
        gradients = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
        for squares, gradient in zip(sums.values(), gradients, strict=True):
            squares += gradient**2
        count_steps_taken()
    return {name: squares / n_batches for name, squares in sums.items()}
