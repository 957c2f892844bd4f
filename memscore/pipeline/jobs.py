"""Jobs that workers run: train and evaluate models, write their shards, return receipts.

A job is a small frozen dataclass; `run_job(job, shared)` is the function that pools run. Large read-only arrays are in
`shared`. A job skips models that are stored, so running it twice, or on two workers at once, is harmless.

The functions before the jobs build what a job trains from a store: recipe, network, training run, data on the device.
"""

import os
import platform
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from memscore.models.compiled_convolutions import compile_convolutions
from memscore.models.random_state import seed_generators
from memscore.pipeline.background_writer import BackgroundWriter
from memscore.pipeline.start_weights import build_started_network, load_start_weights, load_weights
from memscore.proxies.collectors import ProxyCollector, build_epoch_means
from memscore.proxies.registry import PROXIES
from memscore.proxies.storage import write_proxy
from memscore.seeds import generator, torch_seed
from memscore.store.example_ids import read_example_ids
from memscore.store.manifest import compute_original_key
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.subsets.designs import draw_membership, parse_arm_record
from memscore.training.augmentation import TestTimeAugmentation, list_test_time_augmentations, with_augmentation
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.device_timer import DeviceTimer
from memscore.training.engines import clear_engine_cache, select_engine
from memscore.training.evaluation import (
    build_forward,
    choose_evaluation_batch,
    evaluate_examples,
    predict_embeddings,
    predict_logits,
)
from memscore.training.learning_events import LearningEvents
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, is_finite, open_device, single_threaded
from memscore.training.precision import require_trainable
from memscore.training.recipes import Recipe, count_steps

ORIGINAL, ORACLE = "original", "oracle"
EVENTS, EVALUATION = "events", "evaluation"
# failure record of a model one of whose weights, running statistics or predictions is not finite (see build_receipt)
DIVERGED = {"kind": "diverged", "error": "its weights or logits are not finite numbers"}

Receipt = dict[str, Any]


def read_recipe(store: Store) -> Recipe:
    """Read the recipe from the manifest."""
    fields: dict[str, Any] = store.manifest.recipe
    try:
        return Recipe(**fields, source="the store's manifest")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{store.folder.display_path('manifest.json')} holds a recipe that memscore cannot follow: {error}; use "
            "the version that wrote it, or another store"
        ) from None


def build_model(store: Store, arm: str, index: int, device: torch.device, *, in_thread: bool = False) -> nn.Module:
    """Build the initialized network of a model of an arm or of ORIGINAL on the device."""
    # on the CPU first: its random numbers are the same whatever the device
    manifest = store.manifest
    seed = torch_seed(manifest.seed, "init", arm, index)
    sizes = manifest.input_shape, manifest.n_classes
    load_start_weights(store)
    return build_started_network(manifest.architecture, *sizes, seed, in_thread=in_thread).to(device)


def make_training_run(store: Store, arm: str, index: int, model: nn.Module, member: np.ndarray) -> TrainingRun:
    """Make the training run of a model of an arm, or of ORIGINAL: its examples and its random streams."""
    seed = store.manifest.seed
    return TrainingRun(
        model=model,
        rows=np.flatnonzero(member),
        order_rng=generator(seed, "batches", arm, index),
        augmentation_rng=generator(seed, "augment", arm, index),
        architecture=describe_architecture(store),
        network_seed=torch_seed(seed, "network", arm, index),
    )


def describe_architecture(store: Store) -> str:
    """Name what `build_model` builds, to reuse engines by; networks of two names share no storage."""
    manifest = store.manifest
    return f"{manifest.architecture} of {manifest.n_classes} classes on {'x'.join(map(str, manifest.input_shape))}"


def derive_evaluation_seed(store: Store, arm: str, index: int, data: DeviceImages) -> int | None:
    """Derive the seed of what a network draws in an evaluation; None for networks that stack, which draw nothing."""
    return None if data.flat else torch_seed(store.manifest.seed, "evaluation", arm, index)


# one data set, cached between the jobs of a worker, by manifest, device and layout
_device_cache: dict[tuple[str, str, bool], tuple[DeviceImages, Tensor]] = {}


