"""run.log: what commands that train or score a store wrote to the terminal, so that a run can be read about later.

One line each, beginning with UTC time and process id; lines are only appended. Local stores alone have it: an object
store cannot append, and a job's own log is kept by Ray. A log that cannot be written is one warning, and no error.
"""

import fcntl
import os
import platform
import socket
import sys
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from importlib import metadata
from typing import Any, TextIO

from memscore.store.filesystem import Folder
from memscore.store.remote import redact_credentials, redact_text
from memscore.visible_text import escape_controls

LOG_PATH, OLD_LOG_PATH = "run.log", "run.old.log"
MAX_BYTES = 5_000_000
"""Size from which on the log becomes run.old.log, in place of the one before."""
APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
"""How the log is opened; through a link would be outside the store."""
MAX_LINE = 2_000
"""Characters of a line; the rest of it is left out."""
PACKAGES = ("memscore", "torch", "numpy", "ray")


class RunLog:
    """The log of one store, as a stream that passes on to the terminal what it is given, and keeps its lines.

    A bar that draws itself again and again is passed on and not kept: it writes its lines with keep_lines.
    """

    def __init__(self, folder: Folder, stream: TextIO) -> None:
        self.path, self.old_path = folder.path(LOG_PATH), folder.path(OLD_LOG_PATH)
        self.manifest_path = folder.path("manifest.json")
        self.stream = stream
        self._lock = threading.Lock()  # a thread that reports progress writes too
        self._unfinished = ""
        self._waiting: list[str] = []
        self._has_failed = False

    def write(self, text: str) -> int:
        """Write to the terminal, and keep whole lines; what moves the cursor is of a bar and is not kept."""
        self.stream.write(text)
        if "\x1b" not in text and "\r" not in text:
            with self._lock:
                *lines, self._unfinished = (self._unfinished + text).split("\n")
            self.keep_lines(*lines)
        return len(text)

    def keep_lines(self, *lines: str) -> None:
        """Keep lines that the terminal need not show: in one write, after those of other processes.

        They wait until the store exists, and are lost with the process if it is never created.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        with self._lock:
            self._waiting += [f"{now} {os.getpid()} {shorten_line(line)}\n" for line in lines if line.strip()]
            if not self._waiting or self._has_failed or not os.path.exists(self.manifest_path):
                return
            try:
                self._append("".join(self._waiting).encode(errors="backslashreplace"))
            except OSError as error:
                self._has_failed = True
                self.stream.write(f"warning: {self.path} is not written: {error.strerror}; the command continues\n")
            self._waiting = []

    def _append(self, content: bytes) -> None:
        """Append under a lock on the log itself, and begin a new one first where it has become large."""
        for _ in range(2):
            descriptor = os.open(
                self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
            )
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # of another command, for one write
                if os.fstat(descriptor).st_size < MAX_BYTES:
                    os.write(descriptor, content)
                    return
                # unless another process has begun the new one since this file was opened
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.stat(self.path), os.fstat(descriptor)):
                        os.replace(self.path, self.old_path)
            finally:
                os.close(descriptor)

    def flush(self) -> None:
        """Flush the terminal."""
        self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Return what the terminal's stream has: isatty, encoding, fileno."""
        return getattr(self.stream, name)


def shorten_line(text: str) -> str:
    """Escape control characters, and cut what is too long."""
    text = escape_controls(text)
    return text if len(text) <= MAX_LINE else f"{text[:MAX_LINE]} ... ({len(text)} characters)"


@contextmanager
def record_run(folder: Folder, command_line: Sequence[str]) -> Generator[None, None, None]:
    """Keep in the store's run.log what this block writes to stderr, with its begin and its end; remote: do nothing.

    The store may be created meanwhile. The command line is as the user typed it; credentials in URLs are left out.
    """
    if not folder.local:
        yield
        return
    before = sys.stderr
    log = RunLog(folder, before)
    log.keep_lines(*describe_start(command_line))
    sys.stderr = log  # type: ignore[assignment]
    try:
        yield
    except BaseException as error:
        log.keep_lines(describe_end(error))
        raise
    else:
        log.keep_lines("ended")
    finally:
        sys.stderr = before


def describe_start(command_line: Sequence[str]) -> list[str]:
    """Describe the command, the versions and the host."""
    words = [redact_credentials(word) for word in command_line] or ["(called from Python)"]
    versions = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions.append(f"{package} {metadata.version(package)}")
    return [f"began: {' '.join(words)}", f"on host {socket.gethostname()}: {', '.join(versions)}"]


def describe_end(error: BaseException) -> str:
    """Describe in a line how a command ended that raised."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, SystemExit):
        return f"ended with exit code {error.code}"
    return redact_text(f"failed: {type(error).__name__}: {' '.join(str(error).split())}")
