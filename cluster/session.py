"""connect(): the one place that starts or joins a Ray cluster.

Ray reads RAY_AUTH_MODE when it is imported and never again: in 2.60 the variable, set later, changes nothing, and a
guarded cluster cannot be joined (it fails after 20 s). So this file imports Ray inside its functions, once it has set
the variable. Whoever imports Ray before connect(), or cluster.ray_pool, has chosen the mode himself.
"""

import logging
import os
import secrets
import shutil
import socket
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from cluster.last_words import last_words
from cluster.pool import AGAIN, ClusterLost, one_line

GIB = 2**30
REACH_S = 5.0  # for one TCP connection; Ray itself would try for more than two minutes
ENDED = (
    "error: Ray ended this command, because it lost a process that it cannot do without (raylet, GCS, or an agent of "
    "theirs), or the command was killed; Ray's logs, most often in /tmp/ray/session_latest/logs, say which; " + AGAIN
)


@contextmanager
def connect(
    address: str | None = None, workers: int | None = None, dashboard: bool = False
) -> Generator[str | None, None, None]:
    """A Ray cluster for the length of a with block.

    Joins the cluster at `address`, or else at RAY_ADDRESS (which Ray sets inside a submitted job); without either,
    or with address="local", starts one on this machine, guarded by a token that only this user can read, and stops it
    at the end. A process that already is in a cluster stays in it, and nothing is stopped.

    Args:
        address: host:port of a running cluster, "auto" for the one on this machine, or "local" for a new one.
        workers: CPUs of a cluster started here; as many as the machine has if None. A joined cluster has its own.
        dashboard: start Ray's dashboard on 127.0.0.1 with a cluster started here.

    Yields:
        The dashboard's URL; None without a dashboard, and in a process that was connected before.

    Raises:
        ConnectionError: the cluster cannot be reached, refuses the token, or runs another version.
        ClusterLost: a cluster could not be started here, or Ray fails within the block.
        ValueError: fewer than one worker, an address that is no address, or another one than this process is connected
            to.
    """
    refuse_workers(workers)
    if "ray" in sys.modules and sys.modules["ray"].is_initialized():
        refuse_another(address)
        yield None
        return
    address = address_of(address)
    with last_words(ENDED):
        url = _start(workers, dashboard) if address == "local" else _join(address)
        import ray

        try:
            yield f"http://{url}" if url else None
        except ray.exceptions.RayError as error:  # a job's own exceptions are outcomes by now
            raise ClusterLost(f"Ray failed ({one_line(error)[:500]}); {AGAIN}") from error
        finally:
            ray.shutdown()  # stops the processes of a local cluster, and only leaves one that was joined


def refuse_another(wish: str | None) -> None:
    """Stop if a process that is connected already is asked for another cluster."""
    import ray

    there = ray.get_runtime_context().gcs_address
    if wish not in {None, "auto", "local", there}:
        raise ValueError(
            f"--address {wish}, but this process is connected to Ray at {there}; call ray.shutdown() first"
        )


def refuse_workers(workers: int | None) -> None:
    """Stop if so many cannot be."""
    if workers is not None and workers < 1:
        raise ValueError(f"--workers must be 1 or more, got {workers}; leave it out for one a CPU")


def address_of(wish: str | None) -> str:
    """The cluster that is meant: the wish, else RAY_ADDRESS, else "local" for a new one."""
    return wish or os.environ.get("RAY_ADDRESS") or "local"


def in_submitted_job() -> bool:
    """Whether this process is the driver of a submitted Ray job: its folder is a copy that goes with the session."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def gpus() -> float:
    """How many GPUs the cluster has that this process is in."""
    import ray

    return float(ray.cluster_resources().get("GPU", 0))


def _start(workers: int | None, dashboard: bool) -> str | None:
    """A cluster of this machine; its dashboard's host:port."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if _mode() == "token":
        _keep_token_private(make=True)
    import ray  # a new cluster is guarded by a token wherever RAY_AUTH_MODE says nothing else (Ray 2.59 and later)

    try:
        context = ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=dashboard,
            dashboard_host="127.0.0.1",
            object_store_memory=_object_store_bytes(),
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # where a process of Ray's dies at its start, Ray raises no class of its own
        raise ClusterLost(
            f"Ray could not start on this machine ({one_line(error)[:500]}); run the same command again, or use --pool "
            "serial, which needs no Ray"
        ) from error
    return context.dashboard_url or None


def _join(address: str) -> str | None:
    """A cluster that somebody else started, with its own sizes; its dashboard's host:port."""
    check_reachable(address)
    late = "ray" in sys.modules and "RAY_AUTH_MODE" not in os.environ
    if _mode() == "token" and (_has_token() or "RAY_AUTH_MODE" in os.environ):
        _keep_token_private(make=False)
        os.environ["RAY_AUTH_MODE"] = "token"  # Ray turns it on by itself for "auto" only, not for a host:port
    import ray

    try:
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        said = " ".join(str(error).split())
        raise ConnectionError(
            f"the Ray cluster at {address} answers but cannot be joined ({said}); it must run Ray {ray.__version__}, "
            "and if it wants a token, RAY_AUTH_TOKEN or ~/.ray/auth_token must hold the same one here"
            + ("; RAY_AUTH_MODE=token must be set before Ray is imported" if late else "")
        ) from error
    return context.dashboard_url or None


def check_reachable(address: str) -> None:
    """Try the port first: Ray's own attempt says nothing for two minutes.

    Args:
        address: host:port of a cluster; nothing is tried of "auto" and "local".

    Raises:
        ConnectionError: nobody answers there.
        ValueError: no address at all.
    """
    if address in {"auto", "local"}:
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError(
            f"a cluster's address is host:port, got {address!r}; http://... is the address of `ray job submit`, "
            "not of a cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACH_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); check the address, or leave out --address and "
            "RAY_ADDRESS to start one on this machine"
        ) from error


def _mode() -> str:
    """The user's choice of authentication; a token where nothing was chosen."""
    return os.environ.get("RAY_AUTH_MODE", "token").lower()


def _token_path() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _has_token() -> bool:
    return bool(os.environ.get("RAY_AUTH_TOKEN")) or _token_path().is_file()


def _keep_token_private(*, make: bool) -> None:
    """Nobody else reads the token: Ray would write its file for all to read, so make it first, and mend an open one."""
    path = _token_path()
    if make and not _has_token():
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(32))
    elif path.is_file() and path.stat().st_uid == os.getuid() and path.stat().st_mode & 0o077:
        path.chmod(0o600)


def _object_store_bytes(shared_memory: Path = Path("/dev/shm")) -> int:
    """Room for one data set: 2 GiB, or half of the shared memory where that is small; Ray spills the rest to disk."""
    room = shutil.disk_usage(shared_memory).free if shared_memory.is_dir() else GIB
    return max(100 * 2**20, min(2 * GIB, room // 2))
