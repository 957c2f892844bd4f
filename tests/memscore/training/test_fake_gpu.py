"""Networks on a GPU that does not exist: fake tensors have a device and no values, so a tensor left on the CPU shows.

Backward passes need a GPU's streams and are left to test_gpu.py, except those of the stack, which are written by hand.
"""

from contextlib import contextmanager
from dataclasses import replace
from unittest import mock

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memscore.models.architectures import Classifier, build_network, compute_logits, embed
from memscore.training.augmentation import apply_augmentation, list_test_time_augmentations, with_augmentation
from memscore.training.device_data import DeviceImages, round_up_to_alignment
from memscore.training.evaluation import build_forward, gap, logit_confidence, top_gap
from memscore.training.loop import keep_gradient_layout
from memscore.training.recipes import Recipe
from memscore.training.stacked_mlp import StackedMLPEngine

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch knows no CUDA device")
GPU = torch.device("cuda:0")
N, BATCH, K, SHAPE = 500, 64, 10, (3, 32, 32)
RECIPE = Recipe(epochs=1, batch=BATCH, lr=0.1)
AUGMENT = {"augment": ("crop", "flip")}
CASES = [
    ("mlp-512-256", {}),
    ("cnn", {}),
    ("cnn", {"precision": "bfloat16"}),
    ("resnet18", {"precision": "bfloat16", **AUGMENT}),
    ("resnet18-imagenet-stem", AUGMENT),
    ("resnet50", {"precision": "bfloat16", **AUGMENT}),
    ("vgg16", {"precision": "bfloat16", **AUGMENT}),
    ("vit-small", {"precision": "bfloat16"}),
]


class RequireGPU(TorchDispatchMode):
    """Raises where an operation reads or writes a tensor that is not on the GPU."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        # the fused optimizer step updates in place, and torch has no fake version of it
        fused = function is torch.ops.aten._fused_sgd_.default
        result = None if fused else function(*args, **(kwargs or {}))
        for value in tree_leaves((args, kwargs, result)):
            if isinstance(value, torch.Tensor) and value.device != GPU:
                raise RuntimeError(f"{function} has a tensor {tuple(value.shape)} on {value.device}")
        return result


@contextmanager
def fake_gpu():
    """Make fake tensors, and let autocast be used as if there were a GPU with bfloat16."""
    with (
        mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False),
        mock.patch("torch.cuda.is_bf16_supported", return_value=True),
        FakeTensorMode(),
    ):
        yield


def move(network):
    """Put fake tensors on the GPU in the place of a network's, channels last."""

    def make(value):
        layout = torch.channels_last if value.ndim == 4 else torch.contiguous_format
        return torch.empty(value.shape, dtype=value.dtype, device=GPU, memory_format=layout)

    for module in network.modules():
        module._parameters.update({k: nn.Parameter(make(v)) for k, v in module._parameters.items() if v is not None})
        module._buffers.update({k: make(v) for k, v in module._buffers.items() if v is not None})
    return network


def make_images(shape=SHAPE, *, flat=False):
    channels, height, width = shape
    layout = (N, round_up_to_alignment(channels * height * width)) if flat else (N, height, width, channels)
    black, white = torch.zeros(2, channels, device=GPU)
    return DeviceImages(pixels=torch.zeros(layout, device=GPU), shape=shape, flat=flat, black=black, white=white)


def run_on_fake_gpu(network, recipe, *, corners_on=GPU):
    """Augment, train forward, evaluate, embed and ask every kind of query; return the logits."""
    images, network = make_images(), move(network)
    labels, rows = torch.zeros(2, BATCH, dtype=torch.int64, device=GPU)
    corners = torch.zeros(2, BATCH, dtype=torch.int64, device=corners_on)
    mirrored = torch.zeros(BATCH, dtype=torch.bool, device=GPU)
    autocast = torch.bfloat16 if recipe.precision == "bfloat16" else None
    with RequireGPU():
        shown = apply_augmentation(images.take(rows), images.black, recipe, corners, mirrored)
        network.train()
        with keep_gradient_layout(network):
            logits = compute_logits(network, shown, autocast)
        assert cross_entropy(logits, labels).device == GPU
        predict = build_forward(network, recipe)
        with torch.no_grad():
            for query in list_test_time_augmentations(recipe, 4 if recipe.augment else 1):
                predicted = with_augmentation(predict, query, images.black)(shown)
                for statistic in (logit_confidence(predicted, labels), gap(predicted, labels), top_gap(predicted)):
                    assert (statistic.device, statistic.dtype, statistic.shape) == (GPU, torch.float32, (BATCH,))
            assert embed(network, shown).device == GPU
    return logits


@pytest.mark.parametrize(("arch", "change"), CASES, ids=lambda value: value if isinstance(value, str) else None)
def test_no_tensor_of_a_step_or_an_evaluation_stays_on_the_cpu(arch, change):
    network = build_network(arch, SHAPE, K, seed=0)
    with fake_gpu():
        logits = run_on_fake_gpu(network, replace(RECIPE, **change))
        assert (logits.device, logits.dtype, logits.shape) == (GPU, torch.float32, (BATCH, K))


@pytest.mark.parametrize("arch", ["mlp-128", "mlp-512-256"])
def test_a_stack_trains_on_the_gpu_alone(arch):
    models = [build_network(arch, SHAPE, K, seed=i) for i in range(3)]
    with fake_gpu():
        stack = StackedMLPEngine(
            [move(model) for model in models],
            make_images(flat=True),
            torch.zeros(N, dtype=torch.int64, device=GPU),
            RECIPE,
        )
        with RequireGPU():
            logits = stack.run(torch.zeros(3, 4, BATCH, dtype=torch.int64, device=GPU), [0.1] * 4, return_logits=True)
            stack.write_back()
        assert logits is not None
        assert (logits.device, logits.shape) == (GPU, (3, 4, BATCH, K))


class Forgetful(nn.Module):
    """Has a tensor that is no buffer, so no `to` moves it."""

    def __init__(self, size):
        super().__init__()
        self.offset = torch.zeros(size)

    def forward(self, images):
        return images.flatten(1) + self.offset


@pytest.mark.parametrize("size", [(3 * 32 * 32,), ()], ids=["vector", "number"])
def test_a_network_with_a_tensor_on_the_cpu_is_found(size):
    with fake_gpu():
        network = Classifier(Forgetful(size), nn.Linear(3 * 32 * 32, K))
        with pytest.raises(RuntimeError, match="cpu"):
            run_on_fake_gpu(network, RECIPE)


def test_augmentations_drawn_on_the_cpu_are_found():
    network = build_network("cnn", SHAPE, K, seed=0)
    with fake_gpu(), pytest.raises(RuntimeError, match="cpu"):
        run_on_fake_gpu(network, replace(RECIPE, **AUGMENT), corners_on="cpu")
