"""Numeric settings of training: threads, matrix products, device, GPU memory."""

import os
import platform
from collections.abc import Generator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from memscore.training.precision import require_precision

CONTEXT_BYTES = 0.8 * 2**30
"""Of a GPU's memory for the CUDA context of a process: 0.5 to 0.8 GiB, by GPU and version."""


def get_autocast_dtype(precision: str) -> torch.dtype | None:
    """Return the dtype of the matrix products under autocast; None where a recipe's precision needs no autocast."""
    return torch.bfloat16 if precision == "bfloat16" else None


def is_finite(model: nn.Module) -> bool:
    """Return whether every weight and every running statistic is a finite number."""
    values = [t for t in model.state_dict().values() if t.is_floating_point() and t.numel()]
    # extremes are NaN where any value is; together they are one wait for a GPU, and a tenth of isfinite's time on a CPU
    extremes = [extreme.double() for t in values for extreme in torch.aminmax(t)]
    return not extremes or bool(torch.isfinite(torch.stack(extremes)).all())


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
def float32_matmul(device: torch.device, precision: str = "float32") -> Generator[str, None, None]:
    """Use this machine's fastest matrix product that is float32, checked by float64, and the bank's convolutions.

    On AMD's CPUs the default library takes a slow path, and the setting "medium" selects another library that is twice
    as fast and keeps full precision; on Intel's that other library is the slower one (a step of a stack took 1.3 times
    as long). On some CPUs, and on GPUs, "medium" lowers the precision, so it is used only where a 256 x 256 x 256
    product shows float32's error. The vendor decides and not a timing: a bank's bits must not depend on a timing. On a
    GPU the convolutions are TF32 for `precision` "tf32", as torch has them by default, and float32 for any other; their
    kernels are selected by a timing unless torch is set to deterministic algorithms.

    Yields:
        The active setting, "medium" or "highest", with ", tf32 convolutions" where they are; for the receipt.

    Raises:
        ValueError: the device lacks the precision.
    """
    require_precision(precision, device.type)
    before, active = torch.get_float32_matmul_precision(), "highest"
    with set_cudnn(precision) if device.type == "cuda" else nullcontext():
        try:
            if device.type == "cpu" and cpu_vendor() == "AuthenticAMD":
                # Try "medium" on one product. A generator of its own leaves torch's alone.
                torch.set_float32_matmul_precision("medium")
                rng = torch.Generator().manual_seed(0)
                a, b = torch.randn(2, 256, 256, generator=rng)
                truth = a.double() @ b.double()
                if float(((a @ b).double() - truth).norm() / truth.norm()) < 2e-6:  # bfloat16 3e-3, float32 3e-7
                    active = "medium"
            torch.set_float32_matmul_precision(active)
            yield active + ", tf32 convolutions" * (precision == "tf32")
        finally:
            torch.set_float32_matmul_precision(before)


@contextmanager
def set_cudnn(precision: str) -> Generator[None, None, None]:
    """Use TF32 in cuDNN for "tf32" and float32 for any other precision, and kernels selected by a timing."""
    # fp32_precision and never allow_tf32: torch raises where both are used, and without allow_tf32 a program's global
    # setting would still give TF32. Recurrent layers have a setting of their own.
    cudnn = torch.backends.cudnn
    layers: tuple[Any, ...] = (cudnn.conv, cudnn.rnn)  # type: ignore[attr-defined]
    before, benchmark = [layer.fp32_precision for layer in layers], cudnn.benchmark
    try:
        for layer in layers:
            layer.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()
        yield
    finally:
        for layer, setting in zip(layers, before, strict=True):
            layer.fp32_precision = setting
        cudnn.benchmark = benchmark


def resolve_device(requested: str) -> str:
    """Return "cpu" or "cuda": as requested (ValueError without a GPU), and for "auto" a GPU if there is one."""
    has_gpu = torch.cuda.is_available()
    if requested == "cuda" and not has_gpu:
        raise ValueError("--device cuda, but torch sees no GPU here; use --device cpu, or auto")
    return "cuda" if has_gpu and requested != "cpu" else "cpu"


def open_device(name: str) -> torch.device:
    """Open a job's device, "cpu" or "cuda", the first GPU that this process sees, in its share of the memory."""
    # with its number, which some functions of torch.cuda require
    device = torch.device("cuda:0" if name == "cuda" else name)
    limit_gpu_memory(device)
    return device


def limit_gpu_memory(device: torch.device) -> None:
    """Limit this worker to its share of a GPU's memory; exceeding it is an error here only."""
    # Without a limit one worker could fill the GPU, and the others on it would fail.
    share = os.environ.get("MEMSCORE_GPU_SHARE")  # set by the pool for each worker
    if not share or device.type != "cuda":
        return
    index = device.index or 0  # torch takes no device without an index here
    total = torch.cuda.get_device_properties(index).total_memory
    # The limit is of tensors. Beside them every process has a context, and all shares together are the whole GPU.
    fraction = float(share) - CONTEXT_BYTES / total
    if fraction <= 0:
        raise ValueError(
            f"--gpus-per-worker {share} of a GPU of {total / 2**30:.1f} GiB leaves a worker no memory: its CUDA "
            f"context alone takes about {CONTEXT_BYTES / 2**30:.1f} GiB; give a larger share"
        )
    torch.cuda.set_per_process_memory_fraction(fraction, index)
