"""Whole files or none: publishing finished buffers in a folder, on a local disk or any file system pyarrow opens.

Names of files that are being written, and whether their writer is gone.

One driver a store: a lock that the system lets go of when its holder dies.
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

from memscore.store.remote import (
    OBJECT_STORES,
    RETRY_S,
    open_remote,
    parse_local_path,
    redact_credentials,
    retry,
    wrap_with_retries,
)

TEMPORARY_NAME = re.compile(r"\..+~(?P<host>[^~]+)~(?P<pid>\d+)~[0-9a-f]+\.scratch")
ABANDONED_AFTER_S = 3600


def make_temporary_name(name: str) -> str:
    """A name that no other writer has, and that says who writes, for a file that is to have a name of its own."""
    return f".{name}~{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(8)}.scratch"


def is_abandoned(scratch: Path) -> bool:
    """Whether the writer of a scratch file is dead, or has been silent for an hour."""
    writer = TEMPORARY_NAME.fullmatch(scratch.name)
    if writer and writer["host"] == socket.gethostname() and not Path(f"/proc/{writer['pid']}").exists():
        return True
    try:
        return time.time() - scratch.stat().st_mtime > ABANDONED_AFTER_S
    except FileNotFoundError:
        return False


NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder in which files are whole or absent.

    Locally a file is written under a scratch name, synced, and linked to its own name, so the first writer wins and
    a killed one leaves nothing that a reader would look at. Where the disk has no hard links the scratch file is
    renamed after a look that the name is free: two writers at once then both succeed, and the later one stays. Object
    stores get the same look and one put, which is atomic there: pyarrow has no conditional put. What two writers put
    under one name is the same on one kind of machine. A server that is away is waited for, reading and writing.
    """

    url: str
    root: str
    filesystem: Any  # pyarrow.fs.FileSystem

    @classmethod
    def from_url(cls, url: str | os.PathLike[str], retry_s: float = 0.0) -> "Folder":
        """The folder at a path or a URL; nothing is created.

        Args:
            url: a local path, or what pyarrow.fs.FileSystem.from_uri reads, query options included.
            retry_s: how long a server that is asked for its region may be away, in seconds.

        Returns:
            The folder.

        Raises:
            ValueError: no name at all, or a URL that pyarrow has no file system for.
            NotADirectoryError: a file is at the path, or above it.
        """
        url = os.fspath(url)
        root = parse_local_path(url)
        if root is not None:
            return cls(url=root, root=root, filesystem=fs.LocalFileSystem())
        filesystem, root = open_remote(url, retry_s)
        return cls(url=url, root=root, filesystem=filesystem)

    @property
    def local(self) -> bool:
        """Whether the operating system's own calls reach the folder."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def display_name(self) -> str:
        """The URL as it may be printed: without credentials."""
        return redact_credentials(self.url)

    def path(self, relpath: str) -> str:
        """Where a file of the folder lies, in the words of its file system."""
        return f"{self.root}/{relpath}" if relpath else self.root

    def display_path(self, relpath: str) -> str:
        """The same as it may be printed: a path, or a URL without credentials and options."""
        scheme = "" if self.local else f"{self.url.partition('://')[0]}://"
        return scheme + self.path(relpath)

    def create(self) -> bool:
        """Create the folder, private to its user (mode 0700), if it is not there; True if this call did, and knows."""
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
        """Take back what make has made."""
        with suppress(OSError):
            Path(self.root).rmdir()

    def publish(self, relpath: str, content: bytes, retry_s: float = RETRY_S) -> bool:
        """Write a file unless it is there: whole or not at all, and the first writer wins.

        Args:
            relpath: path within the folder, its parts separated by "/".
            content: everything the file is to hold.
            retry_s: how long errors that may pass (a full disk, a lost server) are tried again, in seconds.

        Returns:
            True if this call created the file, False if it was there already.

        Raises:
            WriteFailed: it could not be written; at once where waiting cannot help (read-only, no permission).
        """
        write = self._publish_local if self.local else self._publish_remote
        return retry(lambda: write(relpath, content), self.display_path(relpath), retry_s)

    def replace(self, relpath: str, content: bytes, retry_s: float = RETRY_S) -> None:
        """Write a derived file over whatever was there; a reader sees the old one or the new one, whole.

        Raises:
            WriteFailed: as for publish.
        """
        write = self._replace_local if self.local else self._put
        retry(lambda: write(relpath, content), self.display_path(relpath), retry_s)

    def read(self, relpath: str, retry_s: float = RETRY_S) -> bytes:
        """Everything in one file; FileNotFoundError if it is not there, Unreached if its server stays away."""

        def whole() -> bytes:
            with self.filesystem.open_input_file(self.path(relpath)) as stream:
                content: bytes = stream.read()
            return content

        return self._reached(whole, relpath, retry_s)

    def open(self, relpath: str) -> Any:
        """One file as a pyarrow file that reads at any position."""
        stream = self._reached(lambda: self.filesystem.open_input_file(self.path(relpath)), relpath)
        return stream if self.local else wrap_with_retries(stream, self.display_path(relpath))

    def exists(self, relpath: str, retry_s: float = RETRY_S) -> bool:
        """Whether the file is there."""
        return self._reached(lambda: self._has(relpath), relpath, retry_s)

    def names(self, folder: str = "") -> list[str]:
        """Names of the finished files in one sub-folder, sorted; none if it is not there."""
        found = [entry.base_name for entry in self.entries(folder)]
        return sorted(name for name in found if not TEMPORARY_NAME.fullmatch(name))

    def entries(self, folder: str = "") -> list[fs.FileInfo]:
        """Names, sizes and times of the files in one sub-folder, unfinished ones too; none if it is not there."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        found = self._reached(lambda: self.filesystem.get_file_info(selector), folder)
        return [entry for entry in found if entry.type == fs.FileType.File and entry.base_name]

    def folders(self, folder: str) -> list[str]:
        """Names of the folders in one sub-folder, sorted; none if it is not there."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        found = self._reached(lambda: self.filesystem.get_file_info(selector), folder)
        return sorted(entry.base_name for entry in found if entry.type == fs.FileType.Directory)

    def move(self, relpath: str, to: str) -> None:
        """Give a file another place in the folder."""
        self._make_parent(to)

        def moved() -> None:
            if not self.local and not self._has(relpath) and self._has(to):
                return  # an attempt whose answer was lost
            self.filesystem.move(self.path(relpath), self.path(to))

        self._reached(moved, relpath)

    def remove(self, relpath: str) -> None:
        """Delete a file if it is there."""
        if self.exists(relpath):
            with suppress(FileNotFoundError):  # another driver, or an attempt whose answer was lost
                self._reached(lambda: self.filesystem.delete_file(self.path(relpath)), relpath)

    def remove_temporary_files(self) -> int:
        """Delete what killed writers left: scratch files of dead processes of this host, and those older than an hour.

        A live writer whose scratch file goes all the same writes it again. Object stores have none.

        Returns:
            How many were deleted.
        """
        if not self.local:
            return 0
        found = [path for pattern in (".*.scratch", "*/.*.scratch") for path in Path(self.root).glob(pattern)]
        left_over = [path for path in found if is_abandoned(path)]
        for path in left_over:
            path.unlink(missing_ok=True)
        return len(left_over)

    def require_bucket(self) -> None:
        """FileNotFoundError where an object store has no such bucket, which it calls an empty folder."""
        bucket = self.root.partition("/")[0]
        if not self._is_object_store():
            return
        found = self._reached(lambda: self.filesystem.get_file_info(bucket), "", 0.0)
        if found.type == fs.FileType.NotFound:
            raise FileNotFoundError(
                f"{self.display_name}: there is no bucket {bucket!r}; make it first, or give another URL"
            )

    def _reached(self, attempt: Callable[[], T], relpath: str, retry_s: float = RETRY_S) -> T:
        """What attempt returns; on a server, once that answers."""
        return attempt() if self.local else retry(attempt, self.display_path(relpath), retry_s, read=True)

    def _publish_local(self, relpath: str, content: bytes) -> bool:
        """Link a synced scratch file to its name."""
        path = self.path(relpath)
        if os.path.lexists(path):
            return False
        with self._scratch(relpath, content) as scratch:
            try:
                os.link(scratch, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in NO_HARD_LINKS:
                    raise
                os.rename(scratch, path)
        return True

    def _replace_local(self, relpath: str, content: bytes) -> None:
        """Rename a synced scratch file over its name."""
        with self._scratch(relpath, content) as scratch:
            os.replace(scratch, self.path(relpath))

    @contextmanager
    def _scratch(self, relpath: str, content: bytes) -> Generator[str, None, None]:
        """A synced file with the content beside its destination; gone afterwards, and the folder synced."""
        self._make_parent(relpath)
        path = Path(self.path(relpath))
        scratch = path.with_name(make_temporary_name(path.name))
        try:
            with scratch.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            yield str(scratch)
        finally:
            with suppress(OSError):  # the error that matters is the one on its way up
                scratch.unlink(missing_ok=True)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _publish_remote(self, relpath: str, content: bytes) -> bool:
        """Look, then put."""
        if self._has(relpath):
            return False
        self._put(relpath, content)
        return True

    def _put(self, relpath: str, content: bytes) -> None:
        """One put on an object store; elsewhere a scratch file, moved into place."""
        path = self.path(relpath)
        if self._is_object_store():
            self._write(path, content)
            return
        self._make_parent(relpath)
        parent, _, name = path.rpartition("/")
        scratch = f"{parent}/{make_temporary_name(name)}"
        self._write(scratch, content)
        self.filesystem.move(scratch, path)

    def _write(self, path: str, content: bytes) -> None:
        """Hand the whole buffer to the file system; closed only if all of it was taken.

        In a thread, which Ctrl-C does not reach: a stream that is opened and let go of would publish an empty file.
        """

        def put() -> None:
            stream = self.filesystem.open_output_stream(path)
            stream.write(content)
            stream.close()

        with ThreadPoolExecutor(1) as pool:
            pool.submit(put).result()

    def _has(self, relpath: str) -> bool:
        """Whether the file is there, asked once."""
        return bool(self.filesystem.get_file_info(self.path(relpath)).type == fs.FileType.File)

    def _make_parent(self, relpath: str) -> None:
        """Create the sub-folders of a file, but never the folder itself: a vanished store is an error."""
        parent = relpath.rpartition("/")[0]
        if not parent or self._is_object_store():
            return
        if self.local:
            for depth in range(1, len(steps := parent.split("/")) + 1):
                Path(self.path("/".join(steps[:depth]))).mkdir(exist_ok=True)
        else:
            self.filesystem.create_dir(self.path(parent))

    def _is_object_store(self) -> bool:
        """Whether a put is atomic and folders do not exist."""
        return self.filesystem.type_name in OBJECT_STORES


@contextmanager
def acquire_lock(folder: Folder, name: str = "lock") -> Generator[None, None, None]:
    """Keep every other driver out while the block runs.

    Object stores have no locks: there the block is entered at once.

    Args:
        folder: the store's folder.
        name: the file that is locked; it says who holds it.

    Yields:
        Nothing.

    Raises:
        BlockingIOError: another driver is inside; its pid and host are named.
        OSError: the store cannot be written to.
    """
    if not folder.local:
        yield
        return
    try:
        descriptor = os.open(folder.path(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OSError(format_write_error(error, folder.display_name)) from error
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
    """What an error of the system is to say instead: what failed, where, and the way out."""
    way_out = "free some space" if error.errno == errno.ENOSPC else "make it writable"
    return f"cannot write into the store {store}: {error.strerror}; {way_out}, or use another store"
