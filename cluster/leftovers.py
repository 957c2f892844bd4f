"""Temporary names that say which process made them, and the removal of what processes left that were killed.

host~pid-start-space      start: clock ticks from the boot to the start of the process, since pids are used again
                          space: the number of its pid namespace, since containers may share a folder and a host name
"""

import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

OWNER = r"(?P<host>[^~]+)~(?P<pid>\d+)(?:-(?P<start>\d*)-(?P<space>\d*))?"
"""Pattern of an owner; names of earlier versions have a host and a pid only."""
FOLDER_NAME = re.compile(rf"memscore-[a-z]+~{OWNER}~.+")


def make_owner() -> str:
    """Return the owner of a temporary name: this process."""
    return f"{socket.gethostname()}~{os.getpid()}-{read_start(os.getpid())}-{read_space()}"


def is_owner_dead(owner: re.Match[str]) -> bool:
    """Return whether the process of a match of OWNER is known to have ended; of another host it is not known."""
    # A name of an earlier version has no namespace: it is taken to be of this one.
    if owner["host"] != socket.gethostname() or (owner["space"] or "") not in {"", read_space()}:
        return False
    if not Path("/proc/self/stat").exists():  # no /proc: nothing is known
        return False
    # Another start: the pid was given to a new process.
    start = read_start(int(owner["pid"]))
    return not start or (owner["start"] or start) != start


def create_temporary_folder(purpose: str) -> tempfile.TemporaryDirectory[str]:
    """Create a temporary folder, after removing those that killed processes left; it is removed as it is closed."""
    remove_leftovers()
    return tempfile.TemporaryDirectory(prefix=f"memscore-{purpose}~{make_owner()}~")


def remove_leftovers() -> int:
    """Remove this user's temporary folders whose processes have ended; return how many."""
    n_removed = 0
    with os.scandir(tempfile.gettempdir()) as entries:
        for entry in entries:
            owner = FOLDER_NAME.fullmatch(entry.name)
            # links are left: what they lead to is not memscore's
            if not owner or not entry.is_dir(follow_symlinks=False) or not is_owner_dead(owner):
                continue
            with suppress(FileNotFoundError):  # another process removes it too
                if entry.stat(follow_symlinks=False).st_uid == os.getuid():
                    shutil.rmtree(entry.path, ignore_errors=True)
                    n_removed += 1
    return n_removed


def read_start(pid: int) -> str:
    """Return the clock ticks from the boot to the start of a process; empty where there is none, or no /proc."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The name of the program, in brackets, may hold anything. Field 22 is the 20th after it.
    return stat.rpartition(")")[2].split()[19]


@cache
def read_space() -> str:
    """Return the number of this process's pid namespace; empty where the system has none."""
    try:
        return re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return ""