def load_on_device(
    store: Store, images: np.ndarray, labels: np.ndarray, model: nn.Module, recipe: Recipe, device: torch.device
) -> tuple[DeviceImages, Tensor]:
    """Load all images and labels, normalized, on the device; cache them for the next job."""
    manifest, flatten = store.manifest, is_stackable(model, recipe)
    cache_key = (manifest.digest, str(device), flatten)
    if cache_key not in _device_cache:
        # before the next one is loaded: a GPU may not hold two, and engines hold the images that they read
        _device_cache.clear()
        clear_engine_cache()
        # a copy, since arrays that a pool shares are read-only, which torch warns of
        label_tensor = torch.from_numpy(np.array(labels)).to(device)
        _device_cache[cache_key] = (to_device(images, manifest.mean, manifest.std, device, flat=flatten), label_tensor)
    return _device_cache[cache_key]


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedData:
    """Data that every job reads and none changes: train, validation and test, in this order.

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
    """Train some models of one arm: as one stack if possible, or several at once on a GPU.

    Attributes:
        store: path or URL.
        arm: its name in the store.
        models: indices within the arm.
        events: also store learning events of the members.
        device: "cpu" or "cuda".
    """

    store: str
    arm: str
    models: tuple[int, ...]
    events: bool = False
    device: str = "cpu"

    def split(self) -> list["BankJob"]:
        """Split into one job per model, so that the pool can find the model that kills its workers."""
        return [replace(self, models=(model,)) for model in self.models]


@dataclass(frozen=True, kw_only=True)
class OriginalJob:
    """Train one model without the removed rows: an original if none are removed, else an oracle.

    Attributes:
        store: path or URL.
        index: counted from 0; an oracle has the index of the original that it is paired with.
        removed: rows of the training set that it is not trained on, sorted.
        evaluate: also count learning events in an evaluation pass after every epoch.
        proxies: names in proxies.registry.PROXIES that are also computed while it trains.
        device: "cpu" or "cuda".
    """

    store: str
    index: int
    removed: tuple[int, ...] = ()
    evaluate: bool = False
    proxies: tuple[str, ...] = ()
    device: str = "cpu"


def run_job(job: BankJob | OriginalJob, shared: SharedData) -> list[Receipt]:
    """Train the missing models of a job and store their results; return a receipt for each.

    In a receipt `diverged` is true if the weights or the outputs of the model are not finite.
    """
    store, device = open_visible_store(job.store), open_device(job.device)
    require_trainable(store.manifest, job.device)
    with single_threaded(), float32_matmul(device, store.manifest.precision) as arithmetic:
        facts = describe_worker(device, arithmetic)
        if isinstance(job, BankJob):
            return train_subset_models(job, shared, store, device, facts)
        return train_original(job, shared, store, device, facts)


def train_subset_models(
    job: BankJob, shared: SharedData, store: Store, device: torch.device, facts: Receipt, *, overlap: bool | None = None
) -> list[Receipt]:
    """Train, evaluate and store the missing models of a job, as many at once as the engine takes.

    With `overlap` (None: on a GPU, which would be idle meanwhile) the next models are built, and the results of the
    last one written, in threads beside the training. A CPU's worker has one core.
    """
    record, manifest, recipe = store.arms()[job.arm], store.manifest, read_recipe(store)
    arm, queries = parse_arm_record(record), list_test_time_augmentations(recipe, record.get("queries", 1))
    n_train = manifest.split_sizes[0]
    missing = [m for m in job.models if not is_model_stored(store, job, m)]
    if not missing:
        return []
    # 1. Build the first model, and select the engine by it: the models of a job differ in weights and streams only.
    # Which of them are missing changes none: memberships, weights and random streams depend on the arm and on a model's
    # index alone.
    started = time.perf_counter()
    memberships = draw_membership(arm, missing, n_train, shared.clusters, seed=manifest.seed)
    member = dict(zip(missing, memberships, strict=True))
    steps = count_steps(recipe, arm.keep, n_train)

    def build_runs(indices: Sequence[int], *, in_thread: bool = False) -> dict[int, TrainingRun]:
        models = {m: build_model(store, arm.name, m, torch.device("cpu"), in_thread=in_thread) for m in indices}
        return {m: make_training_run(store, arm.name, m, model, member[m]) for m, model in models.items()}

    runs = build_runs(missing[:1])
    first = runs[missing[0]]
    first.model.to(device)
    data, labels = load_on_device(store, shared.images, shared.labels, first.model, recipe, device)
    started += compile_convolutions(first.model, manifest.input_shape)  # of the process, not of its first model
    choice = select_engine([first] * len(missing), data, labels, recipe)
    size = choice.models_per_call
    runs |= build_runs(missing[1:size])
    receipts = []
    overlap = device.type == "cuda" if overlap is None else overlap
    with ThreadPoolExecutor(2) if overlap else nullcontext() as threads, BackgroundWriter(threads) as writer:
        for start in range(0, len(missing), size):
            # 2. Train a group, while the next is built. A user's network is built afterwards: it may draw from any
            # generator of the process.
            for run in runs.values():
                run.model.to(device)
            engine = choice.engine([*runs.values()])
            build_next: Callable[[], dict[int, TrainingRun]]
            build_next = partial(build_runs, missing[start + size : start + 2 * size])
            if threads is not None and ":" not in manifest.architecture:
                build_next = threads.submit(build_next, in_thread=True).result
            events = LearningEvents.zeros(len(runs), n_train, device) if job.events else None
            train([*runs.values()], data, labels, recipe, steps, events=events, engine=engine)
            # 3. Charge each model of the group an equal part of the time, since models of a stack are not trained one
            # by one. Without the wait for the GPU the training would count into the time of the first evaluation.
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            trained_s = (time.perf_counter() - started) / len(runs)
            # 4. Evaluate each model, and store it at once: if the worker is killed, the models before are kept.
            for k, (index, run) in enumerate(runs.items()):
                evaluation_started, name = time.perf_counter(), format_model_name(arm.name, index)
                seed = derive_evaluation_seed(store, arm.name, index, data)
                predictions = evaluate_queries(run, recipe, queries, data, labels, seed)
                receipt = build_receipt(store, name, run.model, predictions, member[index])
                receipt |= facts | choice.describe_model(start + k, len(missing))
                receipt["seconds"] = trained_s + time.perf_counter() - evaluation_started
                averages = events.compute_averages(k) if events is not None and not receipt["diverged"] else None
                writer.run(partial(write_results, store, name, arm.name, predictions, member[index], receipt, averages))
                receipts.append(receipt)
            started = time.perf_counter()
            runs = build_next()
    return receipts


def evaluate_queries(
    run: TrainingRun,
    recipe: Recipe,
    queries: Sequence[TestTimeAugmentation],
    data: DeviceImages,
    labels: Tensor,
    seed: int | None,
) -> dict[str, np.ndarray]:
    """Evaluate a model on all examples: evaluate_examples's columns, and those of further queries as name_q1, ..."""
    forward = build_forward(run.model, recipe, run.architecture)
    batch = choose_evaluation_batch(run.model, labels.device)
    predictions = evaluate_examples(forward, data, labels, batch, seed=seed)
    for number, query in enumerate(queries[1:], start=1):
        augmented = evaluate_examples(with_augmentation(forward, query, data.black), data, labels, batch, seed=seed)
        predictions |= {f"{name}_q{number}": augmented[name] for name in ("logit_confidence", "gap", "top_gap")}
    return predictions


