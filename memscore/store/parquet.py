"""Parquet files with checksums: arrays in, bytes out, and the same arrays back or an error.

Every file has three checksums. Pages carry CRCs, verified on every read. `content_sha256` in the schema's metadata is
over names, types and values, so equal contents have equal hashes whatever wrote them. `file_sha256` is over every byte
of the file (its own 64 characters counted as "0"): it finds one flipped byte anywhere, footer included.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memscore.store.remote import StoreUnavailable

Columns = Mapping[str, np.ndarray]
ROW_GROUP_SIZE = 2048
"""Rows that are decoded together: one group of every column of thousands of models fits into a block."""
MAX_ROW_GROUPS = 128
"""Row groups per file at most: reading blocks starts with thousands of footers, which list every group."""
CHECKSUM_KEY = b"file_sha256"
CHECKSUM_PLACEHOLDER = b"0" * 64


class CorruptFile(OSError):
    """A file of the store is not what was written; the message names the file and the place."""


def hash_columns(columns: Columns) -> str:
    """Hash names, types, shapes and values in column order, 64 hex digits; every NaN counts as the same NaN."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        digest.update(f"{name}|{_type_name(values)}|{values.shape}|".encode())
        digest.update(_to_bytes(values))
    return digest.hexdigest()


def to_table(
    columns: Columns, metadata: Mapping[str, str], fields: Mapping[str, Mapping[str, str]] | None = None
) -> pa.Table:
    """Convert arrays to a table that carries their content hash; NaN becomes null.

    Args:
        columns: [N] arrays, or [N, K] ones, which become fixed-size lists.
        metadata: of the schema, besides `content_sha256`.
        fields: metadata of single columns.

    Returns:
        The table. A column without NaN is marked as never null.

    Raises:
        ValueError: columns of different lengths.
    """
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"columns of one table need one length, got {lengths}")
    arrays = {name: _to_arrow(values) for name, values in columns.items()}
    schema = pa.schema(
        [
            pa.field(name, array.type, nullable=array.null_count > 0, metadata=(fields or {}).get(name))
            for name, array in arrays.items()
        ],
        metadata={**metadata, "content_sha256": hash_columns(columns)},
    )
    return pa.table(list(arrays.values()), schema=schema)


def update_content_hash(table: pa.Table) -> pa.Table:
    """Recompute the content hash of a table whose columns were changed since to_table."""
    digest = hash_columns(to_columns(table))
    return table.replace_schema_metadata({**(table.schema.metadata or {}), b"content_sha256": digest.encode()})


def to_columns(table: pa.Table) -> dict[str, np.ndarray]:
    """Convert a table to arrays; null becomes NaN."""
    return {name: _to_numpy(table[name]) for name in table.column_names}


def compute_row_group_size(n_rows: int) -> int:
    """Compute the rows of a row group: ROW_GROUP_SIZE, doubled until MAX_ROW_GROUPS suffice; the last may have fewer.

    >>> compute_row_group_size(60_000), compute_row_group_size(1_331_167)
    (2048, 16384)
    """
    rows = ROW_GROUP_SIZE
    while n_rows > MAX_ROW_GROUPS * rows:
        rows *= 2
    return rows


