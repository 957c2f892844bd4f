"""Claim: a submitted run on a two-node cluster loses nothing to a fault, and its files are those of a calm run.

    python -m benchmarks.cluster_faults [--models 64] [--epochs 12] [--only NAME ...]

Each fault has a cluster of its own: two nodes of one CPU, `ray job submit` with no --store, the fault when a quarter of
the models is there. `seconds to the next model` and the longest silence are from the fault to the last model. A model
counts as trained twice if it was finished twice (its receipt was written again); what a killed worker had begun is
trained again from its start. Contents are compared with a calm run of one process, byte by byte. Runs in namespaces of
its own (benchmarks/apart.py).
"""

import hashlib
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.apart import live_apart, mount_memory
from benchmarks.results_file import save
from benchmarks.throwaway import ROOT, Cluster, Watch, wait_for

FREEZE_S, FULL_S, LIMIT_S = 100.0, 20.0, 900.0
SMALL_DISK = "24m"

Fault = Callable[[Cluster, Watch], str]


def kill_a_worker(cluster: Cluster, watch: Watch) -> str:
    """One process of two, in the middle of a model."""
    wait_for(lambda: bool(cluster.preflight[1].workers()), 60)
    os.kill(cluster.preflight[1].workers()[0], signal.SIGKILL)
    return ""


def kill_a_node(cluster: Cluster, watch: Watch) -> str:
    """Raylet and workers at once, as a machine goes; another machine comes half a minute later."""
    cluster.preflight.pop().signal(signal.SIGKILL)
    wait(watch, 30)
    cluster.add()
    return "a new node joined after 30 s"


def freeze_a_node(cluster: Cluster, watch: Watch) -> str:
    """It answers nobody for longer than Ray waits, and then wakes up."""
    cluster.preflight[1].signal(signal.SIGSTOP)
    wait(watch, FREEZE_S)
    cluster.preflight[1].signal(signal.SIGCONT)
    return f"woken after {FREEZE_S:g} s"


def kill_the_driver(cluster: Cluster, watch: Watch) -> str:
    """The same command again, as soon as Ray says that the job failed."""
    os.kill(cluster.driver(), signal.SIGKILL)
    wait_for(lambda: cluster.status("run-1") == "FAILED", 60, every_s=0.5)
    return "again"


def kill_the_head(cluster: Cluster, watch: Watch) -> str:
    """The whole cluster is gone; a new one, and the same command again."""
    cluster.stop()
    cluster.start(2)
    return "again"


def fill_the_disk(cluster: Cluster, watch: Watch) -> str:
    """No byte is left for a while."""
    ballast = fill(watch.store.parent)
    wait(watch, FULL_S)
    ballast.unlink()
    return f"space again after {FULL_S:g} s"


FAULTS: dict[str, Fault | None] = {
    "none": None,
    "kill -9 of a worker": kill_a_worker,
    "a node lost with its workers": kill_a_node,
    "a node frozen": freeze_a_node,
    "kill -9 of the driver": kill_the_driver,
    "the head lost": kill_the_head,
    "disk full": fill_the_disk,
}


def main(
    models: int = 64, epochs: int = 12, only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
) -> None:
    """Measure.

    Args:
        models: of the bank; whole blocks of 64.
        epochs: of each model.
        only: faults to try; all if none is named. Nothing is written then.
    """
    live_apart()
    command = ("python", "-m", "memscore.estimate", "--arch", "cnn", "--models", str(models), "--epochs", str(epochs))
    with tempfile.TemporaryDirectory(prefix="memscore-", ignore_cleanup_errors=True) as folder:
        calm = Path(folder) / "calm"
        alone = [sys.executable, *command[1:], "--pool", "serial", "--store", str(calm)]
        subprocess.run(alone, check=True, capture_output=True, cwd=ROOT)
        rows = []
        for number, name in enumerate(only or FAULTS):
            rows.append({"fault": name, **one(Path(folder) / f"h{number}", command, name, calm, models)})
            print(rows[-1], flush=True)
    if not only:
        save("cluster_faults", {"what": " ".join(command), "nodes": 2, "models": models, "faults": rows})


def one(home: Path, command: tuple[str, ...], name: str, calm: Path, models: int) -> dict[str, object]:
    """One cluster, one run, one fault."""
    cluster, fault = Cluster(home), FAULTS[name]
    bank = home / "memscore"
    if fault is fill_the_disk:
        bank.mkdir(parents=True)
        mount_memory(bank, SMALL_DISK)
    cluster.start(2)
    try:
        began = time.monotonic()
        cluster.submit("run-1", *command)
        wait_for(lambda: any(bank.glob("*/manifest.json")), 120)
        watch = Watch(next(bank.glob("*/manifest.json")).parent)
        wait_for(lambda: watch.look() >= models // 4, LIMIT_S)
        moment, job = time.monotonic(), "run-1"
        remark = fault(cluster, watch) if fault else ""
        if remark == "again":
            job = "run-2"
            cluster.submit(job, *command)
        finish(cluster, watch, job, models)
        if cluster.status(job) != "SUCCEEDED":
            raise RuntimeError(f"{name}: the job ended {cluster.status(job)}:\n{cluster.logs(job)[-3000:]}")
        return {
            "remark": "the same command was submitted again" if remark == "again" else remark,
            "tried_again": sorted(set(re.findall(r"tried again: ([^;,]*)", cluster.logs(job))))[-1:],
            "models_lost": models - len(watch.since),
            "finished_twice": watch.twice(),
            "next_model_s": watch.next_after(moment),
            "longest_silence_s": watch.silence_after(moment),
            "usual_gap_s": usual_gap(watch, moment),
            "run_s": max(watch.since.values()) - began,
            "shards_equal": contents(watch.store, "shards") == contents(calm, "shards"),
            "scores_equal": contents(watch.store, "scores") == contents(calm, "scores"),
        }
    finally:
        cluster.stop()


def finish(cluster: Cluster, watch: Watch, job: str, models: int) -> None:
    """Watch until the command has ended."""
    end = time.monotonic() + LIMIT_S
    while watch.look() < models and time.monotonic() < end and cluster.preflight[0].process.poll() is None:
        time.sleep(0.02)
    while cluster.status(job) in {"RUNNING", "PENDING"} and time.monotonic() < end:
        watch.look()
        time.sleep(0.5)


def fill(disk: Path) -> Path:
    """Write a file until there is no room; gives its path."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return ballast


def wait(watch: Watch, seconds: float) -> None:
    """Watch for so long."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        watch.look()
        time.sleep(0.02)


def usual_gap(watch: Watch, moment: float) -> float:
    """Median time between two models before the fault."""
    times = sorted(since for since in watch.since.values() if since <= moment)
    return statistics.median([late - early for early, late in itertools.pairwise(times)])


def contents(store: Path, folder: str) -> dict[str, str]:
    """Name -> digest of what lies there."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (store / folder).glob("*.parquet")}


if __name__ == "__main__":
    tyro.cli(main)
