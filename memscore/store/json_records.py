"""Small JSON records, such as arms and receipts: their hashes, and the refusal of one that was not asked for."""

import hashlib
import json
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from memscore.store.filesystem import Folder
from memscore.store.parquet import CorruptFile

THREADS = 4
CHECKSUM_KEY = "record_sha256"
MAX_FIELDS_SHOWN = 6  # fields of two records that differ


def hash_record(record: Mapping[str, Any]) -> str:
    """Hash of a record's JSON, whatever the order of its keys."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def format_json(record: Mapping[str, Any]) -> str:
    """A record as readable JSON, the same text for the same record."""
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def replace_nonfinite(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON can hold it: numbers that are not finite become null, at any depth."""
    found: dict[str, Any] = json.loads(json.dumps(record), parse_constant=lambda _: None)
    return found


def encode_record(record: Mapping[str, Any]) -> bytes:
    """A record as JSON with its own hash in it; numbers that are not finite become null."""
    finite = replace_nonfinite(record)
    return format_json({**finite, CHECKSUM_KEY: hash_record(finite)}).encode()


def decode_record(content: bytes | str, *, require_checksum: bool = False) -> dict[str, Any]:
    """A record from its JSON.

    Args:
        content: the file.
        require_checksum: a record without its own hash is none.

    Returns:
        The record; its own hash is taken out after it was compared.

    Raises:
        ValueError: no JSON object, or one that does not give its hash, or lacks it though it must not.
    """
    record = json.loads(content)
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    stated = record.pop(CHECKSUM_KEY, None)
    if stated is None and require_checksum:
        raise ValueError(f"it has no {CHECKSUM_KEY}")
    if stated is not None and stated != hash_record(record):
        raise ValueError(f"its fields do not give the {CHECKSUM_KEY} that stands in it")
    return record


def require_same(there: Mapping[str, Any], asked: Mapping[str, Any], what: str, way_out: str) -> None:
    """Stop if two records differ.

    Args:
        there: what stands on file.
        asked: what is wanted now.
        what: the thing on file, for the message.
        way_out: what the user can do.

    Raises:
        ValueError: they differ; names the fields, with both values.
    """
    there, asked = _flat(json.loads(json.dumps(there))), _flat(json.loads(json.dumps(asked)))
    keys = [key for key in {**there, **asked} if there.get(key) != asked.get(key)]
    if keys:
        parts = [
            f"{key} is {_short(there.get(key))}, asked for {_short(asked.get(key))}" for key in keys[:MAX_FIELDS_SHOWN]
        ]
        parts += [f"and {len(keys) - MAX_FIELDS_SHOWN} more fields differ"] if len(keys) > MAX_FIELDS_SHOWN else []
        raise ValueError(f"{what} is another one: {'; '.join(parts)}; {way_out}")


def _flat(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with the fields of its sub-records beside its own, as recipe.batch."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def read_records(folder: Folder, kind: str) -> dict[str, dict[str, Any]]:
    """Every record in one sub-folder by its name.

    Args:
        folder: the store's folder.
        kind: the sub-folder.

    Returns:
        Name without .json -> record, sorted by name.

    Raises:
        CorruptFile: one that is no JSON; names it.
    """
    names = [name for name in folder.names(kind) if name.endswith(".json")]
    with ThreadPoolExecutor(THREADS) as pool:
        records = pool.map(lambda name: read_record(folder, f"{kind}/{name}"), names)
        return {name.removesuffix(".json"): record for name, record in zip(names, records, strict=True)}


def read_record(folder: Folder, relpath: str) -> dict[str, Any]:
    """One record.

    Args:
        folder: the store's folder.
        relpath: the file.

    Returns:
        The record.

    Raises:
        CorruptFile: the file holds no record, or not what was written; names it.
    """
    content = folder.read(relpath)
    try:
        return decode_record(content, require_checksum=True)
    except ValueError as error:
        raise CorruptFile(
            f"{folder.display_path(relpath)} is damaged: {error}; "
            f"`python -m memscore.bank verify {folder.display_name} --set-aside`"
        ) from None


def add_arm(folder: Folder, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Put a way of drawing subsets on file.

    Args:
        folder: the store's folder.
        arm: name, design, keep, block and whatever else decides its subsets, such as the hash of the clusters.

    Returns:
        The record on file: arm and its `suffix`, which ends the names of its scores. The first arm of a fraction has
        k0.500, later ones k0.500_iid, or k0.500_iid-b8 if their name says the block.

    Raises:
        ValueError: an arm of that name but with other content is on file.
    """
    arms = read_records(folder, "arms")
    name = arm["name"]
    if name not in arms:
        record = {**arm, "suffix": _suffix(arm, {other["suffix"] for other in arms.values()})}
        folder.publish(f"arms/{name}.json", encode_record(record))
    stored = read_record(folder, f"arms/{name}.json")
    content = {key: value for key, value in stored.items() if key != "suffix"}
    require_same(content, arm, f"the arm {name!r} in {folder.display_name}", "give another --store for this arm")
    return stored


def _suffix(arm: Mapping[str, Any], taken: Collection[str]) -> str:
    """How an arm's scores end: the fraction, and the design unless this is the fraction's first arm."""
    fraction, block = f"k{arm['keep']:.3f}", f"-b{arm['block']}"
    if fraction not in taken:
        return fraction
    return f"{fraction}_{arm['design']}{block if str(arm['name']).endswith(block) else ''}"


def _short(value: object) -> str:
    """A value that fits on a line."""
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
