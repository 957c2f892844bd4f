"""One driver a store: a lock that the system lets go of when its holder dies."""

import errno
import fcntl
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager

from memscore.files import Folder


@contextmanager
def locked(folder: Folder, name: str = "lock") -> Generator[None, None, None]:
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
        raise OSError(unwritable(error, folder.shown)) from error
    with os.fdopen(descriptor, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = file.read().strip() or "another process"
            raise BlockingIOError(
                f"{folder.shown} is in use by {holder}; wait until it ends, stop it, or take another store"
            ) from None
        os.ftruncate(descriptor, 0)
        try:
            os.pwrite(descriptor, f"pid {os.getpid()} on host {socket.gethostname()}\n".encode(), 0)
        except OSError as error:  # the disk is full
            raise OSError(unwritable(error, folder.shown)) from error
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)


def unwritable(error: OSError, store: str) -> str:
    """What an error of the system is to say instead: what failed, where, and the way out."""
    way_out = "free some space" if error.errno == errno.ENOSPC else "make it writable"
    return f"cannot write into the store {store}: {error.strerror}; {way_out}, or use another store"
