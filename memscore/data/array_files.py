"""Read NumPy archives and gzipped idx files, which may claim, or unpack to, more than there is memory.

What a header states is compared with the limit before memory is taken, and no more than that is unpacked.
"""

import gzip
import math
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from memscore.reading_limit import require_memory

SUFFIX, BLOCK = ".npy", 2**24
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
"""What numpy.savez and savez_compressed write; Python unpacks what other methods packed without a bound."""


class ObjectArrayError(ValueError):
    """An array holds Python objects; the message is its name."""


def read_archive(
    path: Path, choose: Callable[[Sequence[str]], Sequence[str]] = lambda names: names
) -> dict[str, np.ndarray]:
    """Read arrays of an .npz file, never a pickle.

    Args:
        path: the file.
        choose: given the names of the arrays, returns those to read.

    Returns:
        The arrays by their names, without the suffix .npy.

    Raises:
        ValueError: no archive of plain arrays, damaged, or larger than the limit; the message names the file.
    """
    # In three passes: which arrays there are; what all of them claim, before memory is taken for one; their content.
    # A damaged archive raises many kinds of errors, of zipfile, zlib and NumPy's parser of headers.
    try:
        with zipfile.ZipFile(path) as archive:
            members = {member.filename.removesuffix(SUFFIX): member for member in archive.infolist()}
            names = [name for name, member in members.items() if member.filename.endswith(SUFFIX)]
    except Exception as error:
        raise ValueError(_describe_damage(path, error)) from error
    names = [*choose(names)]
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [_read_claim(archive, members[name]) for name in names]
    except Exception as error:
        raise ValueError(_describe_damage(path, error)) from error
    require_memory(sum(sizes), f"{path}, unpacked,")
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for name in names:
                with archive.open(members[name]) as member:
                    arrays[name] = np.lib.format.read_array(member, allow_pickle=False)
    except Exception as error:
        raise ValueError(_describe_damage(path, error)) from error
    return arrays


def _read_claim(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """Return the bytes that an array takes by its header; raise where its member holds others."""
    if member.compress_type not in METHODS:
        raise ValueError(f"{member.filename} is compressed by another method than NumPy's")
    with archive.open(member) as file:
        try:
            n_bytes = _read_header(file)
        except ObjectArrayError as error:
            raise ObjectArrayError(member.filename.removesuffix(SUFFIX)) from error
        held = member.file_size - file.tell()
    # zipfile unpacks no more than the size in its directory, so that the header is the only claim left
    if n_bytes != held:
        raise ValueError(f"{member.filename} claims {n_bytes:,} bytes and holds {held:,}")
    return n_bytes


def _read_header(file: IO[bytes]) -> int:
    """Return the bytes that an array takes by its header, before which the file stands."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read_header(file)
    if kind.hasobject:
        raise ObjectArrayError
    if min(shape, default=0) < 0:
        raise ValueError(f"the shape {shape} is none")
    return math.prod(shape) * kind.itemsize


def read_gzipped_idx(path: Path) -> np.ndarray:
    """Read a gzipped idx file: two 0 bytes, 8 for uint8, number of axes, their lengths, values.

    Args:
        path: the file.

    Returns:
        uint8, of the file's shape.

    Raises:
        OSError: no such file, or damaged.
        ValueError: larger than the limit.
    """
    damage = (OSError, EOFError, ValueError, IndexError, zlib.error, MemoryError)
    try:
        with gzip.open(path) as file:
            shape = _read_idx_shape(file)
    except damage as error:
        raise OSError(_describe_idx_damage(path, error)) from error
    require_memory(math.prod(shape), f"{path}, unpacked,", "install it again")
    try:
        with gzip.open(path) as file:
            _read_idx_shape(file)
            values = np.empty(math.prod(shape), np.uint8)
            _fill(values, file)
            return values.reshape(shape)
    except damage as error:
        raise OSError(_describe_idx_damage(path, error)) from error


def _read_idx_shape(file: gzip.GzipFile) -> list[int]:
    """Read the lengths of the axes, which are big-endian."""
    n_axes = file.read(4)[3]
    lengths: list[int] = np.frombuffer(file.read(4 * n_axes), ">u4", n_axes).tolist()
    return lengths


def _fill(values: np.ndarray, file: gzip.GzipFile) -> None:
    """Read bytes into an array; raise where the file has fewer or more."""
    position, target = 0, memoryview(values.data)
    while position < len(values):
        # in blocks, since a file that holds less than it claims ends long before the last one
        count = file.readinto(target[position : position + BLOCK])
        if not count:
            raise EOFError(f"it claims {len(values):,} bytes and holds {position:,}")
        position += count
    if file.read(1):
        raise ValueError(f"it holds more than the {len(values):,} bytes that it claims")


def _describe_idx_damage(path: Path, error: Exception) -> str:
    return f"{path} is not a readable gzipped idx file ({error}); install it again"


def _describe_damage(path: Path, error: Exception) -> str:
    if isinstance(error, ObjectArrayError):
        return (
            f"{path}: {error} is an array of Python objects, as of strings with dtype=object; that is a pickle, which "
            f"may run code and is not read; save {error}.astype(str), or one array of numbers, of images [N, H, W, C]"
        )
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return f"{path} does not hold plain arrays ({reason}); save them with numpy.savez"
