"""Estimate what a run would cost before it starts: models, time and disk.

Times are CPU seconds of one thread, so that what else runs on the machine counts little.
"""

import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from cluster.pool import format_error
from memscore.models.architectures import count_parameters, embed
from memscore.pipeline.config import build_inversion_options
from memscore.pipeline.inversion_jobs import compute_inversion_chunk, draw_halves
from memscore.pipeline.jobs import SharedData, build_model, load_on_device, make_training_run, read_recipe
from memscore.pipeline.originals import build_missing_originals
from memscore.pipeline.precision import count_first_models, forecast_precision
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS
from memscore.pipeline.runner import Bank
from memscore.pipeline.train_bank import build_shared_data, choose_models_per_job
from memscore.proxies.collectors import build_epoch_means
from memscore.proxies.gradient_inversion import gradient_inversion
from memscore.proxies.holdout_retraining import build_fine_tuning_recipe, fine_tune, select_held_out_rows
from memscore.proxies.registry import EVERY_EPOCH, FINISHED_WEIGHTS, INVERSION, INVERSION_GAIN, PROXIES, select_proxies
from memscore.proxies.storage import CANDIDATES_PER_FILE, INVERSIONS
from memscore.subsets.clustering import ORTHOGONAL, find_clustering_source
from memscore.training.device_data import DeviceImages, to_device
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.loop import TrainingRun, is_stackable, train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import Recipe, count_steps

TIMED_STEPS, TIMED_S = 20, 0.3  # steps that are timed and scaled to the whole training; fewer if one is slow
SAMPLE, SAMPLE_BYTES = 2048, 64 * 2**20  # training examples that they read; fewer if these are large
PREDICTED = 256  # images in a timed prediction
ROW_BYTES = 17.0  # row, member, correct and three float32 numbers, before compression
MODEL_S = 0.008  # building a model, and writing its shard and receipt on a local disk
WRITTEN_BYTES_PER_S = 50e6  # of outputs, which are compressed


