"""Claim: one driver keeps 64 workers busy and loses no model of 10,000; a second command begins at once.

    python -m benchmarks.pool_scale [--models 10000] [--nodes 4] [--workers-per-node 16] [--nap-s 2] [--quick]

The real `fill`, the real store and the real RayPool on raylets of one machine; in place of training a job sleeps and
writes a small shard (nap_jobs.py: its processes import no torch). Each command is a process of its own: the first fills
half of the bank, the second finds that half and fills the rest, the third finds all of it. Driver milliseconds are CPU
time of the driver's process, all its threads; models are counted from the shards on file, and those made twice from
what each job found when it came to write. --profile prints where the second command's main thread spent its time.
"""

import cProfile
import json
import os
import pstats
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import tyro

from benchmarks.memory import memory_mb
from benchmarks.nap_jobs import Nap, nap
from benchmarks.reduction_memory import noise_manifest
from benchmarks.results_file import save
from memscore.store.parquet import to_table
from memscore.store.store import Store
from memscore.subsets.designs import Arm

ARM = Arm(design="iid", keep=0.5)
ROWS = (1000, 0, 200)
STORE_BYTES = 100 * 2**20  # of each raylet's object store


def main(
    models: int = 10_000,
    nodes: int = 4,
    workers_per_node: int = 16,
    nap_s: float = 2.0,
    quick: bool = False,
    profile: bool = False,
    command: str | None = None,
) -> None:
    """Measure.

    Args:
        models: of the bank.
        nodes: raylets with workers, beside the head, which has none.
        workers_per_node: CPUs that each raylet says it has.
        nap_s: seconds that a model takes.
        quick: 60 models on 2 x 2 workers; the numbers mean nothing.
        profile: print where the driver spent its time.
        command: what one driver is to do; the script calls itself with it.
    """
    if command:
        drive(**json.loads(command))
        return
    if quick:
        models, nodes, workers_per_node, nap_s = 60, 2, 2, 0.1
    folder = tempfile.mkdtemp()
    try:
        begin(f"{folder}/store")
        with raylets(nodes, workers_per_node) as address:
            asked = {"url": f"{folder}/store", "address": address, "nap_s": nap_s, "profile": profile}
            commands = [in_own_process(asked, count) for count in (models // 2, models, models)]
        found = look(f"{folder}/store")
    finally:
        shutil.rmtree(folder)
    made = sum(done["trained"] for done in commands)
    measured = {
        "what": f"{models} models that sleep {nap_s:g} s, {nodes} raylets x {workers_per_node} workers, one machine",
        "lost": models - found["shards"],
        "made_twice": made - found["shards"] + sum(done["again"] for done in commands),
        "first": commands[0],
        "finds_half": commands[1],
        "finds_all": commands[2],
        "listing": found,
    }
    print(json.dumps(measured, indent=2)) if quick else save("pool_scale", measured)


def begin(url: str) -> None:
    """An empty bank whose network is trained one model a job."""
    from memscore.training.recipes import get_recipe  # brings torch, as the driver does

    n = sum(ROWS)
    fields = {name: value for name, value in asdict(get_recipe("small-cnn")).items() if name != "source"}
    manifest = replace(noise_manifest(ROWS), architecture="cnn", recipe=fields, input_shape=(1, 8, 8))
    rows = np.arange(n, dtype=np.int32)
    store = Store.create(url, manifest, to_table({"row": rows, "id": np.array([f"{row:08d}" for row in rows])}, {}))
    store.add_arm({"name": ARM.name, "design": ARM.design, "keep": ARM.keep, "block": ARM.block, "clusters": None})


@contextmanager
def raylets(nodes: int, workers: int) -> Generator[str, None, None]:
    """A cluster of several raylets on this machine, guarded by a token of its own; its address."""
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}  # the drivers inherit both
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            cluster.add_node(num_cpus=workers, object_store_memory=STORE_BYTES)
        yield cluster.address
    finally:
        cluster.shutdown()


def in_own_process(asked: dict[str, Any], count: int) -> dict[str, Any]:
    """One command from its start to its end."""
    order = [sys.executable, "-m", "benchmarks.pool_scale", "--command", json.dumps({**asked, "count": count})]
    started = time.perf_counter()
    done = subprocess.run(order, stdout=subprocess.PIPE, text=True, check=True)
    *said, last = done.stdout.splitlines()
    print(*said, last, sep="\n", flush=True)
    return {"command_s": time.perf_counter() - started, **json.loads(last)}


class Napping:
    """The pool that `fill` is handed: each job is sent to the pool within as one that sleeps."""

    def __init__(self, within: Any, nap_s: float) -> None:
        self.within, self.nap_s = within, nap_s
        self.again = 0
        self.asked_at = self.first_at = self.last_at = 0.0

    @property
    def workers(self) -> int:
        """As many as there are."""
        return int(self.within.workers)

    def run(self, fn: Callable[..., Any], jobs: Iterable[Any], shared: Any = None) -> Iterator[tuple[Any, Any]]:
        """Yield the jobs as fill knows them."""
        self.asked_at = time.perf_counter()
        asked = {job.models: job for job in jobs}
        naps = [Nap(store=j.store, arm=j.arm, models=j.models, seconds=self.nap_s) for j in asked.values()]
        for done, outcome in self.within.run(nap, naps):
            self.last_at = time.perf_counter()
            self.first_at = self.first_at or self.last_at
            if isinstance(outcome, list):
                self.again += sum(receipt["again"] for receipt in outcome)
            yield asked[done.models], outcome


def drive(url: str, address: str, nap_s: float, count: int, profile: bool) -> None:
    """One command: look what is there, fill the rest, list it; prints what it took as the last line."""
    from cluster.session import connect
    from memscore.pipeline.jobs import SharedData
    from memscore.pipeline.train_bank import train_missing

    with connect(address=address):
        from cluster.ray_pool import RayPool

        store, nothing = Store.open(url), SharedData(images=np.empty(0), labels=np.empty(0))
        with RayPool() as within:
            pool = Napping(within, nap_s)
            before, cpu, started = memory_mb(), time.process_time(), time.perf_counter()
            watch = cProfile.Profile()
            if profile:
                watch.enable()
            filled = train_missing(store, [ARM], count, nothing, pool)
            watch.disable()
            used_s, wall_s = time.process_time() - cpu, time.perf_counter() - started
            if profile:
                pstats.Stats(watch).sort_stats("tottime").print_stats(25)
            setbacks = dict(within.setbacks)
    between_s = pool.last_at - pool.first_at
    said = {
        "models": count,
        "trained": filled.trained,
        "again": pool.again,
        "failed": len(filled.failed),
        "setbacks": setbacks,
        "fill_s": wall_s,
        "look_s": pool.asked_at - started,
        "driver_cpu_ms_per_trained_model": 1e3 * used_s / filled.trained if filled.trained else None,
        "driver_cpu_s": used_s,
        "models_per_s": (filled.trained - 1) / between_s if filled.trained > 1 else None,
        "driver_before": before,
        "driver_after": memory_mb(),
    }
    print(json.dumps(said))


def look(url: str) -> dict[str, Any]:
    """Seconds of what a command asks of a full store, one after the other."""
    from memscore.pipeline.tables import write_models_table

    store, found = Store.open(url), {}

    def timed(name: str, asked: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        answer = asked()
        found[f"{name}_s"] = time.perf_counter() - started
        return answer

    timed("names", lambda: store.folder.names("shards"))
    timed("footers", lambda: store.find_valid_shards(ARM.name, verify=False))
    valid = timed("every_byte", lambda: store.find_valid_shards(ARM.name))
    timed("receipts", store.receipts)
    timed("models_table", lambda: write_models_table(store))
    size = sum(path.stat().st_size for path in Path(url, "shards").iterdir())
    return {"shards": len(valid), "shard_bytes": size, **found}


if __name__ == "__main__":
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    tyro.cli(main)
