"""The models trained on everything, and the proxies that are computed on them.

What training a bank, training on everything, and each proxy took: worker-seconds, as the receipts have them.

Seconds are those of one worker's wall clock on whatever machine did the job and beside whatever else ran there, so a
bank that was filled in several runs mixes them. Of several originals the median counts, which one slow run moves least.
"""

from collections.abc import Sequence

import numpy as np

from cluster.pool import Pool
from memscore.data.splits import Splits
from memscore.pipeline.config import BankConfig, build_inversion_options
from memscore.pipeline.jobs import ORIGINAL, OriginalJob, SharedData, compute_job_key
from memscore.pipeline.proxy_jobs import build_proxy_jobs
from memscore.pipeline.train_bank import TrainingSummary, compute_missing_proxies, train_missing_originals
from memscore.proxies.registry import select_proxies, select_training_proxies
from memscore.proxies.storage import InversionOptions, sum_proxy_seconds
from memscore.store.shards import format_model_name
from memscore.store.store import Receipts, Store


def sum_model_seconds(store: Store, arm: str, indices: Sequence[int]) -> float:
    """Seconds of some models of an arm together; those without a time, as imported ones, are left out."""
    receipts = store.receipts()
    models = [receipts[name]["seconds"] for m in indices if (name := format_model_name(arm, m)) in receipts]
    return float(sum(seconds for seconds in models if seconds is not None))


def compute_training_seconds(store: Store, receipts: Receipts | None = None) -> float:
    """Median seconds of training one original, its proxies left out; NaN without any. Reads receipts if not given."""
    receipts = store.receipts() if receipts is None else receipts
    each = [receipts[name]["seconds"] for name in receipts if name.rpartition("-")[0] == ORIGINAL]
    return float(np.median(each)) if each else float("nan")


def compute_proxy_seconds(
    store: Store, inversion: InversionOptions | None, receipts: Receipts | None = None
) -> dict[str, float]:
    """Median seconds that each proxy adds to one original.

    Args:
        store: open.
        inversion: settings of the inversion that is meant, if any.
        receipts: of the store, if they were read already.

    Returns:
        Name of each proxy that the store has -> seconds.
    """
    return {
        name: float(np.median([*each.values()])) for name, each in sum_proxy_seconds(store, inversion, receipts).items()
    }


def train_originals_and_proxies(
    plan: BankConfig, store: Store, splits: Splits, filled: TrainingSummary, shared: SharedData, pool: Pool, device: str
) -> list[str]:
    """Train the originals and compute the proxies that are wanted; what went wrong is added to filled.

    Args:
        plan: how many originals, and which proxies.
        store: open.
        splits: the data set.
        filled: what came of the arm.
        shared: the data as the jobs read them.
        pool: where jobs run.
        device: "cpu" or "cuda".

    Returns:
        Keys of the originals that are there.
    """
    wanted = select_proxies(plan.proxies)
    keys, originals = train_missing_originals(
        *(store, plan.originals, shared, pool),
        evaluate=plan.evaluation_events,
        proxies=select_training_proxies(wanted),
        device=device,
    )
    every = {i: compute_job_key(store, OriginalJob(store=store.url, index=i)) for i in range(plan.originals)}
    there = {i: key for i, key in every.items() if key in keys}
    jobs = build_proxy_jobs(
        store, splits, wanted, there, build_inversion_options(plan, store.manifest.input_shape), device
    )
    filled.failed |= originals.failed | compute_missing_proxies(store, jobs, shared, pool)
    filled.diverged += originals.diverged
    filled.differing += originals.differing
    return keys


def get_or_train_pilot(
    plan: BankConfig, store: Store, shared: SharedData, pool: Pool, device: str
) -> tuple[str, np.ndarray]:
    """Original 0, on whose embeddings the training images are clustered; trained now if it is not there.

    Args:
        plan: says what else is to be kept of its training, so that none of it is done twice.
        store: open.
        shared: the data as the jobs read them.
        pool: where it is trained.
        device: "cpu" or "cuda".

    Returns:
        Its key, and its embeddings of the training images, float32 [n_train, E].

    Raises:
        ValueError: it could not be trained, or diverged.
    """
    key = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if not store.has_outputs(key):
        wanted = select_training_proxies(select_proxies(plan.proxies)) if plan.originals else []
        evaluate = bool(plan.originals) and plan.evaluation_events
        _, found = train_missing_originals(store, 1, shared, pool, evaluate=evaluate, proxies=wanted, device=device)
        if not store.has_outputs(key):
            why = next(iter(found.failed.values()), "it diverged; try a smaller --lr")
            raise ValueError(f"the pilot could not be trained: {why} (--clusters pixels needs none)")
    return key, store.read_outputs(key)[1][: store.manifest.split_sizes[0]]
