"""Atomic files in a folder on any file system that pyarrow opens, and the lock of a store.

A file is written under a temporary name that says who writes it, then published whole. One process at a time may write
to a local store: it holds a lock that the operating system releases when the process dies.
"""

import errno
import fcntl
import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pyarrow import fs

from cluster.leftovers import OWNER, is_owner_dead, make_owner
from memscore.store.remote import (
    OBJECT_STORES,
    RETRY_S,
    open_remote,
    parse_local_path,
    redact_credentials,
    retry,
    wrap_with_retries,
)

TEMPORARY_NAME = re.compile(rf"\..+~{OWNER}~[0-9a-f]+\.scratch")
ABANDONED_AFTER_S = 3600
NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
T = TypeVar("T")


def make_temporary_name(name: str) -> str:
    """Return a unique temporary file name that says which process writes it."""
    return f".{name}~{make_owner()}~{secrets.token_hex(8)}.scratch"


def is_abandoned(path: Path) -> bool:
    """Return whether the writer of a temporary file is dead, or has not written for an hour."""
    writer = TEMPORARY_NAME.fullmatch(path.name)
    if writer and is_owner_dead(writer):
        return True
    try:
        return time.time() - path.stat().st_mtime > ABANDONED_AFTER_S
    except FileNotFoundError:
        return False


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Folder in which every file is whole or absent.

    Locally a file is written under a temporary name, synced, and hard-linked to its final name, so the first writer
    wins and a killed one leaves nothing that a reader would open. Where the disk has no hard links the temporary file
    is renamed after a check that the name is free: two writers at once then both succeed, and the later one stays.
    Object stores get the same check and one put, which is atomic there: pyarrow has no conditional put. Two writers of
    one name write the same content on one kind of machine. Requests to an unreachable server are retried.
    """

    url: str
    root: str
    filesystem: Any  # pyarrow.fs.FileSystem

    @classmethod
    def from_url(cls, url: str | os.PathLike[str], retry_s: float = 0.0) -> "Folder":
        """Return the folder at a local path or a pyarrow URL, and create nothing; an error for no usable name."""
        url = os.fspath(url)
        root = parse_local_path(url)
        if root is not None:
            return cls(url=root, root=root, filesystem=fs.LocalFileSystem())
        filesystem, root = open_remote(url, retry_s)
        return cls(url=url, root=root, filesystem=filesystem)

    @property
    def local(self) -> bool:
        """Whether the folder is on a file system of the operating system."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def display_name(self) -> str:
        """The URL without credentials, for printing."""
        return redact_credentials(self.url)

    def path(self, relpath: str) -> str:
        """Return the path of a file of the folder on its file system."""
        return f"{self.root}/{relpath}" if relpath else self.root

    def display_path(self, relpath: str) -> str:
        """Return the path or URL of a file without credentials and options, for printing."""
        scheme = "" if self.local else f"{self.url.partition('://')[0]}://"
        return scheme + self.path(relpath)

    def create(self) -> bool:
        """Create the folder (mode 0700) if it is missing; return True if this call created it."""
        if not self.local:
            if self._is_object_store():
                self.require_bucket()
            else:
                self.filesystem.create_dir(self.root, recursive=True)
            return False
        try:
            Path(self.root).parent.mkdir(parents=True, exist_ok=True)
            Path(self.root).mkdir(mode=0o700)
        except OSError as error:
            if isinstance(error, FileExistsError) and Path(self.root).is_dir():
                return False
            raise OSError(
                f"cannot make the store {self.root}: {error.strerror}; make its place writable, or use another store"
            ) from error
        return True

    def remove_if_empty(self) -> None:
        """Remove the folder if it is empty, to undo create."""
        with suppress(OSError):
            Path(self.root).rmdir()

    def publish(self, relpath: str, content: bytes, retry_s: float = RETRY_S) -> bool:
        """Write a file unless it exists, whole or not at all; return whether this call created it.

        The first writer wins. Errors that may pass (a full disk, an unreachable server) are retried for retry_s
        seconds, then WriteFailed is raised; at once where retrying cannot help (read-only, no permission).
        """
        write = self._publish_local if self.local else self._publish_remote
        return retry(lambda: write(relpath, content), self.display_path(relpath), retry_s)

    def replace(self, relpath: str, content: bytes, retry_s: float = RETRY_S) -> None:
        """Write a derived file over an existing one, of which readers see the whole; WriteFailed as for publish."""
        write = self._replace_local if self.local else self._put
        retry(lambda: write(relpath, content), self.display_path(relpath), retry_s)

    def read(self, relpath: str, retry_s: float = RETRY_S) -> bytes:
        """Read one file; FileNotFoundError if it is missing, StoreUnavailable if its server stays unreachable."""

        def read_all() -> bytes:
            with self.filesystem.open_input_file(self.path(relpath)) as stream:
                content: bytes = stream.read()
            return content

        return self._with_retries(read_all, relpath, retry_s)

    def open(self, relpath: str) -> Any:
        """Open one file as a pyarrow file that reads at any position."""
        stream = self._with_retries(lambda: self.filesystem.open_input_file(self.path(relpath)), relpath)
        return stream if self.local else wrap_with_retries(stream, self.display_path(relpath))

    def exists(self, relpath: str, retry_s: float = RETRY_S) -> bool:
        """Return whether the file exists."""
        return self._with_retries(lambda: self._exists_once(relpath), relpath, retry_s)

    def names(self, folder: str = "") -> list[str]:
        """List the names of the finished files in one sub-folder, sorted; empty if it is missing."""
        names = [entry.base_name for entry in self.entries(folder)]
        return sorted(name for name in names if not TEMPORARY_NAME.fullmatch(name))

    def entries(self, folder: str = "") -> list[fs.FileInfo]:
        """List files of one sub-folder with size and time, unfinished ones too; empty if it is missing."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        entries = self._with_retries(lambda: self.filesystem.get_file_info(selector), folder)
        return [entry for entry in entries if entry.type == fs.FileType.File and entry.base_name]

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders in one sub-folder, sorted; empty if it is missing."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        entries = self._with_retries(lambda: self.filesystem.get_file_info(selector), folder)
        return sorted(entry.base_name for entry in entries if entry.type == fs.FileType.Directory)

    def move(self, relpath: str, to: str) -> None:
        """Move a file within the folder."""
        self._create_parent(to)

        def move() -> None:
            if not self.local and not self._exists_once(relpath) and self._exists_once(to):
                return  # the response to an earlier attempt was lost
            self.filesystem.move(self.path(relpath), self.path(to))

        self._with_retries(move, relpath)

    def quarantine(self, relpath: str) -> str:
        """Move a damaged file to damaged/<name>-<n> and return that path."""
        name, names = relpath.rpartition("/")[2], set(self.names("damaged"))
        new_name = next(f"{name}-{n}" for n in range(1, len(names) + 2) if f"{name}-{n}" not in names)
        self.move(relpath, f"damaged/{new_name}")
        return f"damaged/{new_name}"

    def remove(self, relpath: str) -> None:
        """Delete a file if it exists."""
        if self.exists(relpath):
            with suppress(FileNotFoundError):  # deleted by another process, or by an attempt whose response was lost
                self._with_retries(lambda: self.filesystem.delete_file(self.path(relpath)), relpath)

    def remove_temporary_files(self) -> int:
        """Delete temporary files of dead processes of this host, and those older than an hour; return how many.

        A live writer whose temporary file was deleted writes it again. Object stores have none.
        """
        if not self.local:
            return 0
        abandoned = [path for path in Path(self.root).rglob(".*.scratch") if is_abandoned(path)]
        for path in abandoned:
            path.unlink(missing_ok=True)
        return len(abandoned)

    def require_bucket(self) -> None:
        """Raise FileNotFoundError for a missing bucket, which object stores list as empty."""
        bucket = self.root.partition("/")[0]
        if not self._is_object_store():
            return
        info = self._with_retries(lambda: self.filesystem.get_file_info(bucket), "", 0.0)
        if info.type == fs.FileType.NotFound:
            raise FileNotFoundError(
                f"{self.display_name}: there is no bucket {bucket!r}; make it first, or give another URL"
            )

    def _with_retries(self, attempt: Callable[[], T], relpath: str, retry_s: float = RETRY_S) -> T:
        """Call attempt, with retries if the folder is on a server; OSError also for a folder in a file's place."""
        if not self.local:
            return retry(attempt, self.display_path(relpath), retry_s, read=True)
        try:
            return attempt()
        except FileNotFoundError:
            raise
        except OSError as error:
            path = self.path(relpath)
            # pyarrow says only that it cannot open a regular file, and of what lies below a file that it is no folder
            if os.path.isdir(path) and "." in path.rpartition("/")[2]:
                raise IsADirectoryError(
                    f"{path} is a folder, and must be a file that memscore wrote; move the folder away, and the "
                    "command that makes the file makes it again"
                ) from error
            raise

    def _publish_local(self, relpath: str, content: bytes) -> bool:
        """Hard-link a synced temporary file to its final name."""
        path = self.path(relpath)
        # lexists: a dangling link is in the way of the hard link too. This only saves the write; the link decides.
        if os.path.lexists(path):
            return False
        with self._temporary_file(relpath, content) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                os.rename(temporary, path)
        return True

    def _replace_local(self, relpath: str, content: bytes) -> None:
        """Rename a synced temporary file over its final name."""
        with self._temporary_file(relpath, content) as temporary:
            os.replace(temporary, self.path(relpath))

    @contextmanager
    def _temporary_file(self, relpath: str, content: bytes) -> Generator[str, None, None]:
        """Write content to a synced temporary file beside its destination, then sync the folder.

        Yields:
            The path of the temporary file, which is removed afterwards.
        """
        self._create_parent(relpath)
        path = Path(self.path(relpath))
        temporary = path.with_name(make_temporary_name(path.name))
        try:
            with temporary.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield str(temporary)
        finally:
            with suppress(OSError):  # do not hide the error that is being raised
                temporary.unlink(missing_ok=True)
        # The new name is in the folder's own data: without this a power failure may lose it, though not the file.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _publish_remote(self, relpath: str, content: bytes) -> bool:
        """Put the file if it does not exist."""
        if self._exists_once(relpath):
            return False
        self._put(relpath, content)
        return True

    def _put(self, relpath: str, content: bytes) -> None:
        """Write with one put on an object store; elsewhere through a temporary file, moved into place."""
        path = self.path(relpath)
        if self._is_object_store():
            self._write(path, content)
            return
        self._create_parent(relpath)
        parent, _, name = path.rpartition("/")
        temporary = f"{parent}/{make_temporary_name(name)}"
        self._write(temporary, content)
        self.filesystem.move(temporary, path)

    def _write(self, path: str, content: bytes) -> None:
        """Write the whole content; close the stream only if all of it was written.

        In a thread, which Ctrl-C does not interrupt: a stream that is opened and then dropped would publish an empty
        file.
        """

        def put() -> None:
            stream = self.filesystem.open_output_stream(path)
            stream.write(content)
            stream.close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(put).result()

    def _exists_once(self, relpath: str) -> bool:
        """Return whether the file exists, with a single request."""
        return bool(self.filesystem.get_file_info(self.path(relpath)).type == fs.FileType.File)

    def _create_parent(self, relpath: str) -> None:
        """Create the sub-folders of a file, but never the folder itself: a store that vanished is an error."""
        parent = relpath.rpartition("/")[0]
        if not parent or self._is_object_store():
            return
        if self.local:
            for depth in range(1, len(steps := parent.split("/")) + 1):
                Path(self.path("/".join(steps[:depth]))).mkdir(exist_ok=True)
        else:
            self.filesystem.create_dir(self.path(parent))

    def _is_object_store(self) -> bool:
        """Return whether the file system has atomic puts and no folders."""
        return self.filesystem.type_name in OBJECT_STORES


@contextmanager
def acquire_lock(folder: Folder, name: str = "lock") -> Generator[None, None, None]:
    """Hold the lock of a store while the block runs; BlockingIOError names the process that holds it already.

    The file holds the pid and host of its holder. Object stores have no locks: there the block is entered at once.
    """
    if not folder.local:
        yield
        return
    try:
        descriptor = os.open(folder.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OSError(format_write_error(error, folder.display_name)) from error
    # The kernel drops the lock when the process dies, so no lock is ever stale. The text is for people and status only.
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "another process"
            raise BlockingIOError(
                f"{folder.display_name} is in use by {holder}; wait until it ends, stop it, or take another store"
            ) from None
        os.ftruncate(descriptor, 0)
        try:
            os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        except OSError as error:  # the disk is full
            raise OSError(format_write_error(error, folder.display_name)) from error
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)


def format_write_error(error: OSError, store: str) -> str:
    """Return a message for a system error while writing: the store, the reason and what to do."""
    hint = "free some space" if error.errno == errno.ENOSPC else "make it writable"
    return f"cannot write into the store {store}: {error.strerror}; {hint}, or use another store"
