"""Where a user's stores lie, and which was worked on last."""

import os

from pyarrow import fs

from memscore.beats import PATH
from memscore.store.filesystem import Folder
from memscore.store.remote import persist


def home_url() -> str:
    """The folder or URL of a user's stores: $MEMSCORE_HOME, else ~/memscore."""
    return os.environ.get("MEMSCORE_HOME") or os.path.expanduser("~/memscore")


def latest_store() -> str:
    """The store whose record or manifest is the youngest.

    Returns:
        Its path or URL.

    Raises:
        FileNotFoundError: there is none.
    """
    home = Folder.at(home_url())
    selector = fs.FileSelector(home.path(""), allow_not_found=True)
    found = persist(lambda: home.filesystem.get_file_info(selector), home.shown, 0.0, read=True)
    names = [entry.base_name for entry in found if entry.type == fs.FileType.Directory]
    marks = [f"{name}/{mark}" for name in names for mark in ("manifest.json", PATH)]
    paths = [home.path(mark) for mark in marks]
    infos = persist(lambda: home.filesystem.get_file_info(paths), home.shown, 0.0, read=True) if paths else []
    times = {mark: info.mtime_ns or 0 for mark, info in zip(marks, infos, strict=True) if info.is_file}
    if not times:
        raise FileNotFoundError(f"no store in {home.shown}; name one, or begin one with `python -m memscore.estimate`")
    name = max(times, key=lambda mark: times[mark]).partition("/")[0]
    base, _, options = home.url.partition("?")
    return f"{base.rstrip('/')}/{name}" + (f"?{options}" if options else "")
