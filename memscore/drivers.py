"""Whether somebody works on a store: by its lock, and by the record that a run writes over and over."""

import re
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from memscore.beats import Beat, own_space
from memscore.store.filesystem import Folder

HOLDER = re.compile(r"pid (?P<pid>\d+) on host (?P<host>.+)")


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Who works on a store.

    Attributes:
        state: running: its last record is fresh; silent: it holds the lock and says nothing, as a command that fills
            no bank, or one that is frozen; died: it ended without a word; none: nobody; unknown: on an object store,
            which has no lock, no run has left a record.
        pid: of the driver; None where there is none.
        host: of the driver.
    """

    state: Literal["running", "silent", "died", "none", "unknown"]
    pid: int | None = None
    host: str | None = None


def driver_of(folder: Folder, beat: Beat | None) -> Driver:
    """Who works on a store; the lock is read, never taken, so that no driver is kept out by a look.

    Args:
        folder: of the store.
        beat: the last record of a run there.

    Returns:
        The driver.
    """
    pid, host = holder_of(folder)
    seen = host == socket.gethostname() and not (beat and beat.pid == pid and beat.space not in {"", own_space()})
    if pid is not None and seen and is_gone(pid):
        return Driver(state="died", pid=pid, host=host)
    if beat and beat.fresh() and pid in {None, beat.pid}:
        return Driver(state="running", pid=beat.pid, host=beat.host)
    if pid is not None:
        return Driver(state="silent", pid=pid, host=host)
    if beat and beat.state == "running":
        return Driver(state="died", pid=beat.pid, host=beat.host)
    return Driver(state="none" if beat or folder.local else "unknown")


def is_gone(pid: int) -> bool:
    """Whether no such process works any more; one that has ended and that nobody asked after is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def holder_of(folder: Folder) -> tuple[int | None, str | None]:
    """Process and host that the lock of a local store names; a killed holder stays named."""
    if not folder.local:
        return None, None
    try:
        named = HOLDER.match(folder.read("lock").decode(errors="replace"))
    except OSError:  # never locked, or not for this user to read
        return None, None
    return (int(named["pid"]), named["host"].strip()) if named else (None, None)
