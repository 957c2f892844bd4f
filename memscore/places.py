"""Where a store may lie: paths and URLs, the file systems behind them, and files of a server that may be away."""

import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from memscore.patience import PATIENCE_S, persist

OBJECT_STORES = {"s3", "gcs", "abfs"}
CONNECT_S = 3.0
SILENCE_S = 5.0
ATTEMPTS = 2
"""Of pyarrow's own, for one request. Its default is dozens, and 100 s for a frozen server; memscore.patience waits."""


def shown(url: str) -> str:
    """A URL as it may be printed: without user, password and keys given as options.

    Args:
        url: a path or a URL, well made or not.

    Returns:
        The same with *** in their places.

    >>> shown("s3://key:se/cr@t@bank/run?secret_key=hush&region=x"), shown("s3://bank/run@2")
    ('s3://***@bank/run?secret_key=***&region=x', 's3://bank/run@2')
    """
    bare = re.sub(r"(?<=://)(?:[^/?@]*:.*@|[^/?@]*@)", "***@", url)
    return re.sub(r"((?:access_key|secret_key|session_token)=)[^&]*", r"\1***", bare)


def local_path(url: str) -> str | None:
    """The absolute local path that a path or a file:// URL means.

    Args:
        url: a path or a URL.

    Returns:
        The path; None for a URL of another kind.

    Raises:
        ValueError: no name at all, or a URL with one slash too few.
        NotADirectoryError: a file is at the path, or above it.
    """
    if not url.strip():
        raise ValueError("the name of the store is empty; give a folder or a URL, or leave out --store")
    if re.match(r"(s3|gs|gcs|abfss?|file):(?!//)", url):
        raise ValueError(f"the store {shown(url)} is neither path nor URL; a URL begins as s3://bucket/run")
    if "://" in url and not url.startswith("file:"):
        return None
    path = Path(_opened(url)[1] if "://" in url else url).expanduser().absolute()
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"a store is a folder, and {place} is a file; give another place")
    return str(path)


def remote(url: str, patience_s: float = 0.0) -> tuple[fs.FileSystem, str]:
    """The file system behind a URL, and the path on it.

    Args:
        url: what pyarrow.fs.FileSystem.from_uri reads, query options included.
        patience_s: how long a server that is asked for its region may be away, in seconds.

    Returns:
        Both. S3 and Google's storage give up a request within seconds.

    Raises:
        ValueError: pyarrow has no file system for it, or it names no folder within a bucket.
    """
    filesystem, path = persist(lambda: _opened(url), shown(url), patience_s, read=True)
    path = path.rstrip("/")
    if filesystem.type_name in OBJECT_STORES and not re.fullmatch(r"[^/]+/.*[^/]", path):
        lacks = "a folder within the bucket" if path else "a bucket and a folder within it"
        raise ValueError(f"the store {shown(url)} lacks {lacks}; give a URL such as s3://bucket/run")
    if filesystem.type_name == "s3":
        options = filesystem.__reduce__()[1][0]  # what pickle needs, and all that a URL cannot say
        hurried = {"connect_timeout": CONNECT_S, "request_timeout": SILENCE_S, "allow_delayed_open": True}
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS)
        filesystem = fs.S3FileSystem(**options | hurried, retry_strategy=strategy)
    elif filesystem.type_name == "gcs":
        options = filesystem.__reduce__()[1][0]
        limit = options["retry_time_limit"] or timedelta(seconds=SILENCE_S)  # 15 minutes by default
        filesystem = fs.GcsFileSystem(**options | {"retry_time_limit": limit})
    return filesystem, path


def _opened(url: str) -> tuple[fs.FileSystem, str]:
    """What pyarrow makes of a URL; its words may hold the password."""
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        said = " ".join(str(error).replace(url, shown(url)).split())
        raise ValueError(f"cannot open {shown(url)}: {said}; give a path, or a URL such as s3://bucket/run") from None
    return filesystem, path


class PatientFile:
    """A file on a server, read at any position, whose reading outlasts an outage; for pyarrow.PythonFile.

    Parsers cannot tell a server that is away from a damaged file, so the waiting is done below them.
    """

    def __init__(self, stream: pa.NativeFile, path: str) -> None:
        self._stream, self._path, self._at = stream, path, 0

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return bool(self._stream.closed)

    def close(self) -> None:
        """Let go of it."""
        self._stream.close()

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def tell(self) -> int:
        """Where the next read begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position; gives it."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stream.size()}[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        """So many bytes, fewer at the end of the file, all of the rest if negative."""
        rest = max(self._stream.size() - self._at, 0)
        count = rest if count is None or count < 0 else min(count, rest)
        found: bytes = persist(lambda: self._stream.read_at(count, self._at), self._path, PATIENCE_S, read=True)
        self._at += len(found)
        return found


def patient(stream: Any, path: str) -> pa.PythonFile:
    """A file on a server as a pyarrow file whose reading outlasts an outage.

    Args:
        stream: an opened input file.
        path: of the file, for the user.

    Returns:
        The same file.
    """
    return pa.PythonFile(PatientFile(stream, path), mode="r")
