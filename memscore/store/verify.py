"""Verify a store: find damaged, missing and stale files; restore receipts from shards.

Which files there are, how each is checked and what rebuilds it stands in file_kinds.py.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.store.file_kinds import (
    CHECKED_FOLDERS,
    FILE_KINDS,
    advise,
    find_completing_path,
    find_format,
    find_kind,
)
from memscore.store.filesystem import Folder
from memscore.store.manifest import Manifest
from memscore.store.manifest_file import REMAKE_MANIFEST, find_manifest_fault
from memscore.store.parquet import CorruptFile
from memscore.store.path_patterns import SCENARIOS, get_stem
from memscore.store.rebuild_advice import by_trial_command
from memscore.store.record_schemas import find_record_fault
from memscore.store.remote import StoreUnavailable, join_url
from memscore.store.shards import build_shard_path, format_model_name
from memscore.store.store import Store
from memscore.store.stored_files import UNKNOWN_ARM_REASON, StoredFiles
from memscore.store.table_schemas import find_footer_fault, find_value_fault
from memscore.store.weight_files import find_key_fault

THREADS = 4


@dataclass(frozen=True, kw_only=True)
class VerificationResult:
    """Result of reading every file of a store.

    Attributes:
        verified: how many files hold what was written.
        damaged: path of a file that does not -> reason and place.
        missing: path of a file that other files imply and that does not exist -> what to do.
        stale: path of a table computed from other files than are stored now -> what to do.
        advice: path of a damaged file -> what to do.
        kept_in_place: those of the damaged that are intact, shards of an unknown arm, and are not to be moved.
        unknown: paths of files that no command writes, and none reads.
    """

    verified: int
    damaged: dict[str, str]
    missing: dict[str, str] = field(default_factory=dict)
    stale: dict[str, str] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)
    kept_in_place: frozenset[str] = frozenset()
    unknown: tuple[str, ...] = ()


def verify_folder(folder: Folder, remake: str = REMAKE_MANIFEST) -> VerificationResult:
    """Verify the store in a folder; where its manifest cannot be used, only the bytes of each file are compared.

    `remake` says what makes the manifest again.
    """
    reason = find_manifest_fault(folder)
    if not reason:
        return verify(Store.open(folder.url))
    n_checked, damaged, _ = check_files(folder)
    damaged["manifest.json"] = reason
    advice = dict.fromkeys(damaged, "verify again once manifest.json is there") | {"manifest.json": remake}
    return VerificationResult(verified=n_checked - len(damaged), damaged=damaged, advice=advice)


def verify(store: Store) -> VerificationResult:
    """Read every byte of the store and of the stores within it, and compare each file with its hashes.

    Parquet: the checksum of the file, of each page, the hash over the values, and for shards their arm and model.
    Weights: the hash over the tensors. JSON: the record's hash. PNG: the CRC of each chunk. Nothing is changed.
    """
    n_checked, damaged, records = check_files(store.folder, store.manifest)
    files = StoredFiles(store, damaged, records)
    for kind in FILE_KINDS:
        for path, reason in kind.conflicts(files) if kind.conflicts else ():
            damaged.setdefault(path, reason)
    unknown = frozenset(path for path, reason in damaged.items() if reason == UNKNOWN_ARM_REASON)
    expected = dict.fromkeys(path for kind in FILE_KINDS if kind.expected for path in kind.expected(files))
    result = VerificationResult(
        verified=n_checked - len(damaged),
        damaged=damaged,
        missing={path: advise(files, path) for path in expected if not files.exists(path)},
        stale={path: hint for kind in FILE_KINDS if kind.stale for path, hint in kind.stale(files)},
        advice={path: advise(files, path) for path in damaged if path not in unknown},
        kept_in_place=unknown,
        unknown=tuple(list_unknown_files(store.folder)),
    )
    inner = {path: Folder.from_url(join_url(store.url, path)) for path in store.scenarios()}
    created = {path: folder for path, folder in inner.items() if folder.exists("manifest.json")}
    lost = {f"{path}/manifest.json": by_trial_command(files, path) for path in inner.keys() - created.keys()}
    result.missing.update(sorted(lost.items()))
    return merge_results(
        result, {path: verify_folder(folder, by_trial_command(files, path)) for path, folder in created.items()}
    )


def merge_results(outer: VerificationResult, inner: dict[str, VerificationResult]) -> VerificationResult:
    """Merge the results of a store and of the stores within it, with paths in the outer one."""

    def merge(name: str) -> dict[str, str]:
        own: dict[str, str] = getattr(outer, name)
        return own | {
            f"{prefix}/{path}": text for prefix, result in inner.items() for path, text in getattr(result, name).items()
        }

    return VerificationResult(
        verified=outer.verified + sum(result.verified for result in inner.values()),
        damaged=merge("damaged"),
        missing=merge("missing"),
        stale=merge("stale"),
        advice=merge("advice"),
        kept_in_place=outer.kept_in_place
        | {f"{prefix}/{path}" for prefix, result in inner.items() for path in result.kept_in_place},
        unknown=(*outer.unknown, *(f"{prefix}/{path}" for prefix, each in inner.items() for path in each.unknown)),
    )


def list_unknown_files(folder: Folder) -> list[str]:
    """List the files of a store that are of no kind, sorted; those of the stores within it are listed there."""
    places, unknown = [""], list[str]()
    while places:
        place = places.pop()
        prefix = f"{place}/" if place else ""
        names = (f"{prefix}{name}" for name in folder.names(place))
        unknown += [path for path in names if find_kind(path) is None]
        # what was set aside has kept its name, and a folder of no kind is named by what is in it
        places += [f"{prefix}{name}" for name in folder.folders(place) if place or name not in {"damaged", SCENARIOS}]
    return sorted(unknown)


def quarantine_damaged(folder: Folder, result: VerificationResult) -> dict[str, str]:
    """Move damaged files to the folder damaged/, so that the next command writes them again.

    The caller holds the store's lock. Returns old path -> new path; intact shards of an unknown arm stay.
    """
    moved: dict[str, str] = {}
    for path in [path for path in result.damaged if path not in result.kept_in_place]:
        # A file that calls this one complete goes too, or the command would take this one as stored.
        for gone in (path, find_completing_path(path)):
            if gone and gone not in moved and folder.exists(gone):
                moved[gone] = folder.quarantine(gone)
    return moved


def check_files(
    folder: Folder, manifest: Manifest | None = None
) -> tuple[int, dict[str, str], dict[str, dict[str, Any]]]:
    """Read every file of a store; return their number, path -> reason of the damaged, and path -> JSON record."""
    checks = dict(list_checks(folder, manifest))
    with ThreadPoolExecutor(THREADS) as pool:
        results = dict(zip(checks, pool.map(run_check, checks.values()), strict=True))
    damaged = {path: reason for path, (reason, _) in results.items() if reason}
    return len(checks), damaged, {path: record for path, (_, record) in results.items() if record is not None}


def list_checks(folder: Folder, manifest: Manifest | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the path of each file and a call that raises CorruptFile if it is damaged."""
    for name in CHECKED_FOLDERS:
        outer, _, last = name.rpartition("/")
        for place in [f"{outer}/{inner}" for inner in folder.folders(outer)] if last.isupper() else [name]:
            for file in folder.names(place):
                path = f"{place}/{file}".lstrip("/")
                if check := find_format(path).check:
                    yield path, partial(read_and_check, folder, path, check, manifest)


