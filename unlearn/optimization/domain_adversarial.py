"""Domain-adversarial training: gradient reversal, discriminator and loss (DANN, Ganin et al. 2016; SURE 2.1 and 4)."""

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from memscore.units import format_count
from unlearn.problem import ExampleSet


class GradientReversal(torch.autograd.Function):
    """Identity in the forward pass; minus `weight` times the gradient in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        """Return x, of any shape."""
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return -weight times the gradient in the output; the weight itself has no gradient."""
        return -ctx.weight * gradients[0], None


def gradient_reversal(x: Tensor, weight: float) -> Tensor:
    """Return x with its gradient reversed: layers before it ascend the loss that layers after it descend."""
    reversed_input: Tensor = GradientReversal.apply(x, weight)  # type: ignore[no-untyped-call]
    return reversed_input


def build_discriminator(n_inputs: int, hidden: int, rng: np.random.Generator) -> nn.Sequential:
    """Build two fully connected layers that predict whether an embedding is of the forget set, as a logit.

    Args:
        n_inputs: E.
        hidden: width between the layers; no paper states it.
        rng: draws the weights as torch initialises linear layers.

    Returns:
        [B, E] -> [B, 1].
    """
    # Drawn on the CPU, so that every device gets the same weights; torch's global random state is restored.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def draw_class_matched(
    forget: ExampleSet, validation: ExampleSet, rng: np.random.Generator, heaviest: float = 10.0
) -> tuple[ExampleSet, Tensor]:
    """Draw validation examples with the forget set's class mix, as many as the forget set where there are enough.

    Args:
        forget: F.
        validation: the validation examples that training may use.
        rng: draws the examples.
        heaviest: largest weight of an example of V, where V has fewer examples of a class than F.

    Returns:
        V, and a weight for each of its examples, float32 of mean 1: all 1 if |V| = |F|; else inversely proportional to
        the number of examples of its class in V, so that the weighted class mix is F's.

    Raises:
        ValueError: too few validation examples of a class that F has.
    """
    # F's class mix is copied class by class: as many validation examples of a class as F has, or all there are.
    class_counts = torch.bincount(forget.labels, minlength=forget.n_classes).tolist()
    positions, weights = [], []
    for label, count in enumerate(class_counts):
        candidates = torch.nonzero(validation.labels == label)[:, 0]
        # Where V has fewer than F, each weighs more: `heaviest` at most, since V would be a few repeated examples.
        if len(candidates) * heaviest < count or (count and not len(candidates)):
            raise ValueError(
                f"the forget set has {format_count(count, 'example')} of class {label}, and the validation set "
                f"{len(candidates)}, but "
                f"an unseen set of its class mix needs {max(1, -int(-count // heaviest))} or more; keep a larger "
                "validation set, or raise `heaviest`"
            )
        # A permutation is drawn for classes that F lacks too: without it, the draws of later classes would change.
        drawn = torch.from_numpy(rng.permutation(len(candidates))[:count]).to(candidates.device)
        positions.append(candidates[drawn])
        # The weights of a class sum to its count in F: 1 each where V has as many.
        weights.append(torch.full((len(drawn),), count / max(1, len(drawn))))
    # Mean 1 over V, so that the size of the unseen term does not depend on |V|.
    weight = torch.cat(weights)
    return validation.select(torch.cat(positions)), (weight / weight.mean()).to(forget.labels.device)


def domain_loss(logits: Tensor, n_forget: int, weights: Tensor) -> Tensor:
    """Compute L_d of SURE eq. 4: mean cross-entropy of the forget batch plus weighted mean of the unseen batch.

    Args:
        logits: [B, 1], of the discriminator; examples of the forget set come first.
        n_forget: number of examples of the forget set.
        weights: of the other examples.

    Returns:
        A scalar; 2 log 2 for a discriminator that always answers 1/2.
    """
    inside, outside = logits[:n_forget, 0], logits[n_forget:, 0]
    forget_loss = binary_cross_entropy_with_logits(inside, torch.ones_like(inside))
    # The weighted mean divides by the number of examples, not by the sum of weights: with weights of mean 1 over V it
    # is unbiased in every batch.
    return forget_loss + binary_cross_entropy_with_logits(outside, torch.zeros_like(outside), weight=weights)
