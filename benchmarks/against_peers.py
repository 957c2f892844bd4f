"""Claim: a bank from data to scores beside what else PyPI offers, one core each, whole processes, turn about.

    python -m benchmarks.against_peers --peers PATH_TO_PYTHON [--rounds 5] [--folder FASHION_MNIST] [--tasks NAME ...]
        [--tools NAME ...]

Task "digits": 1,200 training examples, MLP 64-128-10, 30 epochs of batch 32, 64 models on random halves. Task
"fashion": Fashion-MNIST, 60,000 training examples, MLP 784-512-256-10, 10 epochs of batch 128, 2 models on random
halves. Task "cnn": 4,000 images of Fashion-MNIST, two convolutions of 16 and 32 channels, 10 epochs of batch 64, 8
models on random halves. Everyone gets the same pixels, network, optimizer, epochs and batch, one thread, and has to
train, ask every model about every example, write it down and score. Subsets are uniform halves; every tool draws its
own. Seconds are of the whole process, imports included, by the wall and of the processor. `--peers` is the Python of
an environment with dattri, sacroml and adversarial-robustness-toolbox; peers/*.py are what a user of each tool would
write. Results are written after each round; tasks and tools that are not named keep those of the file, whose ratios
are to memscore in the same rounds.
"""

import json
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import tyro

from benchmarks.peers.task import Task
from benchmarks.results_file import RESULTS, save, spread
from benchmarks.timed_process import run_timed
from memscore.data.datasets import load_dataset
from memscore.pipeline.attack_runs import run_attack
from memscore.pipeline.attacks import ATTACKS
from memscore.statistics.correlation import pearson
from memscore.store.store import Store

HERE = Path(__file__).parent / "peers"
TASKS: dict[str, dict[str, Any]] = {
    "digits": {"layers": "linear", "widths": (128,), "epochs": 30, "batch": 32, "lr": 0.1, "models": 64},
    "fashion": {"layers": "linear", "widths": (512, 256), "epochs": 10, "batch": 128, "lr": 0.1, "models": 2},
    "cnn": {"layers": "convolution", "widths": (16, 32), "epochs": 10, "batch": 64, "lr": 0.05, "models": 8},
}
KEEP = 0.5
SECONDS = ("wall_s", "cpu_s")
DATA = {"digits": "digits", "fashion": "fashion-mnist", "cnn": "fashion-mnist"}
TRAIN_LIMIT = {"cnn": 4000}
NETWORKS = {"linear": "mlp", "convolution": "cnn"}
SCRIPTS = {
    "plain": "plain_bank.py",
    "dattri": "dattri_bank.py",
    "sacroml": "sacroml_lira.py",
    "art": "art_shadow.py",
}


def main(
    peers: Path,
    rounds: int = 5,
    folder: str | None = None,
    tasks: tuple[str, ...] = tuple(TASKS),
    tools: tuple[str, ...] = tuple(SCRIPTS),
) -> None:
    """Measure.

    Args:
        peers: the Python of an environment that has torch, dattri, sacroml and adversarial-robustness-toolbox.
        rounds: of every tool and task.
        folder: of Fashion-MNIST.
        tasks: to measure.
        tools: to measure beside memscore.
    """
    for task in tasks:
        runs: dict[str, list[dict[str, Any]]] = {tool: [] for tool in ("memscore", *tools)}
        for number in range(rounds):
            for tool, found in runs.items():
                found.append(one_run(task, tool, peers, None if task == "digits" else folder))
                print(f"{task}, round {number}: {tool} {json.dumps(summary(found[-1]))}", flush=True)
            save_task(task, {tool: compared(found, runs["memscore"]) for tool, found in runs.items()})


def save_task(name: str, found: dict[str, Any]) -> None:
    """Write the results of one task beside those of the others."""
    path = RESULTS / "against_peers.json"
    earlier = json.loads(path.read_text())["tasks"] if path.exists() else {}
    what = "train, query, write, score; one thread, whole processes"
    save(
        "against_peers",
        {"what": what, "tasks": earlier | {name: earlier.get(name, {}) | found}},
        folder=RESULTS,
        quiet=True,
    )


def one_run(name: str, tool: str, peers: Path, data_folder: str | None) -> dict[str, Any]:
    """Seconds, accuracy and scores of one process, or its last words."""
    with tempfile.TemporaryDirectory() as folder:
        task = written(name, folder, data_folder)
        command = [str(peers), str(HERE / SCRIPTS[tool]), folder] if tool in SCRIPTS else ours(name, task, data_folder)
        done, seconds = run_timed(command, HERE if tool in SCRIPTS else None)
        if done.returncode:
            return {"error": done.stderr.strip().splitlines()[-1]}
        said = read_ours(folder) if tool == "memscore" else json.loads(done.stdout.strip().splitlines()[-1])
        scores = Path(folder) / "memorization.npy"
        kept = np.load(scores, allow_pickle=False) if scores.exists() else None
        return {**seconds, **said, **({"memorization": kept} if kept is not None else {})}


def written(name: str, folder: str, data_folder: str | None) -> Task:
    """The task and its data file; pixels are normalised as memscore does it."""
    splits = load_dataset(DATA[name], validation=0, train_limit=TRAIN_LIMIT.get(name), folder=data_folder)
    parts = [splits.train, splits.test]
    raw = np.concatenate([part.images for part in parts]).astype(np.float32) / 255
    mean, std = (np.asarray(each, np.float32).reshape(1, -1, 1, 1) for each in (splits.mean, splits.std))
    pixels = ((raw - mean) / std).reshape(len(raw), -1)
    np.savez(f"{folder}/data.npz", pixels=pixels, labels=np.concatenate([part.labels for part in parts]))
    task = Task(folder=folder, image=raw.shape[1:], n_train=len(splits.train), keep=KEEP, **TASKS[name])
    (Path(folder) / "task.json").write_text(json.dumps(asdict(task)))
    return task


def ours(name: str, task: Task, data_folder: str | None) -> list[str]:
    """The command that a user of memscore would type."""
    arch = f"{NETWORKS[task.layers]}-{'-'.join(map(str, task.widths))}"
    flags = f"--data {DATA[name]} --validation 0 --arch {arch} --epochs {task.epochs} "
    flags += f"--batch {task.batch} --lr {task.lr} --design iid --keep {task.keep} --models {task.models} "
    flags += f"--originals 0 --pool serial --store {task.folder}/store"
    if name in TRAIN_LIMIT:
        flags += f" --train-limit {TRAIN_LIMIT[name]}"
    if data_folder is not None:
        flags += f" --folder {data_folder}"
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
        "date": datetime.now(UTC).date().isoformat(),
        "torch": version("torch"),
        **{what: spread([run[what] for run in runs]) for what in SECONDS},
        **{
            f"{what}_over_memscore": spread([run[what] / mine[what] for run, mine in zip(runs, own, strict=True)])
            for what in SECONDS
        },
        "test_accuracy": spread([run["test_accuracy"] for run in runs]),
    }
    if all(run.get("auc") is not None for run in runs):
        found["attack_auc"] = spread([run["auc"] for run in runs])
    if all("memorization" in run for run in (*runs, *own)):
        pairs = zip(runs, own, strict=True)
        found["correlation_with_memscore"] = spread([pearson(a["memorization"], b["memorization"]) for a, b in pairs])
    if "version" in runs[0]:
        found["version"] = runs[0]["version"]
    return found


if __name__ == "__main__":
    tyro.cli(main)
