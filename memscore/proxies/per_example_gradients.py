"""Losses and gradients of one example at a time, of a network in evaluation mode; what several proxies share."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import softplus

from memscore.training.evaluation import logit_confidence

PerExampleGradients = Callable[[Tensor, Tensor], tuple[Tensor, ...]]


@contextmanager
def evaluation_mode(model: nn.Module) -> Generator[None, None, None]:
    """The network in evaluation mode, and afterwards every layer in the mode it was in."""
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def compute_example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each example, never averaged: a mean would scale every gradient by the size of the batch.

        l = softplus(-phi),   phi = log p_y / (1 - p_y)

    Through phi the gradient keeps its direction where the softmax rounds p_y to 1, as it does for most members: there
    the gradient of the usual form loses its entry for the label.

    Args:
        logits: [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        [B], 0 or more, with its graph if gradients are on.
    """
    return softplus(-logit_confidence(logits, labels))


def compute_input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of each example's loss with respect to its own pixels.

    Args:
        model: in evaluation mode, so that no example reads another.
        images: [B, C, H, W], normalised, on the model's device.
        labels: int64 [B].

    Returns:
        [B, C, H, W]; the weights get no gradient.
    """
    with torch.enable_grad():
        shown = images.detach().requires_grad_()
        total = compute_example_losses(model(shown), labels).sum()
        return torch.autograd.grad(total, shown)[0]


def build_gradient_function(model: nn.Module) -> PerExampleGradients:
    """The gradient of each example's loss with respect to all weights.

    Args:
        model: in evaluation mode while the function below is used; its weights are read, not changed.

    Returns:
        A function of (images [B, C, H, W], labels int64 [B]) that returns one tensor [B, ...] for each parameter, in
        the model's order; it can be differentiated once more with respect to the images.
    """
    weights = {name: value.detach() for name, value in model.named_parameters()}
    fixed = {name: value.detach() for name, value in model.named_buffers()}

    def loss(theta: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        scores = functional_call(model, (theta, fixed), (image[None],))
        return compute_example_losses(scores, label[None])[0]

    each = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda images, labels: tuple(each(weights, images, labels).values())
