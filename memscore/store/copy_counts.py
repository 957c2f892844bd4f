"""Read how many exact copies the images of a store have, from the metadata of duplicates.parquet."""

import json
from typing import Any

import pyarrow as pa

from memscore.store.parquet import decode_metadata
from memscore.store.store import Store

COPIES_PATH = "duplicates.parquet"
NEAR_COPIES_PATH = "reports/near_duplicates.parquet"
COPY_COLUMNS = {"twin": pa.string(), "copies": pa.int32(), "held_out_twin": pa.string()}
"""Columns of scores.parquet that are of no score: the copies of an example."""


def read_copy_counts(store: Store) -> dict[str, Any] | None:
    """Read what count_copies in memscore/data/duplicates.py found in a store's images; None where it is unknown."""
    # Stores of earlier versions have no such file, nor have banks that were imported without images.
    if not store.folder.exists(COPIES_PATH):
        return None
    metadata = decode_metadata(store.read_table(COPIES_PATH).schema)
    is_own = metadata.get("fingerprint") == store.manifest.fingerprint
    counts: dict[str, Any] | None = json.loads(metadata["counts"]) if is_own else None
    return counts
