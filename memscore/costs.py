"""What training a bank, training on everything, and each proxy took: worker-seconds, as the receipts have them.

Seconds are those of one worker's wall clock on whatever machine did the job and beside whatever else ran there, so a
bank that was filled in several runs mixes them. Of several originals the median counts, which one slow run moves least.
"""

from collections.abc import Sequence

import numpy as np

from memscore.jobs import ORIGINAL
from memscore.proxies.storage import Inversion, proxy_seconds
from memscore.store.shards import model_name
from memscore.store.store import Receipts, Store


def bank_seconds(store: Store, arm: str, indices: Sequence[int]) -> float:
    """Seconds of some models of an arm together; those without a time, as imported ones, are left out."""
    receipts = store.receipts()
    models = [receipts[name]["seconds"] for m in indices if (name := model_name(arm, m)) in receipts]
    return float(sum(seconds for seconds in models if seconds is not None))


def training_seconds(store: Store, receipts: Receipts | None = None) -> float:
    """Median seconds of training one original, its proxies left out; NaN without any. Reads receipts if not given."""
    receipts = store.receipts() if receipts is None else receipts
    each = [receipts[name]["seconds"] for name in receipts if name.rpartition("-")[0] == ORIGINAL]
    return float(np.median(each)) if each else float("nan")


def seconds_of_proxies(store: Store, inversion: Inversion | None, receipts: Receipts | None = None) -> dict[str, float]:
    """Median seconds that each proxy adds to one original.

    Args:
        store: open.
        inversion: settings of the inversion that is meant, if any.
        receipts: of the store, if they were read already.

    Returns:
        Name of each proxy that the store has -> seconds.
    """
    return {
        name: float(np.median([*each.values()])) for name, each in proxy_seconds(store, inversion, receipts).items()
    }
