"""This process again with a network, processes and mounts of its own, so that what is killed here is nobody else's.

Linux: user namespaces, as `unshare --user --map-root-user --net --pid --fork --mount --mount-proc` makes them. Within,
only the loopback interface is up, pids are its own, and every process ends with the first. Ray's folder for sessions is
one of its own too.
"""

import fcntl
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

MARK = "MEMSCORE_APART"
FLAGS = ("--user", "--map-root-user", "--net", "--pid", "--fork", "--mount", "--mount-proc")
SIOCSIFFLAGS, IFF_UP = 0x8914, 1


def live_apart() -> None:
    """Return at once within; outside, run the same command within and end with its exit code."""
    if MARK in os.environ:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
        sessions = Path("/tmp/ray")  # where Ray keeps the address of "the" cluster of a machine
        sessions.mkdir(exist_ok=True)
        mount_memory(sessions, "2g")
        return
    program = shutil.which("unshare")
    if program is None:
        raise SystemExit("this benchmark kills processes and cuts networks, so it needs `unshare` (Linux, util-linux)")
    module = sys.modules["__main__"].__spec__.name
    command = [program, *FLAGS, sys.executable, "-m", module, *sys.argv[1:]]
    raise SystemExit(subprocess.run(command, env=os.environ | {MARK: "1"}, check=False).returncode)


def mount_memory(place: Path, size: str) -> None:
    """A file system of that size in memory, for this process and those it starts."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "memscore", str(place)], check=True)
