"""Check before training that every node sees the driver's store and may write into it.

A path that all nodes have is not enough: `~/memscore/...` may be another folder on each of them, even with a store of
the same identity in it, and models written there would be lost. So the driver writes a marker file with a unique name.
"""

import socket
import time
from collections.abc import Callable
from functools import partial

from memscore.store.filesystem import Folder, make_temporary_name
from memscore.store.remote import RETRY_S, redact_credentials
from memscore.store.store import Store

MARKER_TIMEOUT_S = 10.0  # network file systems may report a new file as missing for some seconds

RunOnEachNode = Callable[[Callable[[], str | None]], dict[str, str]]
"""Runs a function on every node; returns node -> result where the result is not None."""


def require_visible_on_all_nodes(store: Store, run_on_each_node: RunOnEachNode | None) -> None:
    """Raise FileNotFoundError that names each node that does not see the store, or may not write, with its reason.

    A store that is not created yet has its folder made, and removed if a node fails. Without a function that runs on
    every node, all workers are on this machine.
    """
    if run_on_each_node is None:
        return
    # A store that was only planned gets its folder for the marker; it goes again if the run cannot start.
    created, visible = store.folder.create(), False
    try:
        reasons = find_nodes_without_store(store, run_on_each_node)
        visible = not reasons
    finally:
        if created and not visible:
            store.folder.remove_if_empty()
    if reasons:
        listed = "; ".join(f"{node}: {reason}" for node, reason in sorted(reasons.items())[:3])
        more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
        raise FileNotFoundError(
            f"the store {store.folder.display_name} cannot be used from {len(reasons)} of the cluster's nodes "
            f"({listed}{more}); use a path that every node shares, or s3://, as --store or MEMSCORE_HOME"
        )


def find_nodes_without_store(store: Store, run_on_each_node: RunOnEachNode) -> dict[str, str]:
    """Write a marker and check it on each node; return node -> reason for those that fail."""
    marker = make_temporary_name("visible")  # is removed with other temporary files
    store.folder.replace(marker, b"the driver was here")
    try:
        return run_on_each_node(partial(check_visibility, store.url, marker))
    finally:
        store.folder.remove(marker)


def check_visibility(url: str, marker: str) -> str | None:
    """Read the driver's marker on a node, and write a file there; return the reason of a failure, or None."""
    # Network file systems show new files late, so the marker is looked for until the deadline.
    folder, deadline = Folder.from_url(url), time.monotonic() + MARKER_TIMEOUT_S
    while not folder.exists(marker):
        if time.monotonic() > deadline:
            elsewhere = folder.exists("manifest.json")
            return "a store is at this path, but it is not the driver's" if elsewhere else "not visible there"
        time.sleep(0.5)
    probe = make_temporary_name("visible")
    try:
        folder.replace(probe, b"a node was here", retry_s=0)
        folder.remove(probe)
    except OSError as error:
        return f"not writable there ({error.strerror or error})"
    return None


class StoreNotVisible(FileNotFoundError):
    """A node does not see the store; every job on it would fail, so the run stops."""

    stops_the_run = True


def open_visible_store(url: str) -> Store:
    """Open the store, or raise StoreNotVisible: most often the node joined after the check."""
    try:
        return Store.open(url, retry_s=RETRY_S)
    except FileNotFoundError as error:
        raise StoreNotVisible(
            f"the store {redact_credentials(url)} is not visible from node {socket.gethostname()}; "
            "use a path that every node shares, or s3://"
        ) from error
