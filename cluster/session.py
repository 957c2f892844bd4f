"""connect(): the one place that starts or joins a Ray cluster.

Ray reads RAY_AUTH_MODE when it is imported and never again: in 2.60 the variable, set later, changes nothing, and a
guarded cluster cannot be joined (it fails after 20 s). So this file imports Ray inside its functions, once it has set
the variable. Whoever imports Ray before connect(), or cluster.ray_pool, has chosen the mode himself.

A line for the user if this process is ended without a chance to say one.

When Ray's raylet or GCS is gone, Ray's own code ends the driver from within (`_Exit(1)`): no exception, no exit
handler. So a small process waits at the end of a pipe, and speaks if the pipe closes before it was told that all is
well.
"""

import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.auth import get_auth_mode, has_token, protect_token, require_protected_dashboard
from cluster.pool import RERUN_HINT, ClusterLost, format_error
from cluster.preflight import explain_join_failure, require_authorized, require_reachable, require_same_protection

WATCHER_CODE = """
import sys
words = sys.stdin.read()
if not words.endswith("\\0"):
    sys.stderr.write(words)
"""


@contextmanager
def message_on_abrupt_exit(line: str) -> Generator[None, None, None]:
    """Have a line written to stderr should this process end within the block in any way but by leaving it.

    Args:
        line: what to say.

    Yields:
        Nothing.
    """
    speaker = subprocess.Popen(
        [sys.executable, "-ISc", WATCHER_CODE],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for this process
    )
    assert speaker.stdin is not None  # for mypy: it was asked for
    speaker.stdin.write(f"{line}\n")
    speaker.stdin.flush()
    try:
        yield
    finally:
        speaker.stdin.write("\0")
        speaker.stdin.close()
        speaker.wait()


GIB = 2**30
LOCALHOST = "127.0.0.1"
ABRUPT_EXIT_MESSAGE = (
    "error: Ray ended this command, because it lost a process that it cannot do without (raylet, GCS, or an agent of "
    "theirs), or the command was killed; Ray's logs, most often in /tmp/ray/session_latest/logs, say which; "
    + RERUN_HINT
)


@contextmanager
def connect(
    address: str | None = None, workers: int | None = None, dashboard: bool = False, dashboard_host: str = LOCALHOST
) -> Generator[str | None, None, None]:
    """A Ray cluster for the length of a with block.

    Joins the cluster at `address`, or else at RAY_ADDRESS (which Ray sets inside a submitted job); without either,
    or with address="local", starts one on this machine, guarded by a token that only this user can read, and stops it
    at the end. A process that already is in a cluster stays in it, and nothing is stopped.

    Args:
        address: host:port of a running cluster, "auto" for the one on this machine, or "local" for a new one.
        workers: CPUs of a cluster started here; as many as the machine has if None. A joined cluster has its own.
        dashboard: start Ray's dashboard with a cluster started here.
        dashboard_host: the address it listens on; any other than this machine's own wants authentication.

    Yields:
        The dashboard's URL; None without a dashboard, and in a process that was connected before.

    Raises:
        ConnectionError: the cluster cannot be reached, refuses the token, has none, or runs another version.
        ClusterLost: a cluster could not be started here, or Ray fails within the block.
        ValueError: fewer than one worker, an address that is no address, or another one than this process is connected
            to, or a dashboard that is open to all.
    """
    validate_workers(workers)
    require_protected_dashboard(dashboard_host)
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        require_same_cluster(address)
        yield None
        return
    address = resolve_address(address)
    on_end = signal.getsignal(signal.SIGTERM)
    with message_on_abrupt_exit(ABRUPT_EXIT_MESSAGE):
        url = _start_cluster(workers, dashboard, dashboard_host) if address == "local" else _join_cluster(address)
        import ray

        restore_sigterm(on_end)
        try:
            yield f"http://{url}" if url else None
        except ray.exceptions.RayError as error:  # a job's own exceptions are outcomes by now
            raise ClusterLost(f"Ray failed ({format_error(error)[:500]}); {RERUN_HINT}") from error
        finally:
            ray.shutdown()  # stops the processes of a local cluster, and only leaves one that was joined


def restore_sigterm(on_end: Any) -> None:
    """Give SIGTERM back to who had it: Ray's own handlers print the stack of its C++ code and abort."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_end or signal.SIG_DFL)


def require_same_cluster(wish: str | None) -> None:
    """Stop if a process that is connected already is asked for another cluster."""
    import ray

    there = ray.get_runtime_context().gcs_address
    if wish not in {None, "auto", "local", there}:
        raise ValueError(
            f"--address {wish}, but this process is connected to Ray at {there}; call ray.shutdown() first"
        )


def validate_workers(workers: int | None) -> None:
    """Stop if so many cannot be."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {workers}; leave it out for one a CPU")


def resolve_address(wish: str | None) -> str:
    """The cluster that is meant: the wish, else RAY_ADDRESS, else "local" for a new one."""
    return wish or os.environ.get("RAY_ADDRESS") or "local"


def is_submitted_job() -> bool:
    """Whether this process is the driver of a submitted Ray job: its folder is a copy that goes with the session."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def count_gpus() -> float:
    """How many GPUs the cluster has that this process is in."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _start_cluster(workers: int | None, dashboard: bool, dashboard_host: str) -> str | None:
    """A cluster of this machine; its dashboard's host:port."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if get_auth_mode() == "token":
        protect_token(make=True)
    import ray  # a new cluster is guarded by a token wherever RAY_AUTH_MODE says nothing else (Ray 2.59 and later)

    try:
        context = ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=dashboard,
            dashboard_host=dashboard_host,
            object_store_memory=_choose_object_store_bytes(),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # where a process of Ray's dies at its start, Ray raises no class of its own
        raise ClusterLost(
            f"Ray could not start on this machine ({format_error(error)[:500]}); run the same command again, or use "
            "--pool "
            "serial, which needs no Ray"
        ) from error
    return context.dashboard_url or None


def _join_cluster(address: str) -> str | None:
    """A cluster that somebody else started, with its own sizes; its dashboard's host:port."""
    require_reachable(address)
    late = "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ
    if get_auth_mode() == "token" and (has_token() or "RAY_AUTH_MODE" in os.environ):
        protect_token(make=False)
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray turns it on by itself for "auto" only, not for a host:port
    if not is_submitted_job():
        require_authorized(address)
    import ray

    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        hint = "; RAY_AUTH_MODE=token must be set before Ray is imported" if late else ""
        raise ConnectionError(explain_join_failure(address, str(error)) + hint) from error
    try:
        require_same_protection(ray.get_runtime_context().gcs_address)
    except ConnectionError:
        ray.shutdown()
        raise
    return context.dashboard_url or None


def _choose_object_store_bytes(shared_memory: Path = Path("/dev/shm")) -> int:
    """Room for one data set: 2 GiB, or half of the shared memory where that is small; Ray spills the rest to disk."""
    room = shutil.disk_usage(shared_memory).free if shared_memory.is_dir() else GIB
    return max(100 * 2**20, min(2 * GIB, room // 2))
