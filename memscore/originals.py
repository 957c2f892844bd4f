"""The models trained on everything, and the proxies that are computed on them."""

from memscore.data import Splits
from memscore.filling import Filled, Pool, fill_originals, fill_proxies
from memscore.jobs import OriginalJob, Shared, key_of
from memscore.plan import Plan, inversion_of
from memscore.proxies.table import chosen, in_training
from memscore.proxy_jobs import planned
from memscore.store import Store


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
