"""Shards: one immutable file per model with its predictions for every example."""

import hashlib
import re
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memscore.store.filesystem import Folder
from memscore.store.json_records import hash_record, read_record
from memscore.store.parquet import Columns, CorruptFile, check_file_checksum, decode_metadata, open_parquet
from memscore.store.remote import StoreUnavailable

SHARD_COLUMNS = {
    "row": np.dtype(np.int32),
    "member": np.dtype(np.bool_),
    "correct": np.dtype(np.bool_),
    "logit_confidence": np.dtype(np.float32),
    "gap": np.dtype(np.float32),
    "top_gap": np.dtype(np.float32),
}
"""In this order; further fixed queries repeat the last three as logit_confidence_q1 and so on."""

REQUIRED_COLUMNS = ("row", "member", "correct")
"""Columns of every shard, also of an imported model without logits."""

THREADS = 4


@dataclass(frozen=True, kw_only=True)
class ShardCheck:
    """Result of checking the shards of one arm.

    Attributes:
        valid: index of a model -> content_sha256 of its shard, in ascending order.
        damaged: path of a shard that cannot be used -> reason.
    """

    valid: dict[int, str]
    damaged: dict[str, str]


def format_model_name(arm_name: str, index: int) -> str:
    """Return the name of one model of an arm; names sort by index.

    >>> format_model_name("iid-k0.700", 42)
    'iid-k0.700-00042'
    """
    return f"{arm_name}-{index:05d}"


def parse_model_index(model: str, arm_name: str) -> int | None:
    """Return the index of a model within an arm, or None if it belongs to another arm.

    >>> parse_model_index("iid-k0.700-00042", "iid-k0.700"), parse_model_index("iid-k0.700-b8-00042", "iid-k0.700")
    (42, None)
    """
    # Formatting the index again refuses longer paddings: 000042 would be a second name of model 42.
    tail = re.fullmatch(rf"{re.escape(arm_name)}-(\d{{5,}})", model)
    return int(tail[1]) if tail and format_model_name(arm_name, int(tail[1])) == model else None


def build_shard_path(arm_name: str, index: int) -> str:
    """Return the path of a model's shard within a store."""
    return f"shards/{format_model_name(arm_name, index)}.parquet"


def hash_shards(arm_name: str, valid: Mapping[int, str]) -> str:
    """Hash a set of shards (index -> content_sha256, in any order) to 64 hex digits, which scores carry."""
    digest = hashlib.sha256(arm_name.encode())
    for index in sorted(valid):
        digest.update(f"|{index}:{valid[index]}".encode())
    return digest.hexdigest()


def check_columns(columns: Columns, n_rows: int, imported: bool = False) -> None:
    """Raise ValueError unless the columns are those of a shard.

    They are SHARD_COLUMNS, of which an imported shard may lack those computed from logits, then those of further fixed
    augmentations (queries): each of its type and n_rows long, rows in order, every number finite.
    """
    # The order of columns is part of the content hash, so it is fixed.
    names = list(columns)
    expected = [name for name in SHARD_COLUMNS if not imported or name in REQUIRED_COLUMNS or name in columns]
    if names[: len(expected)] != expected:
        raise ValueError(f"a shard begins with the columns {', '.join(SHARD_COLUMNS)}, got {', '.join(names)}")
    for name, values in columns.items():
        kind = SHARD_COLUMNS.get(re.sub(r"_q\d+$", "", name))
        if kind is None:
            raise ValueError(f"{name!r} is no column of a shard; further queries are named as logit_confidence_q1")
        if values.dtype != kind or values.shape != (n_rows,):
            raise ValueError(f"column {name!r} must be {kind} [{n_rows}], got {values.dtype} {list(values.shape)}")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            first = int(np.flatnonzero(~np.isfinite(values))[0])
            raise ValueError(
                f"column {name!r} holds {values[first]} in row {first}; shards hold finite numbers only: "
                "a model whose logits are not finite is a failure of kind 'diverged'"
            )
    if not np.array_equal(columns["row"], np.arange(n_rows)):
        raise ValueError(f"column 'row' must count from 0 to {n_rows - 1}: shards keep the order of the data set")


def find_layout_fault(schema: pa.Schema, n_rows: int, wanted_rows: int) -> str:
    """Find out from its footer why a table is no shard of a store with so many rows; empty if it may be one."""
    if n_rows != wanted_rows:
        return f"it has {n_rows} rows, and the store's manifest says {wanted_rows}"
    # an imported shard may lack the columns of logits, and one of several queries has more
    for name in REQUIRED_COLUMNS:
        if name not in schema.names:
            return f"it has no column {name!r}"
    for field in schema:
        kind = SHARD_COLUMNS.get(re.sub(r"_q\d+$", "", field.name))
        if kind is None or field.type != pa.from_numpy_dtype(kind):
            return f"its column {field.name!r} is {field.type}, which is none of a shard's"
    return ""


