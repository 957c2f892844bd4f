"""Estimate what a run would cost before it starts: models, time and disk."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from memscore.pipeline.config import build_inversion_options
from memscore.pipeline.jobs import SharedData, build_model, load_on_device, make_training_run, read_recipe
from memscore.pipeline.precision import count_first_models, forecast_precision
from memscore.pipeline.proxy_jobs import HOLDOUT_CONFIGS, compute_inversion_chunk
from memscore.pipeline.runner import Bank
from memscore.pipeline.train_bank import build_shared_data, choose_models_per_job
from memscore.proxies.collectors import build_epoch_means
from memscore.proxies.gradient_inversion import gradient_inversion
from memscore.proxies.holdout_retraining import build_fine_tuning_recipe, fine_tune, select_held_out_rows
from memscore.proxies.registry import EVERY_EPOCH, FINISHED_WEIGHTS, PROXIES, select_proxies
from memscore.proxies.storage import CANDIDATES_PER_FILE
from memscore.subsets.clustering import ORTHOGONAL, find_clustering_source
from memscore.subsets.designs import Arm, draw_membership
from memscore.training.evaluation import build_forward, choose_evaluation_batch, evaluate_examples
from memscore.training.loop import train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import count_steps

TIMED_STEPS = 20  # steps, timed and scaled to the whole training
ROW_BYTES = 17.0  # row, member, correct and three float32 numbers, before compression


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a run would still train, and what that takes.

    Attributes:
        planned: models of all arms.
        stored: how many of them are stored.
        originals: models trained on the whole training set, stored ones included.
        seconds: of one core for one model, the mean over arms.
        workers: how many train at once.
        bytes: of all shards and of the originals' outputs.
        proxies: seconds of one core that each selected proxy adds to one original.
        only_first_models: these are the first models only; they decide how many follow.
    """

    planned: int
    stored: int
    originals: int
    seconds: float
    workers: int
    bytes: float
    proxies: dict[str, float]
    only_first_models: bool = False

    @property
    def wall_s(self) -> float:
        """Seconds until missing models are trained. An original counts as one, and takes at most 1 / keep of one."""
        models = self.seconds * (self.planned - self.stored + self.originals)
        return (models + self.originals * sum(self.proxies.values())) / self.workers


def estimate_cost(bank: Bank, workers: int) -> CostEstimate:
    """Estimate the cost of a run from a few steps, timed on one CPU thread; write nothing.

    The store need not exist; `workers` is how many will train at once.
    """
    manifest, is_created = bank.store.manifest, bank.store.folder.exists("manifest.json")
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
    models = count * len(bank.arms)
    orthogonal = bank.arms[0].design == ORTHOGONAL
    pilot = orthogonal and find_clustering_source(bank.store, bank.config.clusters) == "pilot"
    originals = max(bank.config.originals, int(pilot))
    # float32 logits and embeddings of every example, whose width is taken as 128
    outputs = originals * manifest.n_rows * 4.0 * (manifest.n_classes + 128)
    return CostEstimate(
        planned=models,
        stored=stored,
        originals=originals,
        seconds=time_model(bank),
        workers=workers,
        bytes=models * ROW_BYTES * manifest.n_rows + outputs,
        proxies=time_proxies(bank),
        only_first_models=only_first,
    )


def time_model(bank: Bank) -> float:
    """Time one model on one core, in seconds: a few steps, scaled to all of them, and one evaluation."""
    store, device = bank.store, torch.device("cpu")
    recipe, n_train, size = read_recipe(store), len(bank.splits.train), choose_models_per_job(store, "cpu")
    shared = build_shared_data(bank.splits, None)
    keep = sum(arm.keep for arm in bank.arms) / len(bank.arms)
    # the time depends on the size of a subset only, and iid subsets need no clusters, which may not exist yet
    arm = Arm(design="iid", keep=keep)
    with single_threaded(), float32_matmul(device):
        models = [build_model(store, "size", m, device) for m in range(size)]
        data, labels = load_on_device(store, shared.images, shared.labels, models[0], recipe, device)
        member = draw_membership(arm, range(size), n_train, seed=0)
        runs = [
            make_training_run(store, "size", *run_arguments)
            for run_arguments in zip(range(size), models, member, strict=True)
        ]
        # two steps first, so that what only the first ones do is not timed
        train(runs, data, labels, recipe, 2)
        started = time.perf_counter()
        train(runs, data, labels, recipe, TIMED_STEPS)
        step_s = (time.perf_counter() - started) / TIMED_STEPS / size
        started = time.perf_counter()
        evaluate_examples(build_forward(models[0], recipe), data, labels, choose_evaluation_batch(models[0], device))
        return step_s * count_steps(recipe, keep, n_train) + time.perf_counter() - started


def time_proxies(bank: Bank) -> dict[str, float]:
    """Time each selected proxy of one original on one core, in seconds."""
    shared, device = build_shared_data(bank.splits, None), torch.device("cpu")
    with single_threaded(), float32_matmul(device):
        return {name: time_proxy(bank, name, shared, device) for name in select_proxies(bank.config.proxies)}


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
    if name == "inversion":
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
        return (
            seconds / short_config.iterations * options.iterations * min(options.candidates, n_train) / len(positions)
        )
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
    started = time.perf_counter()
    function()
    return time.perf_counter() - started
