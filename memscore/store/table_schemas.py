"""What the tables of a store hold: columns, rows and metadata of each kind, checked whenever one is read.

As record_schemas.py for Parquet files. What a footer shows is checked at every read; what takes the values, such as the
order of a shard's rows, where all of them are read anyway.
"""

import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from memscore.store.manifest import Manifest
from memscore.store.parquet import decode_metadata, to_columns
from memscore.store.path_patterns import HASH, compile_pattern, get_stem, split_scenario
from memscore.store.record_checks import (
    Check,
    digits,
    json_text,
    listing,
    mapping,
    matching,
    nullable,
    number,
    record,
    text,
    whole,
)
from memscore.store.record_schemas import name
from memscore.store.shards import check_columns

ColumnKind = Literal["whole", "number", "flag", "text", "list"]
ROW_COLUMNS = ("row", "train_row", "test_row", "nearest_row")
"""Columns that point to rows of the store."""
MANIFEST = "manifest_sha256"
"""Metadata entry with the digest of the manifest of the store that a table is of."""
DIRECTION = matching(r"-1|0|1", "-1, 0 or 1")


class TableSchema(NamedTuple):
    """What tables of one kind hold; the word in capitals SCORE stands for the file's name."""

    columns: Mapping[str, ColumnKind]
    rows: Literal["", "all", "train", "one"] = ""
    """How many: those of a shard, the training examples, or one."""
    named_by: str = ""
    """Metadata entry that names what the table is of: its file's name, or the hash that this begins with."""
    required: Mapping[str, Check] = {}
    """Metadata entries that every such table has."""
    points_to: Literal["all", "train"] = "all"
    """Which rows its column `row` names."""
    optional: Mapping[str, Check] = {}
    """Those that it may have."""
    of_store: bool = False
    """Whether it says by MANIFEST whose it is; versions before 0.2 did not write that."""


copy_counts = mapping(
    record({
        "examples": mapping(whole()),
        "groups": whole(),
        "groups_with_other_labels": whole(),
        "first": nullable(listing(text)),
    })
)
inversion_settings = record(
    {"candidates": whole(1), "iterations": whole(1), "total_variation": number(0)},
    {"success_psnr": number()},
    closed=True,
)
estimated: Mapping[str, Check] = {"arm": name, "models": digits(), "estimator_version": digits(1)}

SCHEMAS: Mapping[str, TableSchema] = {
    "examples.parquet": TableSchema({"row": "whole", "id": "text"}, rows="all", of_store=True),
    "clusters.parquet": TableSchema({"cluster": "whole"}, rows="train"),
    "duplicates.parquet": TableSchema(
        {"row": "whole", "group": "whole"}, required={"fingerprint": text, "counts": json_text(copy_counts)}
    ),
    "shards/MODEL.parquet": TableSchema({"row": "whole", "member": "flag", "correct": "flag"}, rows="all"),
    "outputs/KEY.parquet": TableSchema({"logits": "list", "embeddings": "list"}, rows="all", named_by="model"),
    "events/KEY.parquet": TableSchema({"row": "whole", "confidence": "number"}, named_by="model", points_to="train"),
    "events/KEY-evaluation.parquet": TableSchema({"row": "whole", "confidence": "number"}, named_by="model"),
    "events/KEY-PROXY.parquet": TableSchema({"row": "whole"}, named_by="model", points_to="train"),
    "events/KEY-rescored.parquet": TableSchema({"row": "whole"}, named_by="model"),
    "events/MODEL.parquet": TableSchema({"row": "whole", "confidence": "number"}, named_by="model"),
    "rebuilt/KEY-PROXY.parquet": TableSchema({"row": "whole"}, named_by="model", points_to="train"),
    "scores/SCORE.parquet": TableSchema(
        {"row": "whole", "id": "text", "SCORE": "number"},
        required={"shards_digest": text},
        optional={**estimated, "models_of": name, "settings": json_text(inversion_settings)},
    ),
    "scores.parquet": TableSchema({"row": "whole", "id": "text"}, rows="train"),
    "models.parquet": TableSchema({"model": "text", "arm": "text", "index": "whole"}, of_store=True),
    "influence/NAME.parquet": TableSchema(
        {"train_row": "whole", "test_row": "whole", "influence": "number"},
        required={"arm": name, "shards_digest": text},
        optional=estimated,
    ),
    "reports/roc_SUFFIX.parquet": TableSchema({
        "attack": "text",
        **dict.fromkeys(("fpr", "tpr", "lo", "hi"), "number"),
    }),
    "reports/groups_SUFFIX.parquet": TableSchema({"attack": "text", "kind": "text", "group": "whole", "auc": "number"}),
    "reports/near_duplicates.parquet": TableSchema({"row": "whole", "nearest_row": "whole", "similarity": "number"}),
    "reports/audit-NAME.parquet": TableSchema({"row": "whole", "id": "text", "verdict": "flag"}),
    "trials/KEY.parquet": TableSchema(
        {"trial": "text", "algorithm": "text", "status": "text"}, rows="one", named_by="trial"
    ),
    "trials/KEY-said.parquet": TableSchema(
        {"logit_confidence": "number", "gap": "number"}, rows="all", named_by="trial"
    ),
    "trials/KEY-cost.parquet": TableSchema(
        {"status": "text", "wall_s": "number", "examples": "whole"}, rows="one", named_by="theta"
    ),
    "sweeps/NAME/trials.parquet": TableSchema({"trial": "text", "algorithm": "text"}),
    "experiments/NAME/rows.parquet": TableSchema({"trial": "text", "algorithm": "text"}),
    # Each has its own columns; all are of some thing by its name, and hold at least one number.
    "experiments/NAME/table-TABLE.parquet": TableSchema({}),
    # One original and one algorithm, or what is measured before any: the columns differ, these are in both.
    "difficulty/KEY.parquet": TableSchema({"row": "whole", "p_before": "number"}),
}
"""Pattern of paths, as in file_kinds.py -> what tables there hold; a path is of the first pattern that it matches."""


