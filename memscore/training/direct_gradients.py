"""Gradients of the small CNNs on a CPU, computed without autograd, which takes most of a step of few images."""

import torch
from torch import Tensor, nn

from memscore.models.architectures import Classifier
from memscore.models.compiled_convolutions import ConvolutionLayers, has_hooks, is_array, run_backward, run_forward
from memscore.training.recipes import Recipe

MEAN, NO_LABEL = 1, -100
"""torch's number of the reduction "mean", and the label that cross_entropy leaves out by default."""


def has_direct_gradients(model: nn.Module, images: Tensor, recipe: Recipe) -> bool:
    """Return whether compute_gradients gives a network's gradients here, for a recipe and images like these.

    It does where the compiled convolutions run and nobody watches the network: types are equal, no module or weight has
    hooks, every weight is trained, and the loss is the plain cross-entropy in float32.
    """
    if type(model) is not Classifier or type(model.body) is not ConvolutionLayers or type(model.head) is not nn.Linear:
        return False
    weights = list(model.parameters())
    return (
        recipe.precision == "float32"
        and not recipe.label_smoothing
        and bool(model.body.list_compiled_parameters(images))
        and model.head.bias is not None
        and not any(has_hooks(module) for module in (model, model.body, model.head))
        and all(is_array(weight) and weight.requires_grad for weight in weights)
        and not any(weight._backward_hooks or weight._post_accumulate_grad_hooks for weight in weights)
    )


@torch.no_grad()
def compute_gradients(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Set the gradients of all weights to those of the mean cross-entropy, with autograd's bits.

    Args:
        model: one that has_direct_gradients.
        images: float32 [B, C, H, W].
        labels: int64 [B].

    Returns:
        The logits [B, K].
    """
    *parameters, weight, bias = model.parameters()
    embeddings, *kept = run_forward(images, parameters, input_gradient=False)
    logits = torch.addmm(bias, embeddings, weight.t())
    # torch's own operations of the loss, forward and backward, in the order in which autograd calls them
    logs, operations = torch.log_softmax(logits, 1), torch.ops.aten
    _, total = operations.nll_loss_forward(logs, labels, None, MEAN, NO_LABEL)
    slope = operations.nll_loss_backward(torch.ones(()), logs, labels, None, MEAN, NO_LABEL, total)
    delta = operations._log_softmax_backward_data(slope, logs, 1, logs.dtype)
    gradients = run_backward(delta.mm(weight), images, parameters, *kept, input_gradient=False)[1:]
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    weight.grad, bias.grad = delta.t().mm(embeddings), delta.sum(0)
    return logits
