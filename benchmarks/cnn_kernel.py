"""Claim: how much faster a step of the small CNNs is with compiled convolutions, and that the models are as good.

    python -m benchmarks.cnn_kernel [--rounds 9] [--seeds 5] [--folder FASHION_MNIST]

In every round each network and batch is trained in three ways, one after the other and in one thread: a plain eager
loop, the engine with torch's own convolutions, and the engine as it is. Seconds are of the processor; ratios are within
a round, and a first round is not counted. Then whole models of Fashion-MNIST are trained from the same weights on the
same batches, with torch's convolutions and with compiled ones.
"""

import itertools
import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
import tyro

from benchmarks.plain_loop import plain_training, use_plain_layers
from benchmarks.results_file import save, spread
from memscore.data.datasets import load_dataset
from memscore.models.architectures import Shape, build_network
from memscore.models.compiled_convolutions import compile_convolutions, get_network
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import Recipe, count_steps

CPU = torch.device("cpu")
WAYS = ("plain loop", "engine before", "engine now")
EXAMPLES = 1024


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network and batch, and how many steps a measurement has."""

    arch: str
    shape: Shape
    batch: int

    @property
    def name(self) -> str:
        """Widths, image and batch."""
        return f"{self.arch} on {'x'.join(map(str, self.shape))}, batch {self.batch}"

    @property
    def steps(self) -> int:
        """So many that a measurement takes about the same time for each batch."""
        return max(2, 512 // self.batch)


CASES = [
    Case(arch=arch, shape=shape, batch=batch)
    for arch, shape, batch in itertools.product(
        ("cnn-16-32", "cnn-32-64", "cnn-8-24"), ((1, 28, 28), (3, 32, 32)), (8, 64, 256)
    )
]


def main(rounds: int = 9, seeds: int = 5, folder: str | None = None) -> None:
    """Measure.

    Args:
        rounds: of every measurement, after one that is not counted.
        seeds: whole models of each way.
        folder: of Fashion-MNIST.
    """
    with single_threaded(), float32_matmul(CPU) as arithmetic:
        compile_s = {f"{arch} on 1x28x28": spread(measure_compiling(arch, rounds)) for arch in ("cnn", "cnn-32-64")}
        measured: dict[str, list[dict[str, float]]] = {case.name: [] for case in CASES}
        evaluated: list[dict[str, float]] = []
        for number in range(rounds + 1):
            for case in CASES:
                seconds = {way: measure_step(case, way) for way in WAYS}
                if number:
                    measured[case.name].append(seconds)
            if number:
                evaluated.append({way: measure_evaluation(way) for way in WAYS[1:]})
            print(f"round {number} done", flush=True)
        models = [train_pair(seed, folder) for seed in range(seeds)]
    save(
        "cnn_kernel",
        {
            "what": "one core, one thread, seconds of the processor; ratios within a round",
            "matmul": arithmetic,
            "compile_s": compile_s,
            "cases": {name: summarize(found) for name, found in measured.items()},
            "evaluation_before_over_now": spread([s["engine before"] / s["engine now"] for s in evaluated]),
            "whole_models": summarize_models(models),
        },
    )


def measure_compiling(arch: str, times: int) -> list[float]:
    """Seconds of compiling both functions of a network, again and again."""
    found = []
    for _ in range(times):
        get_network.cache_clear()
        started = time.process_time()
        compile_convolutions(build_network(arch, (1, 28, 28), 10, 0), (1, 28, 28))
        found.append(time.process_time() - started)
    return found


@cache
def make_data(shape: Shape) -> tuple[DeviceImages, torch.Tensor]:
    """Random images and labels: the arithmetic does not depend on them."""
    rng = np.random.default_rng(0)
    raw, channels = rng.integers(0, 256, (EXAMPLES, *shape), dtype=np.uint8), shape[0]
    images = to_device(raw, (0.3,) * channels, (0.3,) * channels, CPU, flat=False)
    return images, torch.from_numpy(rng.integers(0, 10, EXAMPLES))


def make_run(model: torch.nn.Module, rows: np.ndarray, seed: int) -> TrainingRun:
    """One model's training."""
    order, augmentation = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    return TrainingRun(model=model, rows=rows, order_rng=order, augmentation_rng=augmentation)


