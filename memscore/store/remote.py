"""Where a store may lie: paths and URLs, the file systems behind them, and files of a server that may be away.

Errors of a disk or of a server that may pass are waited for, and the user is told at once.
"""

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

T = TypeVar("T")
RETRY_S = 300.0
"""How long a full disk or a lost server is waited for in the middle of a run, in seconds."""

PERMANENT_ERRNOS = {
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENAMETOOLONG,
    errno.ELOOP,
}
CREDENTIALS_HINT = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, must hold keys that may list, read and write"
)
PERMANENT_ERRORS = {  # words of an object store that waiting does not change -> the way out
    "NO_SUCH_BUCKET": "make the bucket first, or give another --store",
    **dict.fromkeys(
        ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"), CREDENTIALS_HINT
    ),
}

DERIVED_PATH = re.compile(r"/(reports|scores|influence)/[^/]+$|/(scores|models)\.parquet$")
"""Paths that commands write which train nothing."""

_log = logging.getLogger(__name__)


class StoreUnavailable(OSError):
    """The store could not be read, however long it was tried; what is in it may be well."""

    stops_the_run = True


class WriteFailed(StoreUnavailable):
    """A finished file could not be written, however long it was tried."""


def retry(attempt: Callable[[], T], path: str, retry_s: float, *, read: bool = False) -> T:
    """What attempt returns, tried again with growing waits as long as its errors may pass; the user is told at once.

    Args:
        attempt: writes a file, or reads one.
        path: of the file, for the user.
        retry_s: seconds after which no further attempt is made; with 0 there is one, at the start of a command.
        read: it reads, and a file that is not there is an answer.

    Returns:
        What attempt returned.

    Raises:
        FileNotFoundError: a file that was to be read is not there.
        StoreUnavailable: reading failed until then, or in a way that waiting cannot mend.
        WriteFailed: the same of writing.
    """
    began, wait_s, told = time.monotonic(), 0.1, False
    act, kind = ("read", StoreUnavailable) if read else ("write", WriteFailed)
    ends, goes_on = ("this command", "it goes on") if read else ("the run", "the run goes on")
    kept = "what is on file is kept" if read or DERIVED_PATH.search(path) else "finished models are kept"
    while True:
        try:
            found = attempt()
            if told:
                done = "read" if read else "written"
                _log.warning("%s is %s after all, %.0f s later; %s", path, done, time.monotonic() - began, goes_on)
            return found
        except (OSError, pa.ArrowException) as error:  # of Azure, even a refusal is no OSError
            if (read and isinstance(error, FileNotFoundError)) or isinstance(error, ValueError):
                raise type(error)(*error.args) from None
            tried_s = time.monotonic() - began
            reason = summarize_error(error)
            if _is_hopeless(error) or tried_s + wait_s > retry_s:
                tried = f" (tried for {tried_s:.0f} s)" if told else ""
                stays = f"{kept}: " if retry_s else ""
                raise kind(f"cannot {act} {path}: {reason}{tried}; {stays}{_way_out(error, retry_s)}") from error
            if not told:
                told = True
                _log.warning(
                    "cannot %s %s: %s; it is tried again for %s, then %s stops. %s, and %s; %s",
                    *(act, path, reason, f"{retry_s / 60:g} minutes" if retry_s >= 60 else f"{retry_s:g} s"),
                    ends,
                    "Free some space, or make the store writable" if get_errno(error) else "Bring its server back",
                    *(goes_on, kept),
                )
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 10)


def summarize_error(error: Exception) -> str:
    """An error in few words, on one line.

    Args:
        error: of the system, or of pyarrow's for a server.

    Returns:
        The reason.

    >>> summarize_error(OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: Forbidden"))
    'ACCESS_DENIED during HeadObject operation: Forbidden'
    """
    if number := get_errno(error):
        return os.strerror(number)
    said = " ".join(str(error).split()).rpartition("AWS Error ")[2]
    return re.sub(r" \(Request ID: .*?\)|(; Details)?: No response body\.|; Details: .*", "", said)[:300]


def get_errno(error: Exception) -> int | None:
    """The system's number of an error; None for one of a server."""
    return error.errno if isinstance(error, OSError) else None


