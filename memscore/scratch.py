"""Names of files that are being written, and whether their writer is gone."""

import os
import re
import secrets
import socket
import time
from pathlib import Path

SCRATCH = re.compile(r"\..+~(?P<host>[^~]+)~(?P<pid>\d+)~[0-9a-f]+\.scratch")
STALE_S = 3600


def scratch_name(name: str) -> str:
    """A name that no other writer has, and that says who writes, for a file that is to have a name of its own."""
    return f".{name}~{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(8)}.scratch"


def is_left_over(scratch: Path) -> bool:
    """Whether the writer of a scratch file is dead, or has been silent for an hour."""
    writer = SCRATCH.fullmatch(scratch.name)
    if writer and writer["host"] == socket.gethostname() and not Path(f"/proc/{writer['pid']}").exists():
        return True
    try:
        return time.time() - scratch.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return False
