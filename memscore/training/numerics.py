"""Devices, threads and matrix products: what decides a model's bits on one machine."""

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn


def is_finite(model: nn.Module) -> bool:
    """Whether every weight and every running statistic is a finite number."""
    return all(bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point())


@contextmanager
def single_threaded() -> Generator[None, None, None]:
    """One torch thread, whatever the process had before: two give other bits, and stall on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_vendor() -> str:
    """The maker's name as the CPU gives it, "GenuineIntel" or "AuthenticAMD"; "" where the system does not say."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    return next((name for name in ("GenuineIntel", "AuthenticAMD") if name in text), "")


@contextmanager
def float32_matmul(device: torch.device) -> Generator[str, None, None]:
    """The fastest matrix product on this machine that is still float32, checked against float64.

    On AMD's CPUs the usual library takes a slow path, and the setting "medium" picks another that is twice as fast and
    keeps full precision; on Intel's that other one is the slower (a step of a stack took 1.3 times as long).
    On some CPUs, and on GPUs, "medium" lowers the precision, so it is kept only where a 256 x 256 x 256 product shows
    float32's error. The maker decides and not a timing: a bank's bits must not hang on one. On a GPU the convolutions
    are held to float32 too, which they are not by default, and their kernels are chosen by a timing unless torch is
    told to be deterministic.

    Yields:
        The setting in force, "medium" or "highest", to be written on the receipt.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    convolutions = (cudnn.allow_tf32, cudnn.benchmark) if device.type == "cuda" else None
    chosen = "highest"
    try:
        if device.type == "cpu" and cpu_vendor() == "AuthenticAMD":
            torch.set_float32_matmul_precision("medium")
            rng = torch.Generator().manual_seed(0)
            a, b = torch.randn(2, 256, 256, generator=rng)
            truth = a.double() @ b.double()
            if float(((a @ b).double() - truth).norm() / truth.norm()) < 2e-6:  # bfloat16 gives 3e-3, float32 3e-7
                chosen = "medium"
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = False, not torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision(chosen)
        yield chosen
    finally:
        torch.set_float32_matmul_precision(before)
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = convolutions


def resolve_device(wish: str) -> str:
    """The device for this process: "auto" is a GPU where there is one.

    Args:
        wish: "auto", "cpu" or "cuda".

    Returns:
        "cpu" or "cuda".

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if wish == "cuda" and not there:
        raise ValueError("--device cuda, but torch sees no GPU here; use --device cpu, or auto")
    return "cuda" if there and wish != "cpu" else "cpu"


def limit_gpu_memory(device: torch.device) -> None:
    """Where workers share a GPU, no more of its memory than this one's part: what is beyond it raises here alone."""
    share = os.environ.get("MEMSCORE_GPU_SHARE")  # the pool says it to each worker
    if share and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(float(share), device)
