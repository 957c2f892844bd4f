"""Arithmetic of a training step."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def count_step_flops(model: nn.Module, input_shape: tuple[int, int, int], batch: int) -> float:
    """Count a training step's operations, two for a multiplication with its addition; on a network that is not used."""
    # Two images, since batch norm in evaluation mode takes any number; the first layer has no gradient of its input.
    with FlopCounterMode(display=False) as counter:
        model.eval()(torch.zeros(2, *input_shape)).sum().backward()
    return float(counter.get_total_flops() / 2 * batch)
