"""A job that sleeps where a model would train and then writes a small shard; imports no torch. For pool_scale.py."""

import os
import socket
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from memscore.store.shards import format_model_name
from memscore.store.store import Store


@dataclass(frozen=True, kw_only=True)
class Nap:
    """Sleep, then publish the shards of these models of an arm.

    Attributes:
        store: path or URL.
        arm: its name in the store.
        models: indices within the arm.
        seconds: of sleep a model.
    """

    store: str
    arm: str
    models: tuple[int, ...]
    seconds: float


def nap(job: Nap, shared: None) -> list[dict[str, Any]]:
    """Do one job; `again` in a receipt marks a model whose shard was on file when this job came to write it."""
    store, receipts = Store.open(job.store), []
    for index in job.models:
        started = time.perf_counter()
        time.sleep(job.seconds)
        name, rng = format_model_name(job.arm, index), np.random.default_rng(index)
        n = store.manifest.n_rows
        phi = rng.normal(2, size=n).astype(np.float32)
        member = rng.random(n) < 0.5
        receipt: dict[str, Any] = {
            "model": name,
            "n_members": int(member.sum()),
            "accuracy": {"members": 1.0, "left_out": 0.5, "validation": None, "test": 0.5},
            "diverged": False,
            "worker": f"{socket.gethostname()}:{os.getpid()}",
            "device": "none",
            "seconds": time.perf_counter() - started,
        }
        store.write_receipt(name, receipt)
        columns: dict[str, np.ndarray] = {"row": np.arange(n, dtype=np.int32), "member": member, "correct": phi > 0}
        columns |= {"logit_confidence": phi, "gap": phi, "top_gap": np.abs(phi)}
        receipt["again"] = not store.write_shard(name, job.arm, columns)
        receipts.append(receipt)
    return receipts
