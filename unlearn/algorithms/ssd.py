"""Selective synaptic dampening: shrink the weights that matter far more to the forget set than to the whole.

    I_X(i) = mean over batches of X of (d mean CE / d theta_i)^2,   X = F and X = D = R and F
    where I_F(i) > alpha I_D(i):   theta_i <- theta_i min(lam I_D(i) / I_F(i), 1)

Foster et al. 2024; beyond the five papers. No step is taken, and no label is changed. The square of a batch's mean
gradient depends on how many examples a batch has, so their number is part of the method: importances under other
batches are other importances, and a forget set smaller than a batch is judged by its own size. The examples come in an
order that is drawn and are not augmented; the released code reads R, then F, so that its last batches are of F alone.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unlearn.optimization.loop import StepCallback, copy_model, finish_one_shot, require
from unlearn.problem import ExampleSet, iterate_in_order
from unlearn.search_space import Domain, LogUniform, Uniform


@dataclass(frozen=True, kw_only=True)
class SSDConfig:
    """The released code: alpha 10, lam 1, batches of 128.

    Attributes:
        alpha: how many times as important to F a weight must be than to D.
        lam: of those, how strong; the smaller, the closer to 0.
        batch: examples whose gradients are averaged before they are squared.
    """

    alpha: float = 10.0
    lam: float = 1.0
    batch: int = 128

    SPACE: ClassVar[dict[str, Domain]] = {
        "alpha": LogUniform(low=1.0, high=100.0, source="Foster et al. 10, to be chosen by architecture; widened"),
        "lam": Uniform(low=0.1, high=1.0, source="Foster et al. 1; widened downwards"),
    }

    def __post_init__(self) -> None:
        require("SSDConfig", "alpha", self.alpha, "above 0", holds=self.alpha > 0)
        require("SSDConfig", "lam", self.lam, "above 0", holds=self.lam > 0)
        require("SSDConfig", "batch", self.batch, "1 or more", holds=self.batch >= 1)


def ssd(
    theta_o: nn.Module,
    retain: ExampleSet,
    forget: ExampleSet,
    config: SSDConfig,
    rng: np.random.Generator,
    watch: StepCallback | None = None,
) -> nn.Module:
    """Compare importances to the forget set and to the whole training set, and dampen; all at once."""
    theta = copy_model(theta_o)
    everything = compute_importances(theta, retain.concatenate(forget), config.batch, rng)
    dropped = compute_importances(theta, forget, config.batch, rng)
    with torch.no_grad():
        for name, of_all in everything.items():
            weight, of_forget = theta.get_parameter(name), dropped[name]
            dampened = weight * (config.lam * of_all / of_forget).clamp(max=1)
            weight.copy_(torch.where(of_forget > config.alpha * of_all, dampened, weight))
    return finish_one_shot(theta, watch, "theta_o gives gradients that are not finite")


def compute_importances(
    theta: nn.Module, examples: ExampleSet, batch: int, rng: np.random.Generator
) -> dict[str, Tensor]:
    """I_X: how much each weight matters to a set of examples.

    Args:
        theta: judged in evaluation mode, and left in it.
        examples: X.
        batch: examples whose gradients are averaged before they are squared; the last batch counts as any other.
        rng: draws which examples share a batch.

    Returns:
        For each parameter that may change, by name, means of squares in its shape.
    """
    theta.eval()
    named = {name: weight for name, weight in theta.named_parameters() if weight.requires_grad}
    drawn = examples.select(torch.from_numpy(rng.permutation(len(examples))).to(examples.rows.device))
    total = {name: torch.zeros_like(weight) for name, weight in named.items()}
    n_batches = -(-len(drawn) // batch)
    for images, labels in iterate_in_order(drawn, batch):
        loss = cross_entropy(theta(images), labels)
        slopes = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
        for squares, slope in zip(total.values(), slopes, strict=True):
            squares += slope**2
    return {name: squares / n_batches for name, squares in total.items()}
