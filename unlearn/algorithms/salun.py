"""SalUn: random labels, changing the most salient weights only (Fan et al. 2023; RUM section 5).

    m_i = 1  if |g_i| is among the floor(rho P) largest of all P,  g = sum over F of d CE(theta_o(x), y) / d theta
    theta = theta_o + m * (change by random labels)

The gradient is computed in evaluation mode, without augmentation, at theta_o. It is summed over examples: the released
code sums means over batches, so that its mask depends on the batch size where the last batch is smaller. Ties are
broken by the order of parameters, so that the count is exact. Masked weights equal theta_o's bit for bit (in the
released code weight decay and momentum move them); running statistics of batch norms are no weights and follow
`batch_norm`.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.algorithms.random_label import RandomLabelConfig, train_with_random_labels
from unlearn.optimization.loop import StepCallback, copy_model, require
from unlearn.problem import ExampleSet, iterate_in_order
from unlearn.search_space import Domain, LogUniform, Uniform


@dataclass(frozen=True, kw_only=True)
class SalUnConfig(RandomLabelConfig):
    """RUM A.2: 5 to 10 epochs, learning rate .005 to .1, ratio .3 to .7.

    Attributes:
        density: rho, the share of weights that may change ("sparsity ratio" in RUM); .5 for the authors.
    """

    lr: float = 0.02
    density: float = 0.5

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(
            low=1e-3, high=0.3, paper=(0.005, 0.1), source="RUM A.2 and SCALE .005 to .1, INST .01; widened"
        ),
        "density": Uniform(
            low=0.1, high=0.9, paper=(0.3, 0.7), source="RUM A.2 .3 to .7, the authors .1 to 1; widened"
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        require("SalUnConfig", "density", self.density, "above 0 and at most 1", holds=0 < self.density <= 1)


def salun(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: SalUnConfig,
    rng: np.random.Generator,
    step_callback: StepCallback | None = None,
) -> nn.Module:
    """Train with random labels, changing salient weights only."""
    mask = compute_saliency_mask(theta_o, forget, config.density, config.batch)
    return train_with_random_labels(theta_o, retain, forget, config, rng, step_callback, mask)


def compute_saliency_mask(
    theta_o: nn.Module, forget: ExampleSet, density: float, batch: int = 256
) -> dict[str, Tensor]:
    """Compute which weights the forget set's loss depends on most.

    Args:
        theta_o: not changed.
        forget: read once, in order.
        density: rho in (0, 1].
        batch: examples per forward pass; affects rounding only.

    Returns:
        For each parameter, by name, bool of its shape; floor(rho P) in total are True.

    Raises:
        ValueError: floor(rho P) is 0.
    """
    # A copy: requires_grad_ would change theta_o.
    theta = copy_model(theta_o).eval().requires_grad_(True)
    named = dict(theta.named_parameters())
    gradients = [torch.zeros_like(parameter) for parameter in named.values()]
    for images, labels in iterate_in_order(forget, batch):
        loss = cross_entropy(theta(images), labels, reduction="sum")
        batch_gradients = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        gradients = [
            gradient + batch_gradient for gradient, batch_gradient in zip(gradients, batch_gradients, strict=True)
        ]
    # |g| of all parameters as one vector [P]: the threshold is global, not per layer.
    magnitude = torch.cat([gradient.abs().flatten() for gradient in gradients])
    # .29 of 100 is 29, though .29 * 100 is less in floating point.
    n_selected = math.floor(round(density * len(magnitude), 6))
    if not n_selected:
        raise ValueError(
            f"a density of {density} keeps none of {len(magnitude)} weights; use {1 / len(magnitude):.2g} or more"
        )
    mask = torch.zeros_like(magnitude, dtype=torch.bool)
    # A count, not a threshold: several weights may have the same |g|, above all 0. A stable sort takes earlier ones.
    mask[magnitude.argsort(descending=True, stable=True)[:n_selected]] = True
    parts = torch.split(mask, [gradient.numel() for gradient in gradients])
    return {name: part.view(gradient.shape) for name, part, gradient in zip(named, parts, gradients, strict=True)}
