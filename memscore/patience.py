"""Errors of a disk that may pass are waited for, and the user is told at once."""

import errno
import logging
import os
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
HOPELESS = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP}

_log = logging.getLogger(__name__)


class Unpublished(OSError):
    """A finished file could not be written, however long it was tried."""

    stops_the_run = True


def persist(attempt: Callable[[], T], path: str, patience_s: float) -> T:
    """What attempt returns, tried again with growing waits as long as its errors may pass; the user is told at once.

    Args:
        attempt: writes a file.
        path: of the file, for the user.
        patience_s: seconds after which no further attempt is made.

    Returns:
        What attempt returned.

    Raises:
        Unpublished: it failed until then, or in a way that waiting cannot mend.
    """
    began, wait_s, told = time.monotonic(), 0.1, False
    while True:
        try:
            found = attempt()
            if told:
                _log.warning("%s is written after all, %.0f s later; the run goes on", path, time.monotonic() - began)
            return found
        except OSError as error:
            tried_s = time.monotonic() - began
            reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
            if _is_hopeless(error) or tried_s + wait_s > patience_s:
                raise Unpublished(
                    f"cannot write {path}: {reason} (tried for {tried_s:.0f} s); finished models are kept: "
                    "make the store writable or free some space, and the same command resumes"
                ) from error
            if not told:
                told = True
                _log.warning(
                    "cannot write %s: %s; it is tried again for %s, then the run stops. Free some space, or make the "
                    "store writable, and the run goes on; finished models are kept",
                    *(path, reason, f"{patience_s / 60:g} minutes" if patience_s >= 60 else f"{patience_s:g} s"),
                )
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, 30)


def _is_hopeless(error: OSError) -> bool:
    """Whether waiting cannot help."""
    return error.errno in HOPELESS or any(word in str(error) for word in ("ACCESS_DENIED", "NO_SUCH_BUCKET"))
