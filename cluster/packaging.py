"""Zip the working directory of a submitted job, so that its size is known before anything is sent.

What Ray would leave out is left out: files named by .gitignore and .rayignore, and environments and caches.
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
"""Folders with more than this times the limit are not zipped at all; text zips to a quarter, zeros to a thousandth."""
EXECUTABLE = 0o111
CHUNK_BYTES = 2**20

_log = logging.getLogger(__name__)


def pack(folder: Path, archive: Path, limit_bytes: int = LIMIT_BYTES) -> int:
    """Write a folder into a zip file, the same bytes for the same content; return its size in bytes.

    Raises ValueError, naming the largest parts, where the zip file would be larger than the limit, and OSError where
    the folder is none, something in it cannot be read, or the zip file cannot be written.
    """
    folder = folder.absolute()
    leave_out = f"name it in {folder}/.rayignore (as in .gitignore)"
    try:
        if not folder.is_dir():
            kind = "a file, and no folder" if folder.exists() else "no folder"
            raise NotADirectoryError(f"--working-dir {folder} is {kind}; give the one that the command is to run in")
        if folder.samefile("/"):
            raise ValueError(f"--working-dir {folder} is the whole file system; give the command's own folder")
        return _write_zip(folder, list_files(folder, limit_bytes), archive, limit_bytes)
    except OSError as error:
        # an error of the folder's files gets a remedy; one of the archive (a full disk) is passed on as it is
        if error.filename is None or not Path(error.filename).is_relative_to(folder):
            raise
        if isinstance(error, FileNotFoundError):
            problem = f"was removed while it was packed; submit again when nobody writes there, or {leave_out}"
        else:
            problem = f"cannot be read ({error.strerror}); make it readable, {leave_out}, or give another --working-dir"
        raise OSError(f"{error.filename} {problem}") from error


def list_files(folder: Path, limit_bytes: int) -> dict[Path, int]:
    """Return path -> bytes of every file that is sent, sorted; raise ValueError early where there is far too much."""
    # up to MAX_COMPRESSION times the limit only zipping can show whether it fits
    sizes: dict[Path, int] = {}
    total = 0
    for path in iterate_files(folder):
        sizes[path] = path.stat().st_size
        total += sizes[path]
        if len(sizes) > MAX_FILES:
            raise ValueError(format_too_large(folder, sizes, f"at most {MAX_FILES:,} files are sent", whole=False))
        if total > MAX_COMPRESSION * limit_bytes:
            limit = f"more than {MAX_COMPRESSION * limit_bytes / 2**20:,.0f} MiB are not even zipped"
            raise ValueError(format_too_large(folder, sizes, limit, whole=False))
    return dict(sorted(sizes.items()))


def _write_zip(folder: Path, sizes: dict[Path, int], archive: Path, limit_bytes: int) -> int:
    """Write the zip file and return its bytes; stop as soon as it is too large."""
    # Equal bytes for equal content, for Ray names a package by the hash of its bytes: a ZipInfo without a date has that
    # of 1980, and the upper half of external_attr, Unix's mode, has one of two values.
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sizes:
            member = zipfile.ZipInfo(path.relative_to(folder).as_posix())
            member.compress_type = zipfile.ZIP_DEFLATED
            member.external_attr = (0o755 if path.stat().st_mode & EXECUTABLE else 0o644) << 16
            with path.open("rb") as content, packed.open(member, "w", force_zip64=True) as target:
                while chunk := content.read(CHUNK_BYTES):
                    target.write(chunk)
                    if archive.stat().st_size > limit_bytes:
                        raise ValueError(format_too_large(folder, sizes, format_zip_limit(limit_bytes)))
    # once more, with the directory at the archive's end
    size = archive.stat().st_size
    if size > limit_bytes:
        raise ValueError(format_too_large(folder, sizes, format_zip_limit(limit_bytes)))
    return size


def format_zip_limit(limit_bytes: int) -> str:
    """Format the limit of what Ray takes."""
    return f"Ray takes {limit_bytes / 2**20:.0f} MiB zipped"


def format_too_large(folder: Path, files: dict[Path, int], limit: str, *, whole: bool = True) -> str:
    """Return the error message for a folder above a limit, in words; whole is False if not all of it was read."""
    sizes: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for path, size in files.items():
        parts = path.relative_to(folder).parts
        name = f"{parts[0]}/" if len(parts) > 1 else parts[0]
        sizes[name] += size
        counts[name] += 1
    largest = ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.most_common(3))
    if len(files) > MAX_FILES:
        largest = ", ".join(f"{name} {counts[name]:,} files" for name, _ in counts.most_common(3))
    total = f"{sum(sizes.values()) / 1e6:,.0f} MB"
    size_clause = f"its files have {total}" if whole else f"the first {len(files):,} of its files have {total} already"
    return (
        f"{folder} is too large to go along with a job: {limit}, and {size_clause}; the largest are {largest}. "
        f"Name what the job does not need in {folder}/.rayignore (as in .gitignore), give another --working-dir, or "
        "put data where every node finds them"
    )


def find_excluding_rule(folder: Path, path: Path) -> str | None:
    """Find the rule that leaves a file out of what is sent, as ".gitignore line 2, '*.npz',"; None for none.

    Like git, the last line of a file that matches decides.
    """
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import PathSpec

    steps = [folder.joinpath(*path.relative_to(folder).parts[:count]) for count in range(1, len(path.parts) + 1)]
    for step in dict.fromkeys(steps):
        if step.name in get_runtime_env_default_excludes():
            return f"the name {step.name!r}, which is never sent,"
        for base in (parent for parent in reversed(step.parents) if parent.is_relative_to(folder)):
            for name in list_ignore_files():
                file = base / name
                lines = file.read_text().splitlines() if file.is_file() else []
                relative = step.relative_to(base).as_posix()
                if not PathSpec.from_lines("gitwildmatch", lines).match_file(relative):
                    continue
                for number, line in reversed([*enumerate(lines, start=1)]):
                    if PathSpec.from_lines("gitwildmatch", [line]).match_file(relative):
                        return f"{file.relative_to(folder).as_posix()} line {number}, {line.strip()!r},"
    return None


def list_ignore_files() -> tuple[str, ...]:
    """List the names of the files whose rules hold."""
    uses_gitignore = os.environ.get("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "0") != "1"
    return (".gitignore", ".rayignore") if uses_gitignore else (".rayignore",)


def iterate_files(
    folder: Path, above: tuple[Path, ...] = (), rules: tuple[object, ...] = ()
) -> Generator[Path, None, None]:
    """Yield every file that Ray would send; links are followed, but not in circles."""
    # Ray 2.60 has no public function that lists them; a test compares with the archive that Ray itself makes.
    from ray._private.ray_constants import get_runtime_env_default_excludes
    from ray._private.runtime_env.packaging import get_excludes_from_ignore_files

    # rules grow on the way down; each is a function of a path below the folder of its file, links not resolved
    gitignore = ".gitignore" in list_ignore_files()
    rules = (*rules, *get_excludes_from_ignore_files(folder, include_gitignore=gitignore, logger=_log))
    real = folder.resolve()
    for path in sorted(folder.iterdir()):
        excluded = path.name in get_runtime_env_default_excludes()
        if excluded or any(rule(path) for rule in rules):  # type: ignore[operator]
            continue
        if path.is_dir():
            # a link back to a folder on the way here would never end; one to any other folder is sent as a copy
            if path.resolve() not in (*above, real):
                yield from iterate_files(path, (*above, real), rules)
        elif path.is_file():
            yield path
