"""Claim: a long run on a cluster under random faults loses nothing, and its driver does not grow.

    python -m benchmarks.cluster_soak [--minutes 20] [--seed 0]

Three nodes of one CPU; one submitted command; every 20 to 40 s a fault drawn at random: a worker killed, a worker
stopped for 10 s, a node lost with its workers (another joins 10 s later), a node frozen for 15 s, the disk full for
10 s. The command is the same all the time. At the end it is stopped with `ray job stop`, and a last command without
faults completes the last block: then every shard is hashed by `bank verify`, the first block is compared with a calm
run of one process byte by byte, and failures on file are counted. Runs in namespaces of its own (benchmarks/apart.py).
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import tyro

from benchmarks.apart import live_apart, mount_memory
from benchmarks.cluster_faults import contents, fill
from benchmarks.memory import memory_mb
from benchmarks.results_file import save
from benchmarks.throwaway import ROOT, Cluster, Node, Watch, wait_for

BLOCK, DISK = 64, "400m"
COMMAND = ("python", "-m", "memscore.estimate", "--arch", "cnn", "--epochs", "12")
SETTLED_S = 120.0  # by then the driver has imported, sent and allocated what it needs


def main(minutes: float = 20, seed: int = 0) -> None:
    """Measure.

    Args:
        minutes: under faults.
        seed: of the faults and of their times.
    """
    live_apart()
    with tempfile.TemporaryDirectory(prefix="memscore-", ignore_cleanup_errors=True) as folder:
        cluster = Cluster(Path(folder) / "home")
        bank = cluster.home / "memscore"
        bank.mkdir()
        mount_memory(bank, DISK)
        cluster.start(3)
        try:
            found = soak(cluster, bank, minutes * 60, random.Random(seed))
        finally:
            cluster.stop()
        calm = Path(folder) / "calm"
        alone = [sys.executable, *COMMAND[1:], "--models", str(BLOCK), "--pool", "serial", "--store", str(calm)]
        subprocess.run(alone, check=True, capture_output=True, cwd=ROOT)
        theirs, ours = contents(calm, "shards"), contents(found.pop("store"), "shards")
        found["first_block_equal"] = all(ours[name] == digest for name, digest in theirs.items())
    save("cluster_soak", {"what": " ".join(COMMAND), "nodes": 3, "minutes": minutes, "seed": seed, **found})


def soak(cluster: Cluster, bank: Path, limit_s: float, rng: random.Random) -> dict:
    """Faults until the time is up, then a calm end."""
    cluster.submit("soak", *COMMAND, "--models", str(BLOCK * 1500))
    wait_for(lambda: any(bank.glob("*/manifest.json")), 180)
    watch = Watch(next(bank.glob("*/manifest.json")).parent)
    wait_for(lambda: watch.look() > 0, 180)
    driver, began, faults, memory = cluster.driver(), time.monotonic(), Counter(), []
    pending: list[tuple[float, Callable[[], object]]] = []  # what ends a fault, and when
    due = began + rng.uniform(20, 40)
    while (now := time.monotonic()) < began + limit_s or pending:
        watch.look()
        memory.append((now - began, len(watch.since), memory_mb(driver)["rss_mb"]))
        for moment, undo in [one for one in pending if one[0] <= now]:
            pending.remove((moment, undo))
            undo()
        if now >= due and now < began + limit_s:
            due = now + rng.uniform(20, 40)
            name, delay_s, undo = rng.choice(FAULTS)(cluster, bank, rng)
            faults[name] += 1
            print(f"{now - began:6.0f} s  {len(watch.since):5d} models  {memory[-1][2]:.0f} MB  {name}", flush=True)
            if undo is not None:
                pending.append((now + delay_s, undo))
        time.sleep(0.25)
    said = [line for line in cluster.logs("soak").splitlines() if "tried again" in line]
    under_faults = len(watch.since)
    cluster.command("ray", "job", "stop", "soak")
    wait_for(lambda: cluster.status("soak") in {"STOPPED", "FAILED", "SUCCEEDED"}, 60, every_s=0.5)
    whole = -(-watch.look() // BLOCK) * BLOCK
    cluster.submit("end", *COMMAND, "--models", str(whole))
    wait_for(lambda: watch.look() >= 0 and cluster.status("end") not in {"PENDING", "RUNNING"}, 900, every_s=0.5)
    verified = cluster.command("python", "-m", "memscore.bank", "verify", str(watch.store))
    settled = [(models, mb) for at, models, mb in memory if at >= min(SETTLED_S, limit_s / 4)]
    return {
        "store": watch.store,
        "faults": dict(faults),
        "models_under_faults": under_faults,
        "last_line": said[-1] if said else None,
        "end": cluster.status("end"),
        "models": whole,
        "models_lost": whole - sum(int(name.removesuffix(".parquet")[-5:]) < whole for name in watch.since),
        "finished_twice": watch.twice(),
        "failures_on_file": len(list((watch.store / "failures").glob("*.json"))),
        "verified": verified is not None,
        "driver_mb": {"settled": settled[0][1], "end": settled[-1][1], "most": max(mb for _, mb in settled)},
        "driver_mb_per_1000_models": slope(settled) * 1000,
    }


def slope(pairs: list[tuple[int, float]]) -> float:
    """Least squares."""
    x, y = np.array(pairs, float).T
    return float(np.polyfit(x, y, 1)[0])


Ending = tuple[str, float, Callable[[], object] | None]


def a_worker_killed(cluster: Cluster, bank: Path, rng: random.Random) -> Ending:
    """Any of them."""
    for pid in picked(workers(cluster), rng):
        os.kill(pid, signal.SIGKILL)
    return "worker killed", 0, None


def a_worker_stopped(cluster: Cluster, bank: Path, rng: random.Random) -> Ending:
    """It stands still, and goes on."""
    pids = picked(workers(cluster), rng)

    def go_on() -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    return "worker stopped for 10 s", 10, go_on


def a_node_lost(cluster: Cluster, bank: Path, rng: random.Random) -> Ending:
    """Another takes its place."""
    for node in picked(cluster.preflight[1:], rng):
        cluster.preflight.remove(node)
        node.signal(signal.SIGKILL)
    return "node lost", 10, cluster.add


def a_node_frozen(cluster: Cluster, bank: Path, rng: random.Random) -> Ending:
    """For less than Ray waits."""
    nodes: list[Node] = picked(cluster.preflight[1:], rng)
    for node in nodes:
        node.signal(signal.SIGSTOP)
    return "node frozen for 15 s", 15, lambda: [node.signal(signal.SIGCONT) for node in nodes]


def disk_full(cluster: Cluster, bank: Path, rng: random.Random) -> Ending:
    """No byte is left."""
    ballast = fill(bank)
    return "disk full for 10 s", 10, lambda: ballast.unlink(missing_ok=True)


FAULTS = (a_worker_killed, a_worker_stopped, a_node_lost, a_node_frozen, disk_full)


def workers(cluster: Cluster) -> list[int]:
    """Of all nodes."""
    return [pid for node in cluster.preflight for pid in node.workers()]


def picked(among: list, rng: random.Random) -> list:
    """One of them, if there is any."""
    return rng.sample(among, min(1, len(among)))


if __name__ == "__main__":
    tyro.cli(main)
