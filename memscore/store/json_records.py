"""Small JSON records with checksums, such as arms and receipts."""

import hashlib
import json
import re
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import MISSING, asdict, fields
from typing import Any

import numpy as np

from memscore.store.damage_error import build_damage_error
from memscore.store.filesystem import Folder
from memscore.store.record_schemas import find_record_fault
from memscore.units import format_value

THREADS = 4
CHECKSUM_KEY = "record_sha256"
MAX_RECORD_BYTES = 64 * 2**20
MAX_DEPTH = 64
"""Lists and objects within each other; the deepest record has about ten."""
MAX_DIGITS = 20
"""Of a whole number; each of memscore's is below 2^64."""
MAX_FIELDS_SHOWN = 6  # of two records that differ
SINCE = "since"
"""Key in the metadata of a dataclass's field: the version that added it to a record that is hashed.

Fields of 0.1.0 have none; tests/fixtures/record_hashes.json lists them."""


def hash_record(record: Mapping[str, Any]) -> str:
    """Hash a record's JSON, whatever the order of its keys."""
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def omit_new_defaults(config: Any) -> dict[str, Any]:
    """Return the fields of a dataclass as a record to be hashed, without later ones that have their default.

    So a field that a version adds, `field(default=..., metadata={SINCE: "0.2"})`, renames no stored file: without it
    the record is as before, and only another value gives another hash.
    """
    record = asdict(config)
    for option in fields(config):
        default = option.default if option.default_factory is MISSING else option.default_factory()
        if SINCE in option.metadata and getattr(config, option.name) == default:
            del record[option.name]
    return record


def format_json(record: Mapping[str, Any]) -> str:
    """Format a record as readable JSON; equal records give equal text."""
    return json.dumps(record, indent=2, sort_keys=True) + "\n"


def replace_nonfinite(record: Mapping[str, Any]) -> dict[str, Any]:
    """Replace numbers that are not finite by null, at any depth, so that JSON can hold them."""
    # NumPy's booleans and whole numbers are no Python ones; TypeError for anything else that JSON cannot hold
    encoded = json.dumps(record, default=np.generic.item)
    finite: dict[str, Any] = json.loads(encoded, parse_constant=lambda _: None)
    return finite


def encode_record(record: Mapping[str, Any]) -> bytes:
    """Encode a record as JSON with its own hash; numbers that are not finite become null."""
    finite = replace_nonfinite(record)
    return format_json({**finite, CHECKSUM_KEY: hash_record(finite)}).encode()


def decode_record(content: bytes | str, *, require_checksum: bool = False) -> dict[str, Any]:
    """Decode a record without its own hash; ValueError if that does not match, or is missing though required."""
    if len(content) > MAX_RECORD_BYTES:
        raise ValueError(f"it has {len(content)} bytes, and a record has {MAX_RECORD_BYTES} at most")
    try:
        record = json.loads(content, parse_int=_parse_whole, parse_constant=_refuse_constant)
        depth = measure_depth(record)
    except RecursionError:
        depth = MAX_DEPTH + 1
    except UnicodeDecodeError:
        raise ValueError("it is no text") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is no JSON: {error}") from None
    if depth > MAX_DEPTH:
        raise ValueError("its JSON is nested too deeply")
    if not isinstance(record, dict):
        raise ValueError("it holds no JSON object")
    # The hash is over all other fields, and independent of their order and of white space.
    stated = record.pop(CHECKSUM_KEY, None)
    if stated is None and require_checksum:
        raise ValueError(f"it has no {CHECKSUM_KEY}")
    if stated is not None and stated != hash_record(record):
        raise ValueError(f"its fields do not give the {CHECKSUM_KEY} that stands in it")
    return record


def parse_record(relpath: str, content: bytes) -> dict[str, Any]:
    """Decode the record at a path within a store; ValueError unless it is one of the kind and name of that path."""
    record = decode_record(content, require_checksum=True)
    if fault := find_record_fault(relpath, record):
        raise ValueError(fault)
    return record


def measure_depth(value: Any) -> int:
    """Measure how many lists and objects are within each other, MAX_DEPTH + 1 at most; without recursion."""
    # level by level: what is just below the parser's limit would end a recursive reader, such as the hash
    depth, level = 0, [value]
    while level and depth <= MAX_DEPTH:
        inner = [each for each in level if isinstance(each, list | dict)]
        level = [child for each in inner for child in (each.values() if isinstance(each, dict) else each)]
        depth += bool(inner)
    return depth


