"""Claim: every score of a 2,000 x 50,000 bank is read in less than 500 MB of memory.

    python -m benchmarks.reduction_memory [--models 2000] [--examples 50000]

A synthetic store is written, then a fresh process makes memorization, C-score, LiRA online and offline and attack
success from it; its peak memory (VmHWM) is all of it, the imports included.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import tyro

from benchmarks.memory import memory_mb
from benchmarks.results_file import save
from memscore.data.splits import Dataset, Splits, build_examples_table
from memscore.pipeline.scoring import score_arm
from memscore.store.manifest import Manifest
from memscore.store.shards import format_model_name
from memscore.store.store import Store

ARM = "exact-k0.500"


def main(models: int = 2000, examples: int = 50_000, reduce_in: str | None = None) -> None:
    """Measure.

    Args:
        models: of the synthetic bank, whole blocks of 16.
        examples: of its training set.
        reduce_in: a store to reduce in this very process; the script calls itself with it.
    """
    if reduce_in:
        reduce(reduce_in)
        return
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        synthetic(f"{folder}/store", models, examples)
        written_s = time.perf_counter() - started
        command = [sys.executable, "-m", "benchmarks.reduction_memory", "--reduce-in", f"{folder}/store"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        size = sum(path.stat().st_size for path in Path(folder).rglob("*.parquet"))
    cells = models * examples / 1e6
    save(
        "reduction_memory",
        {
            "what": f"{models} x {examples}, every score",
            "write_s": written_s,
            "store_mb": size / 1e6,
            **found,
            "mcell_per_s": cells / found["reduce_s"],
        },
    )


def synthetic(url: str, models: int, examples: int) -> None:
    """A bank of noise: members are a little surer."""
    empty = Dataset(
        images=np.zeros((0, 1, 1, 1), np.uint8), labels=np.zeros(0, np.int64), labels_true=np.zeros(0, np.int64), ids=[]
    )
    part = {"train": examples, "test": 2}
    sets = {
        name: Dataset(
            images=np.zeros((n, 1, 1, 1), np.uint8),
            labels=np.arange(n) % 2,
            labels_true=np.arange(n) % 2,
            ids=[f"{name}/{i:07d}" for i in range(n)],
        )
        for name, n in part.items()
    }
    splits = Splits(name="noise", n_classes=2, validation=empty, mean=(0.0,), std=(1.0,), **sets)
    manifest = noise_manifest((examples, 0, 2))
    store = Store.create(url, manifest, build_examples_table(splits))
    store.add_arm({"name": ARM, "design": "exact", "keep": 0.5, "block": 64, "clusters": None})
    rng = np.random.default_rng(0)
    rows = np.arange(examples + 2, dtype=np.int32)
    for model in range(models):
        member = rng.random(examples + 2) < 0.5
        phi = rng.normal(size=examples + 2).astype(np.float32) + member
        columns = {"row": rows, "member": member, "correct": phi > 0}
        columns |= {"logit_confidence": phi, "gap": phi, "top_gap": np.abs(phi)}
        store.write_shard(format_model_name(ARM, model), ARM, columns)


def noise_manifest(split_sizes: tuple[int, int, int]) -> Manifest:
    """The identity of a bank that holds noise."""
    return Manifest(
        fingerprint="0" * 64,
        data="noise",
        split_sizes=split_sizes,
        n_classes=2,
        input_shape=(1, 1, 1),
        mean=(0.0,),
        std=(1.0,),
        label_changes={},
        architecture="mlp",
        recipe={},
        precision="float32",
        seed=0,
    )


def reduce(url: str) -> None:
    """Make every score and print the seconds and the peak memory."""
    before = memory_mb()["peak_mb"]
    store = Store.open(url)
    started = time.perf_counter()
    score_arm(store, ARM, store.find_valid_shards(ARM, verify=False))
    seconds = time.perf_counter() - started
    print(json.dumps({"reduce_s": seconds, "imports_mb": before, "peak_mb": memory_mb()["peak_mb"]}))


if __name__ == "__main__":
    tyro.cli(main)
