"""The last linear layer of any network: what it reads and says in one forward pass, and an output more or less."""

import math
from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import Classifier


def head_of(theta: nn.Module, shape: tuple[int, int, int]) -> nn.Linear:
    """The layer whose outputs are the logits.

    Args:
        theta: a Classifier (its head), or any network: then the last nn.Linear that runs on a batch of zeros.
        shape: (C, H, W) of the images that it was made for.

    Returns:
        The layer itself, not a copy.

    Raises:
        ValueError: no such layer, or one that does not read [B, E] and say K numbers.
    """
    if isinstance(theta, Classifier):
        return theta.head
    ran: list[tuple[nn.Linear, int]] = []

    def note(layer: nn.Linear, given: tuple[Tensor]) -> None:
        ran.append((layer, given[0].ndim))

    modes = {module: module.training for module in theta.modules()}
    hooks = [m.register_forward_pre_hook(note) for m in theta.modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            n_classes = theta.eval()(torch.zeros(2, *shape, device=next(theta.parameters()).device)).shape[1]
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not ran or ran[-1][0].out_features != n_classes or ran[-1][1] != 2:
        found = f"one of {ran[-1][0].out_features} outputs that reads {ran[-1][1]} dimensions" if ran else "none"
        raise ValueError(
            f"the last nn.Linear must read [B, E] and have {n_classes} outputs, one a class; "
            f"{type(theta).__name__} has {found}; end the network in nn.Linear(E, {n_classes})"
        )
    return ran[-1][0]


def embedded(theta: nn.Module, head: nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass.

    Args:
        theta: in the mode that is wanted.
        head: its last linear layer, from head_of.
        images: [B, C, H, W].

    Returns:
        What the head reads, [B, E], and the logits, [B, K], both with their graph.
    """
    read: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
    try:
        logits: Tensor = theta(images)
    finally:
        hook.remove()
    return read[-1], logits


def widen(head: nn.Linear, rng: np.random.Generator) -> None:
    """Add an output, its weights and bias uniform within 1 / sqrt(E) as torch draws them; the others stay."""
    reach = 1 / math.sqrt(head.in_features)
    for name, parameter in list(head.named_parameters()):
        row = torch.from_numpy(rng.uniform(-reach, reach, (1, *parameter.shape[1:]))).to(parameter)
        setattr(head, name, nn.Parameter(torch.cat([parameter.detach(), row])))
    head.out_features += 1


def narrow(head: nn.Linear) -> None:
    """Drop the last output for good."""
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter.detach()[:-1].clone()))
    head.out_features -= 1


@contextmanager
def narrowed(head: nn.Linear) -> Generator[None, None, None]:
    """Without its last output for a while."""
    wide = dict(head.named_parameters())
    narrow(head)
    try:
        yield
    finally:
        for name, parameter in wide.items():
            setattr(head, name, parameter)
        head.out_features += 1
