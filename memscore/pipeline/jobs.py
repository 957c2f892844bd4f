"""What a worker runs: train and observe these models, write their shards, return receipts.

A job is a small frozen dataclass; `work(job, shared)` is the one function that pools are handed. Big read-only arrays
come in `shared`. A job skips what the store already holds, so running it twice, or on two workers at once, is harmless.

From a store back to what is trained: an arm, a recipe, a network with its examples, the data on a device.
"""

import logging
import os
import platform
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.architectures import build_network, embed
from memscore.proxies.collectors import ProxyCollector, build_epoch_means
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import write_proxy
from memscore.seeds import generator, torch_seed
from memscore.store.manifest import compute_original_key
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.subsets.designs import draw_membership, parse_arm_record
from memscore.training.augmentation import list_test_time_augmentations, with_augmentation
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.engines import select_engine
from memscore.training.evaluation import build_forward, evaluate_examples, iterate_batches, predict_logits
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, is_finite, limit_gpu_memory, single_threaded
from memscore.training.recipes import Recipe
from memscore.training.recipes import count_steps as steps_of

_log = logging.getLogger(__name__)


def read_recipe(store: Store) -> Recipe:
    """The recipe as it stands in the manifest."""
    fields: dict[str, Any] = store.manifest.recipe
    return Recipe(**fields, source="the store's manifest")


def build_model(store: Store, family: str, index: int, device: torch.device) -> nn.Module:
    """A freshly initialised network: made on the CPU, so the same wherever it is then moved to."""
    manifest = store.manifest
    seed = torch_seed(manifest.seed, "init", family, index)
    return build_network(manifest.architecture, manifest.input_shape, manifest.n_classes, seed).to(device)


def make_training_run(store: Store, family: str, index: int, model: nn.Module, member: np.ndarray) -> TrainingRun:
    """A model with its examples and its streams of chance."""
    seed = store.manifest.seed
    return TrainingRun(
        model=model,
        rows=np.flatnonzero(member),
        order_rng=generator(seed, "batches", family, index),
        augmentation_rng=generator(seed, "augment", family, index),
        architecture=architecture_of(store),
    )


def architecture_of(store: Store) -> str:
    """What `build_model` builds, as one name: the networks of two such names never share storage."""
    manifest = store.manifest
    return f"{manifest.architecture} of {manifest.n_classes} classes on {'x'.join(map(str, manifest.input_shape))}"


_resident: dict[
    tuple[str, str, bool], tuple[DeviceImages, Tensor]
] = {}  # one data set, kept between the jobs of a worker


def load_on_device(
    store: Store, images: np.ndarray, labels: np.ndarray, model: nn.Module, recipe: Recipe, device: torch.device
) -> tuple[DeviceImages, Tensor]:
    """All images and labels, normalised, on the device; kept for the next job of this process."""
    manifest, flat = store.manifest, is_stackable(model, recipe)
    place = (manifest.digest, str(device), flat)
    if place not in _resident:
        _resident.clear()
        truth = torch.from_numpy(np.array(labels)).to(device)
        _resident[place] = (to_device(images, manifest.mean, manifest.std, device, flat=flat), truth)
    return _resident[place]


ORIGINAL, ORACLE = "original", "oracle"
DIVERGED = {"kind": "diverged", "error": "its weights or logits are not finite numbers"}


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedData:
    """What every job reads and none changes: all images and labels, rows = train, validation, test.

    Attributes:
        images: uint8 [N, C, H, W].
        labels: int64 [N], as trained.
        clusters: int32 [n_train], where an arm needs them.
    """

    images: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class BankJob:
    """Train these models of one arm, as one stack where the architecture allows, or several at once on a GPU.

    Attributes:
        store: path or URL.
        arm: its name in the store.
        models: indices within the arm.
        events: also keep learning events of the members.
        device: "cpu" or "cuda".
    """

    store: str
    arm: str
    models: tuple[int, ...]
    events: bool = False
    device: str = "cpu"

    def split(self) -> list["BankJob"]:
        """One job for each model, for the pool to find the one that kills its workers."""
        return [replace(self, models=(model,)) for model in self.models]


@dataclass(frozen=True, kw_only=True)
class OriginalJob:
    """Train one model on everything but the removed rows: an original if nothing is removed, else an oracle.

    Attributes:
        store: path or URL.
        index: which one, counted from 0; an oracle has the index of the original it is paired with.
        removed: rows of the training set that it must not see, sorted.
        evaluate: also count learning events in an evaluation pass after every epoch.
        proxies: names of those in proxies.table.PROXIES that are also taken while it trains.
        device: "cpu" or "cuda".
    """

    store: str
    index: int
    removed: tuple[int, ...] = ()
    evaluate: bool = False
    proxies: tuple[str, ...] = ()
    device: str = "cpu"


Receipt = dict[str, Any]


