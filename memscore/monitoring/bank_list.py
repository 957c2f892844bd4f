"""The banks in one folder: what each is of, how large it is, when it was used, and whether a process works on it.

Folders that are no banks, and banks that are damaged, are listed too, with the reason. Nothing is written.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow import fs

from memscore.monitoring.heartbeat import find_driver, read_heartbeat
from memscore.store.filesystem import Folder
from memscore.store.manifest import CorruptManifest, Manifest
from memscore.store.parquet import CorruptFile
from memscore.store.remote import join_url, retry
from memscore.store.store import Store
from memscore.training.recipe_names import format_recipe_name
from memscore.units import format_count

MAX_NAMES = 2
"""Names of files that the remark on a folder that is no bank lists."""


@dataclass(frozen=True, kw_only=True)
class FolderSize:
    """The files in a folder and all folders in it; links count as links."""

    files: int
    bytes: int
    last_change: float
    """Of the file that was changed last, in seconds since 1970; 0 without files."""


@dataclass(frozen=True, kw_only=True)
class BankSummary:
    """One folder of a folder of banks.

    Attributes:
        name: of the folder.
        store: its path or URL, without credentials.
        data: name of the data set; empty for what is no bank, as the next two.
        architecture: of the models.
        recipe: name of the recipe, with the values that were changed.
        models: stored bank models.
        scores: stored scores.
        trials: stored unlearning trials, those of nested stores included.
        files: of the whole folder.
        bytes: of all of them.
        changed_s: seconds since the last change of a file; None without files.
        activity: "running" with a live heartbeat, "in use" if a process holds the lock, "died" if it ended without a
            word; empty if none works on it, or this cannot be known.
        problem: why it is no bank, or what is damaged; empty for a sound one.
    """

    name: str
    store: str
    data: str = ""
    architecture: str = ""
    recipe: str = ""
    models: int = 0
    scores: int = 0
    trials: int = 0
    files: int
    bytes: int
    changed_s: float | None
    activity: str = ""
    problem: str = ""


def list_banks(home_url: str) -> list[BankSummary]:
    """List the folders in a folder of banks, those used last first; empty if it does not exist."""
    home = Folder.from_url(home_url)
    selector = fs.FileSelector(home.path(""), allow_not_found=True)
    entries = retry(lambda: home.filesystem.get_file_info(selector), home.display_name, 0.0, read=True)
    names = sorted(entry.base_name for entry in entries if entry.type == fs.FileType.Directory)
    banks = [summarize_folder(Folder.from_url(join_url(home.url, name)), name) for name in names]
    return sorted(banks, key=lambda bank: float("inf") if bank.changed_s is None else bank.changed_s)


def require_banks_folder(folder: Folder) -> None:
    """Raise FileNotFoundError if a folder does not exist, ValueError if it is a file or itself a bank."""
    place = folder.path("")
    [entry] = retry(lambda: folder.filesystem.get_file_info([place]), folder.display_name, 0.0, read=True)
    name = folder.display_name
    # an object store has no empty folders, so nothing tells an empty one from a missing one there
    if entry.type == fs.FileType.NotFound:
        raise FileNotFoundError(f"there is no folder {name}; `memscore banks` without a folder lists ~/memscore")
    if entry.type == fs.FileType.File:
        raise ValueError(f"{name} is a file; name a folder of banks")
    if "manifest.json" in folder.names():
        raise ValueError(f"{name} is a bank; name the folder that it is in, or see `memscore status {name}`")


def summarize_folder(folder: Folder, name: str) -> BankSummary:
    """Summarize one folder; whatever cannot be read is its problem."""
    size = measure_folder(folder)
    changed_s = max(time.time() - size.last_change, 0.0) if size.files else None
    known: dict[str, Any] = {"name": name, "store": folder.display_name, "files": size.files, "bytes": size.bytes}
    known["changed_s"] = changed_s
    try:
        manifest = Manifest.from_json(folder.read("manifest.json", 0.0))
    except FileNotFoundError:
        return BankSummary(**known, problem=describe_no_bank(folder))
    except (CorruptManifest, ValueError) as error:
        return BankSummary(**known, problem=f"manifest.json: {error}; see `memscore bank verify`")
    except OSError as error:
        return BankSummary(**known, problem=" ".join(str(error).split()))
    return BankSummary(
        **known,
        data=manifest.data,
        architecture=manifest.architecture,
        recipe="" if manifest.imported else name_recipe(folder, manifest),
        models=len(folder.names("shards")),
        scores=len(folder.names("scores")),
        trials=sum(count_trials(folder, place) for place in ("", *find_scenarios(folder))),
        activity=find_activity(folder),
        problem=f"a link to {os.readlink(folder.root)}" if folder.local and Path(folder.root).is_symlink() else "",
    )


def describe_no_bank(folder: Folder) -> str:
    """Describe a folder without manifest.json."""
    if shards := folder.names("shards"):
        return f"damaged: {format_count(len(shards), 'model')} and no manifest.json; see `memscore bank verify`"
    names = folder.names()
    if not names and not folder.folders(""):
        return "no bank: it is empty"
    listed = ", ".join((names or folder.folders(""))[:MAX_NAMES])
    return f"no bank: it has no manifest.json, but {listed}"


def name_recipe(folder: Folder, manifest: Manifest) -> str:
    """Name the recipe of a bank: as the user did, else by its values."""
    return format_recipe_name(manifest, Store(folder, manifest).read_origin() or {})


def count_trials(folder: Folder, place: str) -> int:
    """Count the trials of a store, or of one nested in it."""
    names = folder.names(f"{place}/trials" if place else "trials")
    return sum(name.endswith(".parquet") and not name.endswith(("-said.parquet", "-cost.parquet")) for name in names)


def find_scenarios(folder: Folder) -> list[str]:
    """Find the nested stores, of forget sets that change the data."""
    return [f"scenarios/{name}" for name in folder.folders("scenarios")]


def find_activity(folder: Folder) -> str:
    """Find out whether a process works on a store."""
    try:
        heartbeat = read_heartbeat(folder)
    except CorruptFile:
        heartbeat = None  # verify reports it; the lock still tells
    state = find_driver(folder, heartbeat).state
    return {"running": "running", "silent": "in use", "died": "died"}.get(state, "")


def measure_folder(folder: Folder) -> FolderSize:
    """Measure all files in a folder, links as links, and files that are being written."""
    if folder.local:
        infos = [
            os.lstat(os.path.join(place, name))
            for place, _, names in os.walk(folder.root)
            for name in names
            if os.path.lexists(os.path.join(place, name))  # a run may remove it meanwhile
        ]
        sizes, times = [info.st_size for info in infos], [info.st_mtime for info in infos]
    else:
        selector = fs.FileSelector(folder.path(""), recursive=True, allow_not_found=True)
        found = retry(lambda: folder.filesystem.get_file_info(selector), folder.display_name, 0.0, read=True)
        files = [info for info in found if info.type == fs.FileType.File]
        sizes, times = [info.size or 0 for info in files], [(info.mtime_ns or 0) / 1e9 for info in files]
    return FolderSize(files=len(sizes), bytes=sum(sizes), last_change=max(times, default=0.0))
