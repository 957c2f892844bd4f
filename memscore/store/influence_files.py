"""Influence files: influence/<targets>_k<fraction>.parquet, found by name and refused when stale."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from memscore.choices import validate_choice
from memscore.score_registry import get_estimator_version
from memscore.store.filesystem import Folder
from memscore.store.parquet import decode_metadata
from memscore.store.score_files import is_stale, name_what_changed

INFLUENCE_OPTIONS = ("arm", "targets", "top", "least", "least_memorization")
"""Options of memscore.influence that the metadata of each file holds."""


def format_influence_options(options: Mapping[str, Any]) -> str:
    """Format the known options that make a file again, without a least influence that was chosen."""
    # Files of version 1 do not say whether theirs was chosen. 0.15 was the default then.
    chosen = options.get("least_chosen", str(options.get("least") == "0.15").lower()) == "true"
    known = [key for key in INFLUENCE_OPTIONS if key in options and not (key == "least" and chosen)]
    return " ".join(f"--{key.replace('_', '-')} {options[key]}" for key in known)


def find_influence_path(folder: Folder, name: str) -> str:
    """Find the path of the influence file of this name; errors offer the nearest, or the command that makes one."""
    names = [file.removesuffix(".parquet") for file in folder.names("influence")]
    if not names:
        raise ValueError(
            f"{folder.display_name} has no influence yet, so none named {name!r}; "
            f"run `python -m memscore.influence {folder.display_name}`"
        )
    return f"influence/{validate_choice('influence', name, names)}.parquet"


def require_fresh_influence(folder: Folder, name: str, table: pa.Table, digest: str) -> None:
    """Raise ValueError if influence was computed from shards of another digest, or by another version."""
    metadata, version = decode_metadata(table.schema), get_estimator_version("influence")
    if is_stale(metadata, digest, version):
        changed = name_what_changed(metadata, version)
        raise ValueError(
            f"influence {name!r} is stale, {changed} changed since; "
            f"run `python -m memscore.influence {folder.display_name} {format_influence_options(metadata)}`"
        )
