"""What a run would cost, before it is started: models, time and disk."""

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
from memscore.training.evaluation import build_forward, evaluate_examples
from memscore.training.loop import train
from memscore.training.numerics import float32_matmul, single_threaded
from memscore.training.recipes import count_steps as steps_of

TRIED = 20  # steps, timed and scaled to the whole training
ROW_BYTES = 17.0  # row, member, correct and three float32 numbers, before compression


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What is still to be done for a plan.

    Attributes:
        planned: models of all arms.
        stored: how many of them the store holds.
        originals: models trained on everything, those in the store included.
        seconds: of one core for one model, the mean over arms.
        workers: how many train at once.
        bytes: of all shards and of the originals' outputs.
        proxies: seconds of one core that each wanted proxy adds to one original.
        only_first_models: these are the first models only; how many follow rests on what they say.
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
        """Seconds until the missing models are trained; an original costs as much as 1 / keep of a model or less."""
        models = self.seconds * (self.planned - self.stored + self.originals)
        return (models + self.originals * sum(self.proxies.values())) / self.workers


def estimate_cost(bank: Bank, workers: int) -> CostEstimate:
    """Time a few steps of one job here, in one thread on the CPU; nothing is written.

    Args:
        bank: from open_bank, which need not have begun its store.
        workers: how many will train at once.

    Returns:
        The forecast.
    """
    manifest, begun = bank.store.manifest, bank.store.folder.exists("manifest.json")
    known = [arm for arm in bank.arms if begun and arm.name in bank.store.arms()]
    count, only_first = bank.count, bank.config.until_rmse is not None
    if bank.config.until_rmse is not None:
        first = count_first_models(bank.arms[0])
        said = forecast_precision(bank.store, bank.arms[0], workers) if known else None
        only_first = said is None or said.models < first
        wanted = first if said is None or only_first else said.compute_requirement(bank.config.until_rmse).models
        count = min(count, wanted)
    there = sum(index < count for arm in known for index in bank.store.find_valid_shards(arm.name, verify=False))
    models = count * len(bank.arms)
    orthogonal = bank.arms[0].design == ORTHOGONAL
    pilot = orthogonal and find_clustering_source(bank.store, bank.config.clusters) == "pilot"
    originals = max(bank.config.originals, int(pilot))
    outputs = originals * manifest.n_rows * 4.0 * (manifest.n_classes + 128)
    return CostEstimate(
        planned=models,
        stored=there,
        originals=originals,
        seconds=seconds_a_model(bank),
        workers=workers,
        bytes=models * ROW_BYTES * manifest.n_rows + outputs,
        proxies=seconds_of_proxies(bank),
        only_first_models=only_first,
    )


def seconds_a_model(bank: Bank) -> float:
    """One core's time for one model: a few steps of a job, scaled, and one evaluation."""
    store, device = bank.store, torch.device("cpu")
    recipe, n_train, size = read_recipe(store), len(bank.splits.train), choose_models_per_job(store, "cpu")
    shared = build_shared_data(bank.splits, None)
    keep = sum(arm.keep for arm in bank.arms) / len(bank.arms)
    like = Arm(design="iid", keep=keep)  # subsets of the same size, whatever the design
    with single_threaded(), float32_matmul(device):
        models = [build_model(store, "size", m, device) for m in range(size)]
        data, labels = load_on_device(store, shared.images, shared.labels, models[0], recipe, device)
        member = draw_membership(like, range(size), n_train, seed=0)
        assignments = [make_training_run(store, "size", *own) for own in zip(range(size), models, member, strict=True)]
        train(assignments, data, labels, recipe, 2)
        started = time.perf_counter()
        train(assignments, data, labels, recipe, TRIED)
        step_s = (time.perf_counter() - started) / TRIED / size
        started = time.perf_counter()
        evaluate_examples(build_forward(models[0], recipe), data, labels)
        return step_s * steps_of(recipe, keep, n_train) + time.perf_counter() - started


def seconds_of_proxies(bank: Bank) -> dict[str, float]:
    """One core's time for each wanted proxy of one original: one batch of it, scaled; holdout retraining at most."""
    shared, device = build_shared_data(bank.splits, None), torch.device("cpu")
    with single_threaded(), float32_matmul(device):
        return {name: seconds_of_proxy(bank, name, shared, device) for name in select_proxies(bank.config.proxies)}


def seconds_of_proxy(bank: Bank, name: str, shared: SharedData, device: torch.device) -> float:
    """One of them; the network is a fresh one, whose cost is that of a trained one."""
    store, recipe, n_train = bank.store, read_recipe(bank.store), len(bank.splits.train)
    model, rng = build_model(store, "size", 0, device), np.random.default_rng(0)
    data, labels = load_on_device(store, shared.images, shared.labels, model, recipe, device)
    if name in HOLDOUT_CONFIGS:
        config = replace(HOLDOUT_CONFIGS[name], epochs=1)
        rows = select_held_out_rows(bank.splits, config, store.manifest.seed)
        batch = rows[: config.batch]
        data, labels = load_on_device(
            store, shared.images, shared.labels, model, build_fine_tuning_recipe(config, len(rows)), device
        )
        spent = timed(lambda: fine_tune(model, data, labels, batch, config, rng))
        return spent * HOLDOUT_CONFIGS[name].epochs * len(rows) / len(batch)
    if name == "inversion":
        wish = build_inversion_options(bank.config, store.manifest.input_shape)
        some, tried = torch.arange(min(CANDIDATES_PER_FILE, n_train)), replace(wish.config, iterations=2)
        normal = (store.manifest.mean, store.manifest.std)
        spent = timed(
            lambda: gradient_inversion(
                model, data.take(some), labels[some], normal, tried, rng, chunk=compute_inversion_chunk(model)
            )
        )
        return spent / tried.iterations * wish.iterations * min(wish.candidates, n_train) / len(some)
    if PROXIES[name].stage == FINISHED_WEIGHTS:
        return 0.0  # distances between embeddings on file
    few = min(n_train, recipe.batch)
    taker = build_epoch_means([name], model, data, labels[:few], replace(recipe, epochs=1), 1, lambda _: rng)[name]
    return timed(lambda: taker(1)) * n_train / few * (recipe.epochs if PROXIES[name].stage == EVERY_EPOCH else 1)


def timed(step: Callable[[], object]) -> float:
    """Seconds of the second call: the first one also compiles."""
    step()
    started = time.perf_counter()
    step()
    return time.perf_counter() - started
