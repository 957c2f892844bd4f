"""Proxies that need only the finished weights or outputs of an original: what a worker runs for one file of them.

Adding such a proxy to a bank trains no original again. Holdout retraining and each part of gradient inversion are jobs
of their own; all are planned from what the store lacks, and `run_proxy_job` is the function that pools are handed.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from memscore.data.splits import Splits
from memscore.models.architectures import count_parameters
from memscore.pipeline.jobs import (
    ORIGINAL,
    Receipt,
    SharedData,
    build_model,
    describe_worker,
    load_on_device,
    read_recipe,
)
from memscore.proxies.centroid_distance import centroid_distance
from memscore.proxies.gradient_inversion import InversionConfig, gradient_inversion
from memscore.proxies.holdout_retraining import (
    TEST,
    VALIDATION,
    HoldoutConfig,
    build_fine_tuning_recipe,
    holdout_retraining,
    select_held_out_rows,
)
from memscore.proxies.registry import FINISHED_WEIGHTS, PROXIES
from memscore.proxies.storage import CANDIDATES_PER_FILE, InversionOptions, write_proxy
from memscore.seeds import generator
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.numerics import float32_matmul, single_threaded

GRADIENT_BYTES = 256 * 2**20  # of gradients that one step of an inversion may hold
HOLDOUT_CONFIGS = {
    "holdout": HoldoutConfig(variant=VALIDATION),
    "holdout-test": HoldoutConfig(variant=TEST),
}

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ProxyJob:
    """Compute one file of one proxy of one original that is in the store.

    Attributes:
        store: path or URL.
        index: of the original.
        key: under which the original is kept.
        proxy: its name in proxies.table.PROXIES.
        ending: of the file's name, after the original's key.
        rows: what holdout retraining fine-tunes on, or which training examples an inversion attacks.
        attack: settings of an inversion.
        device: "cpu" or "cuda".
    """

    store: str
    index: int
    key: str
    proxy: str
    ending: str
    rows: tuple[int, ...] = ()
    attack: InversionConfig = field(default_factory=InversionConfig)
    device: str = "cpu"

    @property
    def name(self) -> str:
        """How a failure of it is called."""
        return f"{format_model_name(ORIGINAL, self.index)}-{self.ending}"


def build_proxy_jobs(
    store: Store,
    splits: Splits,
    names: Iterable[str],
    originals: Mapping[int, str],
    inversion: InversionOptions,
    device: str = "cpu",
) -> list[ProxyJob]:
    """The jobs of these proxies for these originals; an inversion is one for each of its parts.

    Args:
        store: open.
        splits: the data set.
        names: of PROXIES; those that are taken in training are left to it.
        originals: index -> key of each that is there.
        inversion: its settings.
        device: "cpu" or "cuda".

    Returns:
        The jobs, done or not.
    """
    seed, n_train = store.manifest.seed, store.manifest.split_sizes[0]
    files: list[ProxyJob] = []
    for name in names:
        job = ProxyJob(store=store.url, index=0, key="", proxy=name, ending=name, device=device)
        if name in HOLDOUT_CONFIGS:
            held_out = select_held_out_rows(splits, HOLDOUT_CONFIGS[name], seed)
            files.append(replace(job, rows=tuple(held_out.tolist())))
        elif name == "inversion":
            rows = inversion.rows(seed, n_train)
            files += [
                replace(job, ending=ending, rows=tuple(rows[part].tolist()), attack=inversion.config)
                for ending, part in inversion.list_files(n_train).items()
            ]
        elif PROXIES[name].stage == FINISHED_WEIGHTS:
            files.append(job)
    return [replace(job, index=index, key=key) for index, key in originals.items() for job in files]


def is_proxy_stored(store: Store, job: ProxyJob) -> bool:
    """Whether the job's file is in the store."""
    return store.has_events(f"{job.key}-{job.ending}")


def run_proxy_job(job: ProxyJob, shared: SharedData) -> list[Receipt]:
    """Do one job.

    Args:
        job: which proxy of which original.
        shared: the data.

    Returns:
        Its receipt; none if the file is there.
    """
    store, device = open_visible_store(job.store), torch.device(job.device)
    if is_proxy_stored(store, job):
        return []
    with single_threaded(), float32_matmul(device) as arithmetic:
        take = PREPARED[job.proxy](job, shared, store, device)
        started = time.perf_counter()
        columns = take()
        seconds = time.perf_counter() - started
        facts = describe_worker(device, arithmetic)
    receipt = {"proxy": job.proxy, "original": format_model_name(ORIGINAL, job.index)} | facts
    kept = write_proxy(store, job.key, job.ending, columns, seconds, receipt)
    store.clear_failure(job.name)
    return [kept]


def original(job: ProxyJob, store: Store, device: torch.device) -> nn.Module:
    """The network with the weights on file, on the device."""
    model = build_model(store, ORIGINAL, job.index, device)
    model.load_state_dict(store.read_weights(job.key))
    return model


def holdout(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Fine-tuning on the job's rows, ready to start."""
    config, n_train = HOLDOUT_CONFIGS[job.proxy], store.manifest.split_sizes[0]
    theta_o, held_out = original(job, store, device), np.array(job.rows)
    recipe = build_fine_tuning_recipe(config, len(held_out))
    images, labels = load_on_device(store, shared.images, shared.labels, theta_o, recipe, device)
    rng = generator(store.manifest.seed, "proxies", job.proxy, job.index)
    row = np.arange(n_train, dtype=np.int32)
    [score] = PROXIES[job.proxy].scores
    return lambda: {
        "row": row,
        score: holdout_retraining(theta_o, images, labels, n_train, held_out, config, rng),
    }


def centroids(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Distances between embeddings on file, ready to start; the device is of no use to them."""
    n_train = store.manifest.split_sizes[0]
    _, embeddings = store.read_outputs(job.key)
    row = np.arange(n_train, dtype=np.int32)
    return lambda: {
        "row": row,
        "centroid_distance": centroid_distance(embeddings[:n_train], shared.labels[:n_train]),
    }


def attacked(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """The attack on the job's rows, ready to start; its starts are drawn from a stream of its original and part."""
    theta_o, manifest, config = original(job, store, device), store.manifest, job.attack
    images, labels = load_on_device(store, shared.images, shared.labels, theta_o, read_recipe(store), device)
    rows = torch.tensor(job.rows, device=device)
    part = int(job.ending.rpartition("-")[2])
    rng = generator(manifest.seed, "proxies", f"inversion-{job.index:05d}", part)

    def attack() -> Columns:
        found = gradient_inversion(
            *(theta_o, images.take(rows), labels[rows], (manifest.mean, manifest.std), config, rng),
            chunk=compute_inversion_chunk(theta_o),
        )
        return {
            "row": np.array(job.rows, dtype=np.int32),
            **{f"inversion_{name}": found[name].astype(np.float64) for name in ("psnr", "ssim", "success")},
            "objective": found["objective"],
        }

    return attack


def compute_inversion_chunk(model: nn.Module) -> int:
    """Examples that an inversion attacks at once, so that their gradients fit."""
    return int(np.clip(GRADIENT_BYTES // (4 * count_parameters(model)), 1, CANDIDATES_PER_FILE))


PREPARED: dict[str, Callable[[ProxyJob, SharedData, Store, torch.device], Callable[[], Columns]]] = {
    "holdout": holdout,
    "holdout-test": holdout,
    "centroid-distance": centroids,
    "inversion": attacked,
}
