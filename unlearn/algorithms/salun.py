"""SalUn: random labels for the weights that the forget set's loss depends on most (Fan et al. 2023; RUM section 5).

    m_i = 1  if |g_i| is among the floor(rho P) largest of all P,  g = sum over F of d CE(theta_o(x), y) / d theta
    theta = theta_o + m * (what random labels do)

The gradient is taken in evaluation mode, of examples that are not augmented, and no step is taken meanwhile. It is
summed over examples: the released code sums means over batches, so that its mask depends on the batch size where the
last batch is smaller. Of equal gradients the first in the order of parameters are chosen, so that the count is exact.
What is masked stays bit for bit theta_o's (in the released code weight decay and momentum move it); running
statistics of batch norms are no weights, and follow `batch_norm`.
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
    """RUM A.2: 5 to 10 epochs, rate .005 to .1, ratio .3 to .7.

    Attributes:
        density: rho, the share of weights that may move ("sparsity ratio" in RUM); the authors' .5.
    """

    lr: float = 0.02
    density: float = 0.5

    SPACE: ClassVar[dict[str, Domain]] = {
        "lr": LogUniform(low=1e-3, high=0.3, source="RUM A.2 and SCALE .005 to .1, INST .01; widened"),
        "density": Uniform(low=0.1, high=0.9, source="RUM A.2 .3 to .7, the authors .1 to 1; widened"),
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
    watch: StepCallback | None = None,
) -> nn.Module:
    """Random labels, moving salient weights only."""
    mask = compute_saliency_mask(theta_o, forget, config.density, config.batch)
    return train_with_random_labels(theta_o, retain, forget, config, rng, watch, mask)


def compute_saliency_mask(
    theta_o: nn.Module, forget: ExampleSet, density: float, batch: int = 256
) -> dict[str, Tensor]:
    """Which weights the forget set's loss depends on most.

    Args:
        theta_o: not changed.
        forget: read once, in order.
        density: rho in (0, 1].
        batch: examples at a time; changes nothing but rounding.

    Returns:
        For each parameter, by name, bool of its shape; floor(rho P) are True in all.

    Raises:
        ValueError: that is none.
    """
    theta = copy_model(theta_o).eval().requires_grad_(True)
    named = dict(theta.named_parameters())
    slopes = [torch.zeros_like(parameter) for parameter in named.values()]
    for images, labels in iterate_in_order(forget, batch):
        loss = cross_entropy(theta(images), labels, reduction="sum")
        more = torch.autograd.grad(loss, list(named.values()), materialize_grads=True)
        slopes = [slope + further for slope, further in zip(slopes, more, strict=True)]
    size = torch.cat([slope.abs().flatten() for slope in slopes])
    chosen = math.floor(round(density * len(size), 6))  # .29 of 100 is 29, though .29 * 100 is less in floating point
    if not chosen:
        raise ValueError(f"a density of {density} keeps none of {len(size)} weights; use {1 / len(size):.2g} or more")
    mask = torch.zeros_like(size, dtype=torch.bool)
    mask[size.argsort(descending=True, stable=True)[:chosen]] = True
    parts = torch.split(mask, [slope.numel() for slope in slopes])
    return {name: part.view(slope.shape) for name, part, slope in zip(named, parts, slopes, strict=True)}
