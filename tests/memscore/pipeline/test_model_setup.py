"""Limits that a worker sets before it trains."""

import pytest
import torch

from memscore.training.numerics import limit_gpu_memory


@pytest.mark.parametrize(
    ("device", "share", "limits"),
    [("cuda:0", "0.25", [(0.25, "cuda:0")]), ("cuda:0", None, []), ("cpu", "0.25", [])],
)
def test_a_worker_that_shares_a_gpu_is_limited_to_its_part_of_the_memory(monkeypatch, device, share, limits):
    calls = []
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda part, on: calls.append((part, str(on))))
    monkeypatch.delenv("MEMSCORE_GPU_SHARE", raising=False)
    if share:
        monkeypatch.setenv("MEMSCORE_GPU_SHARE", share)
    limit_gpu_memory(torch.device(device))
    assert calls == limits
