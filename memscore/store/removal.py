"""Remove a store, or what unlearning added to it; never what memscore did not write, nor what a link leads to."""

import os
import re
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyarrow import fs

from memscore.store.file_kinds import FILE_KINDS, find_kind
from memscore.store.filesystem import TEMPORARY_NAME, Folder, acquire_lock
from memscore.store.json_records import read_record
from memscore.store.manifest import CorruptManifest, Manifest
from memscore.store.path_patterns import HASH, SCENARIOS, split_scenario
from memscore.units import format_count

TRIAL_FOLDERS = ("trials/", "attempts/", "sweeps/", "experiments/", f"{SCENARIOS}/")
"""Folders that hold nothing but what unlearning made."""
KEYED_FOLDERS = ("weights/", "outputs/", "events/", "receipts/", "rebuilt/", "failures/")
"""Folders whose files may be of an oracle or an unlearned model, by the hash that their names begin with."""
LAST = ("manifest.json", "lock")
"""What is removed last, so that an interrupted removal leaves a store that can be removed."""
IDENTITY = {
    *("manifest.json", "data.json", "examples.parquet", "clusters.parquet", "duplicates.parquet"),
    *("progress.json", "run.log", "run.old.log", "lock"),
}
IDENTITY_FOLDERS = ("arms/", "weights/")
"""What a store holds before its first result: what the bank is, and what says that a command began.

Weights are start weights there: those of a model follow its receipt.
"""
FOREIGN_NAMED = 3


@dataclass(frozen=True, kw_only=True)
class Removal:
    """Files that are to be removed.

    Attributes:
        paths: within the store, in the order of removal.
        bytes: of all of them; a link counts as a link.
        links: those of the paths that are links: they go, and what they lead to stays.
    """

    paths: list[str]
    bytes: int
    links: list[str]


def plan_removal(folder: Folder, *, trials_only: bool) -> Removal:
    """List what removing a store, or its trials, would remove; nothing is changed.

    FileNotFoundError or ValueError where the folder is no store that can be read, is a link, or holds files that
    memscore did not write.
    """
    if folder.local and Path(folder.root).is_symlink():
        raise ValueError(
            f"{folder.display_name} is a link to {os.readlink(folder.root)}; remove the store there, and then the link"
        )
    require_store(folder)
    sizes, links = list_files(folder)
    foreign = [path for path in sizes if not is_own(path)]
    if foreign and not trials_only:
        listed = ", ".join(foreign[:FOREIGN_NAMED]) + (", ..." if len(foreign) > FOREIGN_NAMED else "")
        raise ValueError(
            f"{folder.display_name} also holds {format_count(len(foreign), 'file')} that memscore did not write "
            f"({listed}); move them "
            "away first"
        )
    # Oracles share folders with the bank's originals, and only their keys tell them apart.
    if trials_only:
        keys = find_trial_keys(folder, sizes)
        paths = [path for path in sizes if is_own(path) and is_trial_file(path, keys)]
    else:
        paths = list(sizes)
    # The manifest goes last: whatever ends a removal, what is left is still known as a store.
    paths.sort(key=lambda path: (LAST.index(path) + 1 if path in LAST else 0, path))
    return Removal(paths=paths, bytes=sum(sizes[path] for path in paths), links=[p for p in paths if p in links])


def remove_files(folder: Folder, removal: Removal, *, whole: bool) -> None:
    """Remove files of a store, then folders that are empty; `whole`: and the store's own. The caller holds the lock."""
    for path in removal.paths:
        if folder.local:
            Path(folder.path(path)).unlink(missing_ok=True)
        else:
            folder.remove(path)
    # from the innermost folder, so that one that held only folders is empty in its turn
    if folder.local:
        for place, _, _ in os.walk(folder.root, topdown=False):
            if place != folder.root or whole:
                remove_if_empty(place)


def remove_if_empty(place: str) -> None:
    """Remove a folder unless something is in it."""
    with os.scandir(place) as entries:
        is_empty = not any(entries)
    if is_empty:
        os.rmdir(place)


