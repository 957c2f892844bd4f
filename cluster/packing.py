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
EXECUTABLE = 0o111
CHUNK = 2**20

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
        ValueError: it is too large; what takes most of it is named.
    """
    if not folder.is_dir():
        raise NotADirectoryError(f"--working-dir {folder} is no folder; give the one that the command is to run in")
    folder = folder.absolute()
    files = sorted(_files(folder))
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in files:
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # the date stays 1980
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o755 if path.stat().st_mode & EXECUTABLE else 0o644) << 16
            with path.open("rb") as content, packed.open(member, "w", force_zip64=True) as target:
                while chunk := content.read(CHUNK):
                    target.write(chunk)
                    if archive.stat().st_size > limit_bytes:
                        raise ValueError(too_large(folder, files, limit_bytes))
    size = archive.stat().st_size
    if size > limit_bytes:
        raise ValueError(too_large(folder, files, limit_bytes))
    return size


def too_large(folder: Path, files: list[Path], limit_bytes: int) -> str:
    """Words for a folder that does not go through, with what to leave out."""
    sizes: Counter[str] = Counter()
    for path in files:
        parts = path.relative_to(folder).parts
        sizes[f"{parts[0]}/" if len(parts) > 1 else parts[0]] += path.stat().st_size
    largest = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.most_common(3))
    return (
        f"{folder} is too large to go along with a job: Ray takes {limit_bytes / 2**20:.0f} MiB zipped, and its files "
        f"have {sum(sizes.values()) / 1e6:,.0f} MB; the largest are {largest}. Name what the job does not need in "
        f"{folder}/.rayignore (as in .gitignore), or put data where every node finds them"
    )


def _files(folder: Path, above: tuple[Path, ...] = (), rules: tuple[object, ...] = ()) -> Generator[Path, None, None]:
    """Every file that Ray would send, links followed but not in circles."""
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    rules = (*rules, *get_excludes_from_ignore_files(folder, include_gitignore=gitignore, logger=_log))
    real = folder.resolve()
    for path in sorted(folder.iterdir()):
        if path.name in get_runtime_env_default_excludes() or any(rule(path) for rule in rules):  # type: ignore[operator]
            continue
        if path.is_dir():
            if path.resolve() not in (*above, real):
                yield from _files(path, (*above, real), rules)
        elif path.is_file():
            yield path
