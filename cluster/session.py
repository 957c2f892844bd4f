"""Start or join a Ray cluster (connect), and handle signals and abrupt ends of the driver meanwhile.

Ray reads RAY_AUTH_MODE when it is imported and never again: in 2.60 the variable, set later, changes nothing, and a
protected cluster cannot be joined (it fails after 20 s). So this file imports Ray inside its functions, once it has set
the variable. Code that imports Ray, or cluster.ray_pool, before connect() has fixed the mode itself.

When Ray's raylet or GCS is gone, Ray's own code ends the driver from within (`_Exit(1)`): no exception, no exit
handler. So a small process reads from a pipe, and writes a message if the pipe closes before the driver has marked its
end as a regular one.
"""

import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cluster.auth import get_auth_mode, has_token, protect_token, require_protected_dashboard
from cluster.pool import RERUN_HINT, ClusterLost, format_error
from cluster.preflight import explain_join_failure, require_authorized, require_reachable, require_same_protection

GIB = 2**30
DEFERRED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
AGAIN_AFTER_S = 1.0
LOCALHOST = "127.0.0.1"
ABRUPT_EXIT_MESSAGE = (
    "error: Ray ended this command, because it lost a process that it cannot do without (raylet, GCS, or an agent of "
    "theirs), or the command was killed; Ray's logs, most often in /tmp/ray/session_latest/logs, say which; "
    + RERUN_HINT
)
WATCHER_CODE = """
import sys
message = sys.stdin.read()
if not message.endswith("\\0"):
    sys.stderr.write(message)
"""


@contextmanager
def connect(
    address: str | None = None, workers: int | None = None, dashboard: bool = False, dashboard_host: str = LOCALHOST
) -> Generator[str | None, None, None]:
    """Provide a Ray cluster for the length of a with block.

    Joins the cluster at `address` (host:port, or "auto" for the one on this machine), or else at RAY_ADDRESS, which Ray
    sets inside a submitted job; without either, or with address="local", starts one on this machine, protected by a
    token that only this user can read, and stops it at the end. A process that already is in a cluster stays in it,
    and nothing is stopped. `workers` (CPUs; as many as the machine has if None) and the dashboard's options are those
    of a cluster started here.

    Yields the dashboard's URL; None without one, and in a process that was connected before. Raises ConnectionError
    where a cluster cannot be reached, refuses the token, has none or runs another version; ClusterLost where none could
    be started here or Ray fails within the block; ValueError for wrong arguments and a dashboard that is open to all.
    """
    validate_workers(workers)
    require_protected_dashboard(dashboard_host)

    # a process that has not imported Ray is in no cluster, and must not import it before the mode is set
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        require_same_cluster(address)
        yield None
        return

    # taken before Ray is imported and started, which replaces it
    address = resolve_address(address)
    sigterm_handler = signal.getsignal(signal.SIGTERM)
    # around starting and stopping too, during which Ray can end this process as well
    with message_on_abrupt_exit(ABRUPT_EXIT_MESSAGE):
        url = _start_cluster(workers, dashboard, dashboard_host) if address == "local" else _join_cluster(address)
        import ray

        # Ray's own SIGTERM handler prints the stack of its C++ code and aborts. Only the main thread may set handlers,
        # and in another one Ray sets none.
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, sigterm_handler or signal.SIG_DFL)
        try:
            yield f"http://{url}" if url else None
        except ray.exceptions.RayError as error:  # a job's own exceptions are outcomes by now
            raise ClusterLost(f"Ray failed ({format_error(error)[:500]}); {RERUN_HINT}") from error
        finally:
            ray.shutdown()  # stops the processes of a local cluster, and only leaves one that was joined


