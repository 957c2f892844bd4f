"""What a store lacks, or holds of an earlier time, going by its other files; and what makes it."""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.parquet import metadata_of
from memscore.promises import promised_events, promised_influence, promised_scores
from memscore.records import read_record
from memscore.shards import model_index, shards_digest
from memscore.store import Store

DERIVED = ("scores.parquet", "models.parquet", "reports/summary.json")


def absent(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Files that are not there.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files, which say nothing of others.

    Returns:
        Path -> what to do. A bank that was never scored lacks no table.
    """
    again = f"{store.renewal} makes it again"
    receipts, failures = names_in(store, "receipts"), names_in(store, "failures")  # first: at work they precede shards
    arms, shards = names_in(store, "arms"), names_in(store, "shards")
    wanted = {f"arms/{name.rpartition('-')[0]}.json": again for name in shards if not is_of(name, arms)}
    wanted["examples.parquet"] = again
    if any(arm.get("clusters") for arm in records(store, "arms", arms, unreadable).values()):
        wanted["clusters.parquet"] = f"{again}, to the same bits on one kind of CPU only; a copy is safer"
    wanted |= {f"shards/{name}.parquet": again for name in sorted(receipts - failures) if is_of(name, arms)}
    for name in sorted(name for name in shards if is_of(name, arms)):
        partly = f"its seconds, worker and device are lost; {store.renewal} makes the rest again from the shard"
        wanted[f"receipts/{name}.json"] = again if store.manifest.imported else partly
    originals = [name for name in sorted(receipts - failures) if name.startswith("original-")]
    keyed = records(store, "receipts", originals, unreadable)
    for receipt in keyed.values():
        wanted |= {f"weights/{receipt['key']}.safetensors": again, f"outputs/{receipt['key']}.parquet": again}
    keys = tuple(f"{receipt['key']}-" for receipt in keyed.values())
    proxies = [name for name in sorted(receipts - failures) if keys and name.startswith(keys)]
    keyed |= records(store, "receipts", proxies, unreadable)
    wanted |= dict.fromkeys(promised_events(store, keyed, shards, unreadable), again)
    if store.folder.names("scores"):
        wanted |= dict.fromkeys(DERIVED, again)
    wanted |= dict.fromkeys(promised_scores(store, unreadable), again)
    wanted |= promised_influence(store, unreadable)
    return {path: way_out for path, way_out in wanted.items() if not store.folder.exists(path)}


def outdated(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Tables that were made from other shards, receipts or scores than are on file now.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files.

    Returns:
        Path -> what to do.
    """
    old: dict[str, str] = {}
    ways_out = {"scores": store.renewal, "influence": f"`python -m memscore.influence {store.folder.shown}`"}
    whole = [arm for arm in whole_arms(store, unreadable) if f"arms/{arm}.json" not in unreadable]
    now = {arm: shards_digest(arm, store.finished(arm, verify=False)) for arm in whole}
    for kind, way_out in ways_out.items():
        for name in store.folder.names(kind):
            path = f"{kind}/{name}"
            said = {} if path in unreadable else metadata_of(store.read_table(path).schema)
            if said.get("arm") in now and said["shards_digest"] != now[said["arm"]]:
                old[path] = f"{way_out} makes it from the shards that are there now"
    tables = [name for name in DERIVED[:2] if name not in unreadable and store.folder.exists(name)]
    again = any(path.startswith("scores/") for path in old)
    if "scores.parquet" in tables and (again or differs(store, store.read_table("scores.parquet"), unreadable)):
        old["scores.parquet"] = f"{store.renewal} makes it from the scores that are there now"
    if "models.parquet" in tables:
        known = names_in(store, "receipts")
        models = {name for name in known if is_of(name, [*names_in(store, "arms"), "original"])}
        if set(store.read_table("models.parquet")["model"].to_pylist()) != models:
            old["models.parquet"] = f"{store.renewal} makes it from the receipts that are there now"
    return old


def differs(store: Store, wide: pa.Table, unreadable: Collection[str]) -> bool:
    """Whether scores.parquet holds another column than a score's own file."""
    for file in store.folder.names("scores"):
        if f"scores/{file}" in unreadable:
            continue
        score = store.read_table(f"scores/{file}")
        rows = np.asarray(score["row"])
        for column in set(score.column_names[2:]) & set(wide.column_names):
            if not wide[column].take(rows).equals(score[column]):
                return True
    return False


def names_in(store: Store, kind: str) -> set[str]:
    """Names of one kind of files, without their endings."""
    return {name.rpartition(".")[0] for name in store.folder.names(kind)}


def is_of(model: str, arms: Iterable[str]) -> bool:
    """Whether a model is one of these arms."""
    return any(model_index(model, arm) is not None for arm in arms)


def whole_arms(store: Store, unreadable: Collection[str]) -> list[str]:
    """Arms without a damaged shard: one that is made again is the same, and so are the scores of it."""
    damaged = {path.removeprefix("shards/").removesuffix(".parquet") for path in unreadable}
    return [arm for arm in sorted(names_in(store, "arms")) if not any(is_of(model, [arm]) for model in damaged)]


def records(store: Store, kind: str, names: Iterable[str], unreadable: Collection[str]) -> dict[str, dict[str, Any]]:
    """Those that can be read."""
    paths = {name: f"{kind}/{name}.json" for name in names}
    return {name: read_record(store.folder, path) for name, path in paths.items() if path not in unreadable}