def write_results(
    store: Store,
    name: str,
    arm: str,
    predictions: dict[str, np.ndarray],
    is_member: np.ndarray,
    receipt: Receipt,
    events: dict[str, np.ndarray] | None,
) -> None:
    """Write the learning events and the receipt of a model, then its shard, or its failure record if it diverged."""
    if events is not None:
        store.write_events(name, {"row": np.arange(len(is_member), dtype=np.int32), **events})
    # the receipt first: a worker killed in between leaves no shard without its receipt
    store.write_receipt(name, receipt)
    if receipt["diverged"]:
        store.write_failure(name, DIVERGED)
        return
    # rows of a shard are train, validation and test; no model is trained on the latter two
    member = np.zeros(store.manifest.n_rows, dtype=bool)
    member[: len(is_member)] = is_member
    store.write_shard(name, arm, {"row": np.arange(len(member), dtype=np.int32), "member": member, **predictions})
    store.clear_failure(name)


def train_original(
    job: OriginalJob, shared: SharedData, store: Store, device: torch.device, facts: Receipt
) -> list[Receipt]:
    """Train one original or oracle; store weights, outputs, learning events and proxies."""
    recipe, n_train = read_recipe(store), store.manifest.split_sizes[0]
    key, architecture = compute_job_key(store, job), describe_architecture(store)
    if is_original_stored(store, key, evaluate=job.evaluate, proxies=job.proxies):
        return []
    # 1. Build the model. An oracle has the initial weights and the random streams of its original.
    started = time.perf_counter()
    model = build_model(store, ORIGINAL, job.index, device)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, device)
    started += compile_convolutions(model, store.manifest.input_shape)
    is_member = np.ones(n_train, dtype=bool)
    is_member[list(job.removed)] = False
    # 2. Prepare what is computed during training: learning events of the training visits, those of evaluation passes,
    # and the proxies that are not stored yet. `added` are those of them that this training will store.
    events, evaluated = (LearningEvents.zeros(1, n_train, device) for _ in range(2))
    event_timer, evaluation_timer = (DeviceTimer(device) for _ in range(2))
    rows = torch.arange(n_train, device=device)[None]
    steps = count_steps(recipe, float(is_member.mean()), n_train)
    requested = [EVENTS, *([EVALUATION] if job.evaluate else []), *job.proxies]
    added = [name for name in requested if not store.has_events(key if name == EVENTS else f"{key}-{name}")]
    missing = [name for name in added if name in job.proxies]
    collecting = ProxyCollector(
        build_epoch_means(
            *(missing, model, data, labels[:n_train], recipe, steps),
            lambda name: generator(store.manifest.seed, "proxies", name, job.index),
        ),
        device,
        seed := derive_evaluation_seed(store, ORIGINAL, job.index, data),
    )

    def on_epoch_end(epoch: int) -> None:
        collecting(epoch)
        # every example counts once per epoch, also a removed one, which training visits never see
        if job.evaluate:
            with evaluation_timer.measure():
                logits = predict_logits(model, recipe, data, n_train, architecture, seed)
                evaluated.add(rows, logits[None], labels[rows], torch.ones_like(rows, dtype=torch.bool))

    # 3. Train. Seconds of proxies are charged to their own receipts, not to the original.
    runs = [make_training_run(store, ORIGINAL, job.index, model, is_member)]
    choice = select_engine(runs, data, labels, recipe)
    training_started = time.perf_counter()
    train(
        runs,
        data,
        labels,
        recipe,
        steps,
        events=events,
        event_timer=event_timer,
        on_epoch_end=on_epoch_end if job.evaluate or missing else None,
        engine=choice.engine(runs),
    )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    trained_s = time.perf_counter() - training_started - sum(collecting.seconds.values())
    # 4. Evaluate, and write the receipt before anything that it describes. `differs` compares with the weights of an
    # earlier run: an original that is trained again for a proxy keeps its stored files, whatever it is now. What this
    # training adds is then of other weights than the stored ones, and stays named as `differing` until stored anew.
    forward, batch = build_forward(model, recipe, architecture), choose_evaluation_batch(model, device)
    predictions = evaluate_examples(forward, data, labels, batch, seed=seed)
    name = format_original_name(job, key)
    receipt = build_receipt(store, name, model, predictions, is_member) | facts | choice.describe_model(0, 1)
    receipt |= {"key": key, "removed": len(job.removed), "train_s": trained_s}
    # parts of the training's seconds, not beside them
    receipt["events_s"] = event_timer.sum_seconds()
    if job.evaluate:
        receipt["evaluation_events_s"] = evaluation_timer.sum_seconds()
    receipt["seconds"] = time.perf_counter() - started - sum(collecting.seconds.values())
    receipt["differs"] = has_other_weights(store, key, model)
    differing = set((store.read_receipt(name) or {}).get("differing", ())) - {*added}
    differing |= {*added} if receipt["differs"] else set()
    if differing:
        receipt["differing"] = sorted(differing)
    store.write_receipt(name, receipt)
    if receipt["diverged"]:
        store.write_failure(name, DIVERGED)
        return [receipt]
    # 5. Store the results. The original counts as stored once all of these files exist (is_original_stored), so one
    # whose worker is killed in between is trained again. The weights come first: whatever a later training adds is
    # compared with them, and the outputs are always theirs.
    store.write_weights(key, model.state_dict())
    row = np.arange(n_train, dtype=np.int32)
    for proxy, taker in collecting.epoch_means.items():
        columns = {"row": row, PROXIES[proxy].scores[0]: taker.mean()}
        write_proxy(store, key, proxy, columns, collecting.seconds[proxy], {"proxy": proxy, "original": name} | facts)
    store.write_events(key, {"row": row, **events.compute_averages(0)})
    if job.evaluate:
        store.write_events(f"{key}-evaluation", {"row": row, **evaluated.compute_averages(0)})
    if receipt["differs"]:
        load_weights(model, store.read_weights(key), f"the stored weights of {name}")
    logits = predict_logits(model, recipe, data, len(labels), architecture, seed).cpu().numpy()
    with seed_generators(seed, device):
        embeddings = predict_embeddings(model, data, len(labels)).cpu().numpy()
    store.write_outputs(key, logits, embeddings)
    store.clear_failure(name)
    return [receipt]


