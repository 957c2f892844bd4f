"""What is looked for before a step is recorded; recording itself needs a GPU (test_gpu.py)."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from memscore.training.cuda_graphs import (
    GraphCaptureError,
    find_out_of_memory,
    require_unchanged_host_state,
    snapshot_host_state,
)


class Moody(nn.Module):
    """Does on the host what a graph would not repeat."""

    def __init__(self, mood):
        super().__init__()
        self.mood, self.calls, self.seen = mood, 0, []

    def forward(self, images):
        if self.mood == "counts":
            self.calls += 1
        if self.mood == "remembers":
            self.seen.append(len(images))
        if self.mood == "numpy":
            np.random.rand()  # ruff: ignore[numpy-legacy-random] - a user's network may
        if self.mood == "python":
            random.random()
        if self.mood == "torch":
            torch.rand(1)
        return images


@pytest.mark.parametrize(
    ("mood", "named"),
    [
        ("counts", "the network.calls"),
        ("remembers", "the network.seen"),
        ("numpy", "numpy's generator"),
        ("python", "Python's generator"),
        ("torch", "torch's generator on the CPU"),
    ],
)
def test_what_a_graph_would_not_repeat_is_named(mood, named):
    network = Moody(mood)
    before = snapshot_host_state(network)
    network(torch.zeros(2))
    with pytest.raises(GraphCaptureError, match=f"^a step changes {named}$"):
        require_unchanged_host_state(before, snapshot_host_state(network))
    calm = Moody("calm")
    before = snapshot_host_state(calm)
    calm(torch.zeros(2))
    require_unchanged_host_state(before, snapshot_host_state(calm))


def test_want_of_memory_is_found_behind_the_error_that_hides_it():
    full = torch.OutOfMemoryError("CUDA out of memory")

    def end_of_a_recording():
        try:
            raise full
        finally:
            raise RuntimeError("capture was invalidated")

    with pytest.raises(RuntimeError, match="invalidated") as hiding:
        end_of_a_recording()
    assert find_out_of_memory(hiding.value) is full
    assert find_out_of_memory(RuntimeError("another")) is None