def encode(table: pa.Table) -> bytes:
    """Encode a table with checksums; equal tables give equal bytes under one pyarrow version."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=compute_row_group_size(len(table)))
        # The checksum stands in the footer that it covers: it is computed with 64 zeros in its place, then put there.
        writer.add_key_value_metadata({CHECKSUM_KEY: CHECKSUM_PLACEHOLDER})
    content: bytes = sink.getvalue().to_pybytes()
    before, _, after = _split_at_checksum(content)
    return b"".join((before, _compute_checksum(before, after), after))


def decode(content: bytes) -> pa.Table:
    """Decode a file to its table, metadata included; CorruptFile says where bytes were changed."""
    check_file_checksum(content)
    try:
        table: pa.Table = open_parquet(pa.BufferReader(content)).read(use_threads=False)
    except CorruptFile:
        raise
    except Exception as error:  # as in open_parquet
        raise CorruptFile(f"unreadable although its checksum matches: {error}") from error
    return table


def check_file_checksum(content: bytes) -> None:
    """Compare every byte of a file with its checksum, much faster than decoding it; CorruptFile says where."""
    if not content:
        raise CorruptFile("the file is empty")
    if content[:4] != b"PAR1" or content[-4:] != b"PAR1":
        raise CorruptFile(f"truncated or no Parquet file: its {len(content)} bytes do not begin and end with PAR1")
    before, checksum, after = _split_at_checksum(content)
    if checksum != _compute_checksum(before, after):
        raise CorruptFile(f"bytes were changed {_locate_damage(content)}")


def check_content(content: bytes) -> pa.Table:
    """Decode a file; raise CorruptFile unless its checksum, every page, and the hash over the values match."""
    table = decode(content)
    stated = decode_metadata(table.schema).get("content_sha256")
    if stated and stated != hash_columns(to_columns(table)):
        raise CorruptFile("the values do not give the content_sha256 in the schema")
    return table


def open_parquet(source: Any, pre_buffer: bool = False) -> pq.ParquetFile:
    """Open a file so that each page read is verified, which is not pyarrow's default.

    With pre_buffer, columns that are read together are fetched in one request, which saves round trips to an object
    store. Raises CorruptFile if the footer cannot be read, StoreUnavailable if the file's server stays unreachable.
    """
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=pre_buffer)
        decode_metadata(file.schema_arrow)
    except StoreUnavailable:
        raise
    except Exception as error:  # a changed footer makes the parser fail in many ways
        raise CorruptFile(f"unreadable footer: {error}") from error
    return file


def decode_metadata(schema: pa.Schema) -> dict[str, str]:
    """Return the metadata of a schema as text."""
    return {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}


def _split_at_checksum(content: bytes) -> tuple[memoryview, bytes, memoryview]:
    """Split a file into the bytes before its checksum, the checksum, and the bytes after it."""
    # The last occurrence, for a column may hold the same text. Thrift puts two bytes between key and value, the field's
    # type and the length 64.
    at = content.rfind(CHECKSUM_KEY) + len(CHECKSUM_KEY) + 2
    view = memoryview(content)
    return view[:at], content[at : at + 64], view[at + 64 :]


def _compute_checksum(before: memoryview, after: memoryview) -> bytes:
    """Hash a file with its own checksum replaced by zeros."""
    digest = hashlib.sha256(before)
    digest.update(CHECKSUM_PLACEHOLDER)
    digest.update(after)
    return digest.hexdigest().encode()


def _locate_damage(content: bytes) -> str:
    """Find the damaged part of a file whose checksum does not match."""
    try:
        file = open_parquet(pa.BufferReader(content))
    except CorruptFile:
        return "in the footer"
    # Pages have CRCs: the first part that cannot be read is the damaged one.
    for group in range(file.num_row_groups):
        for column in file.schema_arrow.names:
            try:
                file.read_row_group(group, columns=[column], use_threads=False)
            except Exception:  # as in open_parquet
                return f"in column {column}, row group {group}"
    return "in the footer or the header of a page"


def _type_name(values: np.ndarray) -> str:
    """Return NumPy's name of a type, without the width of strings."""
    return "str" if values.dtype.kind in "UO" else values.dtype.newbyteorder("<").str


def _to_bytes(values: np.ndarray) -> bytes:
    """Return an array's values as little-endian bytes with one representation of NaN."""
    if values.dtype.kind in "UO":
        return b"".join(len(text).to_bytes(4, "little") + text for text in (str(v).encode() for v in values))
    # NaNs come with different bits, and a file gives back only one kind: null.
    if values.dtype.kind == "f" and np.isnan(values).any():
        values = np.where(np.isnan(values), values.dtype.type(np.nan), values)
    flat = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<")).reshape(-1)
    return flat.tobytes()


def _to_arrow(values: np.ndarray) -> pa.Array:
    """Convert one column: NaN as null, [N, K] as lists of K."""
    if values.ndim == 2:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])
    if values.dtype.kind in "UO":
        return pa.array(values.tolist(), pa.string())
    return pa.array(values, from_pandas=values.dtype.kind == "f")


def _to_numpy(column: pa.ChunkedArray) -> np.ndarray:
    """Convert one column to an array: null as NaN, lists of K as [N, K]."""
    if pa.types.is_fixed_size_list(column.type):
        flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return np.asarray(flat).reshape(len(column), column.type.list_size)
    if pa.types.is_string(column.type):
        return np.array(column.to_pylist(), dtype=np.str_)
    return np.asarray(column.to_numpy())
