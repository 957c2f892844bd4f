"""Limits that a worker sets before it trains."""

from types import SimpleNamespace

import pytest
import torch

from memscore.training.numerics import limit_gpu_memory

GIB = 2**30


@pytest.fixture
def limits(monkeypatch):
    """Limits that reach a GPU of 80 GiB; torch's own checks of its arguments run before."""
    reached = []
    monkeypatch.setattr(torch.cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(
        torch._C, "_cuda_setMemoryFraction", lambda part, index: reached.append((part, index)), raising=False
    )
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(total_memory=80 * GIB))
    monkeypatch.delenv("MEMSCORE_GPU_SHARE", raising=False)
    return reached


@pytest.mark.parametrize(
    ("device", "share", "expected"),
    [
        ("cuda", "0.25", [(0.24, 0)]),
        ("cuda:1", "0.25", [(0.24, 1)]),
        ("cuda", None, []),
        ("cpu", "0.25", []),
    ],
)
def test_a_worker_that_shares_a_gpu_is_limited_to_its_part_without_a_context(
    monkeypatch, limits, device, share, expected
):
    if share:
        monkeypatch.setenv("MEMSCORE_GPU_SHARE", share)
    limit_gpu_memory(torch.device(device))
    assert limits == [(pytest.approx(part), index) for part, index in expected]


def test_all_shares_and_contexts_fit_into_the_gpu(monkeypatch, limits):
    monkeypatch.setenv("MEMSCORE_GPU_SHARE", "0.1")
    for _ in range(10):
        limit_gpu_memory(torch.device("cuda"))
    assert sum(part * 80 * GIB + 0.8 * GIB for part, _ in limits) == pytest.approx(80 * GIB)


def test_a_share_smaller_than_a_context_is_refused(monkeypatch, limits):
    monkeypatch.setenv("MEMSCORE_GPU_SHARE", "0.01")
    with pytest.raises(
        ValueError, match=r"^--gpus-per-worker 0.01 of a GPU of 80.0 GiB .* about 0.8 GiB; give a larger"
    ):
        limit_gpu_memory(torch.device("cuda"))
    assert limits == []
