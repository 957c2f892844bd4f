"""Claim: what bfloat16 products gain or cost beside float32 on this CPU, and that models and scores are as good.

    python -m benchmarks.bfloat16_products [--rounds 7] [--seeds 5] [--folder FASHION_MNIST]

Seconds of a step are of the processor, one core, one thread, both precisions in turns; ratios are within a round, and a
first round is not counted. Accuracies are of pairs of models with the same weights, subset and batches. Memorization is
compared between whole banks: of both precisions with one seed, so the same subsets, weights and batches, and, as what
chance alone does, of float32 with two seeds.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
import tyro

from benchmarks.results_file import save, spread
from memscore.data.datasets import load_dataset
from memscore.estimate import main as estimate
from memscore.models.architectures import build_network
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.loop import TrainingRun, train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import BFLOAT16_PRODUCTS, Recipe, count_steps
from memscore.training.stacked_mlp import compute_stack_size

CPU = torch.device("cpu")
PRECISIONS = ("float32", BFLOAT16_PRODUCTS)
EXAMPLES, STEPS = 4000, 20


@dataclass(frozen=True, kw_only=True)
class Case:
    """One network, images of a side, and batch."""

    arch: str
    side: int
    batch: int


CASES = {
    "MLP 784-256-10, batch 256": Case(arch="mlp-256", side=28, batch=256),
    "MLP 784-256-10, batch 64": Case(arch="mlp-256", side=28, batch=64),
    "MLP 784-512-256-10, batch 128": Case(arch="mlp-512-256", side=28, batch=128),
    "MLP 784-1024-10, batch 128": Case(arch="mlp-1024", side=28, batch=128),
    "MLP 784-128-10, batch 128": Case(arch="mlp-128", side=28, batch=128),
    "MLP 64-128-10, batch 32": Case(arch="mlp-128", side=8, batch=32),
}
BANK = "--data digits --models 128"
SCORE = "memorization_k0.500"


def main(rounds: int = 7, seeds: int = 5, folder: str | None = None) -> None:
    """Measure.

    Args:
        rounds: of the times of steps, after one that is not counted.
        seeds: pairs of models whose accuracies are compared.
        folder: of Fashion-MNIST.
    """
    with single_threaded(), float32_matmul(CPU) as arithmetic:
        cases = {name: measure_steps(case, rounds) for name, case in CASES.items()}
        accuracies = {
            "digits, mlp": compare_accuracies("digits", "mlp", 30, 32, seeds, None),
            "Fashion-MNIST 4,000, MLP 784-256-10": compare_accuracies(
                "fashion-mnist", "mlp-256", 30, 128, seeds, folder
            ),
        }
    with tempfile.TemporaryDirectory() as stores:
        bank = compare_banks(BANK, Path(stores))
    save(
        "bfloat16_products",
        {
            "what": "one core, one thread, seconds of the processor; ratios within a round",
            "amx": torch.cpu._is_amx_tile_supported(),
            "matmul": arithmetic,
            "cases": cases,
            "accuracies": accuracies,
            "banks": {"digits, mlp, 128 models": bank},
        },
    )


def measure_steps(case: Case, rounds: int) -> dict[str, Any]:
    """Ratios of the seconds of 20 steps of a new stack in both precisions."""
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (EXAMPLES, 1, case.side, case.side), dtype=np.uint8)
    images, labels = to_device(raw, (0.3,), (0.3,), CPU, flat=True), torch.from_numpy(rng.integers(0, 10, EXAMPLES))
    size = compute_stack_size(build_network(case.arch, (1, case.side, case.side), 10, 0))
    measured: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
    for number in range(rounds + 1):
        for precision in PRECISIONS:
            recipe = Recipe(epochs=10, batch=case.batch, lr=0.01, precision=precision)
            models = [build_network(case.arch, (1, case.side, case.side), 10, seed) for seed in range(size)]
            runs = [make_run(model, np.arange(EXAMPLES), seed) for seed, model in enumerate(models)]
            started = time.process_time()
            train(runs, images, labels, recipe, STEPS)
            if number:
                measured[precision].append(time.process_time() - started)
    ratios = [a / b for a, b in zip(*measured.values(), strict=True)]
    print(case, spread(ratios), flush=True)
    return {"models": size, "float32_over_bfloat16_products": spread(ratios)}


def make_run(model: torch.nn.Module, rows: np.ndarray, seed: int) -> TrainingRun:
    """One model's training."""
    order, augmentation = np.random.default_rng([seed, 0]), np.random.default_rng([seed, 1])
    return TrainingRun(model=model, rows=rows, order_rng=order, augmentation_rng=augmentation)


