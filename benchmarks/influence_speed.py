"""Claim: the influence of 60,000 train examples on 10,000 test examples, from 2,000 models, streams in bounded memory.

    python -m benchmarks.influence_speed [--models 2000] [--train 60000] [--test 10000] [--threads 1]

A synthetic store is written, then a fresh process makes the rows that matter from it (top 10 of each test example, and
influence .15 with memorization .25); its peak memory (VmHWM) is all of it, imports included. For the ratio, the same
product alone is timed on tiles of the same shape: no stream over these pairs can be faster on this machine.
"""

import json
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import tyro

from benchmarks.memory import memory_mb
from benchmarks.reduction_memory import noise_manifest
from benchmarks.results_file import save
from memscore.analysis.influence_pairs import find_influence_pairs
from memscore.estimators.influence import TILE_SIZE
from memscore.store.parquet import to_table
from memscore.store.shards import format_model_name
from memscore.store.store import Store

ARM = "exact-k0.500"


def main(
    models: int = 2000, train: int = 60_000, test: int = 10_000, threads: int = 1, stream_in: str | None = None
) -> None:
    """Measure.

    Args:
        models: of the synthetic bank.
        train: its training examples.
        test: its test examples.
        threads: of the product.
        stream_in: a store to stream in this very process; the script calls itself with it.
    """
    if stream_in:
        stream(stream_in, threads)
        return
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        synthetic(f"{folder}/store", models, train, test)
        written_s = time.perf_counter() - started
        command = [sys.executable, "-m", "benchmarks.influence_speed", "--threads", str(threads)]
        command += ["--stream-in", f"{folder}/store"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    save(
        "influence_speed",
        {
            "what": f"{models} models, {train} x {test} pairs, streamed on {threads} thread(s)",
            "write_s": written_s,
            **found,
            "dense_mb": train * test * 4 / 1e6,
            "mcell_per_s": train * test / 1e6 / found["stream_s"],
            "share_of_product_alone": found["product_s"] / found["stream_s"],
        },
    )


def synthetic(url: str, models: int, train: int, test: int) -> None:
    """A bank of noise in which every tenth train example is memorized and decides one test example."""
    manifest = noise_manifest((train, 0, test))
    rows = np.arange(train + test, dtype=np.int32)
    names = np.array([f"train/{i:07d}" for i in range(train)] + [f"test/{i:07d}" for i in range(test)])
    store = Store.create(url, manifest, to_table({"row": rows, "id": names}, {}))
    store.add_arm({"name": ARM, "design": "exact", "keep": 0.5, "block": 64, "clusters": None})
    rng = np.random.default_rng(0)
    deciders = np.arange(0, train, 10)
    decided = train + np.arange(len(deciders)) % test
    for model in range(models):
        member = (rng.random(train + test) < 0.5) & (rows < train)
        correct = (rng.random(train + test) < 0.9) | member
        correct[deciders], correct[decided] = member[deciders], member[deciders]
        floats = {name: np.zeros(len(rows), np.float32) for name in ("logit_confidence", "gap", "top_gap")}
        store.write_shard(
            format_model_name(ARM, model), ARM, {"row": rows, "member": member, "correct": correct, **floats}
        )


def stream(url: str, threads: int) -> None:
    """Make the rows; print the seconds, the peak memory, and the seconds of the product alone."""
    torch.set_num_threads(threads)
    before = memory_mb()["peak_mb"]
    store = Store.open(url)
    shards = store.find_valid_shards(ARM, verify=False)
    started = time.perf_counter()
    rows = find_influence_pairs(store, ARM, shards)
    seconds = time.perf_counter() - started
    peak = memory_mb()["peak_mb"]
    train, _, test = store.manifest.split_sizes
    found = {"stream_s": seconds, "rows": len(rows), "imports_mb": before, "peak_mb": peak}
    print(json.dumps({**found, "product_s": product_s(len(shards), train * test)}))


def product_s(models: int, pairs: int, repeats: int = 5) -> float:
    """Median seconds of a tile's product, times the tiles that make so many pairs."""
    left, right = torch.ones(models, TILE_SIZE), torch.ones(models, TILE_SIZE)
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        left.T @ right
        seconds.append(time.perf_counter() - started)
    return float(np.median(seconds)) * pairs / TILE_SIZE**2


if __name__ == "__main__":
    tyro.cli(main)
