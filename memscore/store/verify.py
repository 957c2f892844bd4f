"""Verify a store: find damaged, missing and stale files; restore receipts from shards.

Files are compared with the hashes they hold. Missing files are those that other files imply: a receipt implies a shard,
a column of scores.parquet implies the score's file, a score implies its learning events. Stale tables were computed
from other shards, receipts or scores than are stored now.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.store.influence_files import INFLUENCE_OPTIONS
from memscore.store.json_records import decode_record, read_record
from memscore.store.parquet import CorruptFile, check_content, decode_metadata
from memscore.store.remote import StoreUnavailable
from memscore.store.shards import build_shard_path, format_model_name, hash_shards, parse_model_index
from memscore.store.store import Store
from memscore.store.weight_files import check_weights

FOLDERS = (
    *("", "arms", "shards", "events", "receipts", "failures", "weights", "outputs", "scores", "influence", "trials"),
    "reports",
)
NESTED_FOLDERS = ("attempts", "experiments", "sweeps")
"""Folders that contain folders."""
DERIVED_FILES = ("scores.parquet", "models.parquet", "reports/summary.json")
THREADS = 4
UNKNOWN_ARM_REASON = "a shard of no stored arm; it stays, and the estimate that made it stores its arm again"


@dataclass(frozen=True, kw_only=True)
class VerificationResult:
    """Result of reading every file of a store.

    Attributes:
        verified: how many files hold what was written.
        damaged: path of a file that does not -> reason and place.
        missing: path of a file that other files imply and that does not exist -> what to do.
        stale: path of a table computed from other files than are stored now -> what to do.
        kept_in_place: those of the damaged that are intact, shards of an unknown arm, and are not to be moved.
    """

    verified: int
    damaged: dict[str, str]
    missing: dict[str, str]
    stale: dict[str, str]
    kept_in_place: frozenset[str]


def verify(store: Store) -> VerificationResult:
    """Read every byte of the store and compare each file with its hashes.

    Parquet: the checksum of the file, of each page, the hash over the values, and for shards their arm and model.
    Weights: the hash over the tensors. JSON: the record's hash. Pictures are not read.

    Args:
        store: open; nothing in it is changed.

    Returns:
        The number of good files, and by path the damaged, the missing and the stale ones.
    """
    checks = dict(_list_checks(store))
    with ThreadPoolExecutor(THREADS) as pool:
        reasons = dict(zip(checks, pool.map(_run_check, checks.values()), strict=True))
    damaged = {path: reason for path, reason in reasons.items() if reason}
    other_runs, unknown_arm = _find_unknown_shards(store, set(damaged))
    unknown_arm -= set(damaged)
    damaged |= {path: reason for path, reason in other_runs.items() if path not in damaged}
    damaged |= dict.fromkeys(sorted(unknown_arm), UNKNOWN_ARM_REASON)
    result = VerificationResult(
        verified=len(checks) - len(damaged),
        damaged=damaged,
        missing=find_missing_files(store, damaged),
        stale=find_stale_files(store, damaged),
        kept_in_place=frozenset(unknown_arm),
    )
    return merge_results(result, {path: verify(Store.open(f"{store.url}/{path}")) for path in store.scenarios()})


def merge_results(outer: VerificationResult, inner: dict[str, VerificationResult]) -> VerificationResult:
    """Merge the results of a store and of the stores within it, with paths in the outer one."""
    return VerificationResult(
        verified=outer.verified + sum(result.verified for result in inner.values()),
        damaged=outer.damaged
        | {f"{prefix}/{path}": reason for prefix, result in inner.items() for path, reason in result.damaged.items()},
        missing=outer.missing
        | {f"{prefix}/{path}": reason for prefix, result in inner.items() for path, reason in result.missing.items()},
        stale=outer.stale
        | {f"{prefix}/{path}": reason for prefix, result in inner.items() for path, reason in result.stale.items()},
        kept_in_place=outer.kept_in_place
        | {f"{prefix}/{path}" for prefix, result in inner.items() for path in result.kept_in_place},
    )


def quarantine_damaged(store: Store, result: VerificationResult) -> dict[str, str]:
    """Move damaged files to the folder damaged/, so that the next command writes them again.

    Args:
        store: open; the caller holds its lock.
        result: of verify.

    Returns:
        Old path -> new path; intact shards of an unknown arm stay.
    """
    return {path: store.quarantine(path) for path in result.damaged if path not in result.kept_in_place}


def _list_checks(store: Store) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield the path of each file and a call that raises CorruptFile if it is damaged."""
    by_ending = {".parquet": check_content, ".safetensors": check_weights, ".json": _check_json}
    nested = [f"{kind}/{inner}" for kind in NESTED_FOLDERS for inner in store.folder.folders(kind)]
    for kind in (*FOLDERS, *nested):
        for name in store.folder.names(kind):
            path = f"{kind}/{name}".lstrip("/")
            check = by_ending.get("." + name.rpartition(".")[2])
            if check:
                yield path, partial(_read_and_check, store, path, check)