@contextmanager
def message_on_abrupt_exit(line: str) -> Generator[None, None, None]:
    """Write a line to stderr if this process ends within the block in any way but by leaving it."""
    # The message is sent at once, for a killed process can send nothing: the kernel closes its end of the pipe, which
    # no child inherits, and the watcher, reading until then, finds no end mark. In a session of its own it is not ended
    # by a terminal's Ctrl-C; -IS keeps site packages out of it.
    watcher = subprocess.Popen(
        [sys.executable, "-ISc", WATCHER_CODE],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert watcher.stdin is not None  # for mypy: stdin is a pipe
    watcher.stdin.write(f"{line}\n")
    watcher.stdin.flush()
    try:
        yield
    finally:
        watcher.stdin.write("\0")
        watcher.stdin.close()
        watcher.wait()


@contextmanager
def defer_signals() -> Generator[list[int], None, None]:
    """Defer Ctrl-C, SIGTERM and SIGHUP to the end of the block, where they have their former effect.

    A second one acts at once, but one that follows within a second is ignored: keys are pressed twice. Yields a list
    that is empty until the first signal arrives, and then holds its number.
    """
    # Python runs signal handlers in the main thread and lets only that one set them
    received: list[int] = []
    first_at = -math.inf
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (*DEFERRED, signal.SIGUSR1)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def record(number: int, frame: Any) -> None:
        nonlocal first_at
        # as memscore.cli.stop_signals does it outside of this block
        if received and time.monotonic() - first_at < AGAIN_AFTER_S:
            return
        received.append(number)
        first_at = time.monotonic()
        if len(received) > 1:
            restore()
            signal.raise_signal(number)

    # an ignored signal stays ignored (nohup); None is a handler that is not Python's, and could not be restored
    for number in DEFERRED:
        if before[number] not in {None, signal.SIG_IGN}:
            signal.signal(number, record)
    try:
        yield received
    finally:
        # SIGUSR1 too, for which Tune sets a handler and never restores the former one
        restore()
        if len(received) == 1:  # a second one has acted
            signal.raise_signal(received[0])


def require_same_cluster(address: str | None) -> None:
    """Stop if the cluster that this process is connected to is not the one at the address."""
    import ray

    connected = ray.get_runtime_context().gcs_address
    if address not in {None, "auto", "local", connected}:
        raise ValueError(
            f"--address {address}, but this process is connected to Ray at {connected}; call ray.shutdown() first"
        )


def validate_workers(workers: int | None) -> None:
    """Raise ValueError if the number of workers is below 1."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {workers}; leave it out for one a CPU")


def resolve_address(address: str | None) -> str:
    """Return the given address, else RAY_ADDRESS, else "local" for a new cluster."""
    return address or os.environ.get("RAY_ADDRESS") or "local"


def is_submitted_job() -> bool:
    """Return whether this is the driver of a submitted Ray job, whose working directory is a temporary copy."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def count_gpus() -> float:
    """Count the GPUs of the cluster that this process is connected to."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _start_cluster(workers: int | None, dashboard: bool, dashboard_host: str) -> str | None:
    """Start a cluster on this machine; return its dashboard's host:port."""
    # The token before Ray is imported; since 2.59 a new cluster uses it unless RAY_AUTH_MODE says otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if get_auth_mode() == "token":
        protect_token(make=True)
    import ray

    # log_to_driver would print all that workers print; cluster/log_forwarding.py passes on their warnings
    # As a terminal ends, its shell sends SIGHUP to Ray's processes too. They inherit that it is blocked, as Ray itself
    # does with Ctrl-C: else they would end before the driver, which without them cannot end in order.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
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
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return context.dashboard_url or None


def _join_cluster(address: str) -> str | None:
    """Join a running cluster; return its dashboard's host:port."""
    # the checks first: where nothing listens, ray.init takes two minutes
    require_reachable(address)
    imported_early = "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ
    if get_auth_mode() == "token" and (has_token() or "RAY_AUTH_MODE" in os.environ):
        protect_token(make=False)
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray turns it on by itself for "auto" only, not for a host:port
    # the driver of a submitted job was started by the cluster itself, so there is nothing to find out
    if not is_submitted_job():
        require_authorized(address)
    import ray

    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        hint = "; RAY_AUTH_MODE=token must be set before Ray is imported" if imported_early else ""
        raise ConnectionError(explain_join_failure(address, str(error)) + hint) from error

    # only now: this needs the head's own host:port, which "auto" does not give and ray.init has found out
    try:
        require_same_protection(ray.get_runtime_context().gcs_address)
    except ConnectionError:
        ray.shutdown()
        raise
    return context.dashboard_url or None


def _choose_object_store_bytes(shared_memory: Path = Path("/dev/shm")) -> int:
    """Return room for one data set: 2 GiB, or half of a small shared memory; Ray spills the rest to disk."""
    # Ray's own choice is 30 % of the memory, far more than one data set needs; 75 MiB is the least that it accepts
    free = shutil.disk_usage(shared_memory).free if shared_memory.is_dir() else GIB
    return max(100 * 2**20, min(2 * GIB, free // 2))
