"""The store that a command reads where the user names none: the one used last among those in one folder.

Used last is the one with the newest manifest.json, progress.json or run.log: what is written when a store is created,
while its models are trained, and by every command that trains or scores. Reading a store is no use of it.
"""

from pathlib import Path

from pyarrow import fs

from memscore.monitoring.heartbeat import HEARTBEAT_PATH
from memscore.store.filesystem import Folder
from memscore.store.manifest import get_home_url
from memscore.store.remote import join_url, retry
from memscore.visible_text import write_line

MARKS = ("manifest.json", HEARTBEAT_PATH, "run.log")
"""Files whose times say when a store was used; one that has the first or second is a store."""


def choose_store(store: str | None) -> str:
    """Return the store that the user named, else the one used last, with a line on stderr that names it.

    FileNotFoundError if none is named and the folder of stores has none.
    """
    if store is not None:
        return store
    times = read_times(get_home_url())
    if not times:
        home = Folder.from_url(get_home_url()).display_name
        raise FileNotFoundError(
            f"no store in {home}; name one, or create one with `python -m memscore.estimate` ($MEMSCORE_HOME names "
            "another folder of stores)"
        )
    url = max(times, key=lambda each: times[each])
    reason = "last used" if len(times) > 1 else "the only one"
    write_line(f"bank: {shorten_home(Folder.from_url(url).display_name)} ({reason})")
    return url


def read_times(home_url: str) -> dict[str, int]:
    """Read when each store of a folder was used, in nanoseconds since 1970, by path or URL; one level deep."""
    home = Folder.from_url(home_url)
    selector = fs.FileSelector(home.path(""), allow_not_found=True)
    entries = retry(lambda: home.filesystem.get_file_info(selector), home.display_name, 0.0, read=True)
    names = [entry.base_name for entry in entries if entry.type == fs.FileType.Directory]
    files = [(name, mark) for name in names for mark in MARKS]
    paths = [home.path(f"{name}/{mark}") for name, mark in files]
    infos = retry(lambda: home.filesystem.get_file_info(paths), home.display_name, 0.0, read=True) if paths else []
    times: dict[str, dict[str, int]] = {}
    for (name, mark), info in zip(files, infos, strict=True):
        if info.is_file:
            times.setdefault(name, {})[mark] = info.mtime_ns or 0
    return {
        join_url(home.url, name): max(of_store.values())
        for name, of_store in times.items()
        if of_store.keys() & set(MARKS[:2])
    }


def shorten_home(path: str) -> str:
    """Return a path with ~ in place of the user's home folder.

    >>> shorten_home("/somewhere/else")
    '/somewhere/else'
    """
    home = str(Path.home())
    return f"~{path[len(home) :]}" if home != "/" and path.startswith(f"{home}/") else path


def resolve_name(store: str) -> str:
    """Return the path or URL of a store that a user names: a name without a slash is one in the folder of stores."""
    return store if "/" in store else join_url(Folder.from_url(get_home_url()).url, store)
