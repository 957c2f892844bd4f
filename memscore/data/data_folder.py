"""The folder that a data set lies in, and the names that its files may give: none of them leads out of it.

Names in annotations, tables and Parquet columns were written by whoever packed the data. A name is relative to a
folder, without "..", a drive or a leading slash; subfolders are fine. The folder itself may be a link, but links in it
that lead outside are followed only where the user says so.
"""

import os
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath

LINK_RULE = "a link that leads out of the data folder, to"
LINK_ADVICE = "--follow-links follows it, if you made it"


class DataFolder:
    """A folder of data, and whether links in it may lead outside.

    Attributes:
        root: the folder.
        follow_links: read what lies behind links that lead outside.
    """

    def __init__(self, root: Path, *, follow_links: bool = False) -> None:
        """Take the folder as it is; the user named it, so it may be a link itself."""
        self.root = root
        self.follow_links = follow_links
        # Most files share their folder with many others, so that only links cost more than one look.
        self._resolve_folder = lru_cache(maxsize=1024)(os.path.realpath)
        self._real_root = os.path.realpath(root)

    def find_link_fault(self, path: Path) -> str:
        """Find out whether a path leads outside by a link.

        Args:
            path: of a file or folder below the root.

        Returns:
            Why it may not be read; empty if it may.
        """
        if self.follow_links:
            return ""
        # A link is resolved whole. What is none lies where its folder lies, so that a data set of a million files costs
        # one look at each and not one at every folder above it.
        is_link = os.path.islink(path)
        real = os.path.realpath(path) if is_link else os.path.join(self._resolve_folder(path.parent), path.name)
        return "" if self._is_inside(real) else f"{LINK_RULE} {real}: {LINK_ADVICE}"

    def require_inside(self, path: Path) -> Path:
        """Refuse a file or folder that lies outside by a link.

        Args:
            path: below the root.

        Returns:
            The path.

        Raises:
            ValueError: it leads outside.
        """
        if fault := self.find_link_fault(path):
            raise ValueError(f"{path} is {fault}")
        return path

    def _is_inside(self, real: str) -> bool:
        return real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)


def join_name(folder: Path, name: str, place: str, *, is_plain: bool = False) -> Path:
    r"""Join a name that a file gives to a folder; Windows' backslashes separate as slashes do.

    Args:
        folder: that the name is relative to.
        name: as it was written.
        place: the file and line that has it, for the message.
        is_plain: the name must be that of a file in the folder itself.

    Returns:
        The path, which lies below the folder as far as names tell.

    Raises:
        ValueError: the name leads outside, or is no name of a file.

    >>> join_name(Path("data"), "cat\\1.png", "list.csv line 2").as_posix()
    'data/cat/1.png'
    """
    if fault := _find_name_fault(name, is_plain=is_plain):
        raise ValueError(f"{place} names {_shorten(name)}, which {fault}")
    return folder / name.replace("\\", "/")


def normalize_name(name: str) -> str:
    """Return a name in the form that equal names share: ./a//b.png is a/b.png."""
    return PurePosixPath(name.replace("\\", "/")).as_posix()


def _find_name_fault(name: str, *, is_plain: bool) -> str:
    """Return why a name cannot be joined to a folder, and what to write; empty if it can."""
    # By the rules of both systems, wherever this runs: the data may have been packed on the other one.
    slashed = name.replace("\\", "/")
    if "\0" in name:
        return "holds a byte 0; write the name of a file"
    if slashed.startswith("/"):
        return "is absolute; write it relative to the folder"
    if re.match(r"[A-Za-z]:", slashed):
        return "begins with a drive; write it relative to the folder"
    if ".." in slashed.split("/"):
        return "leads out of its folder by '..'; put the file into the folder"
    if is_plain and "/" in slashed:
        return "has a folder; it must be the name of a file alone"
    return ""


def _shorten(name: str) -> str:
    return repr(name if len(name) <= 100 else f"{name[:97]}...")