def _is_hopeless(error: Exception) -> bool:
    """Whether waiting cannot help."""
    return get_errno(error) in PERMANENT_ERRNOS or any(word in str(error) for word in PERMANENT_ERRORS)


def _way_out(error: Exception, retry_s: float) -> str:
    """What the user can do."""
    for word, way_out in PERMANENT_ERRORS.items():
        if word in str(error):
            return way_out
    if get_errno(error) is None:
        start = "check its address (endpoint_override, region), the network and the keys, or give another --store"
        return "bring its server back, and give the same command again" if retry_s else start
    if get_errno(error) in PERMANENT_ERRNOS:
        return "make the store writable, and give the same command again"
    return "free some space, or make the store writable, and give the same command again"


OBJECT_STORES = {"s3", "gcs", "abfs"}
CONNECT_TIMEOUT_S = 3.0
REQUEST_TIMEOUT_S = 5.0
REQUEST_ATTEMPTS = 2
"""Of pyarrow's own, for one request. Its default is dozens, and 100 s for a frozen server; this module waits."""


def redact_credentials(url: str) -> str:
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


def parse_local_path(url: str) -> str | None:
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
        raise ValueError(
            f"the store {redact_credentials(url)} is neither path nor URL; a URL begins as s3://bucket/run"
        )
    if "://" in url and not url.startswith("file:"):
        return None
    path = Path(_opened(url)[1] if "://" in url else url).expanduser().absolute()
    for place in (path, *path.parents):
        if place.exists() and not place.is_dir():
            raise NotADirectoryError(f"a store is a folder, and {place} is a file; give another place")
    return str(path)


def open_remote(url: str, retry_s: float = 0.0) -> tuple[fs.FileSystem, str]:
    """The file system behind a URL, and the path on it.

    Args:
        url: what pyarrow.fs.FileSystem.from_uri reads, query options included.
        retry_s: how long a server that is asked for its region may be away, in seconds.

    Returns:
        Both. S3 and Google's storage give up a request within seconds.

    Raises:
        ValueError: pyarrow has no file system for it, or it names no folder within a bucket.
    """
    filesystem, path = retry(lambda: _opened(url), redact_credentials(url), retry_s, read=True)
    path = path.rstrip("/")
    if filesystem.type_name in OBJECT_STORES and not re.fullmatch(r"[^/]+/.*[^/]", path):
        lacks = "a folder within the bucket" if path else "a bucket and a folder within it"
        raise ValueError(f"the store {redact_credentials(url)} lacks {lacks}; give a URL such as s3://bucket/run")
    if filesystem.type_name == "s3":
        options = filesystem.__reduce__()[1][0]  # what pickle needs, and all that a URL cannot say
        hurried = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "request_timeout": REQUEST_TIMEOUT_S,
            "allow_delayed_open": True,
        }
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=REQUEST_ATTEMPTS)
        filesystem = fs.S3FileSystem(**options | hurried, retry_strategy=strategy)
    elif filesystem.type_name == "gcs":
        options = filesystem.__reduce__()[1][0]
        limit = options["retry_time_limit"] or timedelta(seconds=REQUEST_TIMEOUT_S)  # 15 minutes by default
        filesystem = fs.GcsFileSystem(**options | {"retry_time_limit": limit})
    return filesystem, path


def _opened(url: str) -> tuple[fs.FileSystem, str]:
    """What pyarrow makes of a URL; its words may hold the password."""
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        said = " ".join(str(error).replace(url, redact_credentials(url)).split())
        raise ValueError(
            f"cannot open {redact_credentials(url)}: {said}; give a path, or a URL such as s3://bucket/run"
        ) from None
    return filesystem, path


class RetryingFile:
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
        found: bytes = retry(lambda: self._stream.read_at(count, self._at), self._path, RETRY_S, read=True)
        self._at += len(found)
        return found


def wrap_with_retries(stream: Any, path: str) -> pa.PythonFile:
    """A file on a server as a pyarrow file whose reading outlasts an outage.

    Args:
        stream: an opened input file.
        path: of the file, for the user.

    Returns:
        The same file.
    """
    return pa.PythonFile(RetryingFile(stream, path), mode="r")
