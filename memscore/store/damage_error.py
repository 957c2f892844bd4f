"""The error of a reader that meets a damaged file: its name, the place, and what to do."""

from collections.abc import Generator
from contextlib import contextmanager

from memscore.store.filesystem import Folder
from memscore.store.parquet import CorruptFile

NEXT_COMMANDS = {
    **dict.fromkeys(("weights", "outputs", "events"), "command that needs it"),
    "influence": "memscore.influence",
    "attempts": "unlearn.sweep",
    "trials": "unlearn.trial",
    "sweeps": "unlearn.sweep",
    "experiments": "unlearn.experiment",
    "progress.json": "run",
}
"""Folder -> what makes its files again, for errors of readers, which have no time to read what else is stored."""
REPORT_COMMANDS = {
    **dict.fromkeys(("fidelity_", "lorenz_", "proxies_", "loss_and_"), "memscore.fidelity"),
    "influence_": "memscore.influence",
    "audit-": "memscore.attack",
    "near_duplicates": "memscore.bank duplicates",
}
"""Beginning of the name of a report -> the same."""


def name_next_command(path: str) -> str:
    """Name what makes a damaged file again after it was moved away; estimate, unless its folder says otherwise."""
    # The path may begin with that of a store within the store, scenarios/NAME.
    for beginning, command in REPORT_COMMANDS.items():
        if "reports/" in path and path.rpartition("/")[2].startswith(beginning):
            return command
    return next((NEXT_COMMANDS[part] for part in path.split("/") if part in NEXT_COMMANDS), "estimate")


@contextmanager
def name_damage(folder: Folder, path: str) -> Generator[None, None, None]:
    """Name the file and what to do in a CorruptFile of a reader that knows no name."""
    try:
        yield
    except CorruptFile as error:
        raise build_damage_error(folder, path, error) from error


def build_damage_error(folder: Folder, path: str, error: Exception) -> CorruptFile:
    """Build the error of a damaged file from the reader's, which knows no name."""
    return CorruptFile(
        f"{folder.display_path(path)} is damaged: {error}; "
        f"`python -m memscore.bank verify {folder.display_name} --set-aside`, "
        f"and the next {name_next_command(path)} makes it again"
    )
