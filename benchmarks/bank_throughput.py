"""Claim: how many models an hour a bank trains, end to end, and one core beside a plain eager loop.

    python -m benchmarks.bank_throughput [--rounds 5] [--models 12]

Fashion-MNIST, all 60,000 images, MLP 512-256, 10 epochs, batch 128, keep .7. The plain loop and the engine train the
same subsets from the same initial weights for the same number of steps, turn about, one thread each; then one
`python -m memscore.estimate` with two one-thread workers is timed from its start to its exit.
"""

import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace

import numpy as np
import torch
import tyro

from benchmarks.plain_loop import plain_query, plain_training
from benchmarks.results_file import save, spread
from memscore.data.splits import build_examples_table
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, build_model, read_recipe, run_job
from memscore.pipeline.runner import prepare_bank
from memscore.pipeline.train_bank import build_shared_data
from memscore.subsets.designs import draw_membership
from memscore.training.recipes import count_steps

PLAN = BankConfig(
    data="fashion-mnist", validation=0, arch="mlp-512-256", epochs=10, batch=128, design="iid", keep=0.7, originals=0
)


def main(rounds: int = 5, models: int = 12) -> None:
    """Measure.

    Args:
        rounds: pairs of plain loop and engine.
        models: of the end-to-end run.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pairs = interleaved(folder, rounds)
    with tempfile.TemporaryDirectory() as folder:
        wall_s = end_to_end(folder, models)
    ratios = [plain["seconds"] / engine["seconds"] for plain, engine in pairs]
    save(
        "bank_throughput",
        {
            "what": "Fashion-MNIST 60,000, MLP 512-256, 10 epochs, batch 128, keep 0.7",
            "plain_loop_s_per_model": spread([plain["seconds"] for plain, _ in pairs]),
            "engine_s_per_model": spread([engine["seconds"] for _, engine in pairs]),
            "plain_over_engine": spread(ratios),
            "plain_loop_test_accuracy": spread([plain["test"] for plain, _ in pairs]),
            "engine_test_accuracy": spread([engine["test"] for _, engine in pairs]),
            "end_to_end": {
                "workers": 2,
                "models": models,
                "wall_s": wall_s,
                "models_per_hour": 3600 * models / wall_s,
            },
        },
    )


def interleaved(folder: str, rounds: int) -> list[tuple[dict[str, float], dict[str, float]]]:
    """Plain loop and engine, turn about, on the same subsets."""
    bank = prepare_bank(replace(PLAN, store=f"{folder}/store", models=rounds + 1))
    bank.store.create_files(build_examples_table(bank.splits))
    store, arm, splits = bank.store, bank.arms[0], bank.splits
    store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared, recipe = build_shared_data(splits, None), read_recipe(store)
    pixels = (torch.from_numpy(shared.images).float() / 255 - splits.mean[0]) / splits.std[0]
    labels = torch.from_numpy(shared.labels)
    n_train, total = len(splits.train), count_steps(recipe, arm.keep, len(splits.train))
    pairs = []
    for index in range(rounds + 1):
        [inside] = draw_membership(arm, [index], n_train, seed=0)
        model = build_model(store, arm.name, index, torch.device("cpu"))
        started = time.perf_counter()
        rows = torch.from_numpy(np.flatnonzero(inside))
        plain_training(model, pixels[rows], labels[rows], recipe, total, seed=index)
        test = (plain_query(model, pixels).argmax(1) == labels)[n_train:].float().mean().item()
        plain = {"seconds": time.perf_counter() - started, "test": test}
        started = time.perf_counter()
        [receipt] = run_job(BankJob(store=store.url, arm=arm.name, models=(index,)), shared)
        engine = {"seconds": time.perf_counter() - started, "test": receipt["accuracy"]["test"]}
        print(f"round {index}: plain {plain}, engine {engine}", flush=True)
        if index:  # the first one warms up caches and makes the data resident
            pairs.append((plain, engine))
    return pairs


def end_to_end(folder: str, models: int) -> float:
    """Seconds of one whole command: imports, Ray, data, training, queries, writing, scores, figures."""
    flags = "--data fashion-mnist --validation 0 --arch mlp-512-256 --epochs 10 --batch 128 --design iid --keep 0.7"
    command = [sys.executable, "-m", "memscore.estimate", *flags.split(), "--originals", "0"]
    command += ["--models", str(models), "--workers", "2", "--store", f"{folder}/store"]
    started = time.perf_counter()
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - started


if __name__ == "__main__":
    tyro.cli(main)
