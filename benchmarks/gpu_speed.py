"""Parts of benchmarks/gpu_training.py: seconds a model by each engine, and whether accuracy stays what it was."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.gpu_cases import (
    CLASSES,
    Bench,
    Case,
    Step,
    assigned,
    ceilings,
    flops_a_step,
    steps_of,
    train_models,
    with_precision,
)
from benchmarks.plain_loop import plain_query, plain_training
from memscore.models.architectures import build_network
from memscore.training.device_data import EVALUATION_BATCH
from memscore.training.evaluation import build_forward, evaluate_examples

ENGINES = [("eager", "float32", 1), ("eager", "bfloat16", 1), ("captured", "float32", 1)]
ENGINES += [("captured", "bfloat16", streams) for streams in (1, 2, 4)]
ENGINES += [("compiled", "bfloat16", streams) for streams in (1, 2)]
KINDS = ("captured", "plain")


def speed_steps(bench: Bench) -> Iterator[Step]:
    """Ceilings; then seconds of three epochs, or of whole models, by each engine."""
    yield "ceilings", partial(ceilings, bench)
    for name in ("cifar-stem", "imagenet-stem"):
        case = bench.cases[name]
        yield f"{name} flops", partial(flops_a_step, bench, case)
        yield f"{name} evaluation", partial(evaluation, bench, case.arch)
        epochs = [3] if name == "cifar-stem" else [None]
        runs = [(*engine, some) for engine in ENGINES for some in epochs]
        if name == "cifar-stem":
            runs += [("captured", "bfloat16", 1, None), ("captured", "bfloat16", 4, None)]
        for engine, precision, streams, some in runs:
            key = f"{name} {engine} {precision} {streams} {'whole' if some is None else f'{some} epochs'}"
            yield key, partial(timed, bench, case, engine, precision, streams, some)


def timed(bench: Bench, case: Case, engine: str, precision: str, streams: int, epochs: int | None) -> dict[str, float]:
    """Seconds of one model, from so many epochs or from whole models, trained so many at once; others came before."""
    recipe = with_precision(case, precision, epochs)
    warm = replace(recipe, epochs=1, schedule="constant", milestones=())
    set_up_s = 0.0
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    if engine != "eager":
        chosen, took_s, set_up_s = train_models(bench, case, range(streams), engine=engine, recipe=recipe)
        if epochs is not None:  # once more, now that nothing is new
            chosen, took_s, _ = train_models(bench, case, range(streams), engine=engine, recipe=recipe)
    else:
        train_models(bench, case, [0], engine=engine, recipe=warm)
        chosen, took_s, _ = train_models(bench, case, [0], engine=engine, recipe=recipe)
    steps = steps_of(case, recipe) * len(chosen)
    whole = steps_of(case, case.recipe)
    memory = torch.cuda.max_memory_allocated() / 2**30 if bench.device.type == "cuda" else 0.0
    return {
        "ms_a_step": 1e3 * took_s / steps,
        "s_a_model": took_s / steps * whole,
        "measured_s": took_s,
        "models": len(chosen),
        "set_up_s": set_up_s,
        "peak_gib": memory,
    }


def evaluation(bench: Bench, arch: str) -> dict[str, float]:
    """Seconds that all images take, eagerly and from a graph."""
    model = build_network(arch, bench.images.shape, CLASSES, seed=0).to(bench.device)
    recipe, seconds = with_precision(bench.cases["small"], "bfloat16"), {}
    for name, architecture in (("eager", ""), ("captured", arch)):
        for _ in range(2):
            started = time.perf_counter()
            evaluate_examples(build_forward(model, recipe, architecture), bench.images, bench.labels, EVALUATION_BATCH)
            seconds[f"{name}_s"] = time.perf_counter() - started
    return seconds


def speed_summary(found: dict[str, Any]) -> dict[str, Any]:
    """Beside each time the share of the ceiling that it reaches."""
    ceiling = found.get("ceilings", {}).get("bf16_tflops", float("nan"))
    measured = {}
    for key, cell in found.items():
        flops = found.get(f"{key.split()[0]} flops")
        measured[key] = cell
        if flops and isinstance(cell, dict) and "ms_a_step" in cell:
            tflops = 1e-9 * flops / cell["ms_a_step"]
            measured[key] = cell | {"tflops": tflops, "share_of_bf16_ceiling": tflops / ceiling}
    return {"what": "Fashion-MNIST 3x32x32, ResNet-18; s_a_model is for the whole recipe", "measured": measured}


def accuracy_steps(bench: Bench) -> Iterator[Step]:
    """Test accuracy of the captured engine in bfloat16 and of a plain float32 loop, on the same subsets."""
    for name, seeds in (("imagenet-stem", 10), ("cifar-stem", 3)):
        for seed in range(2 if bench.tiny else seeds):
            yield f"{name} captured {seed}", partial(captured_accuracy, bench, name, seed)
            yield f"{name} plain {seed}", partial(plain_accuracy, bench, name, seed)


def captured_accuracy(bench: Bench, name: str, seed: int) -> float:
    """One model, by the engine that a bank would take."""
    case = bench.cases[name]
    recipe = with_precision(case, "bfloat16")
    [own], _, _ = train_models(bench, case, [seed], engine="captured", recipe=recipe)
    return float(
        evaluate_examples(build_forward(own.model, recipe), bench.images, bench.labels, EVALUATION_BATCH)["correct"][
            -len(bench.test) :
        ].mean()
    )


def plain_accuracy(bench: Bench, name: str, seed: int) -> float:
    """One model, by a loop as anybody writes it; its orders are its own."""
    case = bench.cases[name]
    own, steps = assigned(bench, case, seed), steps_of(case, case.recipe)
    rows = torch.from_numpy(own.rows).to(bench.device)
    plain_training(own.model, bench.images.take(rows), bench.labels[rows], case.recipe, steps, seed=seed)
    said = plain_query(own.model, bench.images.take(bench.test)).argmax(1)
    return float((said == bench.labels[bench.test]).float().mean())


def accuracy_summary(found: dict[str, float]) -> dict[str, Any]:
    """Means, standard errors, and whether the difference is within two standard errors."""
    cases: dict[str, Any] = {}
    for name in ("imagenet-stem", "cifar-stem"):
        values = [np.array([v for k, v in found.items() if k.startswith(f"{name} {kind} ")]) for kind in KINDS]
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
    return {"what": "test accuracy, captured bfloat16 against a plain float32 loop", "cases": cases, "each": found}
