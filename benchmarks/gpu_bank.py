"""Parts of benchmarks/gpu_training.py: the scores of two engines, and a bank by the jobs that workers run."""

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_cases import Bench, Step, padded, train_models, with_precision
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

TWO = ("captured", "eager")


def scores_steps(bench: Bench) -> Iterator[Step]:
    """What models of both engines answer right; the same subsets and initial weights for both."""
    for first in range(0, 8 if bench.tiny else 64, 4):
        for engine, precision in (("captured", "bfloat16"), ("eager", "float32")):
            yield f"{engine} {first}", partial(four_models, bench, engine, precision, first)


def four_models(bench: Bench, engine: str, precision: str, first: int) -> dict[str, Any]:
    """Members and correct answers of four models, packed bits as text."""
    case = bench.cases["small"]
    recipe, rows = with_precision(case, precision), []
    groups = [range(first, first + 4)] if engine == "captured" else [[k] for k in range(first, first + 4)]
    for group in groups:
        for own in train_models(bench, case, list(group), engine=engine, recipe=recipe)[0]:
            forward = build_forward(own.model, recipe, case.arch)
            correct = evaluate_examples(forward, bench.images, bench.labels, EVALUATION_BATCH)["correct"]
            rows.append((np.isin(np.arange(case.available), own.rows), correct[: case.available]))
    packed = [[np.packbits(bits).tobytes().hex() for bits in column] for column in zip(*rows, strict=True)]
    return {"examples": case.available, "member": packed[0], "correct": packed[1]}


def unpacked(found: dict[str, Any], engine: str, column: str) -> np.ndarray:
    """Bool [M, N] of one engine."""
    cells = [cell for key, cell in found.items() if key.startswith(engine)]
    rows = [(np.frombuffer(bytes.fromhex(text), np.uint8), cell["examples"]) for cell in cells for text in cell[column]]
    return np.array([np.unpackbits(row, count=count) for row, count in rows]).astype(bool)


def scores_summary(found: dict[str, Any]) -> dict[str, Any]:
    """RMSE of memorization between halves of the models: of one engine, and of two; the subsets are never the same."""
    bits = {engine: (unpacked(found, engine, "correct"), unpacked(found, engine, "member")) for engine in TWO}
    count = min(len(correct) for correct, _ in bits.values())
    if count < 4:
        return {"models": count}
    within, between = [], []
    rng = np.random.default_rng(0)
    for _ in range(20):
        halves = np.array_split(rng.permutation(count), 2)
        score = {(e, h): memorization(*(b[half] for b in bits[e])) for e in TWO for h, half in enumerate(halves)}
        within += [rmse(score[e, 0], score[e, 1]) for e in TWO]
        between += [rmse(score[TWO[0], h], score[TWO[1], 1 - h]) for h in (0, 1)]
    whole = [memorization(correct[:count], member[:count]) for correct, member in bits.values()]
    return {
        "what": "memorization of two engines: RMSE between halves of the models, means over 20 random halvings",
        "models": count,
        "within_one_engine": float(np.mean(within)),
        "between_engines": float(np.mean(between)),
        "ratio": float(np.mean(between) / np.mean(within)),
        "ratio_of_each_halving": spread([b / w for b, w in zip(in_pairs(between), in_pairs(within), strict=True)]),
        "same_subsets_all_models": rmse(*whole),
    }


def in_pairs(values: list[float]) -> list[float]:
    """Means of two and two."""
    return [float(mean) for mean in np.reshape(values, (-1, 2)).mean(1)]


def rmse(one: np.ndarray, other: np.ndarray) -> float:
    """Over the examples that have both."""
    return float(np.sqrt(np.nanmean((one - other) ** 2)))


def bank_steps(bench: Bench, folder: Path, models: int) -> Iterator[Step]:
    """Jobs of a bank that are not done, then its scores; each command of the same bank goes on."""
    case, data = bench.cases["imagenet-stem"], folder / f"gpu_padded{'_tiny' if bench.tiny else ''}.npz"
    if not data.exists():
        arrays = padded(bench.file)
        np.savez(data, **dict(zip(("train_images", "train_labels", "test_images", "test_labels"), arrays, strict=True)))
    plan = BankConfig(
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
        plan = replace(plan, recipe="digits", epochs=1)
    bank = prepare_bank(plan)
    bank.store.create_files(build_examples_table(bank.splits))
    arm, store = bank.arms[0], bank.store
    store.add_arm({"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None})
    shared, kind = build_shared_data(bank.splits, None), bench.device.type
    there = set(store.find_valid_shards(arm.name))
    missing = [index for index in range(models) if index not in there]
    command = f"command {time.time_ns()}"
    for group in split_into_groups(missing, choose_models_per_job(store, kind), arm.models_per_block):
        job = BankJob(store=store.url, arm=arm.name, models=group, device=kind)
        yield f"{command} models {group[0]}-{group[-1]}", partial(worked, job, shared)
    yield f"{models} models scored", partial(scored, store, arm.name)


def worked(job: BankJob, shared: SharedData) -> dict[str, Any]:
    """A job as a worker does it: how long it took, and what its receipts say."""
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


def scored(store: Store, arm: str) -> dict[str, Any]:
    """Every score of the bank, and how precise memorization is."""
    started = time.perf_counter()
    scores = score_arm(store, arm, store.find_valid_shards(arm))
    seconds = time.perf_counter() - started
    return {"models": scores.models, "seconds": seconds, "rmse": scores.rmse, "scores": scores.names}


def bank_summary(found: dict[str, Any]) -> dict[str, Any]:
    """Models an hour over all commands, engines, and the last scoring."""
    jobs = {key: cell for key, cell in found.items() if key.startswith("command")}
    scorings = [cell for key, cell in found.items() if key.endswith("scored")]
    wall_s, models = sum(cell["wall_s"] for cell in jobs.values()), sum(cell["models"] for cell in jobs.values())
    return {
        "what": "a bank of ResNet-18 (ImageNet stem) on Fashion-MNIST 3x32x32, keep 0.7, jobs as a worker does them",
        "models": models,
        "commands": len({" ".join(key.split()[:2]) for key in jobs}),
        "wall_s": wall_s,
        "models_an_hour": 3600 * models / wall_s if wall_s else None,
        "s_a_model": spread([c["wall_s"] / c["models"] for c in jobs.values()]) if jobs else None,
        "engines": sorted({f"{cell['engine']}, streams {cell['streams']}" for cell in jobs.values()}),
        "diverged": sum(cell["diverged"] for cell in jobs.values()),
        "test_accuracy": spread([a for c in jobs.values() for a in c["test_accuracy"]]) if jobs else None,
        "scored": scorings[-1] if scorings else None,
    }
