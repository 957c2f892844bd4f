"""Parts of benchmarks/gpu_training.py: seconds a model by each engine, and whether accuracy stays what it was."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.gpu_cases import (
    Bench,
    Case,
    Cell,
    change_recipe,
    count_flops,
    count_steps,
    make_run,
    measure_ceilings,
    synchronize,
    train_models,
)
from benchmarks.gpu_data import CLASSES, read_images
from benchmarks.plain_loop import plain_query, plain_training
from memscore.models.architectures import build_network
from memscore.training.device_data import EVALUATION_BATCH, DeviceImages, to_device
from memscore.training.evaluation import build_forward, evaluate_examples
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import set_cudnn
from memscore.training.recipes import Recipe
from memscore.training.stacked_mlp import StackedMLPEngine

STREAMS = {"cifar-stem": (1, 2, 4), "imagenet-stem": (1, 2, 4, 8, 16)}
STACKED = ("mlp-64-32", "mlp-512-256")
SLOW = (("captured", "tf32"), ("eager", "bfloat16"), ("captured", "float32"), ("eager", "float32"))
CASES = ("cifar-stem", "imagenet-stem")
KINDS = ("captured", "plain")


def speed_cells(bench: Bench) -> Iterator[Cell]:
    """Ceilings; then seconds of some epochs, or of whole models, by each engine; the slow precisions come last."""
    yield "ceilings", partial(measure_ceilings, bench)
    for name in CASES:
        yield f"{name} flops", partial(count_flops, bench, bench.cases[name])
        yield f"{name} evaluation", partial(measure_evaluation, bench, bench.cases[name].arch)
        yield from engine_cells(bench, name, "captured", "bfloat16", STREAMS[name], 3)
        yield from engine_cells(bench, name, "compiled", "bfloat16", STREAMS[name], 3)
        yield from engine_cells(bench, name, "captured", "bfloat16", (1, 4), None)
    for arch in STACKED:
        for count in (1, 64, 512):
            models = min(count, 4) if bench.tiny else count
            for engine in ("captured", "called"):
                yield f"{arch} stack {engine} {count}", partial(time_stack, bench, arch, models, engine == "captured")
    for engine, precision in SLOW:
        for name in CASES:
            yield from engine_cells(bench, name, engine, precision, (1,), 1)


def engine_cells(
    bench: Bench, name: str, engine: str, precision: str, streams: tuple[int, ...], epochs: int | None
) -> Iterator[Cell]:
    """Cells of one engine with these numbers of models at once; epochs None trains whole models."""
    length = "whole" if epochs is None else f"{epochs} epochs"
    for count in streams:
        work = partial(time_models, bench, bench.cases[name], engine, precision, count, epochs)
        yield f"{name} {engine} {precision} {count} {length}", work


def time_models(
    bench: Bench, case: Case, engine: str, precision: str, streams: int, epochs: int | None
) -> dict[str, float]:
    """Time so many models trained at once, for some epochs or as whole models, whose accuracy is measured too."""
    recipe = change_recipe(case, precision, epochs)
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with set_cudnn(precision) if bench.device.type == "cuda" else nullcontext():
        if engine == "eager":
            warm = replace(recipe, epochs=1, schedule="constant", milestones=())
            train_models(bench, case, [0], engine=engine, recipe=warm)
        runs, seconds, set_up_s = train_models(bench, case, range(streams), engine=engine, recipe=recipe)
        if engine != "eager" and epochs is not None:  # once more, now that nothing is new
            runs, seconds, _ = train_models(bench, case, range(streams), engine=engine, recipe=recipe)
    steps = count_steps(case, recipe) * len(runs)
    accuracies = [measure_test_accuracy(bench, run.model, recipe) for run in runs] if epochs is None else []
    return {
        "ms_a_step": 1e3 * seconds / steps,
        "s_a_model": seconds / steps * count_steps(case, case.recipe),
        "measured_s": seconds,
        "models": len(runs),
        "set_up_s": set_up_s,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else 0.0,
        **({"test_accuracy": float(np.mean(accuracies))} if accuracies else {}),
    }


def time_stack(bench: Bench, arch: str, models: int, captured: bool) -> dict[str, float]:
    """Time a stack of MLPs at batch 128: a step, and a step divided by the number of models."""
    images = flatten_images(bench)
    batch, steps = (16, 8) if bench.tiny else (128, 400)
    recipe = Recipe(epochs=1, batch=batch, lr=0.05, schedule="cosine")
    shape, rows = bench.images.shape, np.arange(bench.cases["imagenet-stem"].available)
    runs = [
        TrainingRun(
            model=build_network(arch, shape, CLASSES, seed=index).to(bench.device),
            rows=rows,
            order_rng=np.random.default_rng(index),
            augmentation_rng=np.random.default_rng(index),
        )
        for index in range(models)
    ]
    started = time.perf_counter()
    stack = StackedMLPEngine(
        [run.model for run in runs], images, bench.labels, recipe, capture=captured and bench.device.type == "cuda"
    )
    synchronize(bench)
    set_up_s = time.perf_counter() - started
    for _ in range(2):  # the first fills caches
        started = time.perf_counter()
        train(runs, images, bench.labels, recipe, steps, engine=stack)
        synchronize(bench)
        seconds = time.perf_counter() - started
    return {
        "ms_a_step": 1e3 * seconds / steps,
        "us_a_step_and_model": 1e6 * seconds / steps / models,
        "set_up_s": set_up_s,
        "models": models,
    }


def flatten_images(bench: Bench) -> DeviceImages:
    """The training images, flat as stacks read them."""
    train_images, _, test_images, _, _ = read_images(bench.file)
    most = max(case.available for case in bench.cases.values())
    pixels = np.concatenate([train_images[:most], test_images[: len(bench.test)]])
    return to_device(pixels, (0.5,) * 3, (0.3,) * 3, bench.device, flat=True)


def measure_test_accuracy(bench: Bench, model: nn.Module, recipe: Recipe) -> float:
    """Accuracy on the test set."""
    outputs = evaluate_examples(build_forward(model, recipe), bench.images, bench.labels, EVALUATION_BATCH)
    return float(outputs["correct"][-len(bench.test) :].mean())


def measure_evaluation(bench: Bench, arch: str) -> dict[str, float]:
    """Seconds that all images take, eagerly and from a graph."""
    model = build_network(arch, bench.images.shape, CLASSES, seed=0).to(bench.device)
    recipe, seconds = change_recipe(bench.cases["small"], "bfloat16"), {}
    for name, architecture in (("eager", ""), ("captured", arch)):
        for _ in range(2):
            started = time.perf_counter()
            evaluate_examples(build_forward(model, recipe, architecture), bench.images, bench.labels, EVALUATION_BATCH)
            seconds[f"{name}_s"] = time.perf_counter() - started
    return seconds


def summarize_speed(cells: dict[str, Any]) -> dict[str, Any]:
    """Beside each time the share of the ceiling that it reaches; null where the ceiling was not measured."""
    ceiling = cells.get("ceilings", {}).get("bf16_tflops")
    measured = {}
    for key, cell in cells.items():
        flops = cells.get(f"{key.split()[0]} flops")
        measured[key] = cell
        if flops and isinstance(cell, dict) and "ms_a_step" in cell:
            tflops = 1e-9 * flops / cell["ms_a_step"]
            measured[key] = cell | {"tflops": tflops, "share_of_bf16_ceiling": tflops / ceiling if ceiling else None}
    return {"what": "ResNet-18; s_a_model is for the whole recipe", "measured": measured}


def accuracy_cells(bench: Bench) -> Iterator[Cell]:
    """Test accuracy of the captured engine in bfloat16 and of a plain float32 loop, on the same subsets."""
    for name, seeds in (("imagenet-stem", 10), ("cifar-stem", 3)):
        for seed in range(2 if bench.tiny else seeds):
            yield f"{name} captured {seed}", partial(captured_accuracy, bench, name, seed)
            yield f"{name} plain {seed}", partial(plain_accuracy, bench, name, seed)


def captured_accuracy(bench: Bench, name: str, seed: int) -> float:
    """One model, by the engine that a bank would take."""
    case = bench.cases[name]
    recipe = change_recipe(case, "bfloat16")
    [run], _, _ = train_models(bench, case, [seed], engine="captured", recipe=recipe)
    return measure_test_accuracy(bench, run.model, recipe)


def plain_accuracy(bench: Bench, name: str, seed: int) -> float:
    """One model, by a loop as anybody writes it; its orders are its own."""
    case = bench.cases[name]
    run, steps = make_run(bench, case, seed), count_steps(case, case.recipe)
    rows = torch.from_numpy(run.rows).to(bench.device)
    plain_training(run.model, bench.images.take(rows), bench.labels[rows], case.recipe, steps, seed=seed)
    predicted = plain_query(run.model, bench.images.take(bench.test)).argmax(1)
    return float((predicted == bench.labels[bench.test]).float().mean())


def summarize_accuracy(measured: dict[str, float]) -> dict[str, Any]:
    """Means, standard errors, and whether the difference is within two standard errors."""
    cases: dict[str, Any] = {}
    for name in ("imagenet-stem", "cifar-stem"):
        values = [np.array([v for k, v in measured.items() if k.startswith(f"{name} {kind} ")]) for kind in KINDS]
        if min(map(len, values)) < 2:
            continue
        means, errors = [v.mean() for v in values], [v.std(ddof=1) / np.sqrt(len(v)) for v in values]
        difference, error = float(means[0] - means[1]), float(np.hypot(*errors))
        cases[name] = {
            "n": [len(v) for v in values],
            **{f"{kind}_mean": float(mean) for kind, mean in zip(KINDS, means, strict=True)},
            **{f"{kind}_se": float(error) for kind, error in zip(KINDS, errors, strict=True)},
            "difference": difference,
            "difference_se": error,
            "within_2_se": abs(difference) <= 2 * error,
        }
    return {"what": "test accuracy, captured bfloat16 against a plain float32 loop", "cases": cases, "each": measured}
