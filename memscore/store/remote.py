"""Store locations: paths and URLs, their file systems, and retries.

Errors that may pass (a full disk, an unreachable server) are retried, and the first one is logged at once.
"""

import errno
import logging
import math
import os
import re
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
from pyarrow import fs

OBJECT_STORES = {"s3", "gcs", "abfs"}
CONNECT_TIMEOUT_S = 3.0
REQUEST_TIMEOUT_S = 5.0
REQUEST_ATTEMPTS = 2
"""Attempts that pyarrow makes for one request. By default it makes dozens, 100 s for a frozen server; `retry` waits."""
SLOW_S = 10.0
"""Seconds after which an attempt that has not ended is reported.

A request with a body fails on a frozen server after some 23 s and not after 10: curl compares the average of the last
seconds with its limit, and the body counts in it.
"""
RETRY_S = 300.0
"""How long a full disk or an unreachable server is retried in the middle of a run, in seconds."""
SHOWN_OPTIONS = frozenset({
    *("scheme", "endpoint_override", "region", "location", "project_id", "retry_limit_seconds"),
    *("allow_bucket_creation", "allow_bucket_deletion", "check_directory_existence_before_creation"),
    *("force_virtual_addressing", "allow_delayed_open", "tls_verify_certificates", "tls_ca_file_path", "enable_tls"),
    *("blob_storage_authority", "dfs_storage_authority", "blob_storage_scheme", "dfs_storage_scheme"),
})
"""Options of URLs that hold no secret."""
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
PERMANENT_ERRORS = {  # error codes of an object store that retrying cannot change -> hint for the user
    "NO_SUCH_BUCKET": "make the bucket first, or give another --store",
    **dict.fromkeys(
        ("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"), CREDENTIALS_HINT
    ),
}
DERIVED_PATH = re.compile(r"/(reports|scores|influence)/[^/]+$|/(scores|models)\.parquet$")
"""Paths that are written by commands that train nothing."""
T = TypeVar("T")
_log = logging.getLogger(__name__)


class StoreUnavailable(OSError):
    """The store could not be read within the retry time; its files may be intact."""

    stops_the_run = True


class WriteFailed(StoreUnavailable):
    """A finished file could not be written within the retry time."""


def retry(attempt: Callable[[], T], path: str, retry_s: float, *, read: bool = False) -> T:
    """Call attempt until it succeeds, with growing waits, as long as its errors may pass.

    The first error is logged at once, and an attempt that has not ended after SLOW_S seconds. Nothing is logged where
    retry_s is 0.

    Args:
        attempt: writes a file, or reads one.
        path: of the file, for messages.
        retry_s: seconds after which no further attempt is made; 0 makes one attempt, as at the start of a command.
        read: attempt reads; then a missing file is a result and not an error to retry.

    Returns:
        The return value of attempt.

    Raises:
        FileNotFoundError: the file to read does not exist.
        StoreUnavailable: reading failed for retry_s, or with an error that retrying cannot fix.
        WriteFailed: the same for writing.
    """
    start, wait_s = time.monotonic(), 0.1
    warning = _FirstWarning()
    verb, error_type = ("read", StoreUnavailable) if read else ("write", WriteFailed)
    stopped, continues = ("this command", "it goes on") if read else ("the run", "the run goes on")
    kept_files = "stored files are kept" if read or DERIVED_PATH.search(path) else "finished models are kept"
    limit = f"{retry_s / 60:g} minutes" if retry_s >= 60 else f"{retry_s:g} s"
    slow = (
        "%s %s has taken %g s and has not ended. Bring its server back if it does not answer: %s stops after %s, %s; %s"
    )
    while True:
        try:
            with warning.after(
                SLOW_S if retry_s else math.inf,
                *(slow, "reading" if read else "writing", path, SLOW_S, stopped, limit, continues, kept_files),
            ):
                result = attempt()
            if warning.was_given:
                done = "read" if read else "written"
                _log.warning("%s is %s after all, %.0f s later; %s", path, done, time.monotonic() - start, continues)
            return result
        except (OSError, pa.ArrowException) as error:  # on Azure, even a denied request is no OSError
            # These are answers and no outage.
            if (read and isinstance(error, FileNotFoundError)) or isinstance(error, ValueError):
                raise type(error)(*error.args) from None
            # The next attempt would begin after the wait: stop now if that is beyond the time that was given.
            tried_s = time.monotonic() - start
            reason = summarize_error(error)
            if _is_permanent(error) or tried_s + wait_s > retry_s:
                tried = f" (tried for {tried_s:.0f} s)" if warning.was_given else ""
                stays = f"{kept_files}: " if retry_s else ""
                raise error_type(f"cannot {verb} {path}: {reason}{tried}; {stays}{_hint(error, retry_s)}") from error
            warning.give(
                "cannot %s %s: %s; it is tried again for %s, then %s stops. %s, and %s; %s",
                *(verb, path, reason, limit, stopped),
                "Free some space, or make the store writable" if get_errno(error) else "Bring its server back",
                *(continues, kept_files),
            )
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 10)


