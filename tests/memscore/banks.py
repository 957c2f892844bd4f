"""Small stores for tests, and ways to damage them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from memscore.store.manifest import Manifest
from memscore.store.shards import model_name
from memscore.store.store import Store

SIZES = (40, 5, 7)
N = 52
ARM = {"name": "iid-k0.700", "design": "iid", "keep": 0.7, "block": 1, "clusters": None}
FIELD = {"source": "a paper", "unit": "probability", "direction": 1}


def manifest(**changes):
    fields = {
        "fingerprint": "f" * 64,
        "data": "digits",
        "split_sizes": SIZES,
        "n_classes": 10,
        "input_shape": (1, 8, 8),
        "mean": (0.3,),
        "std": (0.25,),
        "label_changes": {},
        "architecture": "mlp",
        "recipe": {"epochs": 3, "milestones": (1.0, 2.0)},
        "precision": "float32",
        "seed": 0,
    }
    return Manifest(**(fields | changes))


def examples(n=N):
    return pa.table({"row": pa.array(range(n), pa.int32()), "id": [f"train/{i:05d}" for i in range(n)]})


def shard(seed, n=N):
    rng = np.random.default_rng(seed)
    numbers = {name: rng.normal(size=n).astype(np.float32) for name in ("logit_confidence", "gap", "top_gap")}
    bits = {"member": rng.random(n) < 0.7, "correct": rng.random(n) < 0.9}
    return {"row": np.arange(n, dtype=np.int32), **bits, **numbers}


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def path_of(store, relpath):
    return Path(store.folder.path(relpath))


def bank(folder):
    """A store with one arm and three shards."""
    made = Store.create(folder, manifest(), examples())
    made.add_arm(ARM)
    for index in range(3):
        assert made.write_shard(model_name(ARM["name"], index), ARM["name"], shard(index))
    return made
