"""Looking at a store that may be damaged, or written to meanwhile, without stumbling."""

from typing import Any

from memscore.store.filesystem import SCRATCH, Folder


def readable(read: Any, problems: list[str]) -> Any:
    """What read gives; None, and a word among the problems, where the file is damaged, or gone since it was listed."""
    try:
        return read()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        problems.append(" ".join(str(error).split()))
        return None


def listed(folder: Folder, kind: str) -> list[Any]:
    """Finished files of one sub-folder with size and time, in one listing."""
    return [info for info in folder.entries(kind) if not SCRATCH.fullmatch(info.base_name)]


def names_of(folder: Folder, kind: str) -> list[str]:
    """Names of records of one kind, without their ending, sorted."""
    return [name.removesuffix(".json") for name in folder.names(kind) if name.endswith(".json")]
