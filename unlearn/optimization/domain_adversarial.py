"""Whether embeddings tell which of two sets an example is from (DANN, Ganin et al. 2016; SURE sections 2.1 and 4)."""

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from memscore.models.architectures import embed
from unlearn.optimization.loop import UnlearningLoop, UnlearningLoopConfig
from unlearn.problem import ExampleSet, iterate_in_order


class GradientReversal(torch.autograd.Function):
    """x on the way forward, minus `weight` times the slope on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: float) -> Tensor:
        """Args: x, of any shape; weight, of what comes back. Returns x."""
        ctx.weight = weight
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None]:
        """Args: the slope in what was returned. Returns the slope in x."""
        return -ctx.weight * slopes[0], None


def gradient_reversal(x: Tensor, weight: float) -> Tensor:
    """The gradient reversal layer: x, through which what learns from the output is unlearned by the input."""
    passed: Tensor = GradientReversal.apply(x, weight)  # type: ignore[no-untyped-call]
    return passed


def build_discriminator(n_inputs: int, hidden: int, rng: np.random.Generator) -> nn.Sequential:
    """Two fully connected layers that say how likely an embedding is of the forget set, as a logit.

    Args:
        n_inputs: E.
        hidden: width between the layers; no paper has it.
        rng: draws the weights, as torch draws a linear layer's.

    Returns:
        [B, E] -> [B, 1].
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        return nn.Sequential(nn.Linear(n_inputs, hidden), nn.ReLU(), nn.Linear(hidden, 1))


def draw_class_matched(
    forget: ExampleSet, validation: ExampleSet, rng: np.random.Generator, heaviest: float = 10.0
) -> tuple[ExampleSet, Tensor]:
    """A part of the validation set with the forget set's class mix, and of its size where there are enough.

    Args:
        forget: F.
        validation: what training may use of it.
        rng: draws which.
        heaviest: what an example of V may count for at most, where a class has fewer than F has of it.

    Returns:
        V, and a weight for each of its examples, float32 of mean 1: all 1 if |V| = |F|; else in inverse proportion to
        its class's number in V, so that the weighted mix is F's.

    Raises:
        ValueError: too few validation examples of a class that F has.
    """
    wanted = torch.bincount(forget.labels, minlength=forget.n_classes).tolist()
    positions, weights = [], []
    for label, count in enumerate(wanted):
        there = torch.nonzero(validation.labels == label)[:, 0]
        if len(there) * heaviest < count or (count and not len(there)):
            raise ValueError(
                f"the forget set has {count} examples of class {label}, and the validation set {len(there)}, but an "
                f"unseen set of its class mix needs {max(1, -int(-count // heaviest))} or more; keep a larger "
                "validation set, or raise `heaviest`"
            )
        drawn = torch.from_numpy(rng.permutation(len(there))[:count]).to(there.device)
        positions.append(there[drawn])
        weights.append(torch.full((len(drawn),), count / max(1, len(drawn))))
    weight = torch.cat(weights)
    return validation.select(torch.cat(positions)), (weight / weight.mean()).to(forget.labels.device)


def domain_loss(said: Tensor, forgotten: int, weights: Tensor) -> Tensor:
    """L_d of SURE eq. 4: mean cross-entropy over the forget set's batch, plus the weighted mean over the unseen one's.

    Args:
        said: [B, 1], the discriminator's logits, of the forget set first.
        forgotten: how many are of the forget set.
        weights: of the others.

    Returns:
        A scalar; 2 log 2 for a discriminator that knows nothing.
    """
    inside, outside = said[:forgotten, 0], said[forgotten:, 0]
    right = binary_cross_entropy_with_logits(inside, torch.ones_like(inside))
    return right + binary_cross_entropy_with_logits(outside, torch.zeros_like(outside), weight=weights)


def compute_embeddings(theta: nn.Module, examples: ExampleSet, batch: int = 256) -> Tensor:
    """What the last linear layer reads of a set, [n, E]; theta in evaluation mode, and then in the mode it was in."""
    with _evaluating(theta), torch.no_grad():
        return torch.cat([embed(theta, images) for images, _ in iterate_in_order(examples, batch)])


def domain_accuracy(
    inside: Tensor, outside: Tensor, rng: np.random.Generator, *, hidden: int = 128, steps: int = 200, folds: int = 5
) -> float:
    """How well a discriminator that is trained on fixed embeddings alone tells two sets apart.

    Each embedding is judged by a discriminator that has not seen it: one that has could know it by heart.

    Args:
        inside: [n, E], of the forget set.
        outside: [m, E], of unseen examples.
        rng: draws folds and weights.
        hidden: width of the discriminator.
        steps: of Adam, rate .01, over all the fold's embeddings.
        folds: 2 or more; at most as many as the smaller set.

    Returns:
        Mean of the shares of both sets that are told rightly: 0.5 is chance, 1 is always.

    Raises:
        ValueError: a set of fewer than 2.
    """
    if min(len(inside), len(outside)) < 2:
        raise ValueError(f"two sets of 2 or more are needed to tell them apart, got {len(inside)} and {len(outside)}")
    folds = min(folds, len(inside), len(outside))
    both = torch.cat([inside, outside]).detach()
    truth = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).to(both)
    fold = np.concatenate([rng.permutation(len(part)) % folds for part in (inside, outside)])
    right = torch.zeros_like(truth)
    for held in range(folds):
        shown, asked = (torch.from_numpy(np.flatnonzero(one)).to(both.device) for one in (fold != held, fold == held))
        centre, spread = both[shown].mean(0), both[shown].std(0)
        scaled = (both - centre) / torch.where(spread > 0, spread, 1)  # a dead unit stays as it is
        judge = _learned(scaled[shown], truth[shown], build_discriminator(both.shape[1], hidden, rng), steps)
        right[asked] = ((judge(scaled[asked])[:, 0] > 0) == (truth[asked] > 0)).to(right)
    return float((right[truth > 0].mean() + right[truth == 0].mean()) / 2)


def _learned(seen: Tensor, truth: Tensor, judge: nn.Module, steps: int) -> nn.Module:
    """The judge, trained on all of them at once, both sets weighing the same."""
    judge = judge.to(seen)
    weights = torch.where(truth > 0, 0.5 / truth.mean(), 0.5 / (1 - truth.mean()))
    config = UnlearningLoopConfig(optimizer="adam", lr=0.01, weight_decay=1e-3)
    losses = (binary_cross_entropy_with_logits(judge(seen)[:, 0], truth, weight=weights) for _ in range(steps))
    return UnlearningLoop(judge, config).run(losses)


@contextmanager
def _evaluating(theta: nn.Module) -> Generator[None, None, None]:
    modes = {module: module.training for module in theta.modules()}
    theta.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
