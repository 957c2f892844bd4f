"""The folder that goes along with a submitted job, packed here: so its size is known before anything is sent.

What Ray would leave out is left out: what .gitignore and .rayignore say, and environments and caches.
"""

import logging
import os
import zipfile
from collections import Counter
from collections.abc import Generator
from pathlib import Path

LIMIT_BYTES = 100 * 2**20  # of one request to Ray's dashboard
MAX_FILES = 20_000
MAX_COMPRESSION = 20
"""Bytes that may zip to one, for a folder that is worth the try; text zips to a quarter, zeros to a thousandth."""
EXECUTABLE = 0o111
CHUNK_BYTES = 2**20

_log = logging.getLogger(__name__)


def pack(folder: Path, archive: Path, limit_bytes: int = LIMIT_BYTES) -> int:
    """Write a folder into a zip file, the same bytes for the same content.

    Args:
        folder: what the job is to find in its working directory.
        archive: the zip file to write.
        limit_bytes: what the cluster takes.

    Returns:
        Bytes of the zip file.

    Raises:
        NotADirectoryError: the folder is none.
        OSError: something in it cannot be read, or the zip file cannot be written.
        ValueError: it is too large; what takes most of it is named.
    """
    folder = folder.absolute()
    leave_out = f"name it in {folder}/.rayignore (as in .gitignore)"
    try:
        if not folder.is_dir():
            what = "a file, and no folder" if folder.exists() else "no folder"
            raise NotADirectoryError(f"--working-dir {folder} is {what}; give the one that the command is to run in")
        if folder.samefile("/"):
            raise ValueError(f"--working-dir {folder} is the whole file system; give the command's own folder")
        return _write_zip(folder, list_files(folder, limit_bytes), archive, limit_bytes)
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(folder):
            raise
        if isinstance(error, FileNotFoundError):
            said = f"went while it was packed; submit again when nobody writes there, or {leave_out}"
        else:
            said = f"cannot be read ({error.strerror}); make it readable, {leave_out}, or give another --working-dir"
        raise OSError(f"{error.filename} {said}") from error


def list_files(folder: Path, limit_bytes: int) -> dict[Path, int]:
    """Every file that goes along and its size; a hopeless folder is not read to its end.

    Args:
        folder: absolute.
        limit_bytes: what the cluster takes.

    Returns:
        Path -> bytes, in the order of paths.

    Raises:
        ValueError: more files than MAX_FILES, or more bytes than zip to the limit.
    """
    sizes: dict[Path, int] = {}
    total = 0
    for path in _iterate_files(folder):
        sizes[path] = path.stat().st_size
        total += sizes[path]
        if len(sizes) > MAX_FILES or total > MAX_COMPRESSION * limit_bytes:
            raise ValueError(format_too_large(folder, sizes, limit_bytes, whole=False))
    return dict(sorted(sizes.items()))


def _write_zip(folder: Path, sizes: dict[Path, int], archive: Path, limit_bytes: int) -> int:
    """Write the files; bytes of the zip file, which is given up as soon as it is too large."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sizes:
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # the date stays 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o755 if path.stat().st_mode & EXECUTABLE else 0o644) << 16
            with path.open("rb") as content, packed.open(member, "w", force_zip64=True) as target:
                while chunk := content.read(CHUNK_BYTES):
                    target.write(chunk)
                    if archive.stat().st_size > limit_bytes:
                        raise ValueError(format_too_large(folder, sizes, limit_bytes))
    size = archive.stat().st_size
    if size > limit_bytes:
        raise ValueError(format_too_large(folder, sizes, limit_bytes))
    return size


def format_too_large(folder: Path, files: dict[Path, int], limit_bytes: int, *, whole: bool = True) -> str:
    """Words for a folder that does not go through, with what to leave out; whole is False if not all of it was read."""
    sizes: Counter[str] = Counter()
    for path, size in files.items():
        parts = path.relative_to(folder).parts
        sizes[f"{parts[0]}/" if len(parts) > 1 else parts[0]] += size
    largest = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.most_common(3))
    total = f"{sum(sizes.values()) / 1e6:,.0f} MB"
    have = f"its files have {total}" if whole else f"the first {len(files):,} of its files have {total} already"
    return (
        f"{folder} is too large to go along with a job: Ray takes {limit_bytes / 2**20:.0f} MiB zipped, and {have}; "
        f"the largest are {largest}. Name what the job does not need in {folder}/.rayignore (as in .gitignore), give "
        "another --working-dir, or put data where every node finds them"
    )


def _iterate_files(
    folder: Path, above: tuple[Path, ...] = (), rules: tuple[object, ...] = ()
) -> Generator[Path, None, None]:
    """Every file that Ray would send, links followed but not in circles."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    rules = (*rules, *get_excludes_from_ignore_files(folder, include_gitignore=gitignore, logger=_log))
    real = folder.resolve()
    for path in sorted(folder.iterdir()):
        excluded = path.name in get_runtime_env_default_excludes()
        if excluded or any(rule(path) for rule in rules):  # type: ignore[operator]
            continue
        if path.is_dir():
            if path.resolve() not in (*above, real):
                yield from _iterate_files(path, (*above, real), rules)
        elif path.is_file():
            yield path
