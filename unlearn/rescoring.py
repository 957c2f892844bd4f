"""The proxy of any network on file, an original or an unlearned one: what a worker runs to compute it anew.

SCALE section 4, "Stability analysis", does so after each request to forget, by holdout retraining. It fine-tunes on the
half of validation that the bank's proxy does, in the same order, so two files of one original differ by the network
alone, and that of theta_o has the bits of its proxy in the bank. The file is events/<key>-rescored.parquet.
"""

from dataclasses import dataclass

import numpy as np
import torch

from memscore.pipeline.jobs import on_device
from memscore.pipeline.proxy_jobs import HOLDOUT
from memscore.proxies.holdout_retraining import fine_tuning, holdout_retraining
from memscore.seeds import generator
from memscore.store.store import Store
from memscore.store.visibility import visible_store
from memscore.training.numerics import exact_products, keep_to_share, one_thread
from unlearn.oracles import Bench
from unlearn.trials.runner import network

PROXY = "holdout"
"""The score, and the proxy of the bank that it is of."""


@dataclass(frozen=True, kw_only=True)
class Rescoring:
    """Compute the proxy of one network.

    Attributes:
        store: path or URL.
        key: of the network's weights: that of an original, or theta_name of a trial that was kept.
        index: of the original that it is, or that it was made from.
        device: "cpu" or "cuda".
    """

    store: str
    key: str
    index: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """Of its file."""
        return f"{self.key}-rescored"


def rescore(job: Rescoring, bench: Bench) -> bool:
    """Do one job.

    Args:
        job: which network.
        bench: the data.

    Returns:
        Whether there was anything to do.
    """
    store, device = visible_store(job.store), torch.device(job.device)
    if store.has_events(job.name):
        return False
    keep_to_share(device)
    config, n_train = HOLDOUT[PROXY], store.manifest.split_sizes[0]
    with one_thread(), exact_products(device):
        theta, held_out = network(store, job.key, device), np.array(bench.validation)  # what a pool shares is read-only
        recipe = fine_tuning(config, len(held_out))
        images, labels = on_device(store, bench.images, bench.labels, theta, recipe, device)
        rng = generator(store.manifest.seed, "proxies", PROXY, job.index)
        found = holdout_retraining(theta, images, labels, n_train, held_out, config, rng)
    return store.write_events(job.name, {"row": np.arange(n_train, dtype=np.int32), PROXY: found})


def rescored(store: Store, job: Rescoring) -> np.ndarray:
    """The proxy of a network whose job was done: float64 [n_train] in nats, higher is more memorized."""
    return store.read_events(job.name)[PROXY]
