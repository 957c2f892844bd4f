"""Part of benchmarks/gpu_training.py: the kernels of a training step, and how long they take."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_cases import Bench, Case, Cell, change_recipe, get_graph_engine, make_run, synchronize

STEPS = 5  # profiled, after as many that are not
LONGEST = 15  # kernels that are listed
KINDS = {
    "convolution or product": ("conv", "gemm", "cutlass", "xmma", "implicit", "sm90", "sm80", "cudnn::engines"),
    "batch norm": ("batch_norm", "batchnorm", "bn_fw", "bn_bw", "bnaddrelu"),
    "optimizer": ("multi_tensor", "fused_sgd", "adam"),
    "fused by the compiler": ("triton",),
    "elementwise": ("elementwise", "vectorized", "copy", "add", "relu", "clamp", "threshold"),
}
"""Kind of kernel -> parts of a kernel's name; the first kind that matches counts."""
OTHER = "other"


def profile_cells(bench: Bench) -> Iterator[Cell]:
    """One trace a case and engine."""
    for name in ("cifar-stem", "imagenet-stem"):
        for engine in ("captured", "compiled"):
            yield f"{name} {engine}", partial(profile_steps, bench, bench.cases[name], engine)


def profile_steps(bench: Bench, case: Case, engine: str) -> dict[str, Any]:
    """Profile some steps of one network in bfloat16: kernels and microseconds a step, by kind and the longest."""
    recipe = change_recipe(case, "bfloat16", 1)
    graphs = get_graph_engine(bench, recipe, [make_run(bench, case, 0)], case, compiled=engine == "compiled")
    rows = torch.arange(STEPS * recipe.batch, device=bench.device).remainder(case.available).view(1, STEPS, -1)
    graphs.run(rows, [0.0] * STEPS, return_logits=False)
    synchronize(bench)
    on_gpu = bench.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as trace:
        graphs.run(rows, [0.0] * STEPS, return_logits=False)
        synchronize(bench)
    device = DeviceType.CUDA if on_gpu else DeviceType.CPU
    # on a CPU an operation that calls others is not counted twice: self time is its own
    kernels = [
        (event.key, event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count)
        for event in trace.key_averages()
        if event.device_type == device
    ]
    kernels = sorted((kernel for kernel in kernels if kernel[1] > 0), key=lambda kernel: -kernel[1])
    total = sum(us for _, us, _ in kernels)
    by_kind = dict.fromkeys([*KINDS, OTHER], 0.0)
    for name, us, _ in kernels:
        by_kind[classify_kernel(name)] += us / STEPS
    return {
        "kernels_a_step": sum(count for _, _, count in kernels) / STEPS,
        "us_a_step": total / STEPS,
        "us_a_step_by_kind": by_kind,
        "longest": [
            {"kernel": name[:120], "us_a_step": us / STEPS, "calls_a_step": count / STEPS, "share": us / total}
            for name, us, count in kernels[:LONGEST]
        ],
    }


def classify_kernel(name: str) -> str:
    """The kind of a kernel by its name."""
    lower = name.lower()
    return next((kind for kind, parts in KINDS.items() if any(part in lower for part in parts)), OTHER)


def summarize_profile(cells: dict[str, Any]) -> dict[str, Any]:
    """All cells as they are."""
    return {"what": f"kernels of a step in bfloat16, means over {STEPS} steps of one model", "measured": cells}
