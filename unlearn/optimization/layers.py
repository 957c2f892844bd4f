"""Layers of a network: reinitialize all of them, find the head and the last k layers, add or remove an output."""

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
    """Return a network of the same architecture with newly drawn parameters and initial running statistics.

    Each layer draws by its `reset_parameters`, torch's default for that kind of layer, which may differ from the
    initialization of the architecture (residual networks start with wider convolutions). Parameters that no layer
    draws, such as a transformer's class token and positions, are drawn from the normal distribution with their mean and
    standard deviation in theta_o. Nothing else of theta_o's weights is used.

    Args:
        theta_o: not changed.
        rng: one draw from it seeds everything; the state of torch's global generators does not change.

    Returns:
        The network, on the device and in the mode of theta_o.
    """
    device = next(theta_o.parameters()).device
    # Drawn on the CPU, whatever the device: a seed gives the same weights everywhere.
    theta = copy_model(theta_o).cpu()
    originals = [parameter.detach().clone() for parameter in theta.parameters()]
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(int(rng.integers(2**63)))
        for parameter in theta.parameters():
            # A mark: what is still NaN after all resets was drawn by no layer.
            parameter.fill_(math.nan)
        # modules() lists parents first. Children are reset first, since a parent may initialise them differently, as
        # nn.MultiheadAttention does by `_reset_parameters`.
        for layer in reversed(list(theta.modules())):
            reset = getattr(layer, "reset_parameters", None) or getattr(layer, "_reset_parameters", None)
            if reset is not None:
                reset()
        for parameter, original in zip(theta.parameters(), originals, strict=True):
            if parameter.isnan().any():
                # correction=0: a single number has the deviation 0, not NaN.
                parameter.normal_(float(original.mean()), float(original.std(correction=0)))
    return theta.to(device)


def find_head(theta: nn.Module, shape: tuple[int, int, int]) -> nn.Linear:
    """Find theta's own last linear layer, [B, E] to logits [B, K], by images (C, H, W); ValueError if it has none."""
    if isinstance(theta, Classifier):
        return theta.head
    # In another network the head is the nn.Linear that runs last on zeros: modules() lists layers in the order of their
    # definition, which need not be the order in which they run.
    calls: list[tuple[nn.Linear, int]] = []

    def record(layer: nn.Linear, inputs: tuple[Tensor]) -> None:
        calls.append((layer, inputs[0].ndim))

    # Modes are saved for each module: theta.train() would switch all of them, also those that differ from theta's.
    modes = {module: module.training for module in theta.modules()}
    hooks = [m.register_forward_pre_hook(record) for m in theta.modules() if isinstance(m, nn.Linear)]
    try:
        with torch.no_grad():
            n_classes = theta.eval()(torch.zeros(2, *shape, device=next(theta.parameters()).device)).shape[1]
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
    if not calls or calls[-1][0].out_features != n_classes or calls[-1][1] != 2:
        actual = f"one of {calls[-1][0].out_features} outputs that reads {calls[-1][1]} dimensions" if calls else "none"
        raise ValueError(
            f"the last nn.Linear must read [B, E] and have {n_classes} outputs, one a class; "
            f"{type(theta).__name__} has {actual}; end the network in nn.Linear(E, {n_classes})"
        )
    return calls[-1][0]


def forward_with_embedding(theta: nn.Module, head: nn.Linear, images: Tensor) -> tuple[Tensor, Tensor]:
    """Run theta once; return the embeddings [B, E], which are the inputs of its head, and the logits [B, K]."""
    # A hook reads the embeddings, not detached: one forward pass serves a loss on them and a loss on the logits.
    head_inputs: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda _, inputs: head_inputs.append(inputs[0]))
    try:
        logits: Tensor = theta(images)
    finally:
        hook.remove()
    return head_inputs[-1], logits


def add_output(head: nn.Linear, rng: np.random.Generator) -> None:
    """Add an output with weights and bias uniform in +-1 / sqrt(E), as torch draws them, by new parameters."""
    bound = 1 / math.sqrt(head.in_features)
    for name, parameter in list(head.named_parameters()):
        row = torch.from_numpy(rng.uniform(-bound, bound, (1, *parameter.shape[1:]))).to(parameter)
        setattr(head, name, nn.Parameter(torch.cat([parameter.detach(), row])))
    head.out_features += 1


def remove_output(head: nn.Linear) -> None:
    """Remove the last output, by new parameters."""
    for name, parameter in list(head.named_parameters()):
        setattr(head, name, nn.Parameter(parameter.detach()[:-1].clone()))
    head.out_features -= 1


@contextmanager
def hide_last_output(head: nn.Linear) -> Generator[None, None, None]:
    """Remove the last output within the context."""
    # The parameters themselves come back, not copies, since an optimizer refers to them.
    parameters = dict(head.named_parameters())
    remove_output(head)
    try:
        yield
    finally:
        for name, parameter in parameters.items():
            setattr(head, name, parameter)
        head.out_features += 1


def find_last_layers(theta_o: nn.Module, shape: tuple[int, int, int], k: int) -> list[str]:
    """Find by name the last k convolutional or linear layers that run, and all with parameters after the first one."""
    # Layers are found by running a copy on zeros, since modules() need not list them in the order in which they run.
    # Hooks and running statistics stay with the copy.
    theta = copy_model(theta_o).eval()
    calls: dict[str, nn.Module] = {}

    def record(name: str, layer: nn.Module, _: object) -> None:
        # A dict keeps the order of first calls; a layer that runs twice counts once.
        calls.setdefault(name, layer)

    for name, layer in theta.named_modules():
        if any(True for _ in layer.parameters(recurse=False)):
            layer.register_forward_pre_hook(partial(record, name))
    theta(torch.zeros(1, *shape, device=next(theta.parameters()).device))
    weight_layers = [
        position for position, layer in enumerate(calls.values()) if isinstance(layer, _ConvNd | nn.Linear)
    ]
    if k > len(weight_layers):
        raise ValueError(
            f"the network has {len(weight_layers)} convolutional or linear layers, not {k}; "
            f"use k {len(weight_layers)} or less"
        )
    # From the k-th last weight layer to the end, with the norms between and after them.
    return list(calls)[weight_layers[-k] :]
