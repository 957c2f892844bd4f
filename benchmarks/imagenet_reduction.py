"""Claim: every score of 2,000 models x 1,281,167 examples in under 1 GB of memory a process, on all workers.

    python -m benchmarks.imagenet_reduction [--models 2000] [--examples 1281167] [--distinct 100] [--quick]

Shards of noise in ImageNet's shape are written, `distinct` different ones (18 MB each); the other models are further
names of the same files, so that 2,000 shards need 2 GB of disk and not 36. Each reading of a shard opens, reads and
decodes it as if it were its own, but from the page cache: a disk's or an object store's speed is not in the numbers.
A driver in a process of its own then makes all that `estimate` writes of an arm (memorization in three statistics,
C-score, LiRA online and offline, attack success, reliabilities, curves) with one and with two workers of a RayPool, and
the whole size with `--workers`. Own memory is the most that a process had resident without shared pages, looked at ten
times a second, imports included; peak memory is VmHWM, which counts pages of Ray's object store in every process that
has touched them. Exponents are slopes of log
seconds on log size, one worker. The data are removed at the end.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np
import tyro

from benchmarks.memory import OwnMemory, memory_mb
from benchmarks.reduction_memory import ARM, noise_manifest
from benchmarks.results_file import save
from benchmarks.scoring_speed import slope
from memscore.store.parquet import to_table
from memscore.store.shards import format_model_name
from memscore.store.store import Store

SCALING = (2000, 40_000)
GROWTH_MODELS, GROWTH_EXAMPLES = (250, 500, 1000, 2000), (5_000, 10_000, 20_000, 40_000)


def main(
    models: int = 2000,
    examples: int = 1_281_167,
    distinct: int = 100,
    workers: int = 2,
    repeats: int = 2,
    quick: bool = False,
    command: str | None = None,
) -> None:
    """Measure.

    Args:
        models: of the large bank.
        examples: of the large bank.
        distinct: shards that are written; the others are links to them.
        workers: of the large run.
        repeats: of one and two workers, in turns.
        quick: tiny banks; the numbers mean nothing.
        command: one reduction; the script calls itself with it.
    """
    if command:
        reduce(**json.loads(command))
        return
    scaling, growth = (
        (SCALING, (GROWTH_MODELS, GROWTH_EXAMPLES)) if not quick else ((64, 4000), ((16, 64), (500, 1000)))
    )
    if quick:
        models, examples, distinct, repeats = 64, 300_000, 4, 1
    with tempfile.TemporaryDirectory() as folder:
        url = synthetic(f"{folder}/scaling", *scaling, distinct)
        both = [(w, in_own_process(url, scaling[0], w)) for _ in range(repeats) for w in (1, 2)]
        pace = {w: [scaling[0] * scaling[1] / 1e6 / run["reduce_s"] for of, run in both if of == w] for w in (1, 2)}
        by_models = [(m, in_own_process(url, m, 1)["reduce_s"]) for m in growth[0]]
        by_examples = [
            (
                n,
                in_own_process(synthetic(f"{folder}/{n}", scaling[0] // 4, n, distinct), scaling[0] // 4, 1)[
                    "reduce_s"
                ],
            )
            for n in growth[1]
        ]
        large = in_own_process(synthetic(f"{folder}/large", models, examples, distinct), models, workers)
    measured = {
        "what": f"{models} models x {examples} examples, {distinct} distinct shards, every score of estimate",
        "large": {"workers": workers, **large, "mcell_per_s": models * examples / 1e6 / large["reduce_s"]},
        "scaling_of": f"{scaling[0]} models x {scaling[1]} examples",
        "mcell_per_s_1_worker": pace[1],
        "mcell_per_s_2_workers": pace[2],
        "two_over_one": float(np.median(pace[2]) / np.median(pace[1])),
        "exponent_of_models": {**slope(by_models), "points": by_models, "examples": scaling[1]},
        "exponent_of_examples": {**slope(by_examples), "points": by_examples, "models": scaling[0] // 4},
    }
    print(json.dumps(measured, indent=2)) if quick else save("imagenet_reduction", measured)


def synthetic(url: str, models: int, examples: int, distinct: int) -> str:
    """A bank of noise in which members are a little surer; its URL."""
    started = time.perf_counter()
    rows = np.arange(examples + 2, dtype=np.int32)
    ids = np.array([f"train/{row:07d}" for row in rows])
    store = Store.create(url, noise_manifest((examples, 0, 2)), to_table({"row": rows, "id": ids}, {}))
    store.add_arm({"name": ARM, "design": "exact", "keep": 0.5, "block": 64, "clusters": None})
    rng = np.random.default_rng(0)
    for model in range(models):
        if model >= distinct:
            first = store.folder.path(f"shards/{format_model_name(ARM, model % distinct)}.parquet")
            os.link(first, store.folder.path(f"shards/{format_model_name(ARM, model)}.parquet"))
            continue
        member = (rng.random(len(rows), np.float32) < 0.5) & (rows < examples)
        phi = rng.standard_normal(len(rows), np.float32) + 2 + member
        columns = {"row": rows, "member": member, "correct": phi > 0}
        columns |= {"logit_confidence": phi, "gap": phi, "top_gap": np.abs(phi)}
        store.write_shard(format_model_name(ARM, model), ARM, columns)
    print(f"wrote {models} x {examples} in {time.perf_counter() - started:.0f} s", flush=True)
    return url


def in_own_process(url: str, models: int, workers: int) -> dict[str, Any]:
    """Seconds, and the peak memory of the driver and of each worker."""
    asked = json.dumps({"url": url, "models": models, "workers": workers})
    order = [sys.executable, "-m", "benchmarks.imagenet_reduction", "--command", asked]
    done = subprocess.run(order, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{models} models with {workers} workers: {found}", flush=True)
    return found


def reduce(url: str, models: int, workers: int) -> None:
    """One driver: score the bank on so many workers, whatever its size; prints what it took."""
    from cluster.session import connect
    from memscore.pipeline import map_reduce
    from memscore.pipeline.scoring import score_arm

    map_reduce.MIN_PARALLEL_CELLS = 0
    with connect(workers=workers):
        from cluster.ray_pool import RayPool

        imports = memory_mb()["peak_mb"]
        with RayPool(workers=workers) as pool:
            there = {pid for _, (pid, _) in pool.run(peak, range(4 * workers))}
            shards, several = dict.fromkeys(range(models), ""), Several(pool)
            started, cpu = time.perf_counter(), time.process_time()
            with OwnMemory([os.getpid(), *there]) as own:
                score_arm(Store.open(url), ARM, shards, pool=several)
            seconds, driver_s = time.perf_counter() - started, time.process_time() - cpu
            peaks = {pid: mb for _, (pid, mb) in pool.run(peak, range(4 * workers))}
    found = {"reduce_s": seconds, "driver_cpu_s": driver_s, "driver_imports_mb": imports, **memory_mb()}
    driver_own = own.peak_mb.pop(os.getpid())
    workers_mb = {"workers_peak_mb": sorted(peaks.values()), "workers_own_mb": sorted(own.peak_mb.values())}
    print(json.dumps({**found, "own_mb": driver_own, **workers_mb}))


class Several:
    """A pool of one worker that is to be used like one of several: the driver must not reduce in its stead."""

    workers = 2

    def __init__(self, pool: Any) -> None:
        self.run = pool.run


def peak(job: int, shared: None) -> tuple[int, float]:
    """Who a worker is, and the most memory it ever had."""
    time.sleep(0.2)
    return os.getpid(), memory_mb()["peak_mb"]


if __name__ == "__main__":
    tyro.cli(main)
