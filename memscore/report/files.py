"""Where a page and the files beside it are written, without overwriting anything that is no page of memscore."""

import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

MARK = b'name="generator" content="memscore'
"""What the head of every page has; a file without it is somebody else's."""
MARKED_BYTES = 4096
OWN_FILE = re.compile(r"sprite-\d{5}\.png")


@dataclass(frozen=True, kw_only=True)
class PageFiles:
    """The path of a page, and that of the folder beside it."""

    page: Path
    folder: Path


def plan_files(store: str, out: str | None) -> PageFiles:
    """Choose the paths of a page; ValueError where a file is there that is no page, or the folder is missing."""
    # a store may be a URL with options
    stem = re.sub(r"[^\w.-]+", "-", store.rstrip("/").rpartition("/")[2].partition("?")[0]).strip("-.") or "bank"
    page = Path(f"{stem}.html" if out is None else out).expanduser()
    if page.suffix.lower() not in {".html", ".htm"}:
        raise ValueError(f"--out {page}: the page is HTML; give a name that ends in .html")
    if not page.parent.is_dir():
        raise ValueError(f"--out {page}: there is no folder {page.parent}; make it, or name another")
    # through a link a page would replace a file elsewhere
    if page.is_dir() or page.is_symlink() or (page.exists() and not is_page(page)):
        raise ValueError(f"{page} exists and is no page of memscore; give another --out, or remove it")
    return PageFiles(page=page, folder=page.with_name(f"{page.stem}_files"))


def is_page(path: Path) -> bool:
    """Return whether a file is a page that memscore wrote."""
    with path.open("rb") as file:
        return MARK in file.read(MARKED_BYTES)


def write_files(files: PageFiles, html: str, beside: Mapping[str, bytes]) -> int:
    """Write the files beside a page, then the page; return the size of the page in bytes.

    The page is whole or as before. Files beside an earlier page that this one does not have are removed.
    """
    # only names that a page writes: the folder may hold what somebody put there
    if files.folder.is_dir():
        for path in files.folder.iterdir():
            if OWN_FILE.fullmatch(path.name) and path.name not in beside:
                path.unlink()
    # the images before the page that shows them
    if beside:
        files.folder.mkdir(exist_ok=True)
        for name, content in beside.items():
            replace_file(files.folder / name, content)
    elif files.folder.is_dir() and not any(files.folder.iterdir()):
        files.folder.rmdir()
    # last, so that a page never names images that are not there yet
    content = html.encode()
    replace_file(files.page, content)
    return len(content)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file in one step; OSError names it and what to do."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:32]}-", delete=False) as file:
            try:
                file.write(content)
                file.close()
                # a temporary file is for its owner alone, and a page is to be shared
                os.chmod(file.name, 0o666 & ~read_umask())
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; give an --out that can be written") from error


def read_umask() -> int:
    """Read which permissions new files do not get."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
