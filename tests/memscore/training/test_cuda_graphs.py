"""Checks before a step is captured; the capture itself needs a GPU (test_gpu.py)."""

import random

import numpy as np
import pytest
import torch
from torch import nn

from memscore.training.cuda_graphs import (
    GraphCaptureError,
    find_oom_error,
    require_unchanged_host_state,
    snapshot_host_state,
)


class HostSideEffect(nn.Module):
    """Has an effect on the host that a graph would not repeat."""

    def __init__(self, effect):
        super().__init__()
        self.effect, self.calls, self.seen = effect, 0, []

    def forward(self, images):
        if self.effect == "counts":
            self.calls += 1
        if self.effect == "remembers":
            self.seen.append(len(images))
        if self.effect == "numpy":
            np.random.rand()  # ruff: ignore[numpy-legacy-random] - a user's network may
        if self.effect == "python":
            random.random()
        if self.effect == "torch":
            torch.rand(1)
        return images


@pytest.mark.parametrize(
    ("effect", "named"),
    [
        ("counts", "the network.calls"),
        ("remembers", "the network.seen"),
        ("numpy", "numpy's generator"),
        ("python", "Python's generator"),
        ("torch", "torch's generator on the CPU"),
    ],
)
def test_what_a_graph_would_not_repeat_is_named(effect, named):
    network = HostSideEffect(effect)
    before = snapshot_host_state(network)
    network(torch.zeros(2))
    with pytest.raises(GraphCaptureError, match=f"^a step changes {named}$"):
        require_unchanged_host_state(before, snapshot_host_state(network))
    pure = HostSideEffect("none")
    before = snapshot_host_state(pure)
    pure(torch.zeros(2))
    require_unchanged_host_state(before, snapshot_host_state(pure))


def test_an_oom_error_is_found_behind_the_error_that_hides_it():
    full = torch.OutOfMemoryError("CUDA out of memory")

    def end_of_a_recording():
        try:
            raise full
        finally:
            raise RuntimeError("capture was invalidated")

    with pytest.raises(RuntimeError, match="invalidated") as hiding:
        end_of_a_recording()
    assert find_oom_error(hiding.value) is full
    assert find_oom_error(RuntimeError("another")) is None
