"""Which layers of a network come last."""

from functools import partial

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd

from unlearn.descent import copy_of


def last_layers(theta_o: nn.Module, shape: tuple[int, int, int], k: int) -> list[str]:
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
    theta = copy_of(theta_o).eval()
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
