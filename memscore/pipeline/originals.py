"""Models trained on the whole training set, their proxies, and what both cost.

Costs are worker-seconds from the receipts: the wall clock of one worker on its machine, with whatever else ran there,
so a bank that was trained in several runs mixes machines. Over several originals the median is taken, since one slow
run changes it least.
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
    """Sum the seconds of some models of an arm; models without a time are left out."""
    # a restored receipt was written again from a shard, which does not hold the seconds
    receipts = store.receipts()
    models = [receipts[name]["seconds"] for m in indices if (name := format_model_name(arm, m)) in receipts]
    return float(sum(seconds for seconds in models if seconds is not None))


def compute_training_seconds(store: Store, receipts: Receipts | None = None) -> float:
    """Compute the median seconds of training one original without proxies; NaN without any.

    `receipts` are the store's, if they were read already.
    """
    receipts = store.receipts() if receipts is None else receipts
    seconds = [receipts[name]["seconds"] for name in receipts if name.rpartition("-")[0] == ORIGINAL]
    return float(np.median(seconds)) if seconds else float("nan")


def compute_proxy_seconds(
    store: Store, inversion: InversionOptions | None, receipts: Receipts | None = None
) -> dict[str, float]:
    """Compute the median seconds that each stored proxy adds to one original, by its name.

    `inversion` says which inversion is counted, if any; `receipts` are the store's, if they were read already.
    """
    return {
        name: float(np.median([*each.values()])) for name, each in sum_proxy_seconds(store, inversion, receipts).items()
    }


def train_originals_and_proxies(
    config: BankConfig,
    store: Store,
    splits: Splits,
    summary: TrainingSummary,
    shared: SharedData,
    pool: Pool,
    device: str,
) -> list[str]:
    """Train the originals and compute the selected proxies; return the keys of the stored originals.

    Failed and diverged originals, and failed proxies, are added to `summary`.
    """
    # 1. Originals, with the proxies that only training can give.
    proxies = select_proxies(config.proxies)
    keys, originals_summary = train_missing_originals(
        *(store, config.originals, shared, pool),
        evaluate=config.evaluation_events,
        proxies=select_training_proxies(proxies),
        device=device,
    )
    # 2. Proxies of finished originals. A job is seeded by the index of its original, and `keys` has a gap where one
    # failed.
    all_keys = {i: compute_job_key(store, OriginalJob(store=store.url, index=i)) for i in range(config.originals)}
    stored_keys = {i: key for i, key in all_keys.items() if key in keys}
    jobs = build_proxy_jobs(
        store, splits, proxies, stored_keys, build_inversion_options(config, store.manifest.input_shape), device
    )
    summary.failed |= originals_summary.failed | compute_missing_proxies(store, jobs, shared, pool)
    summary.diverged += originals_summary.diverged
    summary.differing_originals |= originals_summary.differing_originals
    return keys


def get_or_train_pilot(
    config: BankConfig, store: Store, shared: SharedData, pool: Pool, device: str
) -> tuple[str, np.ndarray]:
    """Return original 0, whose embeddings define the clusters; train it if it is missing.

    It is returned as its key and its embeddings of the training images, float32 [n_train, E]. ValueError if it could
    not be trained, or diverged.
    """
    key = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if not store.has_outputs(key):
        # what the originals are trained for later is computed now, so that original 0 is not trained twice
        proxies = select_training_proxies(select_proxies(config.proxies)) if config.originals else []
        evaluate = bool(config.originals) and config.evaluation_events
        _, summary = train_missing_originals(store, 1, shared, pool, evaluate=evaluate, proxies=proxies, device=device)
        if not store.has_outputs(key):
            reason = next(iter(summary.failed.values()), "it diverged; try a smaller --lr")
            raise ValueError(f"the pilot could not be trained: {reason} (--clusters pixels needs no pilot)")
    return key, store.read_outputs(key)[1][: store.manifest.split_sizes[0]]
