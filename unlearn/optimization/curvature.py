"""How a network's loss on a set of examples slopes and bends in all its weights, as one vector [P].

P is counted over theta.parameters(), in their order. Everything is at the weights that theta has, in the mode it is in.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from unlearn.problem import ExampleSet, iterate_in_order

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, K] and labels [B] -> the sum of the batch's losses."""


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The usual Loss."""
    return cross_entropy(logits, labels, reduction="sum")


def split_like_parameters(vector: Tensor, theta: nn.Module) -> list[Tensor]:
    """A vector [P] cut into the shapes of theta.parameters()."""
    weights = list(theta.parameters())
    parts = torch.split(vector, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def compute_gradient(theta: nn.Module, examples: ExampleSet, batch: int, loss: Loss = summed_cross_entropy) -> Tensor:
    """The gradient of the loss's sum over a set, [P]."""
    weights = list(theta.parameters())
    total = torch.zeros(sum(weight.numel() for weight in weights)).to(weights[0])
    for images, labels in iterate_in_order(examples, batch):
        parts = torch.autograd.grad(loss(theta(images), labels), weights, allow_unused=True, materialize_grads=True)
        total += torch.cat([part.reshape(-1) for part in parts])
    return total.detach()


def gauss_newton_product(
    theta: nn.Module, examples: ExampleSet, u: Tensor, batch: int, loss: Loss = summed_cross_entropy
) -> Tensor:
    """G u: the Gauss-Newton matrix of the mean loss on a set, times a vector; one pass.

    Args:
        theta: in evaluation mode.
        examples: the set.
        u: [P].
        batch: examples at once.
        loss: convex in the logits, summed over a batch.

    Returns:
        [P]: mean of J^T (d2 loss / d logits2) J u.
    """
    weights = {name: weight.detach() for name, weight in theta.named_parameters()}
    along = dict(zip(weights, split_like_parameters(u, theta), strict=True))
    total = torch.zeros_like(u)
    for images, labels in iterate_in_order(examples, batch):

        def said(values: dict[str, Tensor], images: Tensor = images) -> Tensor:
            logits: Tensor = functional_call(theta, values, (images,))
            return logits

        def bent(logits: Tensor, labels: Tensor = labels) -> Tensor:
            return loss(logits, labels)

        with _plain_attention():
            logits, back = vjp(said, weights)[:2]
            moved = jvp(said, (weights,), (along,))[1]
        curvature = jvp(grad(bent), (logits,), (moved,))[1]
        total += torch.cat([part.reshape(-1) for part in back(curvature)[0].values()])
    return total / len(examples)


def conjugate_gradient(times: Callable[[Tensor], Tensor], v: Tensor, iterations: int, tolerance: float) -> Tensor:
    """The k of A k = v, by conjugate gradients from 0 (Hestenes & Stiefel 1952).

    Args:
        times: A u, A positive definite.
        v: [P].
        iterations: at most; with as many as there are unknowns, exact up to rounding.
        tolerance: of the residual, as a share of |v|.

    Returns:
        [P].
    """
    k, residual = torch.zeros_like(v), v.clone()
    direction, square = residual.clone(), residual @ residual
    enough = tolerance**2 * square
    for _ in range(iterations):
        if not square > enough:
            break
        image = times(direction)
        length = square / (direction @ image)
        k = k + length * direction
        residual = residual - length * image
        square, before = residual @ residual, square
        direction = residual + square / before * direction
    return k


@contextmanager
def _plain_attention() -> Generator[None, None, None]:
    """Attention in steps that have forward derivatives, which torch's fused kinds lack."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