def check_shards(folder: Folder, arm_name: str, expected: Mapping[str, str], n_rows: int, verify: bool) -> ShardCheck:
    """Sort the shards of an arm into valid and damaged ones; move nothing. Without verify only footers are read."""
    models = [name.removesuffix(".parquet") for name in folder.names("shards") if name.endswith(".parquet")]
    indices = sorted(index for model in models if (index := parse_model_index(model, arm_name)) is not None)
    valid: dict[int, str] = {}
    damaged: dict[str, str] = {}
    with ThreadPoolExecutor(THREADS) as pool:
        checks = [
            pool.submit(check_shard, folder, build_shard_path(arm_name, index), expected, n_rows, verify)
            for index in indices
        ]
        for index, check in zip(indices, checks, strict=True):
            try:
                valid[index] = check.result()
            except CorruptFile as error:
                damaged[build_shard_path(arm_name, index)] = str(error)
    return ShardCheck(valid=valid, damaged=damaged)


SETTLED_NS = 2 * 10**9
_stored_digests: dict[tuple[str, str], tuple[dict[str, str], list[tuple[str, int, int]], str]] = {}


def compute_stored_digest(folder: Folder, arm_name: str, expected: Mapping[str, str], n_rows: int) -> str:
    """Hash the valid shards of an arm; their footers are read again in a process only if the folder has changed.

    Whoever adds, removes or replaces a shard, this process or another one, changes the listing of names, sizes and
    times, and one listing takes the time of one footer. What it does not show is a byte changed in place by the disk:
    reading a block finds that by the checksums of pages, and `bank verify` by those of files.
    """
    listing = sorted((entry.base_name, entry.size, entry.mtime_ns or 0) for entry in folder.entries("shards"))
    key, record = (folder.url, arm_name), dict(expected)
    if key in _stored_digests and _stored_digests[key][:2] == (record, listing):
        return _stored_digests[key][2]
    # Listed before it is read, so what changes in between is seen by the next call.
    digest = hash_shards(arm_name, check_shards(folder, arm_name, expected, n_rows, verify=False).valid)
    # A second change within the resolution of the times (a second on object stores) would not be seen: a folder that
    # changed just now is read again the next time.
    if listing and 0 < max(changed for _, _, changed in listing) < time.time_ns() - SETTLED_NS:
        _stored_digests[key] = record, listing, digest
    return digest


def check_shard(folder: Folder, path: str, expected: Mapping[str, str], n_rows: int, verify: bool) -> str:
    """Return content_sha256 of a shard; CorruptFile if it is not what was written, or belongs to another run."""
    # A whole shard may lie under another's name, or come from another store: its own metadata says what it is.
    file = _read_footer(folder, path, verify)
    metadata = decode_metadata(file.schema_arrow)
    model = path.rpartition("/")[2].removesuffix(".parquet")
    for key, value in {**expected, "model": model}.items():
        if metadata.get(key) != value:
            raise CorruptFile(f"a shard of something else: its {key} is {metadata.get(key)}, here it is {value}")
    if "content_sha256" not in metadata:
        raise CorruptFile("its footer has no content_sha256")
    if fault := find_layout_fault(file.schema_arrow, file.metadata.num_rows, n_rows):
        raise CorruptFile(fault)
    return metadata["content_sha256"]


def _read_footer(folder: Folder, path: str, verify: bool) -> pq.ParquetFile:
    """Read a shard's footer, of which the result tells; with verify check the file checksum first."""
    try:
        if not verify:
            with folder.open(path) as stream:
                return open_parquet(stream)
        content = folder.read(path)
    except StoreUnavailable:  # the server is unreachable, and the shard may be intact
        raise
    except OSError as error:
        raise CorruptFile(str(error)) from error
    check_file_checksum(content)
    return open_parquet(pa.BufferReader(content))


def compute_run_hash(manifest_digest: str, arm: Mapping[str, Any]) -> str:
    """Hash a manifest and an arm to the 16 hex digits in each shard of the arm."""
    content = {key: value for key, value in arm.items() if key != "suffix"}
    return hash_record({"manifest": manifest_digest, "arm": content})[:16]


def match_shards(folder: Folder, manifest_digest: str) -> bool | None:
    """Return whether a store's shards were made under this manifest.

    True if one of them was, False if all that can be read were made under others, None if there is none of a readable
    arm.
    """
    models = [name.removesuffix(".parquet") for name in folder.names("shards")]
    result = None
    for name in [name.removesuffix(".json") for name in folder.names("arms")] if models else []:
        try:
            run_hash = compute_run_hash(manifest_digest, read_record(folder, f"arms/{name}.json"))
        except CorruptFile:
            continue
        for model in models:
            if parse_model_index(model, name) is None:
                continue
            try:
                metadata = decode_metadata(_read_footer(folder, f"shards/{model}.parquet", verify=False).schema_arrow)
            except CorruptFile:
                continue
            # One is enough: single shards of other runs are damage, not a sign of another store.
            if metadata.get("run_hash") == run_hash:
                return True
            result = False
    return result