def compute_job_key(store: Store, job: OriginalJob) -> str:
    """Compute the key under which an original or oracle is stored."""
    ids = read_example_ids(store).take(np.asarray(job.removed, dtype=np.int64)).to_pylist()
    return compute_original_key(store.manifest, removed=ids, index=job.index)


def format_original_name(job: OriginalJob, key: str) -> str:
    """Return the name of the receipt and failure record of an original or oracle."""
    return f"{ORACLE}-{key[:16]}" if job.removed else format_model_name(ORIGINAL, job.index)


def is_original_stored(store: Store, key: str, *, evaluate: bool, proxies: Sequence[str] = ()) -> bool:
    """Return whether weights, outputs, and requested learning events and proxies are stored."""
    endings = ["", *(["-evaluation"] if evaluate else []), *(f"-{name}" for name in proxies)]
    return store.has_weights(key) and store.has_outputs(key) and all(store.has_events(key + end) for end in endings)


def has_other_weights(store: Store, key: str, model: nn.Module) -> bool:
    """Return whether weights are stored that differ from these, as after training on another kind of CPU."""
    if not store.has_weights(key):
        return False
    stored, trained = store.read_weights(key), model.state_dict()
    return not all(torch.equal(stored[name], value.cpu()) for name, value in trained.items())


