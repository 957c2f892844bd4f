"""Parts of benchmarks/gpu_training.py: the scores of two engines, and a bank by the jobs that workers run."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_cases import Bench, Cell, change_recipe, train_models
from benchmarks.gpu_data import read_images
from benchmarks.results_file import spread
from memscore.data.splits import build_examples_table
from memscore.estimators.memorization import memorization
from memscore.pipeline.config import BankConfig
from memscore.pipeline.jobs import BankJob, SharedData, run_job
from memscore.pipeline.runner import prepare_bank
from memscore.pipeline.scoring import score_arm
from memscore.pipeline.train_bank import build_shared_data, choose_models_per_job, split_into_groups
from memscore.store.store import Store
from memscore.training.device_data import EVALUATION_BATCH
from memscore.training.evaluation import build_forward, evaluate_examples

ENGINES = ("captured", "eager")


def scores_cells(bench: Bench) -> Iterator[Cell]:
    """Which examples models of both engines classify correctly; the same subsets and initial weights for both."""
    for first in range(0, 8 if bench.tiny else 64, 4):
        for engine, precision in (("captured", "bfloat16"), ("eager", "float32")):
            yield f"{engine} {first}", partial(train_four, bench, engine, precision, first)


def train_four(bench: Bench, engine: str, precision: str, first: int) -> dict[str, Any]:
    """Members and correct answers of four models, packed bits as text."""
    case = bench.cases["small"]
    recipe, rows = change_recipe(case, precision), []
    groups = [range(first, first + 4)] if engine == "captured" else [[k] for k in range(first, first + 4)]
    for group in groups:
        for run in train_models(bench, case, list(group), engine=engine, recipe=recipe)[0]:
            forward = build_forward(run.model, recipe, case.arch)
            correct = evaluate_examples(forward, bench.images, bench.labels, EVALUATION_BATCH)["correct"]
            rows.append((np.isin(np.arange(case.available), run.rows), correct[: case.available]))
    packed = [[np.packbits(bits).tobytes().hex() for bits in column] for column in zip(*rows, strict=True)]
    return {"examples": case.available, "member": packed[0], "correct": packed[1]}


def unpack_bits(measured: dict[str, Any], engine: str, column: str) -> np.ndarray:
    """Bool [M, N] of one engine."""
    cells = [cell for key, cell in measured.items() if key.startswith(engine)]
    rows = [(np.frombuffer(bytes.fromhex(text), np.uint8), cell["examples"]) for cell in cells for text in cell[column]]
    return np.array([np.unpackbits(row, count=count) for row, count in rows]).astype(bool)


def summarize_scores(measured: dict[str, Any]) -> dict[str, Any]:
    """RMSE of memorization between halves of the models: of one engine, and of two; the subsets are never the same."""
    bits = {
        engine: (unpack_bits(measured, engine, "correct"), unpack_bits(measured, engine, "member"))
        for engine in ENGINES
    }
    count = min(len(correct) for correct, _ in bits.values())
    if count < 4:
        return {"models": count}
    within, between = [], []
    rng = np.random.default_rng(0)
    for _ in range(20):
        halves = np.array_split(rng.permutation(count), 2)
        score = {(e, h): memorization(*(b[half] for b in bits[e])) for e in ENGINES for h, half in enumerate(halves)}
        within += [rmse(score[e, 0], score[e, 1]) for e in ENGINES]
        between += [rmse(score[ENGINES[0], h], score[ENGINES[1], 1 - h]) for h in (0, 1)]
    whole = [memorization(correct[:count], member[:count]) for correct, member in bits.values()]
    return {
        "what": "memorization of two engines: RMSE between halves of the models, means over 20 random halvings",
        "models": count,
        "within_one_engine": float(np.mean(within)),
        "between_engines": float(np.mean(between)),
        "ratio": float(np.mean(between) / np.mean(within)),
        "ratio_of_each_halving": spread([
            b / w for b, w in zip(average_pairs(between), average_pairs(within), strict=True)
        ]),
        "same_subsets_all_models": rmse(*whole),
    }


def average_pairs(values: list[float]) -> list[float]:
    """Means of two and two."""
    return [float(mean) for mean in np.reshape(values, (-1, 2)).mean(1)]


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    """Over the examples that have both."""
    return float(np.sqrt(np.nanmean((one - other) ** 2)))


def bank_cells(bench: Bench, folder: Path, models: int, resume: bool) -> Iterator[Cell]:
    """Jobs of a bank that are still to be done, then its scores; `resume` continues the bank of an earlier command.

    Raises:
        ValueError: there is a bank, and it is not to be continued.
    """
    case, data = bench.cases["imagenet-stem"], folder / f"gpu_padded{'_tiny' if bench.tiny else ''}.npz"
    config = BankConfig(
        data=str(data),
        validation=0.0,
        train_limit=case.available,
        arch=case.arch,
        recipe="rum-memorization",
        precision="bfloat16",
        design="iid",
        keep=0.7,
        models=models,
        originals=0,
        store=str(data.with_suffix(".bank")),
    )
    if bench.tiny:
        config = replace(config, recipe="digits", epochs=1)
    if Path(str(config.store)).exists() and not resume:
        raise ValueError(f"{config.store} is the bank of an earlier command; add --resume, or delete the folder")
    if not data.exists():
        names = ("train_images", "train_labels", "test_images", "test_labels")
        np.savez(data, **dict(zip(names, read_images(bench.file), strict=False)))
    bank = prepare_bank(config)
    bank.store.create_files(build_examples_table(bank.splits))
    arm, store = bank.arms[0], bank.store
    store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared, kind = build_shared_data(bank.splits, None), bench.device.type
    stored = set(store.find_valid_shards(arm.name))
    missing = [index for index in range(models) if index not in stored]
    command = f"command {time.time_ns()}"
    for group in split_into_groups(missing, choose_models_per_job(store, kind), arm.models_per_block):
        job = BankJob(store=store.url, arm=arm.name, models=group, device=kind)
        yield f"{command} models {group[0]}-{group[-1]}", partial(time_job, job, shared)
    yield f"{command} {models} models scored", partial(time_scoring, store, arm.name)


def time_job(job: BankJob, shared: SharedData) -> dict[str, Any]:
    """Run a job as a worker does: seconds, and what its receipts contain."""
    started = time.perf_counter()
    receipts = run_job(job, shared)
    return {
        "wall_s": time.perf_counter() - started,
        "models": len(receipts),
        "engine": receipts[0]["engine"],
        "streams": receipts[0].get("streams"),
        "test_accuracy": [receipt["accuracy"]["test"] for receipt in receipts],
        "diverged": sum(receipt["diverged"] for receipt in receipts),
    }


def time_scoring(store: Store, arm: str) -> dict[str, Any]:
    """Every score of the bank, and how precise memorization is."""
    started = time.perf_counter()
    scores = score_arm(store, arm, store.find_valid_shards(arm))
    seconds = time.perf_counter() - started
    return {"models": scores.models, "seconds": seconds, "rmse": scores.rmse, "scores": scores.names}


def summarize_bank(measured: dict[str, Any]) -> dict[str, Any]:
    """Models an hour over all commands, engines, and the last scoring."""
    jobs = {key: cell for key, cell in measured.items() if not key.endswith("scored")}
    scorings = [cell for key, cell in measured.items() if key.endswith("scored")]
    wall_s, models = sum(cell["wall_s"] for cell in jobs.values()), sum(cell["models"] for cell in jobs.values())
    # the first job of a process also sends the data, times the streams and records the graphs
    first_keys = {next(key for key in jobs if key.split()[1] == command) for command in {k.split()[1] for k in jobs}}
    later = [cell["wall_s"] / cell["models"] for key, cell in jobs.items() if key not in first_keys]
    return {
        "what": "a bank of ResNet-18 (ImageNet stem), keep 0.7, jobs as a worker runs them",
        "models": models,
        "commands": len(first_keys),
        "wall_s": wall_s,
        "models_an_hour": 3600 * models / wall_s if wall_s else None,
        "s_a_model": spread([cell["wall_s"] / cell["models"] for cell in jobs.values()]) if jobs else None,
        "s_a_model_after_the_first_job": spread(later) if later else None,
        "engines": sorted({f"{cell['engine']}, streams {cell['streams']}" for cell in jobs.values()}),
        "diverged": sum(cell["diverged"] for cell in jobs.values()),
        "test_accuracy": spread([a for c in jobs.values() for a in c["test_accuracy"]]) if jobs else None,
        "scored": scorings[-1] if scorings else None,
    }
