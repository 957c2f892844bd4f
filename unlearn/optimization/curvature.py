"""Gradient and Gauss-Newton products of a network's loss on a set of examples, over all weights as one vector [P].

The P weights are those of theta.parameters(), in that order. Everything is computed at theta's present weights, in its
present mode.
"""

import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vjp
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cross_entropy

from unlearn.optimization.step_count import count_steps_taken
from unlearn.problem import ExampleSet, iterate_in_order

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits [B, K] and labels [B] -> the sum of the batch's losses."""


@cache
def import_derivatives() -> None:
    """Import what the first derivatives of torch.func in a process import: torch's compiler, most of a second."""
    with warnings.catch_warnings():
        # torch calls its own deprecated function as it imports the rules of jvp
        warnings.filterwarnings("ignore", r"`torch\.jit\.script` is deprecated", FutureWarning)
        jvp(grad(torch.sum), (torch.ones(1),), (torch.ones(1),))


def summed_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum the cross-entropy over a batch."""
    return cross_entropy(logits, labels, reduction="sum")


def split_like_parameters(vector: Tensor, theta: nn.Module) -> list[Tensor]:
    """Split a vector [P] into the shapes of theta.parameters()."""
    weights = list(theta.parameters())
    parts = torch.split(vector, [weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


def compute_gradient(theta: nn.Module, examples: ExampleSet, batch: int, loss: Loss = summed_cross_entropy) -> Tensor:
    """Compute the gradient of the loss summed over a set, [P]."""
    weights = list(theta.parameters())
    total = torch.zeros(sum(weight.numel() for weight in weights)).to(weights[0])
    for images, labels in iterate_in_order(examples, batch):
        # A parameter that the loss does not use has a gradient of zeros, so that the vector is always [P].
        parts = torch.autograd.grad(loss(theta(images), labels), weights, allow_unused=True, materialize_grads=True)
        # reshape, not view: gradients of weights in channels last are not contiguous. Both flatten in logical order.
        total += torch.cat([part.reshape(-1) for part in parts])
        count_steps_taken()
    return total.detach()


def gauss_newton_product(
    theta: nn.Module, examples: ExampleSet, u: Tensor, batch: int, loss: Loss = summed_cross_entropy
) -> Tensor:
    """Multiply the Gauss-Newton matrix G of the mean loss on a set by a vector u, in one pass.

        G u = (1/n) sum_x J^T H J u,   J = d logits / d theta [K, P],   H = d2 loss / d logits2 [K, K]

    Args:
        theta: in evaluation mode.
        examples: the set.
        u: [P].
        batch: examples per forward pass.
        loss: convex in the logits, summed over a batch.

    Returns:
        [P]: G u.
    """
    import_derivatives()
    # torch.func differentiates a pure function of the weights, so theta is called with them as an argument.
    weights = {name: weight.detach() for name, weight in theta.named_parameters()}
    tangent = dict(zip(weights, split_like_parameters(u, theta), strict=True))
    total = torch.zeros_like(u)
    for images, labels in iterate_in_order(examples, batch):
        # Defaults bind this pass's batch: closures would read the loop's variables when they are called.
        def predict(values: dict[str, Tensor], images: Tensor = images) -> Tensor:
            logits: Tensor = functional_call(theta, values, (images,))
            return logits

        def batch_loss(logits: Tensor, labels: Tensor = labels) -> Tensor:
            return loss(logits, labels)

        # Neither J nor H is formed. vjp runs a forward pass and keeps its graph for J^T; jvp runs the pass again with
        # derivatives along u, which give J u, [B, K].
        with _plain_attention():
            logits, backpropagate = vjp(predict, weights)[:2]
            logit_tangent = jvp(predict, (weights,), (tangent,))[1]
        # H (J u): the derivative of the loss's gradient in the logits, along J u. It costs nothing beside a pass, as it
        # never leaves the logits.
        curvature = jvp(grad(batch_loss), (logits,), (logit_tangent,))[1]
        # J^T (H J u): backpropagate [B, K] as if it were the gradient in the logits; this sums over the batch.
        total += torch.cat([part.reshape(-1) for part in backpropagate(curvature)[0].values()])
        count_steps_taken()
    return total / len(examples)


def conjugate_gradient(multiply: Callable[[Tensor], Tensor], v: Tensor, iterations: int, tolerance: float) -> Tensor:
    """Solve A k = v by conjugate gradients, starting at 0 (Hestenes & Stiefel 1952).

    Args:
        multiply: returns A u; A positive definite.
        v: [P].
        iterations: maximum number; as many as there are unknowns give the exact solution up to rounding.
        tolerance: of the norm of the residual, as a share of |v|.

    Returns:
        [P].
    """
    # residual = v - A k, here at k = 0.
    k, residual = torch.zeros_like(v), v.clone()
    direction, squared_norm = residual.clone(), residual @ residual
    stop_at = tolerance**2 * squared_norm
    for _ in range(iterations):
        # Also true for v = 0, where a step would divide 0 by 0, and for NaN, which no iteration repairs.
        if not squared_norm > stop_at:
            break
        product = multiply(direction)
        # The minimum of k^T A k / 2 - v^T k along the direction.
        step_size = squared_norm / (direction @ product)
        k = k + step_size * direction
        residual = residual - step_size * product
        # The new direction is A-orthogonal to all before it; by this recurrence none of them has to be stored.
        squared_norm, previous = residual @ residual, squared_norm
        direction = residual + squared_norm / previous * direction
    return k


@contextmanager
def _plain_attention() -> Generator[None, None, None]:
    """Use unfused attention, which has forward derivatives; torch's fused kernels have none."""
    # Two switches: nn.MultiheadAttention has a fused path of its own, beside that of scaled_dot_product_attention.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