def measure_step(case: Case, way: str) -> float:
    """Seconds of one step."""
    images, labels = make_data(case.shape)
    recipe = Recipe(epochs=10, batch=case.batch, lr=0.01, schedule="cosine")
    model = build_network(case.arch, case.shape, 10, 0)
    if way == "plain loop":
        # contiguous() keeps the strides of the engine's layout where there is one channel, and torch is faster in them
        # than in those that an array has.
        pixels = images.take(torch.arange(EXAMPLES)).contiguous().view(-1).view(EXAMPLES, *case.shape)
        started = time.process_time()
        plain_training(model, pixels, labels, recipe, case.steps, seed=0)
        return (time.process_time() - started) / case.steps
    if way == "engine before":
        use_plain_layers(model)
    else:
        compile_convolutions(model, case.shape)
    started = time.process_time()
    train([make_run(model, np.arange(EXAMPLES), 0)], images, labels, recipe, case.steps)
    return (time.process_time() - started) / case.steps


def measure_evaluation(way: str) -> float:
    """Seconds of evaluating the small CNN on all images."""
    images, labels = make_data((1, 28, 28))
    model = build_network("cnn", (1, 28, 28), 10, 0)
    if way == "engine before":
        use_plain_layers(model)
    started = time.process_time()
    evaluate_examples(
        build_forward(model, Recipe(epochs=1, batch=64, lr=0.1)), images, labels, choose_evaluation_batch(model, CPU)
    )
    return time.process_time() - started


def summarize(found: list[dict[str, float]]) -> dict[str, Any]:
    """Milliseconds and ratios of one case."""
    return {
        **{f"{way} ms": spread([1e3 * seconds[way] for seconds in found]) for way in WAYS},
        "plain_over_now": spread([seconds["plain loop"] / seconds["engine now"] for seconds in found]),
        "before_over_now": spread([seconds["engine before"] / seconds["engine now"] for seconds in found]),
    }


@cache
def load_fashion(folder: str | None) -> tuple[DeviceImages, torch.Tensor, int]:
    """4,000 training and all test images of Fashion-MNIST, and the number of the former."""
    splits = load_dataset("fashion-mnist", validation=0, train_limit=4000, folder=folder)
    parts = (splits.train, splits.test)
    raw = np.concatenate([np.asarray(part.images) for part in parts])
    labels = torch.from_numpy(np.concatenate([np.asarray(part.labels) for part in parts]))
    return to_device(raw, splits.mean, splits.std, CPU, flat=False), labels, len(splits.train)


def train_pair(seed: int, folder: str | None) -> dict[str, dict[str, Any]]:
    """Train one model both ways, from the same weights, on the same half in the same order."""
    images, labels, n_train = load_fashion(folder)
    recipe = Recipe(epochs=30, batch=64, lr=0.05, schedule="cosine")
    rows = np.sort(np.random.default_rng(seed).permutation(n_train)[: n_train // 2])
    steps, pair = count_steps(recipe, 0.5, n_train), {}
    for way in WAYS[1:]:
        model = build_network("cnn", (1, 28, 28), 10, seed)
        if way == "engine before":
            use_plain_layers(model)
        started = time.process_time()
        train([make_run(model, rows, seed)], images, labels, recipe, steps)
        seconds = time.process_time() - started
        batch = choose_evaluation_batch(model, CPU)
        correct = evaluate_examples(build_forward(model, recipe), images, labels, batch)["correct"]
        pair[way] = {"seconds": seconds, "test": correct[n_train:], "members": correct[rows]}
    print(f"seed {seed}: " + ", ".join(f"{way} {one['test'].mean():.4f}" for way, one in pair.items()), flush=True)
    return pair


def summarize_models(pairs: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    """Accuracies, their paired difference and time of whole models."""
    before, now = ([pair[way] for pair in pairs] for way in WAYS[1:])
    differences = np.array([b["test"].mean() - a["test"].mean() for a, b in zip(before, now, strict=True)])
    return {
        "seconds_before_over_now": spread([a["seconds"] / b["seconds"] for a, b in zip(before, now, strict=True)]),
        "test_accuracy_before": spread([float(one["test"].mean()) for one in before]),
        "test_accuracy_now": spread([float(one["test"].mean()) for one in now]),
        "member_accuracy_before": spread([float(one["members"].mean()) for one in before]),
        "member_accuracy_now": spread([float(one["members"].mean()) for one in now]),
        "difference_mean": float(differences.mean()),
        "difference_standard_error": float(differences.std(ddof=1) / len(differences) ** 0.5),
        "answers_alike": spread([float((a["test"] == b["test"]).mean()) for a, b in zip(before, now, strict=True)]),
    }


if __name__ == "__main__":
    tyro.cli(main)