@cache
def load(data: str, folder: str | None) -> tuple[DeviceImages, torch.Tensor, int]:
    """Training and test images of a data set, and the number of the former."""
    splits = load_dataset(data, validation=0, train_limit=EXAMPLES if data == "fashion-mnist" else None, folder=folder)
    parts = (splits.train, splits.test)
    raw = np.concatenate([np.asarray(part.images) for part in parts])
    labels = torch.from_numpy(np.concatenate([np.asarray(part.labels) for part in parts]))
    return to_device(raw, splits.mean, splits.std, CPU, flat=True), labels, len(splits.train)


def compare_accuracies(data: str, arch: str, epochs: int, batch: int, seeds: int, folder: str | None) -> dict[str, Any]:
    """Test accuracies of models of half of the training set in both precisions, and their paired difference."""
    images, labels, n_train = load(data, folder)
    found: dict[str, list[np.ndarray]] = {precision: [] for precision in PRECISIONS}
    for seed in range(seeds):
        rows = np.sort(np.random.default_rng(seed).permutation(n_train)[: n_train // 2])
        for precision in PRECISIONS:
            recipe = Recipe(epochs=epochs, batch=batch, lr=0.1, precision=precision)
            model = build_network(arch, images.shape, 10, seed)
            train([make_run(model, rows, seed)], images, labels, recipe, count_steps(recipe, 0.5, n_train))
            forward, size = build_forward(model, recipe), choose_evaluation_batch(model, CPU)
            found[precision].append(evaluate_examples(forward, images, labels, size)["correct"][n_train:])
    exact, rounded = (np.array(found[precision]) for precision in PRECISIONS)
    differences = rounded.mean(1) - exact.mean(1)
    result = {
        "float32": spread(exact.mean(1).tolist()),
        BFLOAT16_PRODUCTS: spread(rounded.mean(1).tolist()),
        "difference_mean": float(differences.mean()),
        "difference_standard_error": float(differences.std(ddof=1) / len(differences) ** 0.5),
        "answers_alike": spread((rounded == exact).mean(1).tolist()),
    }
    print(data, result, flush=True)
    return result


def compare_banks(options: str, folder: Path) -> dict[str, Any]:
    """Compare memorization of banks of both precisions, and of two seeds in float32."""
    banks = {"float32": 0, BFLOAT16_PRODUCTS: 0, "another seed": 1}
    scores = []
    for name, seed in banks.items():
        store, precision = folder / name.replace(" ", "-"), name if name in PRECISIONS else "float32"
        chosen = f"--originals 0 --pool serial --precision {precision} --seed {seed} --store {store}"
        if code := estimate([*options.split(), *chosen.split()]):
            raise RuntimeError(f"memscore.estimate {options} {chosen} ended with code {code}")
        scores.append(pq.read_table(store / "scores.parquet", columns=["id", SCORE]).to_pandas())
    # a seed may choose other examples for validation
    columns = pd.concat([table.set_index("id")[SCORE].astype(float) for table in scores], axis=1, join="inner")
    exact, rounded, other = columns.to_numpy().T
    result = {"precisions": compare(exact, rounded), "seeds": compare(exact, other)}
    print(options, result, flush=True)
    return result


def compare(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Correlation, RMSE and mean difference of two scores, over examples that have both."""
    both = np.isfinite(first) & np.isfinite(second)
    difference = second[both] - first[both]
    return {
        "n": int(both.sum()),
        "correlation": float(np.corrcoef(first[both], second[both])[0, 1]),
        "rmse": float(np.sqrt(np.mean(difference**2))),
        "mean_difference": float(difference.mean()),
        "mean_float32": float(first[both].mean()),
    }


if __name__ == "__main__":
    tyro.cli(main)
