"""The models trained on everything, and the proxies that are computed on them."""

import numpy as np

from memscore.data.splits import Splits
from memscore.filling import Filled, Pool, fill_originals, fill_proxies
from memscore.jobs import OriginalJob, Shared, key_of
from memscore.plan import Plan, inversion_of
from memscore.proxies.registry import chosen, in_training
from memscore.proxy_jobs import planned
from memscore.store.store import Store


def fill_from_originals(
    plan: Plan, store: Store, splits: Splits, filled: Filled, shared: Shared, pool: Pool, device: str
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
    wanted = chosen(plan.proxies)
    keys, originals = fill_originals(
        *(store, plan.originals, shared, pool),
        evaluate=plan.evaluation_events,
        proxies=in_training(wanted),
        device=device,
    )
    every = {i: key_of(store, OriginalJob(store=store.url, index=i)) for i in range(plan.originals)}
    there = {i: key for i, key in every.items() if key in keys}
    jobs = planned(store, splits, wanted, there, inversion_of(plan, store.manifest.input_shape), device)
    filled.failed |= originals.failed | fill_proxies(store, jobs, shared, pool)
    filled.diverged += originals.diverged
    filled.differing += originals.differing
    return keys


def pilot(plan: Plan, store: Store, shared: Shared, pool: Pool, device: str) -> tuple[str, np.ndarray]:
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
    key = key_of(store, OriginalJob(store=store.url, index=0))
    if not store.has_outputs(key):
        wanted = in_training(chosen(plan.proxies)) if plan.originals else []
        evaluate = bool(plan.originals) and plan.evaluation_events
        _, found = fill_originals(store, 1, shared, pool, evaluate=evaluate, proxies=wanted, device=device)
        if not store.has_outputs(key):
            why = next(iter(found.failed.values()), "it diverged; try a smaller --lr")
            raise ValueError(f"the pilot could not be trained: {why} (--clusters pixels needs none)")
    return key, store.read_outputs(key)[1][: store.manifest.split_sizes[0]]
