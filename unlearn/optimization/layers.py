"""The last linear layer of any network: what it reads and says in one forward pass, and an output more or less.

Networks that have learned nothing.

Which layers of a network come last.
"""

import math
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from memscore.models.architectures import Classifier
from unlearn.optimization.loop import copy_model


def reinitialize(theta_o: nn.Module, rng: np.random.Generator) -> nn.Module:
    """A network of the same architecture, every parameter drawn anew and running statistics as at the start.

    Layers draw as their own `reset_parameters` does, torch's start for that kind of layer, which need not be the one
    that the architecture was built with (residual networks are built with wider convolutions). Numbers that no layer
    draws, such as a transformer's class token and positions, are drawn from the normal distribution that has their
    mean and standard deviation. Nothing of theta_o's weights is kept but those two numbers.

    Args:
        theta_o: not changed.
        rng: one draw from it decides everything; torch's own generators stay as they were.

    Returns:
        The network, on the device and in the mode of theta_o.
    """
    device = next(theta_o.parameters()).device
    theta = copy_model(theta_o).cpu()
    before = [parameter.detach().clone() for parameter in theta.parameters()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        for parameter in theta.parameters():
            parameter.fill_(math.nan)
        for layer in reversed(list(theta.modules())):  # children first: a parent may set them in a way of its own
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if reset is not None:
                reset()
        for parameter, old in zip(theta.parameters(), before, strict=True):
            if parameter.isnan().any():
                parameter.normal_(float(old.mean()), float(old.std(correction=0)))
    return theta.to(device)


def find_head(theta: nn.Module, shape: tuple[int, int, int]) -> nn.Linear:
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


def forward_with_embedding(theta: nn.Module, head: nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """One forward pass.

    Args:
        theta: in the mode that is wanted.
        head: its last linear layer, from find_head.
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


def add_output(head: nn.Linear, rng: np.random.Generator) -> None:
    """Add an output, its weights and bias uniform within 1 / sqrt(E) as torch draws them; the others stay."""
    reach = 1 / math.sqrt(head.in_features)
    for name, parameter in list(head.named_parameters()):
        row = torch.from_numpy(rng.uniform(-reach, reach, (1, *parameter.shape[1:]))).to(parameter)
        setattr(head, name, nn.Parameter(torch.cat([parameter.detach(), row])))
    head.out_features += 1


def remove_output(head: nn.Linear) -> None:
    """Drop the last output for good."""
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter.detach()[:-1].clone()))
    head.out_features -= 1


@contextmanager
def hide_last_output(head: nn.Linear) -> Generator[None, None, None]:
    """Without its last output for a while."""
    wide = dict(head.named_parameters())
    remove_output(head)
    try:
        yield
    finally:
        for name, parameter in wide.items():
            setattr(head, name, parameter)
        head.out_features += 1


def find_last_layers(theta_o: nn.Module, shape: tuple[int, int, int], k: int) -> list[str]:
    """The last k convolutional or linear layers, and whatever else with parameters runs after the first of them.

    Args:
        theta_o: a copy of it runs once on a grey image, in evaluation mode.
        shape: (C, H, W) of that image.
        k: 1 or more.

    Returns:
        Their names, in the order in which they run.

    Raises:
        ValueError: the network has fewer than k.
    """
    theta = copy_model(theta_o).eval()
    ran: dict[str, nn.Module] = {}

    def note(name: str, layer: nn.Module, _: object) -> None:
        ran.setdefault(name, layer)

    for name, layer in theta.named_modules():
        if any(True for _ in layer.parameters(recurse=False)):
            layer.register_forward_pre_hook(partial(note, name))
    theta(torch.zeros(1, *shape, device=next(theta.parameters()).device))
    deep = [place for place, layer in enumerate(ran.values()) if isinstance(layer, _ConvNd | nn.Linear)]
    if k > len(deep):
        raise ValueError(
            f"the network has {len(deep)} convolutional or linear layers, not {k}; use k {len(deep)} or less"
        )
    return list(ran)[deep[-k] :]