@contextmanager
def remove_if_refused(folder: Folder) -> Generator[None, None, None]:
    """Remove the store that the block created if it raises before it stored anything but what the store is.

    So a command that is refused leaves no store behind, which would refuse the corrected command as another bank's.
    Ctrl-C leaves it: the same command goes on.
    """
    if folder.exists("manifest.json", retry_s=0):
        yield
        return
    # An empty folder of the user's stays; an object store has none to remove.
    existed = not folder.local or Path(folder.root).exists()
    try:
        yield
    except Exception:
        # What cannot be removed, as on a disk that fails, stays: the error of the block says more.
        with suppress(OSError, ValueError):
            if folder.exists("manifest.json", retry_s=0):
                with acquire_lock(folder):
                    remove_identity(folder, whole=not existed)
        raise


def remove_identity(folder: Folder, *, whole: bool) -> None:
    """Remove a store that holds nothing but what it is; `whole`: and its folder. The caller holds the lock."""
    removal = plan_removal(folder, trials_only=False)
    if all(path in IDENTITY or path.startswith(IDENTITY_FOLDERS) for path in removal.paths):
        remove_files(folder, removal, whole=whole)


def require_store(folder: Folder) -> None:
    """Raise FileNotFoundError or ValueError unless a folder has a manifest of memscore that can be read."""
    try:
        Manifest.from_json(folder.read("manifest.json", 0.0))
    except FileNotFoundError:
        raise FileNotFoundError(
            f"no store at {folder.display_name} (it has no manifest.json); memscore removes only stores"
        ) from None
    except (CorruptManifest, ValueError) as error:
        raise ValueError(
            f"{folder.display_path('manifest.json')} is not what memscore wrote ({error}); if the folder is a damaged "
            "store of yours, delete it yourself"
        ) from None


def list_files(folder: Folder) -> tuple[dict[str, int], set[str]]:
    """List all files of a folder: path -> bytes; and which of them are links. Links are not followed."""
    if not folder.local:
        selector = fs.FileSelector(folder.path(""), recursive=True, allow_not_found=True)
        infos = [info for info in folder.filesystem.get_file_info(selector) if info.type == fs.FileType.File]
        return {info.path.removeprefix(f"{folder.root}/"): info.size or 0 for info in infos}, set()
    sizes: dict[str, int] = {}
    links: set[str] = set()
    # os.walk lists a link to a folder among the folders, which it does not enter.
    for place, folders, names in os.walk(folder.root):
        for name in (*names, *(each for each in folders if os.path.islink(os.path.join(place, each)))):
            full = os.path.join(place, name)
            path = os.path.relpath(full, folder.root)
            sizes[path] = os.lstat(full).st_size
            if os.path.islink(full):
                links.add(path)
    return sizes, links


def is_own(path: str) -> bool:
    """Return whether a file is of a kind that memscore writes, one that it was writing, or a link to such a folder."""
    if find_kind(path) or TEMPORARY_NAME.fullmatch(path.rpartition("/")[2]):
        return True
    return any(kind.pattern.startswith(f"{split_scenario(path)[1]}/") for kind in FILE_KINDS)


def find_trial_keys(folder: Folder, paths: dict[str, int]) -> set[str]:
    """Find the keys of the models that unlearning made: oracles, by their receipts, and stored unlearned models."""
    keys = {match[1] for path in paths if (match := re.fullmatch(rf"trials/({HASH})-cost\.parquet", path))}
    for path in paths:
        if re.fullmatch(r"receipts/oracle-[^/]+\.json", path):
            keys.add(str(read_record(folder, path)["key"]))
    return keys


def is_trial_file(path: str, keys: set[str]) -> bool:
    """Return whether a file of a store was made by unlearning."""
    if split_scenario(path)[0] or path.startswith(TRIAL_FOLDERS):
        return True
    name = path.rpartition("/")[2]
    if not path.startswith(KEYED_FOLDERS):
        return False
    return name.startswith("oracle-") or name[:64] in keys
