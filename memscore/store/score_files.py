"""Score files: the paper's value with its errors and counts, and its direction."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.choices import validate_choice
from memscore.score_registry import ARM_SUFFIX, get_estimator_version, resolve_alias
from memscore.store.parquet import Columns, decode_metadata, encode, to_table
from memscore.store.score_options import find_making_options
from memscore.units import format_count

DIRECTIONS = (-1, 0, 1)
VERSION_KEY = "estimator_version"
"""Metadata entry of files by an estimator of version 2 or more; files without it are of version 1."""


def encode_score(
    name: str, columns: Columns, ids: np.ndarray, fields: Mapping[str, Mapping[str, Any]], metadata: Mapping[str, str]
) -> bytes:
    """Encode a score as a Parquet file with the columns row, id and one for each value.

    Args:
        name: the score's name, also of its main column.
        columns: name -> [n]; NaN is undefined and becomes null. "row" gives the rows of the store that the values
            belong to; without it they are the first n.
        ids: ids of all rows of the store.
        fields: for each value column its source (paper and equation), unit, and direction: +1 if higher is more
            memorized or riskier, -1 if lower is, 0 if neither.
        metadata: of the file, such as the arm and the digest of its shards.

    Returns:
        The file.

    Raises:
        ValueError: no column of the score's name, one without its field record, or more values than rows.
    """
    if name not in columns:
        raise ValueError(f"score {name!r} needs a column of that name, got {', '.join(columns)}")
    values = {key: column for key, column in columns.items() if key != "row"}
    n = len(next(iter(values.values())))
    rows = np.asarray(columns.get("row", np.arange(n)), dtype=np.int32)
    if n > len(ids):
        raise ValueError(
            f"a score of this store has at most {format_count(len(ids), 'row')}, got {n}; give one value per example"
        )
    field_metadata = {key: _format_field(key, fields) for key in values}
    score_ids = ids[rows] if "row" in columns else ids[:n]  # slice: a copy of a million ids takes tens of megabytes
    return encode(to_table({"row": rows, "id": score_ids, **values}, metadata, field_metadata))


def build_version_metadata(version: int) -> dict[str, str]:
    """Build the metadata entry of an estimator's version; none for version 1, which keeps the bytes of old files."""
    return {VERSION_KEY: str(version)} if version > 1 else {}


def has_other_version(metadata: Mapping[str, str], version: int) -> bool:
    """Return whether a file was computed by another version of its estimator than this one."""
    return int(metadata.get(VERSION_KEY, 1)) != version


def is_stale(metadata: Mapping[str, str], digest: str | None, version: int) -> bool:
    """Return whether a file of scores or influence is to be computed again.

    It is if it was computed from other shards than those with this digest (None if they are not known), or by another
    version of its estimator (score_registry.get_estimator_version).
    """
    from_other_shards = digest is not None and metadata["shards_digest"] != digest
    return from_other_shards or has_other_version(metadata, version)


def name_what_changed(metadata: Mapping[str, str], version: int) -> str:
    """Name what has changed since a stale file was computed, as the subject of a sentence."""
    return "its estimator has" if has_other_version(metadata, version) else "the bank's shards have"


def require_fresh_score(name: str, metadata: Mapping[str, str], digest: str | None, rebuild_command: str) -> None:
    """Raise ValueError if a score is stale; see is_stale."""
    version = get_estimator_version(name)
    if is_stale(metadata, digest, version):
        changed = name_what_changed(metadata, version)
        raise ValueError(f"score {name!r} is stale, {changed} changed since; run {rebuild_command}")


def validate_score_name(name: str, names: list[str], store_name: str, rebuild_command: str, command: str) -> str:
    """Return the stored score that a name or its alias names; the error says how it is made, or offers the nearest.

    `command` is the one that adds scores, to which their options are added; empty for a bank that it cannot change.
    """
    name = resolve_alias(name, names)
    if not names:
        raise ValueError(f"{store_name} has no scores yet, so none named {name!r}; run {rebuild_command}")
    if name in names:
        return name
    options = find_making_options(name, names) if command else None
    if options:
        same = sorted(each for each in names if ARM_SUFFIX.sub("", each) == ARM_SUFFIX.sub("", name))
        listed = f", only {', '.join(same)}" if same else ""
        raise ValueError(f"{store_name} has no score {name!r}{listed}; `{command} {options}` adds it")
    try:
        return validate_choice("score", name, names)
    except ValueError as error:
        more = " and another --keep, --attacks or --proxies" if command else ""
        raise ValueError(f"{store_name}: {error}; others are made by {rebuild_command}{more}") from None


def orient_score(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return ids [n] and the score, float64 [n], with its sign such that higher is more memorized or riskier.

    It is NaN where the score is undefined. Raises ValueError if the score has no direction.
    """
    direction = int(decode_metadata(table.schema.field(name))["direction"])
    if direction == 0:
        raise ValueError(f"score {name!r} points neither way (direction 0), so it cannot be oriented; read its column")
    values = np.asarray(table[name].to_numpy(), dtype=np.float64)
    return np.array(table["id"].to_pylist(), dtype=np.str_), direction * values + 0.0  # -0.0 is 0


def _format_field(name: str, fields: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return source, unit and direction of one column as text."""
    record = fields.get(name, {})
    missing = [key for key in ("source", "unit", "direction") if key not in record]
    if missing:
        raise ValueError(
            f"column {name!r} lacks {', '.join(missing)}; each column needs its source, unit and direction"
        )
    if record["direction"] not in DIRECTIONS:
        raise ValueError(f"the direction of {name!r} must be one of {DIRECTIONS}, got {record['direction']!r}")
    return {key: str(record[key]) for key in ("source", "unit", "direction")}
