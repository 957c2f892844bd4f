"""Tables that belong to one store: written with the digest of its manifest, and read whole, every byte verified."""

import pyarrow as pa

from memscore.store.damage_error import build_damage_error, name_damage, name_next_command
from memscore.store.filesystem import Folder
from memscore.store.manifest import Manifest
from memscore.store.parquet import CorruptFile, decode, encode
from memscore.store.table_schemas import MANIFEST, find_footer_fault, find_schema, find_value_fault


def encode_own_table(table: pa.Table, digest: str) -> bytes:
    """Encode a table that is of one store alone, whose manifest has this digest."""
    # Arrow's metadata have bytes as keys, and a text would be another key
    return encode(table.replace_schema_metadata({**(table.schema.metadata or {}), MANIFEST.encode(): digest.encode()}))


def encode_table(relpath: str, table: pa.Table, digest: str) -> bytes:
    """Encode a derived table, with the digest of the manifest if its kind is of one store alone."""
    schema = find_schema(relpath)
    return encode_own_table(table, digest) if schema and schema.of_store else encode(table)


def read_own_table(folder: Folder, relpath: str, manifest: Manifest) -> pa.Table:
    """Read a table; CorruptFile names the file, FileNotFoundError what to do."""
    with name_damage(folder, relpath):
        try:
            table = decode(folder.read(relpath))
        except FileNotFoundError:
            raise FileNotFoundError(
                f"{folder.display_path(relpath)} is missing; the next {name_next_command(relpath)} makes it "
                "again, or put it back from a copy"
            ) from None
        fault = find_footer_fault(relpath, table.schema, len(table), manifest)
        if fault := fault or find_value_fault(relpath, table, manifest):
            raise CorruptFile(fault)
        return table


def require_same_examples(folder: Folder, stored: pa.Table, examples: pa.Table) -> None:
    """Raise CorruptFile where the stored examples are others than these, whose rows the shards have."""
    for column in ("id", "label"):
        tables = (stored, examples)
        if any(column not in table.column_names or table[column].null_count for table in tables):
            continue  # an imported bank may have no labels
        if not stored[column].cast(examples.schema.field(column).type).equals(examples[column]):
            error = CorruptFile(f"its column {column!r} is not that of the bank's data")
            raise build_damage_error(folder, "examples.parquet", error)
