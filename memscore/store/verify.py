"""What a store lacks, or holds of an earlier time, going by its other files; and what makes it.

Receipts that were lost: a shard knows who was in and what was right, but not how long it took, nor where.

Scores, learning events and influences that other files of a store say must be there.

Every file of a store against the hashes that stand in it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.store.json_records import decode_record, read_record
from memscore.store.parquet import CorruptFile, check_content, decode_metadata
from memscore.store.remote import StoreUnavailable
from memscore.store.shards import build_shard_path, format_model_name, hash_shards, parse_model_index
from memscore.store.store import INFLUENCE_OPTIONS, Store
from memscore.store.weight_files import check_weights


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
        name: build_shard_path(arm, m)
        for arm, models in shards.items()
        for m in models
        if (name := format_model_name(arm, m)) not in known
    }
    for name, path in lost.items():
        table = store.read_table(path)
        member, right = (np.asarray(table[column]) for column in ("member", "correct"))
        store.write_receipt(name, build_receipt_from_shard(store, name, member, right))
    return list(lost)


def build_receipt_from_shard(store: Store, name: str, member: np.ndarray, right: np.ndarray) -> dict[str, object]:
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


def find_expected_scores(store: Store, unreadable: Collection[str]) -> Iterator[str]:
    """Files of scores whose columns stand in scores.parquet and in no score's own file."""
    path = "scores.parquet"
    if any(file in unreadable or not store.folder.exists(file) for file in (path, "examples.parquet")):
        return
    files = [f"scores/{name}" for name in store.folder.names("scores")]
    if any(file in unreadable for file in files):
        return  # it is named already, and nobody knows its columns
    known = set(store.examples().column_names).union(*(store.read_table(file).column_names for file in files))
    lost = [column for column in store.read_table(path).column_names if column not in known]
    yield from (f"scores/{c}.parquet" for c in lost if not any(c.startswith(f"{other}_") for other in lost))


def find_expected_events(
    store: Store, receipts: Mapping[str, Mapping[str, Any]], shards: Collection[str], unreadable: Collection[str]
) -> Iterator[str]:
    """Learning events and proxies of originals that have a receipt, and those that a score was made from.

    Args:
        store: open.
        receipts: of originals that did not diverge, and of their proxies.
        shards: names of models that have one.
        unreadable: paths of damaged files.

    Yields:
        Paths, there or not.
    """
    keys = [receipt["key"] for receipt in receipts.values() if "ending" not in receipt]
    yield from (f"events/{key}.parquet" for key in keys)
    yield from (f"events/{r['key']}-{r['ending']}.parquet" for r in receipts.values() if "ending" in r)
    there = {name.removesuffix(".parquet") for name in store.folder.names("events")}
    for file in store.folder.names("scores"):
        if f"scores/{file}" in unreadable or not file.startswith(("events_bank_", "events_evaluation_")):
            continue
        said = decode_metadata(store.read_table(f"scores/{file}").schema)
        if file.startswith("events_bank_"):
            models = {name for name in shards if parse_model_index(name, said["models_of"]) is not None}
        else:
            models = {f"{key}-evaluation" for key in keys}
        if len(models & there) < int(said["models"]):
            yield from (f"events/{model}.parquet" for model in sorted(models))


def find_expected_influence(store: Store, unreadable: Collection[str]) -> dict[str, str]:
    """Files of influence that were written, by the record of each, or that a picture was drawn from -> what to do."""
    again = f"python -m memscore.influence {store.folder.display_name}"
    promised: dict[str, str] = {}
    for report in store.folder.names("reports"):
        name, _, ending = report.removeprefix("influence_").rpartition(".")
        path = f"influence/{name}.parquet"
        if report.startswith("influence_") and ending == "png":
            promised.setdefault(path, f"`{again}` with the options it was made with makes it again")
        elif report.startswith("influence_") and ending == "json" and f"reports/{report}" not in unreadable:
            said = read_record(store.folder, f"reports/{report}")
            asked = " ".join(f"--{key.replace('_', '-')} {said[key]}" for key in INFLUENCE_OPTIONS if key in said)
            promised[path] = f"`{again} {asked}` makes it again"
    return promised


DERIVED = ("scores.parquet", "models.parquet", "reports/summary.json")


