"""Estimate what a run would cost before it starts: time on CPUs and GPUs, memory, disk; nothing is written."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from memscore.models.architectures import count_parameters
from memscore.pipeline.cards import Card
from memscore.pipeline.config import AUTO
from memscore.pipeline.jobs import build_model, read_recipe
from memscore.pipeline.network_times import NetworkTimes, ShowTiming, time_network
from memscore.pipeline.originals import build_missing_originals
from memscore.pipeline.precision import count_first_models, forecast_precision
from memscore.pipeline.proxy_times import time_proxies
from memscore.pipeline.runner import Bank
from memscore.pipeline.work import NO_WORK, Work, sum_work
from memscore.proxies.registry import INVERSION, INVERSION_GAIN, select_proxies
from memscore.store.manifest import Manifest
from memscore.subsets.clustering import ORTHOGONAL, find_clustering_source
from memscore.training.precision import list_manifest_convolutions, resolve_precision
from memscore.training.recipes import BFLOAT16_PRODUCTS, Recipe, count_steps

ROW_BYTES = 17.0  # row, member, correct and three float32 numbers, before compression
MODEL_S = 0.008  # building a model, and writing its shard and receipt on a local disk
WRITTEN_BYTES_PER_S = 50e6  # of outputs, which are compressed
SCORED_CELLS_PER_S = 1.5e6  # models x examples that one core scores, attacks included
PROCESS_BYTES = 0.75e9  # of a worker that has imported torch
CONTEXT_BYTES = 0.8e9  # of a GPU's memory, for the context of a process
STATE_TENSORS = {"sgd": 3, "adam": 4, "adamw": 4}  # weights, gradients and moments


@dataclass(frozen=True, kw_only=True)
class CostEstimate:
    """What a run would still train, and what that takes.

    Attributes:
        planned: models of all arms.
        stored: how many of them are stored.
        originals: models trained on the whole training set that are missing.
        model: work of one model, the mean over arms.
        original: work of one original, without proxies.
        workers: how many train at once.
        bytes: of all shards, and of the outputs and weights of all originals.
        proxies: work that each selected proxy adds to one original.
        scoring: work of the scores and attacks, which no GPU does.
        precision: in which a GPU would train.
        worker_bytes: memory of a worker on a CPU.
        gpu_bytes: memory on a GPU.
        only_first_models: these are the first models only; they decide how many follow.
    """

    planned: int
    stored: int
    originals: int
    model: Work
    original: Work
    workers: int
    bytes: float
    proxies: dict[str, Work]
    scoring: Work = NO_WORK
    precision: str = "float32"
    worker_bytes: float = 0.0
    gpu_bytes: float = 0.0
    only_first_models: bool = False

    @property
    def trained(self) -> Work:
        """Work of all that is missing but scores; proxies of stored originals are not counted."""
        return (
            self.model * (self.planned - self.stored)
            + (self.original + sum_work(self.proxies.values())) * self.originals
        )

    @property
    def core_s(self) -> float:
        """Seconds of one core for all that is missing, scores included."""
        return self.trained.core_s + self.scoring.core_s

    @property
    def wall_s(self) -> float:
        """Seconds until all that is missing is trained and scored."""
        return self.core_s / self.workers

    def compute_gpu_seconds(self, card: Card) -> float:
        """Compute the seconds of one GPU for all that is trained."""
        return self.trained.compute_gpu_seconds(card, self.precision)


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
        only_first = forecast is None or forecast.measured.models < first_models
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


def estimate_cost(
    bank: Bank,
    workers: int,
    missing: MissingModels | None = None,
    show: ShowTiming = lambda line: None,
    times: NetworkTimes | None = None,
) -> CostEstimate:
    """Estimate the cost of a run from a few images, timed on one CPU thread; write nothing.

    The store need not exist; `workers` is how many will train at once. `missing` was counted and `times` were measured
    by the caller, if given; `show` is called with a line for each part that is timed.
    """
    missing = missing or count_missing_models(bank, workers)
    times = times or time_network(bank.store, bank.splits, show)
    manifest, config = bank.store.manifest, bank.config
    recipe, (n_train, _, _) = read_recipe(bank.store), manifest.split_sizes
    steps = float(np.mean([count_steps(recipe, arm.keep, n_train) for arm in bank.arms]))
    # An original is evaluated for its receipt, its logits and its embeddings, and once more after each epoch if asked.
    outputs = manifest.n_rows * 4.0 * (manifest.n_classes + times.embedding)
    passes = 3 * manifest.n_rows + (recipe.epochs * n_train if config.evaluation_events else 0)
    scored = missing.planned * n_train / SCORED_CELLS_PER_S
    return CostEstimate(
        planned=missing.planned,
        stored=missing.stored,
        originals=missing.originals,
        model=times.step * steps
        + times.predicted_image * (manifest.n_rows * (config.queries or 1))
        + Work(core_s=MODEL_S),
        original=times.original_step * count_steps(recipe, 1.0, n_train)
        + times.predicted_image * passes
        + Work(core_s=outputs / WRITTEN_BYTES_PER_S + MODEL_S),
        workers=workers,
        bytes=missing.planned * ROW_BYTES * manifest.n_rows
        + missing.all_originals * (outputs + 4.0 * times.parameters)
        + estimate_inversion_bytes(bank, missing.all_originals),
        proxies=time_proxies(bank, select_proxies(config.proxies), times, show),
        scoring=Work(core_s=scored),
        precision=choose_gpu_precision(manifest, is_free=config.precision == AUTO and not bank.store.is_created),
        **estimate_memory(manifest, recipe, times),
        only_first_models=missing.only_first_models,
    )


def choose_gpu_precision(manifest: Manifest, *, is_free: bool) -> str:
    """Choose the precision in which a GPU would train: the manifest's, unless it is still free ("auto") or a CPU's."""
    if manifest.precision == BFLOAT16_PRODUCTS:
        return "float32"
    if not is_free:
        return manifest.precision
    convolutions = manifest.precision == "float32" and bool(list_manifest_convolutions(manifest))
    return resolve_precision(manifest.precision, "cuda", has_convolutions=convolutions)


def estimate_memory(manifest: Manifest, recipe: Recipe, times: NetworkTimes) -> Mapping[str, float]:
    """Estimate the memory of a worker, on a CPU and on a GPU: the images as float32, the models, and activations."""
    images = manifest.n_rows * 4.0 * float(np.prod(manifest.input_shape))
    state = 4.0 * times.parameters * STATE_TENSORS[recipe.optimizer]
    activations = times.activation_bytes * recipe.batch
    return {
        "worker_bytes": PROCESS_BYTES + images + state * times.models + activations,
        "gpu_bytes": CONTEXT_BYTES + images + state + activations * (0.5 if manifest.precision == "bfloat16" else 1),
    }


def estimate_inversion_bytes(bank: Bank, originals: int) -> float:
    """Estimate the bytes of what inversions store: images of original 0, and for the gain two models per original."""
    config, (n_train, _, _) = bank.config, bank.store.manifest.split_sizes
    proxies, image = select_proxies(config.proxies), float(np.prod(bank.store.manifest.input_shape))
    kinds = (INVERSION in proxies) + 2 * (INVERSION_GAIN in proxies)
    weights = count_parameters(build_model(bank.store, "size", 0, torch.device("cpu"))) if kinds > 1 else 0
    return kinds * min(config.inversion_candidates, n_train) * image + 2 * 4.0 * weights * originals