class _FirstWarning:
    """Logs a warning once, also from a thread while an attempt does not end."""

    def __init__(self) -> None:
        self.was_given = False
        self._lock = threading.Lock()

    def give(self, *message: Any) -> None:
        """Log the message, a format and its values, unless a warning was given."""
        with self._lock:
            is_first, self.was_given = not self.was_given, True
        if is_first:
            _log.warning(*message)

    @contextmanager
    def after(self, seconds: float, *message: Any) -> Generator[None, None, None]:
        """Give the warning if the block lasts longer."""
        # A thread for each attempt takes 0.1 ms, far less than a write that is synced or a request.
        if self.was_given or math.isinf(seconds):
            yield
            return
        timer = threading.Timer(seconds, self.give, message)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def summarize_error(error: Exception) -> str:
    """Shorten an error of the operating system, or pyarrow's for a server, to its reason in one line.

    >>> summarize_error(OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: Forbidden"))
    'ACCESS_DENIED during HeadObject operation: Forbidden'
    """
    if number := get_errno(error):
        return os.strerror(number)
    text = " ".join(str(error).split()).rpartition("AWS Error ")[2]
    return re.sub(r" \(Request ID: .*?\)|(; Details)?: No response body\.|; Details: .*", "", text)[:300]


def get_errno(error: Exception) -> int | None:
    """Return the errno of a system error; None for an error of a server."""
    return error.errno if isinstance(error, OSError) else None


def _is_permanent(error: Exception) -> bool:
    """Return whether retrying cannot help."""
    return get_errno(error) in PERMANENT_ERRNOS or any(code in str(error) for code in PERMANENT_ERRORS)


def _hint(error: Exception, retry_s: float) -> str:
    """Return what the user can do about an error."""
    for code, hint in PERMANENT_ERRORS.items():
        if code in str(error):
            return hint
    if get_errno(error) is None:
        start = "check its address (endpoint_override, region), the network and the keys, or give another --store"
        return "bring its server back, and give the same command again" if retry_s else start
    if get_errno(error) in PERMANENT_ERRNOS:
        return "make the store writable, and give the same command again"
    return "free some space, or make the store writable, and give the same command again"


def redact_credentials(url: str) -> str:
    """Replace user and password of a URL, well formed or not, and options but SHOWN_OPTIONS by ***, to print it.

    >>> redact_credentials("s3://key:se/cr@t@bank/run?secret_key=hush&region=x"), redact_credentials("s3://bank/run@2")
    ('s3://***@bank/run?secret_key=***&region=x', 's3://bank/run@2')
    """
    # a misspelt name of a key is an option that pyarrow does not know: what is shown is listed, not what is hidden
    bare = re.sub(r"(?<=://)(?:[^/?@]*:.*@|[^/?@]*@)", "***@", url)
    base, mark, options = split_options(bare)
    return base + mark + "&".join(map(_redact_option, options.split("&")))


def redact_text(text: str) -> str:
    """Replace the same in every URL of a text.

    >>> redact_text("cannot open s3://bank/run?secretkey=hush&region=x now")
    'cannot open s3://bank/run?secretkey=***&region=x now'
    """
    return re.sub(r"\S*://\S*", lambda match: redact_credentials(match[0]), text)


def join_url(url: str, path: str) -> str:
    """Return the path or URL of a file or folder within a folder; the options of a URL stay at its end.

    >>> join_url("s3://bank/run?region=x", "scenarios/a"), join_url("/home/me/what?", "a")
    ('s3://bank/run/scenarios/a?region=x', '/home/me/what?/a')
    """
    base, mark, options = split_options(url)
    return f"{base.rstrip('/')}/{path}{mark}{options}"


def split_options(url: str) -> tuple[str, str, str]:
    """Split a URL into what stands before its options, "?" and the options; a path has none."""
    return url.partition("?") if "://" in url else (url, "", "")


