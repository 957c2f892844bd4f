"""Whole files or none: publishing finished buffers in a folder, on a local disk or any file system pyarrow opens."""

import errno
import os
import re
import secrets
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from memscore.patience import persist

SCRATCH = re.compile(r"\..+~(?P<host>[^~]+)~(?P<pid>\d+)~[0-9a-f]+\.scratch")
NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV}
STALE_S = 3600


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A folder in which files are whole or absent.

    Locally a file is written under a scratch name, synced, and linked to its own name, so the first writer wins and
    a killed one leaves nothing that a reader would look at. Where the disk has no hard links the scratch file is
    renamed after a look that the name is free: two writers at once then both succeed, and the later one stays. Object
    stores get the same look and one put, which is atomic there.
    """

    url: str
    root: str
    filesystem: Any  # pyarrow.fs.FileSystem

    @classmethod
    def at(cls, url: str | os.PathLike[str]) -> "Folder":
        """The folder at a path or a URL; nothing is created.

        Args:
            url: a local path, or what pyarrow.fs.FileSystem.from_uri reads, query options included.

        Returns:
            The folder.

        Raises:
            ValueError: no name at all, or a URL that pyarrow has no file system for.
            NotADirectoryError: a file is at the path, or above it.
        """
        url = os.fspath(url)
        if not url.strip():
            raise ValueError("the name of the store is empty; give a folder or a URL, or leave out --store")
        if "://" not in url:
            root = str(Path(url).expanduser().absolute())
            for place in (root, *map(str, Path(root).parents)):
                if os.path.exists(place) and not os.path.isdir(place):
                    raise NotADirectoryError(f"a store is a folder, and {place} is a file; give another --store")
            return cls(url=root, root=root, filesystem=fs.LocalFileSystem())
        try:
            filesystem, root = fs.FileSystem.from_uri(url)
        except pa.ArrowInvalid as error:
            raise ValueError(
                f"cannot open {_shown(url)}: {error}; give a path, or a URL such as s3://bucket/run"
            ) from None
        return cls(url=url, root=root.rstrip("/"), filesystem=filesystem)

    @property
    def local(self) -> bool:
        """Whether the operating system's own calls reach the folder."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    @property
    def shown(self) -> str:
        """The URL as it may be printed: without credentials."""
        return _shown(self.url)

    def path(self, relpath: str) -> str:
        """Where a file of the folder lies, in the words of its file system."""
        return f"{self.root}/{relpath}" if relpath else self.root

    def make(self) -> None:
        """Create the folder, private to its user (mode 0700), if it is not there."""
        if self.local:
            try:
                Path(self.root).parent.mkdir(parents=True, exist_ok=True)
                Path(self.root).mkdir(mode=0o700, exist_ok=True)
            except OSError as error:
                reason = f"cannot make the store: {error.strerror}"
                raise OSError(
                    error.errno, f"{reason}; make its place writable or take another --store", self.root
                ) from error
        elif not self._is_object_store():
            self.filesystem.create_dir(self.root, recursive=True)

    def publish(self, relpath: str, content: bytes, patience_s: float = 300) -> bool:
        """Write a file unless it is there: whole or not at all, and the first writer wins.

        Args:
            relpath: path within the folder, its parts separated by "/".
            content: everything the file is to hold.
            patience_s: how long errors that may pass (a full disk, a lost server) are tried again, in seconds.

        Returns:
            True if this call created the file, False if it was there already.

        Raises:
            Unpublished: it could not be written; at once where waiting cannot help (read-only, no permission).
        """
        write = self._publish_local if self.local else self._publish_remote
        return persist(lambda: write(relpath, content), self.path(relpath), patience_s)

    def replace(self, relpath: str, content: bytes, patience_s: float = 300) -> None:
        """Write a derived file over whatever was there; a reader sees the old one or the new one, whole.

        Raises:
            Unpublished: as for publish.
        """
        write = self._replace_local if self.local else self._put
        persist(lambda: write(relpath, content), self.path(relpath), patience_s)

    def read(self, relpath: str) -> bytes:
        """Everything in one file; FileNotFoundError if it is not there."""
        with self.open(relpath) as stream:
            content: bytes = stream.read()
        return content

    def open(self, relpath: str) -> Any:
        """One file as a pyarrow file that reads at any position."""
        return self.filesystem.open_input_file(self.path(relpath))

    def exists(self, relpath: str) -> bool:
        """Whether the file is there."""
        return bool(self.filesystem.get_file_info(self.path(relpath)).type == fs.FileType.File)

    def names(self, folder: str = "") -> list[str]:
        """Names of the finished files in one sub-folder, sorted; none if it is not there."""
        selector = fs.FileSelector(self.path(folder), allow_not_found=True)
        found = [entry.base_name for entry in self.filesystem.get_file_info(selector) if entry.type == fs.FileType.File]
        return sorted(name for name in found if name and not SCRATCH.fullmatch(name))

    def move(self, relpath: str, to: str) -> None:
        """Give a file another place in the folder."""
        self._make_parent(to)
        self.filesystem.move(self.path(relpath), self.path(to))

    def remove(self, relpath: str) -> None:
        """Delete a file if it is there."""
        if self.exists(relpath):
            self.filesystem.delete_file(self.path(relpath))

    def remove_scratch(self) -> int:
        """Delete what killed writers left: scratch files of dead processes of this host, and those older than an hour.

        A live writer whose scratch file goes all the same writes it again. Object stores have none.

        Returns:
            How many were deleted.
        """
        if not self.local:
            return 0
        found = [path for pattern in (".*.scratch", "*/.*.scratch") for path in Path(self.root).glob(pattern)]
        left_over = [path for path in found if _is_left_over(path)]
        for path in left_over:
            path.unlink(missing_ok=True)
        return len(left_over)

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
                if error.errno not in NO_LINKS:
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
        scratch = path.with_name(f".{path.name}~{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(4)}.scratch")
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
        if self.exists(relpath):
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
        scratch = f"{parent}/.{name}~{socket.gethostname()}~{os.getpid()}~{secrets.token_hex(4)}.scratch"
        self._write(scratch, content)
        self.filesystem.move(scratch, path)

    def _write(self, path: str, content: bytes) -> None:
        """Hand the whole buffer to the file system; closed only if all of it was taken."""
        stream = self.filesystem.open_output_stream(path)
        stream.write(content)
        stream.close()

    def _make_parent(self, relpath: str) -> None:
        """Create the sub-folder of a file, but never the folder itself: a vanished store is an error."""
        parent = relpath.rpartition("/")[0]
        if not parent or self._is_object_store():
            return
        if self.local:
            Path(self.path(parent)).mkdir(exist_ok=True)
        else:
            self.filesystem.create_dir(self.path(parent))

    def _is_object_store(self) -> bool:
        """Whether a put is atomic and folders do not exist."""
        return self.filesystem.type_name in {"s3", "gcs", "abfs"}


def _shown(url: str) -> str:
    """A URL without user, password and keys given as options."""
    return re.sub(r"((?:access|secret)_key=)[^&]*", r"\1***", re.sub(r"(?<=://)[^/@]*@", "***@", url))


def _is_left_over(scratch: Path) -> bool:
    """Whether the writer of a scratch file is dead, or has been silent for an hour."""
    writer = SCRATCH.fullmatch(scratch.name)
    if writer and writer["host"] == socket.gethostname() and not Path(f"/proc/{writer['pid']}").exists():
        return True
    try:
        return time.time() - scratch.stat().st_mtime > STALE_S
    except FileNotFoundError:
        return False
