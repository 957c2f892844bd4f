"""Jobs for proxies of finished weights or outputs of an original, one job per file.

Adding such a proxy to a bank trains no original again. Holdout retraining and each part of gradient inversion are jobs
of their own; `run_proxy_job` is the function that pools run.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch

from memscore.data.splits import Splits
from memscore.models.random_state import seed_generators
from memscore.pipeline.inversion_jobs import (
    compute_half_keys,
    load_model,
    prepare_gain,
    prepare_half,
    prepare_inversion,
)
from memscore.pipeline.jobs import ORIGINAL, Receipt, SharedData, describe_worker, load_on_device
from memscore.pipeline.proxy_job import ProxyJob
from memscore.proxies.centroid_distance import centroid_distance
from memscore.proxies.holdout_retraining import (
    TEST,
    VALIDATION,
    HoldoutConfig,
    build_fine_tuning_recipe,
    holdout_retraining,
    select_held_out_rows,
)
from memscore.proxies.registry import FINISHED_WEIGHTS, INVERSION, INVERSION_GAIN, PROXIES
from memscore.proxies.storage import HALF_ENDINGS, INVERSIONS, InversionOptions, build_rebuilt_path, write_proxy
from memscore.seeds import generator, torch_seed
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.numerics import float32_matmul, open_device, single_threaded

HOLDOUT_CONFIGS = {
    "holdout": HoldoutConfig(variant=VALIDATION),
    "holdout-test": HoldoutConfig(variant=TEST),
}

Columns = dict[str, np.ndarray]


def build_proxy_jobs(
    store: Store,
    splits: Splits,
    names: Iterable[str],
    originals: Mapping[int, str],
    inversion: InversionOptions,
    device: str = "cpu",
) -> list[ProxyJob]:
    """Build the jobs of some proxies for some originals, index -> key, whether their files are stored or not.

    Each part of an inversion is one job. Names of proxies that are computed during training are skipped. Jobs with
    `halves` can run once the jobs that train these, which are among the others, have run.
    """
    # jobs without an original first, because held-out rows and candidates are the same for all originals
    seed, n_train = store.manifest.seed, store.manifest.split_sizes[0]
    files: list[ProxyJob] = []
    for name in names:
        job = ProxyJob(store=store.url, index=0, key="", proxy=name, ending=name, device=device)
        if name in HOLDOUT_CONFIGS:
            held_out = select_held_out_rows(splits, HOLDOUT_CONFIGS[name], seed)
            files.append(replace(job, rows=tuple(held_out.tolist())))
        elif name in INVERSIONS:
            rows = inversion.rows(seed, n_train)
            files += [
                replace(job, ending=ending, rows=tuple(rows[part].tolist()), attack=inversion.config)
                for ending, part in inversion.list_files(n_train, name).items()
            ]
        elif PROXIES[name].stage == FINISHED_WEIGHTS:
            files.append(job)
    jobs = []
    for index, key in originals.items():
        halves = compute_half_keys(store, index) if any(job.proxy == INVERSION_GAIN for job in files) else ()
        own = [replace(job, index=index, key=key) for job in files]
        # the models of halves are trained before the attacks that need them
        jobs += [
            ProxyJob(
                store=store.url, index=index, key=key, proxy=INVERSION_GAIN, ending=ending, trains=half, device=device
            )
            for ending, half in zip(HALF_ENDINGS, halves, strict=False)
        ]
        jobs += [replace(job, halves=halves) if job.proxy == INVERSION_GAIN else job for job in own]
    return jobs


def is_proxy_stored(store: Store, job: ProxyJob) -> bool:
    """Return whether the job's files are stored."""
    keeps_rebuilt = job.proxy == INVERSION or (job.halves and job.index == 0)
    if keeps_rebuilt and not store.folder.exists(build_rebuilt_path(job.key, job.ending)):
        return False
    if job.trains and not store.has_weights(job.trains):
        return False
    return store.has_events(f"{job.key}-{job.ending}")


def run_proxy_job(job: ProxyJob, shared: SharedData) -> list[Receipt]:
    """Compute a proxy and store its file; return its receipt, or nothing if the file was stored already."""
    store, device = open_visible_store(job.store), open_device(job.device)
    if is_proxy_stored(store, job):
        return []
    with single_threaded(), float32_matmul(device, store.manifest.precision) as arithmetic:
        # the seconds are the proxy's cost alone: reading the original and loading the data are not timed
        compute = (prepare_half if job.trains else PREPARERS[job.proxy])(job, shared, store, device)
        started = time.perf_counter()
        # for a network that draws random numbers in evaluation mode too
        with seed_generators(torch_seed(store.manifest.seed, "evaluation", job.ending, job.index), device):
            columns = compute()
        seconds = time.perf_counter() - started
        facts = describe_worker(device, arithmetic)
    receipt = {"proxy": job.proxy, "original": format_model_name(ORIGINAL, job.index)} | facts
    if job.trains:
        receipt["weights"] = job.trains
    stored_receipt = write_proxy(store, job.key, job.ending, columns, seconds, receipt)
    store.clear_failure(job.name)
    return [stored_receipt]


def prepare_holdout(job: ProxyJob, shared: SharedData, store: Store, device: torch.device) -> Callable[[], Columns]:
    """Prepare fine-tuning on the job's rows; return the function that runs it."""
    config, n_train = HOLDOUT_CONFIGS[job.proxy], store.manifest.split_sizes[0]
    theta_o, held_out = load_model(store, job.index, job.key, device), np.array(job.rows)
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


PREPARERS: dict[str, Callable[[ProxyJob, SharedData, Store, torch.device], Callable[[], Columns]]] = {
    "holdout": prepare_holdout,
    "holdout-test": prepare_holdout,
    "centroid-distance": prepare_centroids,
    INVERSION: prepare_inversion,
    INVERSION_GAIN: prepare_gain,
}
