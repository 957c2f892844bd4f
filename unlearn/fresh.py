"""Networks that have learned nothing."""

import math

import numpy as np
import torch
from torch import nn

from unlearn.descent import copy_of


def fresh_like(theta_o: nn.Module, rng: np.random.Generator) -> nn.Module:
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
    theta = copy_of(theta_o).cpu()
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