class TimingError(RuntimeError):
    """The network or a proxy raised an exception where it was timed; a job of the run would raise it too."""


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a run would still train, and what that takes.

    Attributes:
        planned: models of all arms.
        stored: how many of them are stored.
        originals: models trained on the whole training set that are missing.
        seconds: of one core for one model, the mean over arms.
        original_seconds: of one core for one original, without proxies.
        workers: how many train at once.
        bytes: of all shards and of the outputs of all originals.
        proxies: seconds of one core that each selected proxy adds to one original.
        only_first_models: these are the first models only; they decide how many follow.
    """

    planned: int
    stored: int
    originals: int
    seconds: float
    original_seconds: float
    workers: int
    bytes: float
    proxies: dict[str, float]
    only_first_models: bool = False

    @property
    def core_s(self) -> float:
        """Seconds of one core for all that is missing; proxies of stored originals are not counted."""
        original = self.original_seconds + sum(self.proxies.values())
        return self.seconds * (self.planned - self.stored) + self.originals * original

    @property
    def wall_s(self) -> float:
        """Seconds until all that is missing is trained."""
        return self.core_s / self.workers


@dataclass(frozen=True, kw_only=True)
class TrainingTimes:
    """Seconds of one core for the parts of a training, and the width of the network's embeddings.

    Attributes:
        step: one step of one model of a job.
        original_step: one step of a model that is trained alone.
        image: the prediction of one image.
        embedding: numbers that the last layer reads of one image.
    """

    step: float
    original_step: float
    image: float
    embedding: int


@dataclass(frozen=True, kw_only=True)
class MissingModels:
    """How many models a run is to have, how many of them are stored, and which originals are missing.

    Attributes are as of CostEstimate; `all_originals` counts the stored ones too.
    """

    planned: int
    stored: int
    originals: int
    all_originals: int
    only_first_models: bool


def count_missing_models(bank: Bank, workers: int) -> MissingModels:
    """Count what a run would train; the store need not exist."""
    is_created = bank.store.folder.exists("manifest.json")
    stored_arms = [arm for arm in bank.arms if is_created and arm.name in bank.store.arms()]
    # With --until-rmse the number of models follows from a forecast, once the first models are stored. Before that,
    # only those are counted.
    count, only_first = bank.count, bank.config.until_rmse is not None
    if bank.config.until_rmse is not None:
        first_models = count_first_models(bank.arms[0])
        forecast = forecast_precision(bank.store, bank.arms[0], workers) if stored_arms else None
        only_first = forecast is None or forecast.models < first_models
        needed = (
            first_models
            if forecast is None or only_first
            else forecast.compute_requirement(bank.config.until_rmse).models
        )
        count = min(count, needed)
    stored = sum(index < count for arm in stored_arms for index in bank.store.find_valid_shards(arm.name, verify=False))
    # a pilot is original 0, which a run without originals trains too
    orthogonal = bank.arms[0].design == ORTHOGONAL
    pilot = orthogonal and find_clustering_source(bank.store, bank.config.clusters) == "pilot"
    originals = max(bank.config.originals, int(pilot))
    missing = len(build_missing_originals(bank.config, bank.store, originals, "cpu")) if is_created else originals
    return MissingModels(
        planned=count * len(bank.arms),
        stored=stored,
        originals=missing,
        all_originals=originals,
        only_first_models=only_first,
    )


def estimate_cost(bank: Bank, workers: int, missing: MissingModels | None = None) -> CostEstimate:
    """Estimate the cost of a run from a few steps, timed on one CPU thread; write nothing.

    The store need not exist; `workers` is how many will train at once. `missing` was counted by the caller, if given.
    """
    missing = missing or count_missing_models(bank, workers)
    manifest, config = bank.store.manifest, bank.config
    with explain_timing_error(f"a few steps of {manifest.architecture}"):
        times = time_training(bank)
    recipe, (n_train, _, _) = read_recipe(bank.store), manifest.split_sizes
    steps = float(np.mean([count_steps(recipe, arm.keep, n_train) for arm in bank.arms]))
    # An original is evaluated for its receipt, its logits and its embeddings, and once more after each epoch if asked.
    outputs = manifest.n_rows * 4.0 * (manifest.n_classes + times.embedding)
    passes = 3 * manifest.n_rows + (recipe.epochs * n_train if config.evaluation_events else 0)
    return CostEstimate(
        planned=missing.planned,
        stored=missing.stored,
        originals=missing.originals,
        seconds=times.step * steps + times.image * manifest.n_rows * (config.queries or 1) + MODEL_S,
        original_seconds=times.original_step * count_steps(recipe, 1.0, n_train)
        + times.image * passes
        + outputs / WRITTEN_BYTES_PER_S
        + MODEL_S,
        workers=workers,
        bytes=missing.planned * ROW_BYTES * manifest.n_rows
        + missing.all_originals * outputs
        + estimate_inversion_bytes(bank, missing.all_originals),
        proxies=time_proxies(bank, select_proxies(config.proxies)),
        only_first_models=missing.only_first_models,
    )


def estimate_inversion_bytes(bank: Bank, originals: int) -> float:
    """Estimate the bytes of what inversions store: images of original 0, and for the gain two models per original."""
    config, (n_train, _, _) = bank.config, bank.store.manifest.split_sizes
    proxies, image = select_proxies(config.proxies), float(np.prod(bank.store.manifest.input_shape))
    kinds = (INVERSION in proxies) + 2 * (INVERSION_GAIN in proxies)
    weights = count_parameters(build_model(bank.store, "size", 0, torch.device("cpu"))) if kinds > 1 else 0
    return kinds * min(config.inversion_candidates, n_train) * image + 2 * 4.0 * weights * originals


def time_training(bank: Bank) -> TrainingTimes:
    """Time some steps and predictions on one core, with a part of the training set."""
    store, manifest, device, splits = bank.store, bank.store.manifest, torch.device("cpu"), bank.splits
    recipe, size = read_recipe(store), choose_models_per_job(store, "cpu")
    # Neither the size of the training set nor which examples a model has changes the time of a step.
    fitting = SAMPLE_BYTES // (4 * int(np.prod(manifest.input_shape)))
    n = min(len(splits.train), max(min(SAMPLE, fitting), recipe.batch))
    with single_threaded(), float32_matmul(device):
        models = [build_model(store, "size", m, device) for m in range(size)]
        # not load_on_device, whose cache is of all images
        flat = is_stackable(models[0], recipe)
        data = to_device(splits.train.images[:n], manifest.mean, manifest.std, device, flat=flat)
        labels = torch.from_numpy(np.array(splits.train.labels[:n]))
        everyone = np.ones(n, dtype=bool)
        runs = [make_training_run(store, "size", m, model, everyone) for m, model in enumerate(models)]
        original_step_s = time_step(runs[:1], data, labels, recipe)
        step_s = original_step_s if size == 1 else time_step(runs, data, labels, recipe) / size
        forward, batch = build_forward(models[0], recipe), min(n, PREDICTED)
        evaluation_batch = choose_evaluation_batch(models[0], device)
        with torch.no_grad():
            embedding = embed(models[0], data.take(torch.arange(1))).shape[1]
        return TrainingTimes(
            step=step_s,
            original_step=original_step_s,
            image=time_second_call(lambda: evaluate_examples(forward, data, labels[:batch], evaluation_batch)) / batch,
            embedding=embedding,
        )


def time_step(runs: Sequence[TrainingRun], data: DeviceImages, labels: Tensor, recipe: Recipe) -> float:
    """Time one step of all models together, in seconds."""

    def time_steps(count: int) -> float:
        started = time.thread_time()
        train(runs, data, labels, recipe, count)
        return time.thread_time() - started

    # The difference of two calls: what a call takes beside its steps belongs to a job, not to each step. The first call
    # has what only the first step does, and is not used.
    time_steps(1)
    one_s = time_steps(1)
    count = int(np.clip(TIMED_S / max(one_s, 1e-9), 1, TIMED_STEPS))
    return max(time_steps(1 + count) - one_s, 0.0) / count


def time_proxies(bank: Bank, names: Sequence[str]) -> dict[str, float]:
    """Time some proxies of one original on one core, in seconds."""
    shared, device, seconds = build_shared_data(bank.splits, None), torch.device("cpu"), {}
    with single_threaded(), float32_matmul(device):
        for name in names:
            with explain_timing_error(f"proxy {name} on {bank.store.manifest.architecture}"):
                seconds[name] = time_proxy(bank, name, shared, device)
    return seconds


@contextmanager
def explain_timing_error(what: str) -> Generator[None, None, None]:
    """Say what was timed, if that raises an exception of any kind."""
    try:
        yield
    except Exception as error:
        raise TimingError(f"timing {what} failed: {format_error(error)}") from error


def time_proxy(bank: Bank, name: str, shared: SharedData, device: torch.device) -> float:
    """Time one proxy of one original on one core, in seconds, scaled from a small part of its work."""
    store, recipe, n_train = bank.store, read_recipe(bank.store), len(bank.splits.train)
    # An untrained network takes as long as a trained one. Each kind of proxy is timed on the smallest unit of its work:
    # a batch of fine-tuning, two iterations of an inversion, or a batch at the end of an epoch.
    model, rng = build_model(store, "size", 0, device), np.random.default_rng(0)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, device)
    if name in HOLDOUT_CONFIGS:
        config = replace(HOLDOUT_CONFIGS[name], epochs=1)
        rows = select_held_out_rows(bank.splits, config, store.manifest.seed)
        batch = rows[: config.batch]
        data, labels = load_on_device(
            store, shared.images, shared.labels, model, build_fine_tuning_recipe(config, len(rows)), device
        )
        seconds = time_second_call(lambda: fine_tune(model, data, labels, batch, config, rng))
        # an upper bound: fine-tuning may stop early
        return seconds * HOLDOUT_CONFIGS[name].epochs * len(rows) / len(batch)
    if name in INVERSIONS:
        options = build_inversion_options(bank.config, store.manifest.input_shape)
        positions, short_config = torch.arange(min(CANDIDATES_PER_FILE, n_train)), replace(options.config, iterations=2)
        normalization = (store.manifest.mean, store.manifest.std)
        seconds = time_second_call(
            lambda: gradient_inversion(
                model,
                data.take(positions),
                labels[positions],
                normalization,
                short_config,
                rng,
                chunk=compute_inversion_chunk(model),
            )
        )
        attack_s = (
            seconds / short_config.iterations * options.iterations * min(options.candidates, n_train) / len(positions)
        )
        if name == INVERSION:
            return attack_s
        # two models of halves are trained and attacked
        half = make_training_run(store, "size", 0, model, draw_halves(store, 0)[0])
        return 2 * (attack_s + time_step([half], data, labels, recipe) * count_steps(recipe, 0.5, n_train))
    # distances between stored embeddings take no time to speak of
    if PROXIES[name].stage == FINISHED_WEIGHTS:
        return 0.0
    # a recipe of one epoch, so that epoch 1 is also the early epoch of the proxies that are computed once
    n_examples = min(n_train, recipe.batch)
    epoch_mean = build_epoch_means(
        [name], model, data, labels[:n_examples], replace(recipe, epochs=1), 1, lambda _: rng
    )[name]
    return (
        time_second_call(lambda: epoch_mean(1))
        * n_train
        / n_examples
        * (recipe.epochs if PROXIES[name].stage == EVERY_EPOCH else 1)
    )


def time_second_call(function: Callable[[], object]) -> float:
    """Time the second of two calls, in seconds: the first one also compiles."""
    function()
    started = time.thread_time()
    function()
    return time.thread_time() - started
