"""Compute losses and gradients of single examples, in evaluation mode."""

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
    """Set the network to evaluation mode, and restore every layer's mode afterwards."""
    # model.train() at the end would also switch layers that were in evaluation mode before, such as frozen batch-norm
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in training.items():
            module.training = mode


def compute_example_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Compute each example's cross-entropy; a mean would scale gradients by the batch.

        l = softplus(-phi),   phi = log p_y / (1 - p_y)

    Through phi the gradient keeps its direction where the softmax rounds p_y to 1, as it does for most members: in the
    usual form the gradient loses its entry for the label there.

    Args:
        logits: [B, K], K >= 2.
        labels: int64 [B].

    Returns:
        [B], 0 or more, with its autograd graph if gradients are enabled.
    """
    return softplus(-logit_confidence(logits, labels))


def compute_input_gradient(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Compute grad_x l(x, y), the gradient of each example's loss with respect to its pixels.

    Args:
        model: in evaluation mode, so that examples do not affect each other.
        images: [B, C, H, W], normalised, on the model's device.
        labels: int64 [B].

    Returns:
        [B, C, H, W]; the weights get no gradient.
    """
    with torch.enable_grad():
        pixels = images.detach().requires_grad_()
        # each loss depends on its own image only, so the gradient of the sum is the gradient of each, in one pass
        total = compute_example_losses(model(pixels), labels).sum()
        # unlike backward(), this adds nothing to the weights' .grad
        return torch.autograd.grad(total, pixels)[0]


def build_gradient_function(model: nn.Module) -> PerExampleGradients:
    """Build a function that computes grad_theta l(x, y) of each example, over all weights.

    Args:
        model: in evaluation mode while the returned function is used; its weights are not changed.

    Returns:
        A function of (images [B, C, H, W], labels int64 [B]) that returns one tensor [B, ...] for each parameter, in
        the model's order; it can be differentiated once more with respect to the images.
    """
    # detached, so that a second differentiation reaches the images and not the weights
    weights = {name: value.detach() for name, value in model.named_parameters()}
    fixed = {name: value.detach() for name, value in model.named_buffers()}

    # vmap passes one image [C, H, W] and one label; the network wants a batch, here of one
    def loss(theta: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
        logits = functional_call(model, (theta, fixed), (image[None],))
        return compute_example_losses(logits, label[None])[0]

    # "different": a network that draws random numbers in evaluation mode too draws them for each example.
    compute_gradients = vmap(grad(loss), in_dims=(None, 0, 0), randomness="different")
    return lambda images, labels: tuple(compute_gradients(weights, images, labels).values())
