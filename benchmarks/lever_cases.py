"""One case of benchmarks/engine_levers.py, in a process of its own that imports the checkout in PYTHONPATH.

    PYTHONPATH=CHECKOUT python -P lever_cases.py CASE

Only what both checkouts have is used. Prints one line of JSON with seconds of processor time.
"""

import json
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from memscore.models.architectures import build_network
from memscore.training import evaluation
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.evaluation import build_forward, evaluate_examples
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import float32_matmul
from memscore.training.recipes import Recipe
from unlearn.optimization.loop import UnlearningLoop, UnlearningLoopConfig

CPU = torch.device("cpu")


def make_data(n: int, shape: tuple[int, int, int]) -> tuple[DeviceImages, torch.Tensor]:
    """Random images and labels of ten classes."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (n, *shape), dtype=np.uint8)
    images = to_device(raw, (0.5,) * shape[0], (0.25,) * shape[0], CPU, flat=False)
    return images, torch.from_numpy(rng.integers(0, 10, n))


def evaluate_cnn() -> float:
    """Evaluate the small CNN on 14,000 images of 28 x 28, as every bank model is."""
    images, labels = make_data(14_000, (1, 28, 28))
    network = build_network("cnn", images.shape, 10, 0).to(memory_format=torch.channels_last)
    predict = build_forward(network, Recipe(epochs=1, batch=64, lr=0.1))
    # The commit before the batch was chosen by architecture has one for all.
    batch = evaluation.choose_evaluation_batch(network, CPU) if hasattr(evaluation, "choose_evaluation_batch") else 1024
    evaluate_examples(predict, images, labels[:1000], batch)
    return time_call(lambda: evaluate_examples(predict, images, labels, batch))


def take_first_step() -> float:
    """Take the first optimizer step of a process, with a network that is no stack."""
    images, labels = make_data(64, (1, 8, 8))
    run = TrainingRun(
        model=build_network("cnn-4-4", images.shape, 10, 0),
        rows=np.arange(64),
        order_rng=np.random.default_rng(0),
        augmentation_rng=np.random.default_rng(0),
    )
    return time_call(lambda: train([run], images, labels, Recipe(epochs=1, batch=32, lr=0.1), 1))


def take_masked_steps() -> float:
    """Take ten steps with half the weights of a 512 x 512 x 3 x 3 layer masked, as SalUn does; seconds of one."""
    layer = nn.Conv2d(512, 512, 3, bias=False)
    mask = {"weight": torch.rand(layer.weight.shape, generator=torch.Generator().manual_seed(0)) < 0.5}
    loop = UnlearningLoop(layer, UnlearningLoopConfig(lr=1e-6), mask=mask)
    loop.run((layer.weight**2).sum() for _ in range(2))
    for parameter in layer.parameters():
        parameter.requires_grad_(True)
    return time_call(lambda: loop.run((layer.weight**2).sum() for _ in range(10))) / 10


def time_call(function: Callable[[], object]) -> float:
    """Processor seconds of one call."""
    started = time.process_time()
    function()
    return time.process_time() - started


CASES = {"evaluation": evaluate_cnn, "first step": take_first_step, "masked step": take_masked_steps}


if __name__ == "__main__":
    torch.set_num_threads(1)
    with float32_matmul(CPU):
        print(json.dumps({"seconds": CASES[sys.argv[1]]()}))