def find_missing_files(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Files that are not there.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files, which say nothing of others.

    Returns:
        Path -> what to do. A bank that was never scored lacks no table.
    """
    again = f"{store.rebuild_command} makes it again"
    receipts, failures = (
        list_names(store, "receipts"),
        list_names(store, "failures"),
    )  # first: at work they precede shards
    arms, shards = list_names(store, "arms"), list_names(store, "shards")
    wanted = {f"arms/{name.rpartition('-')[0]}.json": again for name in shards if not belongs_to_any(name, arms)}
    wanted["examples.parquet"] = again
    if any(arm.get("clusters") for arm in read_readable_records(store, "arms", arms, unreadable).values()):
        wanted["clusters.parquet"] = f"{again}, to the same bits on one kind of CPU only; a copy is safer"
    wanted |= {f"shards/{name}.parquet": again for name in sorted(receipts - failures) if belongs_to_any(name, arms)}
    for name in sorted(name for name in shards if belongs_to_any(name, arms)):
        partly = f"its seconds, worker and device are lost; {store.rebuild_command} makes the rest again from the shard"
        wanted[f"receipts/{name}.json"] = again if store.manifest.imported else partly
    originals = [name for name in sorted(receipts - failures) if name.startswith("original-")]
    keyed = read_readable_records(store, "receipts", originals, unreadable)
    for receipt in keyed.values():
        wanted |= {f"weights/{receipt['key']}.safetensors": again, f"outputs/{receipt['key']}.parquet": again}
    keys = tuple(f"{receipt['key']}-" for receipt in keyed.values())
    proxies = [name for name in sorted(receipts - failures) if keys and name.startswith(keys)]
    keyed |= read_readable_records(store, "receipts", proxies, unreadable)
    wanted |= dict.fromkeys(find_expected_events(store, keyed, shards, unreadable), again)
    if store.folder.names("scores"):
        wanted |= dict.fromkeys(DERIVED, again)
    wanted |= dict.fromkeys(find_expected_scores(store, unreadable), again)
    wanted |= find_expected_influence(store, unreadable)
    return {path: way_out for path, way_out in wanted.items() if not store.folder.exists(path)}


def find_stale_files(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Tables that were made from other shards, receipts or scores than are on file now.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files.

    Returns:
        Path -> what to do.
    """
    old: dict[str, str] = {}
    ways_out = {
        "scores": store.rebuild_command,
        "influence": f"`python -m memscore.influence {store.folder.display_name}`",
    }
    whole = [arm for arm in find_intact_arms(store, unreadable) if f"arms/{arm}.json" not in unreadable]
    now = {arm: hash_shards(arm, store.find_valid_shards(arm, verify=False)) for arm in whole}
    for kind, way_out in ways_out.items():
        for name in store.folder.names(kind):
            path = f"{kind}/{name}"
            said = {} if path in unreadable else decode_metadata(store.read_table(path).schema)
            if said.get("arm") in now and said["shards_digest"] != now[said["arm"]]:
                old[path] = f"{way_out} makes it from the shards that are there now"
    tables = [name for name in DERIVED[:2] if name not in unreadable and store.folder.exists(name)]
    again = any(path.startswith("scores/") for path in old)
    if "scores.parquet" in tables and (
        again or has_other_values(store, store.read_table("scores.parquet"), unreadable)
    ):
        old["scores.parquet"] = f"{store.rebuild_command} makes it from the scores that are there now"
    if "models.parquet" in tables:
        known = list_names(store, "receipts")
        models = {name for name in known if belongs_to_any(name, [*list_names(store, "arms"), "original"])}
        if set(store.read_table("models.parquet")["model"].to_pylist()) != models:
            old["models.parquet"] = f"{store.rebuild_command} makes it from the receipts that are there now"
    return old


def has_other_values(store: Store, wide: pa.Table, unreadable: Collection[str]) -> bool:
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


def list_names(store: Store, kind: str) -> set[str]:
    """Names of one kind of files, without their endings."""
    return {name.rpartition(".")[0] for name in store.folder.names(kind)}


def belongs_to_any(model: str, arms: Iterable[str]) -> bool:
    """Whether a model is one of these arms."""
    return any(parse_model_index(model, arm) is not None for arm in arms)


def find_intact_arms(store: Store, unreadable: Collection[str]) -> list[str]:
    """Arms without a damaged shard: one that is made again is the same, and so are the scores of it."""
    damaged = {path.removeprefix("shards/").removesuffix(".parquet") for path in unreadable}
    return [
        arm for arm in sorted(list_names(store, "arms")) if not any(belongs_to_any(model, [arm]) for model in damaged)
    ]


def read_readable_records(
    store: Store, kind: str, names: Iterable[str], unreadable: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Those that can be read."""
    paths = {name: f"{kind}/{name}.json" for name in names}
    return {name: read_record(store.folder, path) for name, path in paths.items() if path not in unreadable}


FOLDERS = (
    *("", "arms", "shards", "events", "receipts", "failures", "weights", "outputs", "scores", "influence", "trials"),
    "reports",
)
NESTED_FOLDERS = ("attempts", "experiments", "sweeps")
"""Folders of folders."""
THREADS = 4
UNKNOWN_ARM_REASON = "a shard of no arm on file; it stays, and the estimate that made it puts its arm back"


@dataclass(frozen=True, kw_only=True)
class VerificationResult:
    """What came of reading every file.

    Attributes:
        verified: how many files hold what was written.
        damaged: path of a file that does not -> what is wrong, and where.
        missing: path of a file that is not there, though others say it should be -> what to do.
        stale: path of a table made from other files than are there now -> what to do.
        kept_in_place: those of the damaged that are whole, shards of no arm on file, and so are not to be moved.
    """

    verified: int
    damaged: dict[str, str]
    missing: dict[str, str]
    stale: dict[str, str]
    kept_in_place: frozenset[str]


def verify(store: Store) -> VerificationResult:
    """Read every byte of the store and compare each file with its hashes.

    Parquet: the seal over the file, the checksum of each page, the hash over the values, and for shards the arm and
    model that they say they are of. Weights: the hash over the tensors. JSON: its own hash. Pictures are not read.

    Args:
        store: open; nothing in it is changed.

    Returns:
        The count of good files, and by path the bad ones, those that are missing and those of an earlier time.
    """
    checks = dict(_checks(store))
    with ThreadPoolExecutor(THREADS) as pool:
        reasons = dict(zip(checks, pool.map(_reason, checks.values()), strict=True))
    damaged = {path: reason for path, reason in reasons.items() if reason}
    elsewhere, homeless = _strangers(store, set(damaged))
    homeless -= set(damaged)
    damaged |= {path: reason for path, reason in elsewhere.items() if path not in damaged}
    damaged |= dict.fromkeys(sorted(homeless), UNKNOWN_ARM_REASON)
    own = VerificationResult(
        verified=len(checks) - len(damaged),
        damaged=damaged,
        missing=find_missing_files(store, damaged),
        stale=find_stale_files(store, damaged),
        kept_in_place=frozenset(homeless),
    )
    return merge_results(own, {path: verify(Store.open(f"{store.url}/{path}")) for path in store.scenarios()})


def merge_results(own: VerificationResult, inner: dict[str, VerificationResult]) -> VerificationResult:
    """The verdict on a store and on the stores within it, whose files are called by their path in the outer one."""
    return VerificationResult(
        verified=own.verified + sum(verdict.verified for verdict in inner.values()),
        damaged=own.damaged | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.damaged.items()},
        missing=own.missing | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.missing.items()},
        stale=own.stale | {f"{at}/{path}": why for at, v in inner.items() for path, why in v.stale.items()},
        kept_in_place=own.kept_in_place | {f"{at}/{path}" for at, v in inner.items() for path in v.kept_in_place},
    )


def quarantine_damaged(store: Store, verdict: VerificationResult) -> dict[str, str]:
    """Move damaged files to the folder damaged/, so that the command that wrote them makes them again.

    Args:
        store: open; the caller holds its lock.
        verdict: of verify.

    Returns:
        Where each was -> where it is; whole shards whose arm is not on file stay.
    """
    return {path: store.quarantine(path) for path in verdict.damaged if path not in verdict.kept_in_place}


def _checks(store: Store) -> Iterator[tuple[str, Callable[[], None]]]:
    """Path of each file, and the call that raises Damaged if it is."""
    by_ending = {".parquet": check_content, ".safetensors": check_weights, ".json": _check_json}
    deep = [f"{kind}/{inner}" for kind in NESTED_FOLDERS for inner in store.folder.folders(kind)]
    for kind in (*FOLDERS, *deep):
        for name in store.folder.names(kind):
            path = f"{kind}/{name}".lstrip("/")
            check = by_ending.get("." + name.rpartition(".")[2])
            if check:
                yield path, partial(_read_and_check, store, path, check)


def _read_and_check(store: Store, path: str, check: Callable[[bytes], None]) -> None:
    """One file, one check."""
    check(store.folder.read(path))


def _check_json(content: bytes) -> None:
    """A record must be a JSON object, and give the hash that stands in it."""
    try:
        decode_record(content, require_checksum=True)
    except ValueError as error:
        raise CorruptFile(str(error)) from None


def _reason(check: Callable[[], None]) -> str:
    """What a check found; empty if nothing."""
    try:
        check()
    except FileNotFoundError:  # a driver at work cleared it
        return ""
    except StoreUnavailable:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error)
    return ""


def _strangers(store: Store, damaged: set[str]) -> tuple[dict[str, str], set[str]]:
    """Shards that are of another run, with the reason, and those of no arm on file; a damaged arm's are neither."""
    arms = [name.removesuffix(".json") for name in store.folder.names("arms")]
    others: dict[str, str] = {}
    for arm in arms:
        if f"arms/{arm}.json" not in damaged:
            others |= store.check(arm, verify=False).damaged
    models = {f"shards/{name}": name.removesuffix(".parquet") for name in store.folder.names("shards")}
    return others, {path for path, m in models.items() if all(parse_model_index(m, arm) is None for arm in arms)}
