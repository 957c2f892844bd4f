"""Errors of a disk or of a server that may pass are waited for, and the user is told at once."""

import errno
import logging
import os
import re
import time
from collections.abc import Callable
from typing import TypeVar

import pyarrow as pa

T = TypeVar("T")
PATIENCE_S = 300.0
"""How long a full disk or a lost server is waited for in the middle of a run, in seconds."""

HOPELESS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}
KEYS = (
    "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or ~/.aws/credentials, must hold keys that may list, read and write"
)
REFUSALS = {  # words of an object store that waiting does not change -> the way out
    "NO_SUCH_BUCKET": "make the bucket first, or give another --store",
    **dict.fromkeys(("ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "EXPIRED_TOKEN"), KEYS),
}

DERIVED = re.compile(r"/(reports|scores|influence)/[^/]+$|/(scores|models)\.parquet$")
"""Paths that commands write which train nothing."""

_log = logging.getLogger(__name__)


class Unreached(OSError):
    """The store could not be read, however long it was tried; what is in it may be well."""

    stops_the_run = True


class Unpublished(Unreached):
    """A finished file could not be written, however long it was tried."""


def persist(attempt: Callable[[], T], path: str, patience_s: float, *, read: bool = False) -> T:
    """What attempt returns, tried again with growing waits as long as its errors may pass; the user is told at once.

    Args:
        attempt: writes a file, or reads one.
        path: of the file, for the user.
        patience_s: seconds after which no further attempt is made; with 0 there is one, at the start of a command.
        read: it reads, and a file that is not there is an answer.

    Returns:
        What attempt returned.

    Raises:
        FileNotFoundError: a file that was to be read is not there.
        Unreached: reading failed until then, or in a way that waiting cannot mend.
        Unpublished: the same of writing.
    """
    began, wait_s, told = time.monotonic(), 0.1, False
    act, kind = ("read", Unreached) if read else ("write", Unpublished)
    ends, goes_on = ("this command", "it goes on") if read else ("the run", "the run goes on")
    kept = "what is on file is kept" if read or DERIVED.search(path) else "finished models are kept"
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
            reason = reason_of(error)
            if _is_hopeless(error) or tried_s + wait_s > patience_s:
                tried = f" (tried for {tried_s:.0f} s)" if told else ""
                stays = f"{kept}: " if patience_s else ""
                raise kind(f"cannot {act} {path}: {reason}{tried}; {stays}{_way_out(error, patience_s)}") from error
            if not told:
                told = True
                _log.warning(
                    "cannot %s %s: %s; it is tried again for %s, then %s stops. %s, and %s; %s",
                    *(act, path, reason, f"{patience_s / 60:g} minutes" if patience_s >= 60 else f"{patience_s:g} s"),
                    ends,
                    "Free some space, or make the store writable" if errno_of(error) else "Bring its server back",
                    *(goes_on, kept),
                )
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 10)


def reason_of(error: Exception) -> str:
    """An error in few words, on one line.

    Args:
        error: of the system, or of pyarrow's for a server.

    Returns:
        The reason.

    >>> reason_of(OSError("When reading: AWS Error ACCESS_DENIED during HeadObject operation: Forbidden"))
    'ACCESS_DENIED during HeadObject operation: Forbidden'
    """
    if number := errno_of(error):
        return os.strerror(number)
    said = " ".join(str(error).split()).rpartition("AWS Error ")[2]
    return re.sub(r" \(Request ID: .*?\)|(; Details)?: No response body\.|; Details: .*", "", said)[:300]


def errno_of(error: Exception) -> int | None:
    """The system's number of an error; None for one of a server."""
    return error.errno if isinstance(error, OSError) else None


def _is_hopeless(error: Exception) -> bool:
    """Whether waiting cannot help."""
    return errno_of(error) in HOPELESS or any(word in str(error) for word in REFUSALS)


def _way_out(error: Exception, patience_s: float) -> str:
    """What the user can do."""
    for word, way_out in REFUSALS.items():
        if word in str(error):
            return way_out
    if errno_of(error) is None:
        start = "check its address (endpoint_override, region), the network and the keys, or give another --store"
        return "bring its server back, and give the same command again" if patience_s else start
    if errno_of(error) in HOPELESS:
        return "make the store writable, and give the same command again"
    return "free some space, or make the store writable, and give the same command again"
