"""Formats of files in a store, and what reads all bytes of a file in each."""

import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from memscore.store.json_records import decode_record
from memscore.store.parquet import CorruptFile, check_content
from memscore.store.weight_files import check_weights

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class Format(NamedTuple):
    """A file format and what reads all bytes of a file in it: it raises CorruptFile, and returns a record or table."""

    name: str
    check: Callable[[bytes], Any] | None


def check_record(content: bytes) -> dict[str, Any]:
    """Decode a record; raise CorruptFile unless it is a JSON object with a matching hash."""
    try:
        return decode_record(content, require_checksum=True)
    except ValueError as error:
        raise CorruptFile(str(error)) from None


def check_picture(content: bytes) -> None:
    """Raise CorruptFile unless the chunks of a PNG have their CRCs, and the last one is its end."""
    if not content.startswith(PNG_SIGNATURE):
        raise CorruptFile("it is no PNG")
    start, kind = len(PNG_SIGNATURE), b""
    while start < len(content):
        # A chunk: length of its data, kind (4 bytes), data, CRC of kind and data.
        end = start + 8 + int.from_bytes(content[start : start + 4], "big")
        kind = content[start + 4 : start + 8]
        if zlib.crc32(content[start + 4 : end]).to_bytes(4, "big") != content[end : end + 4]:
            raise CorruptFile(f"bytes were changed in the chunk at byte {start}")
        start = end + 4
    if kind != b"IEND":
        raise CorruptFile("its end is missing")


PARQUET = Format("Parquet", check_content)
JSON = Format("JSON", check_record)
SAFETENSORS = Format("safetensors", check_weights)
PNG = Format("PNG", check_picture)
TEXT = Format("text", None)
ANY = Format("any", None)
FORMATS = {".parquet": PARQUET, ".json": JSON, ".safetensors": SAFETENSORS, ".png": PNG}