def _redact_option(option: str) -> str:
    """Hide the value of an option, or the whole of what is none, unless it is known to be no secret."""
    # a value is shown in the characters of hosts, regions and paths: "region=x key:secret@" is none of these
    name, equals, value = option.partition("=")
    is_shown = name in SHOWN_OPTIONS and re.fullmatch(r"[\w.:/,-]*|\*\*\*", value)
    return option if is_shown or not option else f"{name}=***" if equals else "***"


def parse_local_path(url: str) -> str | None:
    """Return the absolute path of a local path or file:// URL; None for other URLs, an error for no usable name."""
    if not url.strip():
        raise ValueError("the name of the store is empty; give a folder or a URL, or leave out --store")
    if re.match(r"(s3|gs|gcs|abfss?|file):(?!//)", url):
        raise ValueError(
            f"the store {redact_credentials(url)} is neither path nor URL; a URL begins as s3://bucket/run"
        )
    if "://" in url and not url.startswith("file:"):
        return None
    path = Path(_open_url(url)[1] if "://" in url else url).expanduser().absolute()
    for parent in (path, *path.parents):
        if parent.exists() and not parent.is_dir():
            raise NotADirectoryError(f"a store is a folder, and {parent} is a file; give another place")
    return str(path)


def open_remote(url: str, retry_s: float = 0.0) -> tuple[fs.FileSystem, str]:
    """Open the file system behind a URL, with timeouts of seconds; return it and the path on it."""
    filesystem, path = retry(lambda: _open_url(url), redact_credentials(url), retry_s, read=True)
    path = path.rstrip("/")
    if filesystem.type_name in OBJECT_STORES and not re.fullmatch(r"[^/]+/.*[^/]", path):
        missing = "a folder within the bucket" if path else "a bucket and a folder within it"
        raise ValueError(f"the store {redact_credentials(url)} lacks {missing}; give a URL such as s3://bucket/run")
    if filesystem.type_name == "s3":
        # pyarrow has no getters: the arguments for pickle hold all options, so that only timeouts are replaced.
        options = filesystem.__reduce__()[1][0]
        timeouts = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "request_timeout": REQUEST_TIMEOUT_S,
            "allow_delayed_open": True,
        }
        strategy = fs.AwsStandardS3RetryStrategy(max_attempts=REQUEST_ATTEMPTS)
        filesystem = fs.S3FileSystem(**options | timeouts, retry_strategy=strategy)
    elif filesystem.type_name == "gcs":
        options = filesystem.__reduce__()[1][0]
        limit = options["retry_time_limit"] or timedelta(seconds=REQUEST_TIMEOUT_S)  # 15 minutes by default
        filesystem = fs.GcsFileSystem(**options | {"retry_time_limit": limit})
    return filesystem, path


def _open_url(url: str) -> tuple[fs.FileSystem, str]:
    """Open a URL with pyarrow; remove credentials from its error message."""
    try:
        filesystem, path = fs.FileSystem.from_uri(url)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        reason = " ".join(str(error).replace(url, redact_credentials(url)).split())
        raise ValueError(
            f"cannot open {redact_credentials(url)}: {reason}; give a path, or a URL such as s3://bucket/run"
        ) from None
    return filesystem, path


class RetryingFile:
    """Remote file for pyarrow.PythonFile that retries reads during an outage.

    Parsers cannot tell an unreachable server from a damaged file, so the retries are made below them.
    """

    def __init__(self, stream: pa.NativeFile, path: str) -> None:
        self._stream, self._path, self._at = stream, path, 0

    @property
    def closed(self) -> bool:
        """Whether the file was closed."""
        return bool(self._stream.closed)

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def writable(self) -> bool:
        """Return False."""
        return False

    def tell(self) -> int:
        """Return the position of the next read."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position and return it."""
        # PythonFile seeks, then reads; the position is kept here, for read_at of the remote file takes it each time.
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._stream.size()}[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        """Read count bytes, fewer at the end of the file; all of the rest if count is negative."""
        rest = max(self._stream.size() - self._at, 0)
        count = rest if count is None or count < 0 else min(count, rest)
        content: bytes = retry(lambda: self._stream.read_at(count, self._at), self._path, RETRY_S, read=True)
        self._at += len(content)
        return content


def wrap_with_retries(stream: Any, path: str) -> pa.PythonFile:
    """Wrap a remote file for pyarrow so that its reads are retried during an outage."""
    return pa.PythonFile(RetryingFile(stream, path), mode="r")