def run_job(job: BankJob | OriginalJob, shared: SharedData) -> list[Receipt]:
    """Do one job.

    Args:
        job: what to train.
        shared: the data.

    Returns:
        A receipt for each model that the job trained; `diverged` marks the one whose weights or outputs are not finite.
    """
    store, device = open_visible_store(job.store), torch.device(job.device)
    limit_gpu_memory(device)
    with single_threaded(), float32_matmul(device) as arithmetic:
        facts = describe_worker(device, arithmetic)
        if isinstance(job, BankJob):
            return train_subset_models(job, shared, store, device, facts)
        return train_original(job, shared, store, device, facts)


def train_subset_models(
    job: BankJob, shared: SharedData, store: Store, device: torch.device, facts: Receipt
) -> list[Receipt]:
    """Train, observe and publish the models of the job that the store lacks."""
    record, manifest, recipe = store.arms()[job.arm], store.manifest, read_recipe(store)
    arm, queries = parse_arm_record(record), list_test_time_augmentations(recipe, record.get("queries", 1))
    n_train = manifest.split_sizes[0]
    missing = [m for m in job.models if not is_there(store, job, m)]
    if not missing:
        return []
    started = time.perf_counter()
    member = draw_membership(arm, missing, n_train, shared.clusters, seed=manifest.seed)
    models = [build_model(store, arm.name, m, device) for m in missing]
    data, labels = load_on_device(store, shared.images, shared.labels, models[0], recipe, device)
    events = LearningEvents.zeros(len(missing), n_train, device) if job.events else None
    steps = steps_of(recipe, arm.keep, n_train)
    assignments = [make_training_run(store, arm.name, *own) for own in zip(missing, models, member, strict=True)]
    way = select_engine(assignments, data, labels, recipe)
    for k in range(0, len(missing), way.models_per_call):
        part = assignments[k : k + way.models_per_call]
        counted = events.select_models(k, len(part)) if events else None
        train(part, data, labels, recipe, steps, events=counted, engine=way.engine(part))
    if device.type == "cuda":
        torch.cuda.synchronize(device)  # else the first evaluation would be charged with the training
    trained_s = (time.perf_counter() - started) / len(missing)
    receipts = []
    for k, (index, model, inside) in enumerate(zip(missing, models, member, strict=True)):
        observed = time.perf_counter()
        logits_of = build_forward(model, recipe, architecture_of(store))
        said = evaluate_examples(logits_of, data, labels)
        for number, query in enumerate(queries[1:], start=1):
            more = evaluate_examples(with_augmentation(logits_of, query, data.black), data, labels)
            said |= {f"{column}_q{number}": more[column] for column in ("logit_confidence", "gap", "top_gap")}
        name = format_model_name(arm.name, index)
        receipt = receipt_of(store, name, model, said, inside) | facts | way.receipt_fields
        receipt["seconds"] = trained_s + time.perf_counter() - observed
        if events is not None and not receipt["diverged"]:
            store.write_events(name, {"row": np.arange(n_train, dtype=np.int32), **events.compute_averages(k)})
        publish(store, name, arm.name, said, inside, receipt)
        receipts.append(receipt)
    return receipts


def publish(
    store: Store, name: str, arm: str, said: dict[str, np.ndarray], inside: np.ndarray, receipt: Receipt
) -> None:
    """Write the shard of a model, or its tombstone if its numbers are not finite."""
    store.write_receipt(name, receipt)  # first: a worker killed in between leaves no shard without its receipt
    if receipt["diverged"]:
        store.write_failure(name, DIVERGED)
        return
    member = np.zeros(store.manifest.n_rows, dtype=bool)
    member[: len(inside)] = inside
    store.write_shard(name, arm, {"row": np.arange(len(member), dtype=np.int32), "member": member, **said})
    store.clear_failure(name)


