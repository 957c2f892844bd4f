"""Numeric settings of training: threads, matrix products, device, GPU memory."""

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn


def get_autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype of the matrix products under autocast; None where a recipe's precision needs no autocast."""
    return torch.bfloat16 if precision == "bfloat16" else None


def is_finite(model: nn.Module) -> bool:
    """Return whether every weight and every running statistic is a finite number."""
    return all(bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point())


@contextmanager
def single_threaded() -> Generator[None, None, None]:
    """Use one torch thread inside the context: two give other bits, and stall busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_vendor() -> str:
    """Return "GenuineIntel", "AuthenticAMD", or "" where the system gives no CPU vendor."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    return next((name for name in ("GenuineIntel", "AuthenticAMD") if name in text), "")


@contextmanager
def float32_matmul(device: torch.device) -> Generator[str, None, None]:
    """Use this machine's fastest matrix product that is float32, checked by float64.

    On AMD's CPUs the default library takes a slow path, and the setting "medium" selects another library that is twice
    as fast and keeps full precision; on Intel's that other library is the slower one (a step of a stack took 1.3 times
    as long). On some CPUs, and on GPUs, "medium" lowers the precision, so it is used only where a 256 x 256 x 256
    product shows float32's error. The vendor decides and not a timing: a bank's bits must not depend on a timing. On a
    GPU the convolutions are set to float32 too, which they are not by default, and their kernels are selected by a
    timing unless torch is set to deterministic algorithms.

    Yields:
        The active setting, "medium" or "highest", to be written into the receipt.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    convolutions = (cudnn.allow_tf32, cudnn.benchmark) if device.type == "cuda" else None
    precision = "highest"
    try:
        if device.type == "cpu" and cpu_vendor() == "AuthenticAMD":
            # Try "medium" on one product. A generator of its own leaves torch's alone.
            torch.set_float32_matmul_precision("medium")
            rng = torch.Generator().manual_seed(0)
            a, b = torch.randn(2, 256, 256, generator=rng)
            truth = a.double() @ b.double()
            if float(((a @ b).double() - truth).norm() / truth.norm()) < 2e-6:  # bfloat16 gives 3e-3, float32 3e-7
                precision = "medium"
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = False, not torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision(precision)
        yield precision
    finally:
        torch.set_float32_matmul_precision(before)
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = convolutions


def resolve_device(requested: str) -> str:
    """Return "cpu" or "cuda": as requested (ValueError without a GPU), and for "auto" a GPU if there is one."""
    has_gpu = torch.cuda.is_available()
    if requested == "cuda" and not has_gpu:
        raise ValueError("--device cuda, but torch sees no GPU here; use --device cpu, or auto")
    return "cuda" if has_gpu and requested != "cpu" else "cpu"


def limit_gpu_memory(device: torch.device) -> None:
    """Limit this worker to its share of a GPU's memory; exceeding it is an error here only."""
    # Without a limit one worker could fill the GPU, and the others on it would fail.
    share = os.environ.get("MEMSCORE_GPU_SHARE")  # set by the pool for each worker
    if share and device.type == "cuda":
        torch.cuda.set_per_process_memory_fraction(float(share), device)