def is_model_stored(store: Store, job: BankJob, index: int) -> bool:
    """Return whether a model's shard, and its events if requested, are stored."""
    name = format_model_name(job.arm, index)
    return store.has_shard(name) and (not job.events or store.has_events(name))


def build_receipt(
    store: Store, name: str, model: nn.Module, predictions: dict[str, np.ndarray], is_member: np.ndarray
) -> Receipt:
    """Build the receipt of one model: accuracies (null over no examples), and whether it diverged."""
    train, validation, _ = store.manifest.split_sizes
    correct = predictions["correct"]
    groups = {
        "members": correct[:train][is_member],
        "left_out": correct[:train][~is_member],
        "validation": correct[train : train + validation],
        "test": correct[train + validation :],
    }
    # weights alone are not enough: finite weights can give infinite logits
    finite = is_finite(model) and all(bool(np.isfinite(column).all()) for column in predictions.values())
    return {
        "model": name,
        "n_members": int(is_member.sum()),
        "accuracy": {
            group: float(correct_in_group.mean()) if len(correct_in_group) else None
            for group, correct_in_group in groups.items()
        },
        "diverged": not finite,
    }


def describe_worker(device: torch.device, matmul: str) -> dict[str, Any]:
    """Return the machine, device and library versions of this worker; not part of any identity."""
    return {
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "matmul": matmul,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
