"""Limits on the kernels, bytes and FLOPs of one training step of the CUDA graph engine, so that a lost fusion shows.

A step is run on the CPU with batches of 2 and 4, and every operation that it dispatches is priced by the sizes of its
tensors. These grow linearly with the batch, so two batches give the cost of any other. Kernels are those that CUDA
launches for an operation as torch runs it eagerly; a GPU may launch a few more or fewer (benchmarks/gpu_profile.py
counts them).
"""

from collections import Counter
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from memscore.models.architectures import build_network
from memscore.training.cuda_graphs import CudaGraphEngine
from memscore.training.device_data import to_device
from memscore.training.recipes import Recipe

K = 10
FREE = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "as_strided_", "_unsafe_view",
    "_record_function_enter_new", "_record_function_exit",
}  # fmt: skip
"""Operations that launch nothing, beside those that return a view."""
KERNELS = {"native_batch_norm": 3, "native_batch_norm_backward": 2, "_fused_sgd_": 4}
"""Statistics, update of the running ones, normalization; sums, gradient; one launch for some 30 tensors."""


def count_bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@dataclass
class Cost:
    """What one operation, or a step, costs."""

    kernels: float = 0
    bytes: float = 0
    flops: float = 0


class CostLog(TorchDispatchMode):
    """Adds up what the operations inside it cost, and counts the kernels of each."""

    def __init__(self):
        super().__init__()
        self.cost, self.kernels = Cost(), Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        name = function.name().split("::")[1].split(".")[0]
        is_view = any(value.alias_info and not value.alias_info.is_write for value in function._schema.returns)
        if not is_view and name not in FREE:
            inputs, outputs = (
                [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]
                for values in ((args, kwargs), result)
            )
            moved, kernels = price(name, inputs, outputs, args)
            self.kernels[name] += kernels
            self.cost.kernels += kernels
            self.cost.bytes += moved
        return result


def price(name, inputs, outputs, args):
    """Bytes that an operation reads and writes, and its kernels."""
    if name == "convolution_backward":  # the gradient of the input, if it is wanted, and that of the weight
        wanted = args[-1][0]
        gradient, images, weight = inputs[:3]
        weight_bytes = count_bytes([gradient, images, weight])
        return weight_bytes + wanted * count_bytes([gradient, weight, images]), 1 + int(wanted)
    if name.startswith("native_batch_norm"):  # statistics need a pass of their own
        passes = 5 if name.endswith("backward") else 3
        return passes * count_bytes(inputs[:1]), KERNELS[name]
    if name in {"index_select", "index", "gather"}:
        return 2 * count_bytes(outputs), 1
    if name == "index_copy_":
        return 2 * count_bytes(inputs[-1:]), 1
    if name == "_fused_sgd_":  # reads weights, gradients and momenta, writes weights and momenta
        return count_bytes(inputs) * 5 / 3, KERNELS[name]
    return count_bytes([*inputs, *outputs]), 1


def measure_step(arch, shape, recipe, change_engine=lambda engine: None):
    """Cost of one step at the recipe's batch."""
    logs, flops = [], []
    for small in (2, 4):
        rng = np.random.default_rng(0)
        raw, labels = rng.integers(0, 256, (8, *shape), dtype=np.uint8), torch.from_numpy(rng.integers(0, K, 8))
        images = to_device(raw, (0.4,) * shape[0], (0.3,) * shape[0], torch.device("cpu"), flat=False)
        network = build_network(arch, shape, K, seed=0)
        engine = CudaGraphEngine(network, images, labels, replace(recipe, batch=small), capture=False)
        change_engine(engine)
        engine.position.zero_()  # the constructor has taken a step
        with FlopCounterMode(display=False) as counter, CostLog() as log:
            engine.step()
        logs.append(log)
        flops.append(counter.get_total_flops())
    two, four = (log.cost for log in logs)
    assert logs[0].kernels == logs[1].kernels
    factor = (recipe.batch - 2) / 2
    return Cost(
        kernels=two.kernels,
        bytes=two.bytes + factor * (four.bytes - two.bytes),
        flops=flops[0] + factor * (flops[1] - flops[0]),
    )


RECIPE = Recipe(epochs=1, batch=256, lr=0.1, weight_decay=5e-4, precision="bfloat16")
AUGMENTED = replace(RECIPE, augment=("crop", "flip"))
COLOUR, GRAY = (3, 32, 32), (1, 28, 28)
MEASURED = {
    "resnet18": ("resnet18", COLOUR, RECIPE, Cost(296, 7.172e9, 852.22e9)),
    "resnet18 augmented": ("resnet18", COLOUR, AUGMENTED, Cost(308, 7.213e9, 852.22e9)),
    "resnet18 imagenet stem": ("resnet18-imagenet-stem", COLOUR, RECIPE, Cost(296, 1.0034e9, 55.624e9)),
    "cnn": ("cnn", GRAY, RECIPE, Cost(46, 0.10962e9, 1.5270e9)),
    "mlp": ("mlp-512-256", GRAY, RECIPE, Cost(42, 0.028946e9, 0.61630e9)),
}
"""Network, shape of an image, recipe, and what a step costs: kernels, bytes, FLOPs at a batch of 256."""


@pytest.mark.parametrize("name", MEASURED)
def test_a_step_costs_no_more_than_it_did(name):
    *case, limit = MEASURED[name]
    cost = measure_step(*case)
    assert cost.kernels <= 1.03 * limit.kernels
    assert cost.bytes <= 1.03 * limit.bytes
    assert cost.flops == pytest.approx(limit.flops, rel=0.01)


def test_an_operation_on_each_weight_shows_as_kernels():
    def scale_gradients(engine):
        for parameter in engine.network.parameters():
            parameter.register_hook(lambda gradient: gradient * 0.5)

    *case, limit = MEASURED["resnet18"]
    cost = measure_step(*case, scale_gradients)
    assert cost.kernels == limit.kernels + 62  # tensors of weights
    assert cost.kernels > 1.03 * limit.kernels


def test_a_copy_after_each_batch_norm_shows_as_bytes_and_kernels():
    def copy(engine):
        for module in engine.network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.register_forward_hook(lambda module, inputs, output: output.clone())

    *case, limit = MEASURED["resnet18"]
    cost = measure_step(*case, copy)
    assert cost.kernels > 1.03 * limit.kernels
    assert cost.bytes > 1.03 * limit.bytes


def test_bytes_and_flops_of_one_product_are_those_of_its_tensors():
    a, b = torch.zeros(3, 4), torch.zeros(4, 5)
    with FlopCounterMode(display=False) as counter, CostLog() as log:
        (a @ b).t().relu_()
    assert log.kernels == {"mm": 1, "relu_": 1}
    assert log.cost.bytes == 4 * (12 + 20 + 15) + 4 * (15 + 15)
    assert counter.get_total_flops() == 2 * 3 * 4 * 5