def _read_and_check(store: Store, path: str, check: Callable[[bytes], None]) -> None:
    """Read one file and check it."""
    check(store.folder.read(path))


def _check_json(content: bytes) -> None:
    """Raise unless a record is a JSON object with a matching hash."""
    try:
        decode_record(content, require_checksum=True)
    except ValueError as error:
        raise CorruptFile(str(error)) from None


def _run_check(check: Callable[[], None]) -> str:
    """Run a check and return its error message; empty if it passed."""
    try:
        check()
    except FileNotFoundError:  # deleted by a running command
        return ""
    except StoreUnavailable:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error)
    return ""


def _find_unknown_shards(store: Store, damaged: set[str]) -> tuple[dict[str, str], set[str]]:
    """Find shards of another run, with the reason, and those of no stored arm."""
    arms = [name.removesuffix(".json") for name in store.folder.names("arms")]
    other_runs: dict[str, str] = {}
    for arm in arms:
        if f"arms/{arm}.json" not in damaged:
            other_runs |= store.check(arm, verify=False).damaged
    models = {f"shards/{name}": name.removesuffix(".parquet") for name in store.folder.names("shards")}
    return other_runs, {
        path for path, model in models.items() if all(parse_model_index(model, arm) is None for arm in arms)
    }


def find_missing_files(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Find files that do not exist although other files imply them.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files, which imply nothing.

    Returns:
        Path -> what to do. A bank that was never scored has no missing table.
    """
    rebuild = f"{store.rebuild_command} makes it again"
    # Receipts before shards: a running command writes them in this order.
    receipts, failures = list_names(store, "receipts"), list_names(store, "failures")
    arms, shards = list_names(store, "arms"), list_names(store, "shards")
    expected = {f"arms/{name.rpartition('-')[0]}.json": rebuild for name in shards if not belongs_to_any(name, arms)}
    expected["examples.parquet"] = rebuild
    if any(arm.get("clusters") for arm in read_readable_records(store, "arms", arms, unreadable).values()):
        expected["clusters.parquet"] = f"{rebuild}, to the same bits on one kind of CPU only; a copy is safer"
    expected |= {
        f"shards/{name}.parquet": rebuild for name in sorted(receipts - failures) if belongs_to_any(name, arms)
    }
    for name in sorted(name for name in shards if belongs_to_any(name, arms)):
        receipt_hint = (
            f"its seconds, worker and device are lost; {store.rebuild_command} makes the rest again from the shard"
        )
        expected[f"receipts/{name}.json"] = rebuild if store.manifest.imported else receipt_hint
    originals = [name for name in sorted(receipts - failures) if name.startswith("original-")]
    read_receipts = read_readable_records(store, "receipts", originals, unreadable)
    for receipt in read_receipts.values():
        expected |= {f"weights/{receipt['key']}.safetensors": rebuild, f"outputs/{receipt['key']}.parquet": rebuild}
    keys = tuple(f"{receipt['key']}-" for receipt in read_receipts.values())
    proxies = [name for name in sorted(receipts - failures) if keys and name.startswith(keys)]
    read_receipts |= read_readable_records(store, "receipts", proxies, unreadable)
    expected |= dict.fromkeys(find_expected_events(store, read_receipts, shards, unreadable), rebuild)
    if store.folder.names("scores"):
        expected |= dict.fromkeys(DERIVED_FILES, rebuild)
    expected |= dict.fromkeys(find_expected_scores(store, unreadable), rebuild)
    expected |= find_expected_influence(store, unreadable)
    return {path: hint for path, hint in expected.items() if not store.folder.exists(path)}


def find_expected_scores(store: Store, unreadable: Collection[str]) -> Iterator[str]:
    """Find files of scores whose columns are in scores.parquet and in no score's own file."""
    path = "scores.parquet"
    if any(file in unreadable or not store.folder.exists(file) for file in (path, "examples.parquet")):
        return
    files = [f"scores/{name}" for name in store.folder.names("scores")]
    if any(file in unreadable for file in files):
        return  # it is reported already, and its columns are unknown
    columns = set(store.examples().column_names).union(*(store.read_table(file).column_names for file in files))
    missing = [column for column in store.read_table(path).column_names if column not in columns]
    yield from (f"scores/{c}.parquet" for c in missing if not any(c.startswith(f"{stem}_") for stem in missing))


def find_expected_events(
    store: Store, receipts: Mapping[str, Mapping[str, Any]], shards: Collection[str], unreadable: Collection[str]
) -> Iterator[str]:
    """Find learning events and proxy values of originals with a receipt, or that scores need.

    Args:
        store: open.
        receipts: of originals that did not diverge, and of their proxies.
        shards: names of models that have one.
        unreadable: paths of damaged files.

    Yields:
        Paths, existing or not.
    """
    keys = [receipt["key"] for receipt in receipts.values() if "ending" not in receipt]
    yield from (f"events/{key}.parquet" for key in keys)
    yield from (f"events/{r['key']}-{r['ending']}.parquet" for r in receipts.values() if "ending" in r)
    stored = {name.removesuffix(".parquet") for name in store.folder.names("events")}
    for file in store.folder.names("scores"):
        if f"scores/{file}" in unreadable or not file.startswith(("events_bank_", "events_evaluation_")):
            continue
        metadata = decode_metadata(store.read_table(f"scores/{file}").schema)
        if file.startswith("events_bank_"):
            models = {name for name in shards if parse_model_index(name, metadata["models_of"]) is not None}
        else:
            models = {f"{key}-evaluation" for key in keys}
        if len(models & stored) < int(metadata["models"]):
            yield from (f"events/{model}.parquet" for model in sorted(models))


def find_expected_influence(store: Store, unreadable: Collection[str]) -> dict[str, str]:
    """Find influence files that a record or a picture implies; return path -> what to do."""
    command = f"python -m memscore.influence {store.folder.display_name}"
    expected: dict[str, str] = {}
    for report in store.folder.names("reports"):
        name, _, ending = report.removeprefix("influence_").rpartition(".")
        path = f"influence/{name}.parquet"
        if report.startswith("influence_") and ending == "png":
            expected.setdefault(path, f"`{command}` with the options it was made with makes it again")
        elif report.startswith("influence_") and ending == "json" and f"reports/{report}" not in unreadable:
            record = read_record(store.folder, f"reports/{report}")
            flags = " ".join(f"--{key.replace('_', '-')} {record[key]}" for key in INFLUENCE_OPTIONS if key in record)
            expected[path] = f"`{command} {flags}` makes it again"
    return expected


def find_stale_files(store: Store, unreadable: Collection[str] = ()) -> dict[str, str]:
    """Find tables that were computed from other shards, receipts or scores than are stored now.

    Args:
        store: open; nothing in it is changed.
        unreadable: paths of damaged files.

    Returns:
        Path -> what to do.
    """
    stale: dict[str, str] = {}
    commands = {
        "scores": store.rebuild_command,
        "influence": f"`python -m memscore.influence {store.folder.display_name}`",
    }
    arms = [arm for arm in find_intact_arms(store, unreadable) if f"arms/{arm}.json" not in unreadable]
    digests = {arm: hash_shards(arm, store.find_valid_shards(arm, verify=False)) for arm in arms}
    for kind, command in commands.items():
        for name in store.folder.names(kind):
            path = f"{kind}/{name}"
            metadata = {} if path in unreadable else decode_metadata(store.read_table(path).schema)
            if metadata.get("arm") in digests and metadata["shards_digest"] != digests[metadata["arm"]]:
                stale[path] = f"{command} makes it from the shards that are there now"
    tables = [name for name in DERIVED_FILES[:2] if name not in unreadable and store.folder.exists(name)]
    has_stale_score = any(path.startswith("scores/") for path in stale)
    if "scores.parquet" in tables and (
        has_stale_score or has_other_values(store, store.read_table("scores.parquet"), unreadable)
    ):
        stale["scores.parquet"] = f"{store.rebuild_command} makes it from the scores that are there now"
    if "models.parquet" in tables:
        receipts = list_names(store, "receipts")
        models = {name for name in receipts if belongs_to_any(name, [*list_names(store, "arms"), "original"])}
        if set(store.read_table("models.parquet")["model"].to_pylist()) != models:
            stale["models.parquet"] = f"{store.rebuild_command} makes it from the receipts that are there now"
    return stale


def has_other_values(store: Store, all_scores: pa.Table, unreadable: Collection[str]) -> bool:
    """Return whether a column of scores.parquet differs from the score's own file."""
    for file in store.folder.names("scores"):
        if f"scores/{file}" in unreadable:
            continue
        score = store.read_table(f"scores/{file}")
        rows = np.asarray(score["row"])
        for column in set(score.column_names[2:]) & set(all_scores.column_names):
            if not all_scores[column].take(rows).equals(score[column]):
                return True
    return False


def list_names(store: Store, kind: str) -> set[str]:
    """List the names of one kind of files, without their endings."""
    return {name.rpartition(".")[0] for name in store.folder.names(kind)}


def belongs_to_any(model: str, arms: Iterable[str]) -> bool:
    """Return whether a model belongs to one of these arms."""
    return any(parse_model_index(model, arm) is not None for arm in arms)


def find_intact_arms(store: Store, unreadable: Collection[str]) -> list[str]:
    """Find arms without a damaged shard; training repeats one exactly, so scores stay fresh."""
    damaged = {path.removeprefix("shards/").removesuffix(".parquet") for path in unreadable}
    return [
        arm for arm in sorted(list_names(store, "arms")) if not any(belongs_to_any(model, [arm]) for model in damaged)
    ]


def read_readable_records(
    store: Store, kind: str, names: Iterable[str], unreadable: Collection[str]
) -> dict[str, dict[str, Any]]:
    """Read the records that are not damaged."""
    paths = {name: f"{kind}/{name}.json" for name in names}
    return {name: read_record(store.folder, path) for name, path in paths.items() if path not in unreadable}


def restore_receipts(store: Store, shards: Mapping[str, Mapping[int, str]]) -> list[str]:
    """Write the missing receipts of models with a shard, as far as the shard determines them.

    The other fields are null.

    Args:
        store: the bank; the caller holds its lock.
        shards: arm -> indices of its models with a valid shard.

    Returns:
        The models; their receipts say `restored`.
    """
    with_receipt = {name.removesuffix(".json") for name in store.folder.names("receipts")}
    paths = {
        name: build_shard_path(arm, m)
        for arm, models in shards.items()
        for m in models
        if (name := format_model_name(arm, m)) not in with_receipt
    }
    for name, path in paths.items():
        table = store.read_table(path)
        member, correct = (np.asarray(table[column]) for column in ("member", "correct"))
        store.write_receipt(name, build_receipt_from_shard(store, name, member, correct))
    return list(paths)


def build_receipt_from_shard(store: Store, name: str, member: np.ndarray, correct: np.ndarray) -> dict[str, object]:
    """Build a receipt from the columns of a shard."""
    train, validation, _ = store.manifest.split_sizes
    groups = {
        "members": correct[member],
        "left_out": correct[:train][~member[:train]],
        "validation": correct[train : train + validation],
        "test": correct[train + validation :],
    }
    return {
        "model": name,
        "n_members": int(member.sum()),
        "accuracy": {group: float(hits.mean()) if len(hits) else None for group, hits in groups.items()},
        "diverged": False,
        **dict.fromkeys(("seconds", "worker", "device")),
        "restored": True,
    }
