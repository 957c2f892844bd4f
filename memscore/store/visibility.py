"""Whether every node sees the driver's store, and may write into it: found out before anything is trained.

A path that all nodes have is not enough: `~/memscore/...` may be another folder on each of them, even with a store of
the same identity in it, and models written there would be lost. So the driver leaves a mark that only it can have made.
"""

import socket
import time
from collections.abc import Callable
from functools import partial

from memscore.store.filesystem import Folder, make_temporary_name
from memscore.store.remote import RETRY_S, redact_credentials
from memscore.store.store import Store

MARKER_TIMEOUT_S = 10.0  # network file systems may say for some seconds that a new file is not there

RunOnEachNode = Callable[[Callable[[], str | None]], dict[str, str]]
"""Runs a function on every node; gives those that return something, with what it was."""


def require_visible_on_all_nodes(store: Store, ask: RunOnEachNode | None) -> None:
    """Stop where a node does not see the store.

    Args:
        store: open, and writable here; or yet to be begun, then its folder is made, and goes if a node is refused.
        ask: runs a function on every node that may train; None where all workers are on this machine.

    Raises:
        FileNotFoundError: nodes that do not see it, or may not write, each with what it said.
    """
    if ask is None:
        return
    made, seen = store.folder.create(), False
    try:
        blind = find_nodes_without_store(store, ask)
        seen = not blind
    finally:
        if made and not seen:
            store.folder.remove_if_empty()
    if blind:
        said = "; ".join(f"{node}: {why}" for node, why in sorted(blind.items())[:3])
        more = f" and {len(blind) - 3} more" if len(blind) > 3 else ""
        raise FileNotFoundError(
            f"the store {store.folder.display_name} cannot be used from {len(blind)} of the cluster's nodes "
            f"({said}{more}); "
            "use a path that every node shares, or s3://, as --store or MEMSCORE_HOME"
        )


def find_nodes_without_store(store: Store, ask: RunOnEachNode) -> dict[str, str]:
    """Leave a mark, and ask each node whether it is there; what those say where it is not."""
    mark = make_temporary_name("visible")  # goes with other scratch
    store.folder.replace(mark, b"the driver was here")
    try:
        return ask(partial(check_visibility, store.url, mark))
    finally:
        store.folder.remove(mark)


def check_visibility(url: str, mark: str) -> str | None:
    """On a node: read the driver's mark, and write one.

    Args:
        url: the store's.
        mark: the file that the driver has put there.

    Returns:
        What is wrong; None if nothing is.
    """
    folder, end = Folder.from_url(url), time.monotonic() + MARKER_TIMEOUT_S
    while not folder.exists(mark):
        if time.monotonic() > end:
            elsewhere = folder.exists("manifest.json")
            return "a store is at this path, but it is not the driver's" if elsewhere else "not visible there"
        time.sleep(0.5)
    own = make_temporary_name("visible")
    try:
        folder.replace(own, b"a node was here", retry_s=0)
        folder.remove(own)
    except OSError as error:
        return f"not writable there ({error.strerror or error})"
    return None


class StoreNotVisible(FileNotFoundError):
    """A node does not see the store; it would fail every job it is given, one after the other, so the run ends."""

    stops_the_run = True


def open_visible_store(url: str) -> Store:
    """The store, or a StoreNotVisible that names this node; most often one that joined after the others were asked."""
    try:
        return Store.open(url, retry_s=RETRY_S)
    except FileNotFoundError as error:
        raise StoreNotVisible(
            f"the store {redact_credentials(url)} is not visible from node {socket.gethostname()}; "
            "use a path that every node shares, or s3://"
        ) from error