def _parse_whole(digits: str) -> int:
    """Parse a whole number; Python's own error for a long one speaks of an interpreter's setting."""
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"it holds a whole number of {len(digits)} digits")
    return int(digits)


def _refuse_constant(text: str) -> float:
    raise ValueError(f"it holds {text}, which is no JSON")


def require_same(stored: Mapping[str, Any], requested: Mapping[str, Any], name: str, hint: str) -> None:
    """Raise ValueError if two records differ; it names the fields with both values, `name` and `hint`."""
    # Through JSON, so that a tuple equals the list that it is stored as.
    stored, requested = _flatten(json.loads(json.dumps(stored))), _flatten(json.loads(json.dumps(requested)))
    keys = [key for key in {**stored, **requested} if stored.get(key) != requested.get(key)]
    if keys:
        shown = {key: _format_pair(stored.get(key), requested.get(key)) for key in keys[:MAX_FIELDS_SHOWN]}
        differences = [f"{key} is {before}, requested {after}" for key, (before, after) in shown.items()]
        differences += (
            [f"and {len(keys) - MAX_FIELDS_SHOWN} more fields differ"] if len(keys) > MAX_FIELDS_SHOWN else []
        )
        raise ValueError(f"{name} is another one: {'; '.join(differences)}; {hint}")


def _flatten(record: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten sub-records to keys such as recipe.batch."""
    flat: dict[str, Any] = {}
    for key, value in record.items():
        flat |= {f"{key}.{name}": v for name, v in value.items()} if isinstance(value, dict) else {key: value}
    return flat


def read_records(folder: Folder, kind: str) -> dict[str, dict[str, Any]]:
    """Read every record in one sub-folder: name without .json -> record, sorted; CorruptFile names a damaged one."""
    names = [name for name in folder.names(kind) if name.endswith(".json")]
    with ThreadPoolExecutor(THREADS) as pool:
        records = pool.map(lambda name: read_record(folder, f"{kind}/{name}"), names)
        return {name.removesuffix(".json"): record for name, record in zip(names, records, strict=True)}


def read_record(folder: Folder, relpath: str) -> dict[str, Any]:
    """Read one record; CorruptFile names the file if it is not what was written, or not of this kind and name."""
    content = folder.read(relpath)
    try:
        return parse_record(relpath, content)
    except ValueError as error:
        raise build_damage_error(folder, relpath, error) from None


def add_arm(folder: Folder, arm: Mapping[str, Any]) -> dict[str, Any]:
    """Store an arm, which is one way of drawing subsets.

    Args:
        folder: the store's folder.
        arm: name, design, keep, block and everything else that decides its subsets, such as the hash of the clusters.

    Returns:
        The stored record: arm and its `suffix`, which ends the names of its scores. The first arm of a fraction has
        k0.500, later ones k0.500_iid, or k0.500_iid-b8 if their name says the block.

    Raises:
        ValueError: an arm of that name but with other content is stored.
    """
    # The suffix depends on the arms that were there before, so it is stored with the arm and never computed again.
    arms = read_records(folder, "arms")
    name = arm["name"]
    if name not in arms:
        record = {**arm, "suffix": _suffix(arm, {other["suffix"] for other in arms.values()})}
        folder.publish(f"arms/{name}.json", encode_record(record))
    # Read back: another process may have published an arm of this name first.
    stored = read_record(folder, f"arms/{name}.json")
    content = {key: value for key, value in stored.items() if key != "suffix"}
    require_same(content, arm, f"the arm {name!r} in {folder.display_name}", "give another --store for this arm")
    return stored


def _suffix(arm: Mapping[str, Any], taken: Collection[str]) -> str:
    """Return the ending of an arm's scores: the fraction, plus the design for later arms of it."""
    fraction, block = f"k{arm['keep']:.3f}", f"-b{arm['block']}"
    if fraction not in taken:
        return fraction
    return f"{fraction}_{arm['design']}{block if str(arm['name']).endswith(block) else ''}"


def _format_pair(stored: object, requested: object) -> tuple[str, str]:
    """Format two values that differ: in few digits, unless only the others differ."""
    texts = _format_short(format_value(stored)), _format_short(format_value(requested))
    return texts if texts[0] != texts[1] else (_format_short(json.dumps(stored)), _format_short(json.dumps(requested)))


def _format_short(text: str) -> str:
    """Shorten a text to at most 120 characters, and a hash to its first 12 digits."""
    if re.fullmatch(r"[0-9a-f]{64}", text):
        return text[:12]
    return text if len(text) <= 120 else f"{text[:117]}..."