def find_schema(path: str) -> TableSchema | None:
    """Find the schema of the table at a path within a store; None where no command writes one."""
    inner = split_scenario(path)[1]
    return next((schema for pattern, schema in SCHEMAS.items() if compile_pattern(pattern).fullmatch(inner)), None)


def find_footer_fault(path: str, schema: pa.Schema, n_rows: int, manifest: Manifest | None) -> str:
    """Find out why a table is not one of the kind that its path says, or not of its name; empty if it is.

    The path is within a store; its manifest is None where it is not known, and then numbers of rows are not compared.
    """
    kind, stem = find_schema(path), get_stem(path)
    if kind is None:
        return ""
    metadata, key = decode_metadata(schema), re.match(HASH, stem)
    # as for records, the name first
    if kind.named_by and metadata.get(kind.named_by, stem) not in ({stem, key[0]} if key else {stem}):
        return f"it is the file of {metadata[kind.named_by]}"
    for entry, column_kind in kind.columns.items():
        column = stem if entry == "SCORE" else entry
        if column not in schema.names:
            return f"it is another file, without a column {column!r}"
        if fault := find_type_fault(schema.field(column).type, column_kind):
            return f"its column {column!r} {fault}"
    # metadata are texts, of which readers make numbers and names of other files
    for entry, check in {**kind.required, **kind.optional}.items():
        if entry in kind.required and entry not in metadata:
            return f"it has no {entry} in its metadata"
        if entry in metadata and (fault := check(metadata[entry])):
            return f"its {entry} {fault}"
    if "SCORE" in kind.columns and (fault := DIRECTION(decode_field_metadata(schema.field(stem)).get("direction"))):
        return f"the direction of {stem!r} {fault}"
    if kind.of_store and manifest and metadata.get(MANIFEST, manifest.digest) != manifest.digest:
        return "it is another store's"
    # a sealed table of other data, or of a part of them, would be read against the wrong examples
    wanted = count_rows(kind, manifest)
    return "" if wanted in {None, n_rows} else f"it has {n_rows} rows, and the store's manifest says {wanted}"


def find_value_fault(path: str, table: pa.Table, manifest: Manifest | None) -> str:
    """Find out why values of a table, whose footer is sound, cannot be; empty if they can. Arguments as above."""
    if manifest is None:
        return ""
    schema = find_schema(path)
    to_train = schema is not None and schema.points_to == "train"
    limit = manifest.split_sizes[0] if to_train else manifest.n_rows
    for column in sorted(set(ROW_COLUMNS) & set(table.column_names)):
        # a row that does not exist would end a reader in an index error, or name another example
        rows = table[column]
        if not pa.types.is_integer(rows.type) or rows.null_count:
            return f"its column {column!r} must hold whole numbers"
        values = np.asarray(rows)
        if len(values) and not 0 <= values.min() <= values.max() < limit:
            return f"its column {column!r} has {values.min()} to {values.max()}, and such rows are below {limit}"
        # a table of all examples, or of all training examples, has them in their order, and a score has each once
        is_whole = schema is not None and bool(schema.rows) and column == "row"
        if is_whole and not np.array_equal(values, np.arange(len(values))):
            return f"its column 'row' must count from 0 to {len(values) - 1}"
        if schema is not None and "SCORE" in schema.columns and len(np.unique(values)) < len(values):
            return "its column 'row' names a row twice"
    if split_scenario(path)[1].startswith("shards/"):
        # all values are here: what is checked as a shard is written holds for one that was made elsewhere
        try:
            check_columns(to_columns(table), manifest.n_rows, manifest.imported)
        except ValueError as error:
            return str(error)
    return ""


def find_type_fault(kind: pa.DataType, wanted: ColumnKind) -> str:
    """Return a clause if a type of Arrow is not of a kind; a column that is null as a whole is of every kind."""
    # whole numbers of any width, and text of either of Arrow's two types: pandas and pyarrow write different ones
    of_kind = {
        "whole": pa.types.is_integer(kind),
        "number": pa.types.is_integer(kind) or pa.types.is_floating(kind),
        "flag": pa.types.is_boolean(kind),
        "text": pa.types.is_string(kind) or pa.types.is_large_string(kind),
        "list": pa.types.is_fixed_size_list(kind),
    }
    return "" if of_kind[wanted] or (pa.types.is_null(kind) and wanted != "list") else f"must be a {wanted}, got {kind}"


def count_rows(schema: TableSchema, manifest: Manifest | None) -> int | None:
    """Return how many rows a table of this schema has; None if any number."""
    if schema.rows == "one":
        return 1
    if manifest is None or not schema.rows:
        return None
    return manifest.n_rows if schema.rows == "all" else manifest.split_sizes[0]


def decode_field_metadata(field: pa.Field) -> dict[str, Any]:
    """Return the metadata of a column as text."""
    return {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