def train_original(
    job: OriginalJob, shared: SharedData, store: Store, device: torch.device, facts: Receipt
) -> list[Receipt]:
    """Train one original or oracle; keep its weights, outputs, embeddings, learning events and proxies."""
    recipe, n_train = read_recipe(store), store.manifest.split_sizes[0]
    key, architecture = compute_job_key(store, job), architecture_of(store)
    if is_original_stored(store, key, evaluate=job.evaluate, proxies=job.proxies):
        return []
    started = time.perf_counter()
    model = build_model(store, ORIGINAL, job.index, device)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, device)
    inside = np.ones(n_train, dtype=bool)
    inside[list(job.removed)] = False
    events, evaluated = (LearningEvents.zeros(1, n_train, device) for _ in range(2))
    rows = torch.arange(n_train, device=device)[None]
    steps = steps_of(recipe, float(inside.mean()), n_train)
    missing = [name for name in job.proxies if not store.has_events(f"{key}-{name}")]
    collecting = ProxyCollector(
        build_epoch_means(
            *(missing, model, data, labels[:n_train], recipe, steps),
            lambda name: generator(store.manifest.seed, "proxies", name, job.index),
        ),
        device,
    )

    def at_epoch(epoch: int) -> None:
        collecting(epoch)
        if job.evaluate:
            said = predict_logits(model, recipe, data, n_train, architecture)
            evaluated.add(rows, said[None], labels[rows], torch.ones_like(rows, dtype=torch.bool))

    alone = [make_training_run(store, ORIGINAL, job.index, model, inside)]
    way = select_engine(alone, data, labels, recipe)
    began = time.perf_counter()
    train(
        alone,
        data,
        labels,
        recipe,
        steps,
        events=events,
        on_epoch_end=at_epoch if job.evaluate or missing else None,
        engine=way.engine(alone),
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    trained_s = time.perf_counter() - began - sum(collecting.seconds.values())
    said = evaluate_examples(build_forward(model, recipe, architecture), data, labels)
    name = format_original_name(job, key)
    receipt = receipt_of(store, name, model, said, inside) | facts | way.receipt_fields
    receipt |= {"key": key, "removed": len(job.removed), "train_s": trained_s}
    receipt["seconds"] = time.perf_counter() - started - sum(collecting.seconds.values())
    receipt["differs"] = differs(store, key, model)
    store.write_receipt(name, receipt)
    if receipt["diverged"]:
        store.write_failure(name, DIVERGED)
        return [receipt]
    row = np.arange(n_train, dtype=np.int32)
    for proxy, taker in collecting.epoch_means.items():
        columns = {"row": row, PROXIES[proxy].scores[0]: taker.mean()}
        write_proxy(store, key, proxy, columns, collecting.seconds[proxy], {"proxy": proxy, "original": name} | facts)
    store.write_events(key, {"row": row, **events.compute_averages(0)})
    if job.evaluate:
        store.write_events(f"{key}-evaluation", {"row": row, **evaluated.compute_averages(0)})
    store.write_weights(key, model.state_dict())
    logits = predict_logits(model, recipe, data, len(labels), architecture).cpu().numpy()
    with torch.no_grad():
        embeddings = (
            torch.cat([embed(model, part).float() for part in iterate_batches(data, len(labels))]).cpu().numpy()
        )
    store.write_outputs(key, logits, embeddings)
    store.clear_failure(name)
    return [receipt]


def compute_job_key(store: Store, job: OriginalJob) -> str:
    """The key under which an original or oracle is kept."""
    ids = store.examples()["id"].take(np.asarray(job.removed, dtype=np.int64)).to_pylist()
    return compute_original_key(store.manifest, removed=ids, index=job.index)


def format_original_name(job: OriginalJob, key: str) -> str:
    """What the receipt and the failure of an original are called, or of an oracle, which many forget sets have."""
    return f"{ORACLE}-{key[:16]}" if job.removed else format_model_name(ORIGINAL, job.index)


def is_original_stored(store: Store, key: str, *, evaluate: bool, proxies: Sequence[str] = ()) -> bool:
    """Whether weights, outputs, and the wanted learning events and proxies are all in the store."""
    endings = ["", *(["-evaluation"] if evaluate else []), *(f"-{name}" for name in proxies)]
    return store.has_weights(key) and store.has_outputs(key) and all(store.has_events(key + end) for end in endings)


def differs(store: Store, key: str, model: nn.Module) -> bool:
    """Whether an original that was trained again is another than the one on file: another kind of CPU, or a GPU."""
    if not store.has_weights(key):
        return False
    kept, now = store.read_weights(key), model.state_dict()
    return not all(torch.equal(kept[name], value.cpu()) for name, value in now.items())


def is_there(store: Store, job: BankJob, index: int) -> bool:
    """Whether a model's shard, and its events if they are wanted, are in the store."""
    name = format_model_name(job.arm, index)
    return store.has_shard(name) and (not job.events or store.has_events(name))


def receipt_of(store: Store, name: str, model: nn.Module, said: dict[str, np.ndarray], inside: np.ndarray) -> Receipt:
    """Accuracies of one model, null over no examples, and whether its numbers are all finite."""
    train, validation, _ = store.manifest.split_sizes
    correct = said["correct"]
    groups = {
        "members": correct[:train][inside],
        "left_out": correct[:train][~inside],
        "validation": correct[train : train + validation],
        "test": correct[train + validation :],
    }
    finite = is_finite(model) and all(bool(np.isfinite(column).all()) for column in said.values())
    return {
        "model": name,
        "n_members": int(inside.sum()),
        "accuracy": {group: float(right.mean()) if len(right) else None for group, right in groups.items()},
        "diverged": not finite,
    }


def describe_worker(device: torch.device, arithmetic: str) -> dict[str, Any]:
    """Who did it, with what: not part of any identity."""
    return {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "matmul": arithmetic,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
