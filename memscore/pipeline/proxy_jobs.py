"""Jobs for proxies of finished weights or outputs of an original, one job per file.

Adding such a proxy to a bank trains no original again. Holdout retraining and each part of gradient inversion are jobs
of their own; `run_proxy_job` is the function that pools run.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from memscore.data.splits import Splits
from memscore.models.architectures import count_parameters
from memscore.models.random_state import seed_generators
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
from memscore.seeds import generator, torch_seed
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.numerics import float32_matmul, open_device, single_threaded

# memory for the gradients of one step of an inversion
GRADIENT_BYTES = 256 * 2**20
HOLDOUT_CONFIGS = {
    "holdout": HoldoutConfig(variant=VALIDATION),
    "holdout-test": HoldoutConfig(variant=TEST),
}

Columns = dict[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class ProxyJob:
    """Compute one file of one proxy of one stored original.

    Attributes:
        store: path or URL.
        index: of the original.
        key: under which the original is stored.
        proxy: its name in proxies.registry.PROXIES.
        ending: of the file's name, after the original's key.
        rows: the rows on which holdout retraining fine-tunes, or the training examples that an inversion attacks.
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
        """Name of its failure record."""
        return f"{format_model_name(ORIGINAL, self.index)}-{self.ending}"


def build_proxy_jobs(
    store: Store,
    splits: Splits,
    names: Iterable[str],
    originals: Mapping[int, str],
    inversion: InversionOptions,
    device: str = "cpu",
) -> list[ProxyJob]:
    """Build the jobs of some proxies for some originals, index -> key, whether their files are stored or not.

    Each part of an inversion is one job. Names of proxies that are computed during training are skipped.
    """
    # jobs without an original first, because held-out rows and candidates are the same for all originals
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
    """Return whether the job's file is stored."""
    return store.has_events(f"{job.key}-{job.ending}")


def run_proxy_job(job: ProxyJob, shared: SharedData) -> list[Receipt]:
    """Compute a proxy and store its file; return its receipt, or nothing if the file was stored already."""
    store, device = open_visible_store(job.store), open_device(job.device)
    if is_proxy_stored(store, job):
        return []
    with single_threaded(), float32_matmul(device, store.manifest.precision) as arithmetic:
        # the seconds are the proxy's cost alone: reading the original and loading the data are not timed
        compute = PREPARERS[job.proxy](job, shared, store, device)
        started = time.perf_counter()
        # for a network that draws random numbers in evaluation mode too
        with seed_generators(torch_seed(store.manifest.seed, "evaluation", job.ending, job.index), device):
            columns = compute()
        seconds = time.perf_counter() - started
        facts = describe_worker(device, arithmetic)
    receipt = {"proxy": job.proxy, "original": format_model_name(ORIGINAL, job.index)} | facts
    stored_receipt = write_proxy(store, job.key, job.ending, columns, seconds, receipt)
    store.clear_failure(job.name)
    return [stored_receipt]


def load_original(job: ProxyJob, store: Store, device: torch.device) -> nn.Module:
    """Build the network with the stored weights, on the device."""
    model = build_model(store, ORIGINAL, job.index, device)
    model.load_state_dict(store.read_weights(job.key))
    return model


def prepare_holdout(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare fine-tuning on the job's rows; return the function that runs it."""
    config, n_train = HOLDOUT_CONFIGS[job.proxy], store.manifest.split_sizes[0]
    theta_o, held_out = load_original(job, store, device), np.array(job.rows)
    recipe = build_fine_tuning_recipe(config, len(held_out))
    images, labels = load_on_device(store, shared.images, shared.labels, theta_o, recipe, device)
    rng = generator(store.manifest.seed, "proxies", job.proxy, job.index)
    row = np.arange(n_train, dtype=np.int32)
    [score] = PROXIES[job.proxy].scores
    return lambda: {
        "row": row,
        score: holdout_retraining(theta_o, images, labels, n_train, held_out, config, rng),
    }


def prepare_centroids(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare the distances between stored embeddings; return the function that computes them."""
    n_train = store.manifest.split_sizes[0]
    _, embeddings = store.read_outputs(job.key)
    row = np.arange(n_train, dtype=np.int32)
    return lambda: {
        "row": row,
        "centroid_distance": centroid_distance(embeddings[:n_train], shared.labels[:n_train]),
    }


def prepare_inversion(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare the attack on the job's rows; return the function that runs it."""
    theta_o, manifest, config = load_original(job, store, device), store.manifest, job.attack
    images, labels = load_on_device(store, shared.images, shared.labels, theta_o, read_recipe(store), device)
    rows = torch.tensor(job.rows, device=device)
    part = int(job.ending.rpartition("-")[2])
    # the starting images come from a random stream of this original and part
    rng = generator(manifest.seed, "proxies", f"inversion-{job.index:05d}", part)

    def run_attack() -> Columns:
        scores = gradient_inversion(
            *(theta_o, images.take(rows), labels[rows], (manifest.mean, manifest.std), config, rng),
            chunk=compute_inversion_chunk(theta_o),
        )
        return {
            "row": np.array(job.rows, dtype=np.int32),
            **{f"inversion_{name}": scores[name].astype(np.float64) for name in ("psnr", "ssim", "success")},
            "objective": scores["objective"],
        }

    return run_attack


def compute_inversion_chunk(model: nn.Module) -> int:
    """Compute how many examples an inversion attacks at once, by the memory of their float32 gradients."""
    return int(np.clip(GRADIENT_BYTES // (4 * count_parameters(model)), 1, CANDIDATES_PER_FILE))


PREPARERS: dict[str, Callable[[ProxyJob, SharedData, Store, torch.device], Callable[[], Columns]]] = {
    "holdout": prepare_holdout,
    "holdout-test": prepare_holdout,
    "centroid-distance": prepare_centroids,
    "inversion": prepare_inversion,
}
