"""Receipts that were lost: a shard knows who was in and what was right, but not how long it took, nor where."""

from collections.abc import Mapping

import numpy as np

from memscore.shards import shard_path
from memscore.store import Store, model_name


def restore_receipts(store: Store, shards: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Write again what a shard says of each model that has one and no receipt; the rest is null.

    Args:
        store: the bank; the caller holds its lock.
        shards: arm -> indices of its models with a valid shard.

    Returns:
        The models; their receipts say `restored`.
    """
    known = {name.removesuffix(".json") for name in store.folder.names("receipts")}
    lost = {
        name: shard_path(arm, m)
        for arm, models in shards.items()
        for m in models
        if (name := model_name(arm, m)) not in known
    }
    for name, path in lost.items():
        table = store.read_table(path)
        member, right = (np.asarray(table[column]) for column in ("member", "correct"))
        store.write_receipt(name, said_by_shard(store, name, member, right))
    return list(lost)


def said_by_shard(store: Store, name: str, member: np.ndarray, right: np.ndarray) -> dict[str, object]:
    """A receipt as far as the columns give one."""
    train, validation, _ = store.manifest.split_sizes
    groups = {
        "members": right[member],
        "left_out": right[:train][~member[:train]],
        "validation": right[train : train + validation],
        "test": right[train + validation :],
    }
    return {
        "model": name,
        "n_members": int(member.sum()),
        "accuracy": {group: float(hits.mean()) if len(hits) else None for group, hits in groups.items()},
        "diverged": False,
        **dict.fromkeys(("seconds", "worker", "device")),
        "restored": True,
    }