def read_and_check(
    folder: Folder, path: str, check: Callable[[bytes], Any], manifest: Manifest | None
) -> dict[str, Any] | None:
    """Read one file and check its bytes, and that it is of the kind that its path says; return its record, if any."""
    # bytes, then what they say they are, then values; the next check needs what the one before found to be sound
    content, fault = check(folder.read(path)), ""
    if isinstance(content, dict):
        fault = find_record_fault(path, content)
    elif isinstance(content, pa.Table):
        fault = find_footer_fault(path, content.schema, len(content), manifest)
        fault = fault or find_value_fault(path, content, manifest)
    elif isinstance(content, str):
        fault = find_key_fault(content, get_stem(path))
    if fault:
        raise CorruptFile(fault)
    return content if isinstance(content, dict) else None


def run_check(check: Callable[[], Any]) -> tuple[str, Any]:
    """Run a check; return its error message, empty if it passed, and the record that it read, if any."""
    try:
        return "", check()
    except FileNotFoundError:  # deleted by a running command
        return "", None
    except StoreUnavailable:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        return str(error), None


def restore_receipts(store: Store, shards: Mapping[str, Collection[int]]) -> list[str]:
    """Write the missing receipts of models with a shard, as far as the shard determines them; return the models.

    Other fields are null, and the receipts say `restored`. `shards` is arm -> indices of its models with a valid shard;
    the caller holds the store's lock.
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
