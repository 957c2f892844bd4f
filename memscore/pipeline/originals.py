"""Models trained on the whole training set, their proxies, and what both cost.

Costs are worker-seconds from the receipts: the wall clock of one worker on its machine, with whatever else ran there,
so a bank that was trained in several runs mixes machines. Over several originals the median is taken, since one slow
run changes it least.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.pool import Pool
from memscore.data.splits import Splits
from memscore.pipeline.config import BankConfig, build_inversion_options
from memscore.pipeline.jobs import ORIGINAL, OriginalJob, SharedData, compute_job_key, is_original_stored
from memscore.pipeline.proxy_jobs import build_proxy_jobs
from memscore.pipeline.train_bank import (
    TrainingSummary,
    compute_missing_proxies,
    list_diverged_models,
    train_missing,
)
from memscore.proxies.registry import select_proxies, select_training_proxies
from memscore.proxies.storage import InversionOptions, read_differing_originals, sum_proxy_seconds
from memscore.store.shards import format_model_name
from memscore.store.store import Receipts, Store

EVENT_ENTRIES = {
    "learning events": ("events_s", ""),
    "events of evaluation passes": ("evaluation_events_s", "-evaluation"),
}
"""What is printed of learning events: the entry of an original's receipt with its seconds, the ending of their file."""


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
    store: Store, inversions: Mapping[str, InversionOptions], receipts: Receipts | None = None
) -> dict[str, float]:
    """Compute the median seconds that each stored proxy adds to one original, by its name.

    `inversions` are the settings of those that are counted; `receipts` are the store's, if they were read already.
    """
    seconds = sum_proxy_seconds(store, inversions, receipts)
    return {name: float(np.median([*each.values()])) for name, each in seconds.items()}


def compute_event_seconds(store: Store, receipts: Receipts | None = None) -> dict[str, float]:
    """Compute the median seconds that recording learning events takes in the training of one original, by kind.

    A kind is "learning events", or those of evaluation passes; NaN where it was recorded and not timed, as before the
    receipts had it. Arguments as compute_proxy_seconds's.
    """
    receipts = store.receipts() if receipts is None else receipts
    originals = [receipt for name, receipt in receipts.items() if name.rpartition("-")[0] == ORIGINAL]
    seconds = {}
    for kind, (entry, ending) in EVENT_ENTRIES.items():
        stored = [receipt for receipt in originals if store.has_events(f"{receipt.get('key')}{ending}")]
        timed = [receipt[entry] for receipt in stored if receipt.get(entry) is not None]
        if stored:
            seconds[kind] = float(np.median(timed)) if timed else float("nan")
    return seconds


def build_missing_originals(config: BankConfig, store: Store, count: int, device: str) -> list[OriginalJob]:
    """Build the jobs of those of originals 0 .. count - 1 that are missing, or lack what only their training can give.

    Those that diverged are not trained again.
    """
    proxies = select_training_proxies(select_proxies(config.proxies)) if config.originals else []
    evaluate = bool(config.originals) and config.evaluation_events
    jobs = [
        OriginalJob(store=store.url, index=i, evaluate=evaluate, proxies=tuple(proxies), device=device)
        for i in range(count)
    ]
    diverged = list_diverged_models(store, ORIGINAL)
    return [
        job
        for job in jobs
        if format_model_name(ORIGINAL, job.index) not in diverged
        and not is_original_stored(store, compute_job_key(store, job), evaluate=evaluate, proxies=proxies)
    ]


def compute_proxies(
    config: BankConfig,
    store: Store,
    splits: Splits,
    summary: TrainingSummary,
    shared: SharedData,
    pool: Pool,
    device: str,
) -> list[str]:
    """Compute the selected proxies of the stored originals; return the keys of these originals, in order.

    Diverged originals and failed proxies are added to `summary`.
    """
    keys = {i: compute_job_key(store, OriginalJob(store=store.url, index=i)) for i in range(config.originals)}
    # A job is seeded by the index of its original, and the indices have a gap where one failed. An original without the
    # proxies that only training gives has the others.
    stored = {i: key for i, key in keys.items() if is_original_stored(store, key, evaluate=config.evaluation_events)}
    inversion = build_inversion_options(config, store.manifest.input_shape)
    jobs = build_proxy_jobs(store, splits, select_proxies(config.proxies), stored, inversion, device)
    summary.failed |= compute_missing_proxies(store, [job for job in jobs if not job.halves], shared, pool)
    # Attacks on models of halves come after those are trained; without one of them they are left to the next run.
    attacks = [job for job in jobs if job.halves and all(map(store.has_weights, job.halves))]
    summary.failed |= compute_missing_proxies(store, attacks, shared, pool)
    summary.diverged += list_diverged_models(store, ORIGINAL)
    summary.differing_originals = read_differing_originals(store)
    return list(stored.values())


def get_or_train_pilot(
    config: BankConfig, store: Store, shared: SharedData, pool: Pool, device: str
) -> tuple[str, np.ndarray]:
    """Return original 0, whose embeddings define the clusters; train it if it is missing.

    It is returned as its key and its embeddings of the training images, float32 [n_train, E]. ValueError if it could
    not be trained, or diverged.
    """
    key = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if not store.has_outputs(key):
        # its job has what the originals are trained for later, so that original 0 is not trained twice
        pilot = build_missing_originals(config, store, 1, device)
        summary = train_missing(store, [], 0, shared, pool, originals=pilot)
        if not store.has_outputs(key):
            reason = next(iter(summary.failed.values()), "it diverged; try a smaller --lr")
            raise ValueError(f"the pilot could not be trained: {reason} (--clusters pixels needs no pilot)")
    return key, store.read_outputs(key)[1][: store.manifest.split_sizes[0]]
