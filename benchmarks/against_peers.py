"""Claim: a bank from data to scores beside what else PyPI offers, one core each, whole processes, turn about.

    python -m benchmarks.against_peers --peers PATH_TO_PYTHON [--rounds 5]

Task "digits": 1,200 training examples, MLP 64-128-10, 30 epochs of batch 32, 64 models on random halves. Task
"fashion": Fashion-MNIST, 60,000 training examples, MLP 784-512-256-10, 10 epochs of batch 128, 2 models on random
halves. Everyone gets the same pixels, network, optimizer, epochs and batch, one thread, and has to train, ask every
model about every example, write it down and score. Subsets are uniform halves; every tool draws its own. Seconds are
of the whole process, imports included. `--peers` is the Python of an environment with dattri and sacroml; peers/*.py
are what a user of each tool would write.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.peers.task import Task
from benchmarks.results_file import save, spread
from memscore.data.datasets import load_dataset
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.statistics.correlation import pearson
from memscore.store.store import Store

HERE = Path(__file__).parent / "peers"
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"widths": (128,), "epochs": 30, "batch": 32, "lr": 0.1, "keep": 0.5, "models": 64},
    "fashion": {"widths": (512, 256), "epochs": 10, "batch": 128, "lr": 0.1, "keep": 0.5, "models": 2},
}
DATA = {"digits": "digits", "fashion": "fashion-mnist"}
TOOLS = ("memscore", "plain", "dattri", "sacroml")
SCRIPTS = {"plain": "plain_bank.py", "dattri": "dattri_bank.py", "sacroml": "sacroml_lira.py"}


def main(peers: Path, rounds: int = 5) -> None:
    """Measure.

    Args:
        peers: the Python of an environment that has torch, dattri and sacroml.
        rounds: of every tool and task.
    """
    report: dict[str, Any] = {}
    for task in TASKS:
        runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in TOOLS}
        for number in range(rounds):
            for tool in TOOLS:
                runs[tool].append(one_run(task, tool, peers))
                print(f"{task}, round {number}: {tool} {json.dumps(summary(runs[tool][-1]))}", flush=True)
        report[task] = {tool: compared(found, runs["memscore"]) for tool, found in runs.items()}
    save("against_peers", {"what": "train, query, write, score; one thread, whole processes", "tasks": report})


def one_run(name: str, tool: str, peers: Path) -> dict[str, Any]:
    """Seconds, accuracy and scores of one process, or its last words."""
    with tempfile.TemporaryDirectory() as folder:
        task = written(name, folder)
        command = ours(name, task) if tool == "memscore" else [str(peers), str(HERE / SCRIPTS[tool]), folder]
        started = time.perf_counter()
        one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
        place = None if tool == "memscore" else HERE
        done = subprocess.run(command, capture_output=True, text=True, env=one_thread, cwd=place)
        seconds = time.perf_counter() - started
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        said = read_ours(folder) if tool == "memscore" else json.loads(done.stdout.strip().splitlines()[-1])
        scores = Path(folder) / "memorization.npy"
        kept = np.load(scores, allow_pickle=False) if scores.exists() else None
        return {"seconds": seconds, **said, **({"memorization": kept} if kept is not None else {})}


def written(name: str, folder: str) -> Task:
    """The task and its data file; pixels are normalised as memscore does it."""
    splits = load_dataset(DATA[name], validation=0)
    parts = [splits.train, splits.test]
    raw = np.concatenate([part.images for part in parts]).astype(np.float32) / 255
    mean, std = (np.asarray(each, np.float32).reshape(1, -1, 1, 1) for each in (splits.mean, splits.std))
    pixels = ((raw - mean) / std).reshape(len(raw), -1)
    np.savez(f"{folder}/data.npz", pixels=pixels, labels=np.concatenate([part.labels for part in parts]))
    task = Task(folder=folder, n_train=len(splits.train), **TASKS[name])
    (Path(folder) / "task.json").write_text(json.dumps(asdict(task)))
    return task


def ours(name: str, task: Task) -> list[str]:
    """The command that a user of memscore would type."""
    flags = f"--data {DATA[name]} --validation 0 --arch mlp-{'-'.join(map(str, task.widths))} --epochs {task.epochs} "
    flags += f"--batch {task.batch} --lr {task.lr} --design iid --keep {task.keep} --models {task.models} "
    flags += f"--originals 0 --pool serial --store {task.folder}/store"
    return [sys.executable, "-m", "memscore.estimate", *flags.split()]


def read_ours(folder: str) -> dict[str, Any]:
    """Test accuracy and AUC from the bank, memorization from its scores; not timed."""
    store = Store.open(f"{folder}/store")
    models = pq.read_table(f"{folder}/store/models.parquet").to_pandas()
    table = pq.read_table(f"{folder}/store/scores.parquet").to_pandas()
    np.save(f"{folder}/memorization.npy", table["memorization_k0.500"].to_numpy(np.float64))
    arm = next(iter(store.arms()))
    curves = run_attack(store, arm, sorted(store.find_valid_shards(arm)), ATTACKS["lira"])[1]
    area = curves["lira"].measures["auc"].value  # undefined with two models
    return {"test_accuracy": float(models["accuracy_test"].mean()), "auc": None if np.isnan(area) else area}


def summary(run: dict[str, Any]) -> dict[str, Any]:
    """What fits on a line."""
    return {key: value for key, value in run.items() if key != "memorization"}


def compared(runs: list[dict[str, Any]], own: list[dict[str, Any]]) -> dict[str, Any]:
    """One tool beside ours, round by round."""
    failed = [run["error"] for run in runs if "error" in run]
    if failed:
        return {"error": failed[0], "failed": len(failed), "n": len(runs)}
    found: dict[str, Any] = {
        "seconds": spread([run["seconds"] for run in runs]),
        "over_memscore": spread([run["seconds"] / mine["seconds"] for run, mine in zip(runs, own, strict=True)]),
        "test_accuracy": spread([run["test_accuracy"] for run in runs]),
    }
    if all(run.get("auc") is not None for run in runs):
        found["lira_auc"] = spread([run["auc"] for run in runs])
    if all("memorization" in run for run in (*runs, *own)):
        pairs = zip(runs, own, strict=True)
        found["correlation_with_memscore"] = spread([pearson(a["memorization"], b["memorization"]) for a, b in pairs])
    if "version" in runs[0]:
        found["version"] = runs[0]["version"]
    return found


if __name__ == "__main__":
    tyro.cli(main)
