"""The plain eager PyTorch loop that subset-model tools write, as the yardstick: one model, one thread, no tricks.

Same subset law, initialiser, optimizer, schedule, batch and number of steps as the bank's own engine.
"""

import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.models.architectures import Classifier
from memscore.models.compiled_convolutions import ConvolutionLayers
from memscore.training.recipes import Recipe, compute_lr


def use_plain_layers(model: nn.Module) -> None:
    """Let torch run the layers of a small CNN one by one; they and their weights stay the same."""
    if isinstance(model, Classifier) and isinstance(model.body, ConvolutionLayers):
        model.body = nn.Sequential(*model.body)


def plain_training(model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe, steps: int, seed: int) -> float:
    """Train a model in place as a tutorial would.

    Args:
        model: freshly built.
        images: float32 [m, C, H, W], the subset, normalised.
        labels: int64 [m].
        recipe: SGD settings.
        steps: to take.
        seed: of the shuffling.

    Returns:
        Seconds it took.
    """
    use_plain_layers(model)
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    optimizer = torch.optim.SGD(
        model.parameters(),
        recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
        nesterov=recipe.nesterov,
    )
    order, position = rng.permutation(len(images)), 0
    model.train()
    for step in range(steps):
        if position + recipe.batch > len(order):
            order, position = rng.permutation(len(images)), 0
        rows = torch.from_numpy(order[position : position + recipe.batch])
        position += recipe.batch
        for group in optimizer.param_groups:
            group["lr"] = compute_lr(recipe, step / steps)
        optimizer.zero_grad()
        loss = cross_entropy(model(images[rows]), labels[rows])
        loss.backward()
        optimizer.step()
    return time.perf_counter() - started


@torch.no_grad()
def plain_query(model: nn.Module, images: Tensor, batch: int = 1024) -> Tensor:
    """Logits of every image, [N, K]."""
    use_plain_layers(model)
    model.eval()
    return torch.cat([model(images[start : start + batch]) for start in range(0, len(images), batch)])
