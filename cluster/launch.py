"""Open a worker pool, and optionally a search backend, together with the Ray cluster they need; for the commands."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cluster.auth import format_export_line
from cluster.pool import Pool, SerialPool
from cluster.preflight import require_reachable
from cluster.session import connect, count_gpus, resolve_address, validate_workers

if TYPE_CHECKING:
    from cluster.metrics import MetricTable, Telemetry
    from cluster.search import SearchBackend


RunOnEachNode = Callable[[Callable[[], str | None]], dict[str, str]]


def validate_pool_options(
    pool: str, workers: int | None, address: str | None, gpus_per_worker: float = 1, *, dashboard: bool = False
) -> bool:
    """Check a command's pool options before anything is started.

    Args:
        pool: "ray" or "serial".
        workers: jobs at once.
        address: of a running cluster.
        gpus_per_worker: 1, or a share of a GPU.
        dashboard: whether Ray's dashboard is requested.

    Returns:
        Whether all workers will be on this machine, so that its GPUs are theirs.

    Raises:
        ValueError: fewer than one worker, options of a Ray pool given to a serial one, or a GPU share outside (0, 1].
        ConnectionError: nothing listens at the cluster's address.
    """
    if pool == "serial" and (workers is not None or address is not None):
        raise ValueError("--pool serial is this process alone; leave out --workers and --address, or use --pool ray")
    if pool == "serial" and dashboard:
        raise ValueError("--dashboard shows a Ray cluster, and --pool serial has none; use --pool ray")
    if pool == "serial" and gpus_per_worker != 1:
        raise ValueError(
            f"--gpus-per-worker {gpus_per_worker:g} is of the workers of a Ray cluster, and --pool serial is this "
            "process alone; leave it out, or use --pool ray"
        )
    if not 0 < gpus_per_worker <= 1:
        raise ValueError(
            f"--gpus-per-worker {gpus_per_worker:g}: a worker trains on one GPU or on a share of one; "
            "give a number above 0, at most 1, or --device cpu"
        )
    validate_workers(workers)
    cluster = resolve_address(address)
    if pool == "ray" and cluster != "local":
        require_reachable(cluster)
    return pool == "serial" or cluster == "local"


def estimate_worker_count(pool: str, workers: int | None, *, local: bool) -> int:
    """Estimate how many workers will run, before there is a cluster.

    Args:
        pool: "ray" or "serial".
        workers: the requested number; None for all that fit.
        local: the result of validate_pool_options; on this machine no more fit than it has CPUs.

    Returns:
        The number of workers.
    """
    if pool == "serial":
        return 1
    cpus = os.cpu_count() or 1
    return min(workers or cpus, cpus) if local else workers or cpus


@dataclass(frozen=True, kw_only=True)
class PoolSession:
    """An open pool.

    Attributes:
        pool: where jobs run.
        device: "cpu" or "cuda", which all workers have.
        run_on_each_node: runs a function on every node of a cluster that was joined and returns the results that are
            not None, by node; None where all workers are on this machine.
    """

    pool: Pool
    device: str
    run_on_each_node: RunOnEachNode | None = None


@contextmanager
def open_pool(
    kind: str,
    address: str | None,
    workers: int | None,
    device: str,
    gpus_per_worker: float = 1,
    *,
    dashboard: bool = False,
) -> Generator[PoolSession, None, None]:
    """Open a pool of either kind.

    Args:
        kind: "ray", for which see open_ray_pool, or "serial".
        address: of a running cluster.
        workers: jobs at once.
        device: "cpu", "cuda" or, for Ray, "auto"; a serial pool has this process's device, which the caller decides.
        gpus_per_worker: as in open_ray_pool.
        dashboard: as in open_ray_pool.

    Yields:
        The pool with its device.
    """
    if kind == "serial":
        yield PoolSession(pool=SerialPool(), device=device)
        return
    with open_ray_pool(address, workers, device, gpus_per_worker, dashboard=dashboard) as session:
        yield session


@contextmanager
def open_ray_pool(
    address: str | None,
    workers: int | None,
    device: str,
    gpus_per_worker: float = 1,
    *,
    dashboard: bool = False,
) -> Generator[PoolSession, None, None]:
    """Join or start a cluster and start workers on it, each with a GPU, a share of one, or none.

    Args:
        address: of a running cluster; None starts one on this machine unless RAY_ADDRESS names one.
        workers: jobs at once; None for all that fit.
        device: "cpu", "cuda", or "auto" for GPUs where the cluster has any.
        gpus_per_worker: 1, or the share of a GPU, and of its memory, that each worker has.
        dashboard: start Ray's dashboard on 127.0.0.1 with a cluster started here, and print its address.

    Yields:
        The pool, before any worker is started, with the device that its workers will have.

    Raises:
        ValueError: GPUs are requested and no node has one, or not the share that each worker needs.
    """
    joined = resolve_address(address) != "local"
    with connect(address=address, workers=workers, dashboard=dashboard) as url:
        # both import Ray, whose authentication mode connect() sets first
        from cluster.preflight import run_on_each_node, warn_if_full
        from cluster.ray_pool import RayPool

        if dashboard:
            sys.stderr.write(f"{format_dashboard_hint(url)}\n")
        chosen = ("cuda" if count_gpus() else "cpu") if device == "auto" else device
        if chosen == "cuda" and not count_gpus():
            raise ValueError("--device cuda, but no node of the Ray cluster has a GPU; use --device cpu, or auto")
        with RayPool(workers=workers, gpus_per_worker=gpus_per_worker * (chosen == "cuda")) as pool:
            if joined:
                warn_if_full("GPU" if chosen == "cuda" else "CPU", 1, pool.wait_s)
            yield PoolSession(pool=pool, device=chosen, run_on_each_node=run_on_each_node if joined else None)


@contextmanager
def open_pool_and_search(
    kind: str,
    address: str | None,
    workers: int | None,
    device: str,
    gpus_per_worker: float = 1,
    *,
    dashboard: bool = False,
) -> Generator[tuple[PoolSession, "SearchBackend"], None, None]:
    """Open a pool and a search backend of either kind, which use the same CPUs and GPUs in turn.

    Args:
        kind: as in open_pool.
        address: as in open_pool.
        workers: as in open_pool.
        device: as in open_pool.
        gpus_per_worker: as in open_pool.
        dashboard: as in open_pool.

    Yields:
        The pool with its device, and the search backend.
    """
    with open_pool(kind, address, workers, device, gpus_per_worker, dashboard=dashboard) as session:
        if kind == "serial":
            from cluster.search import SerialSearch  # imports Optuna, which other commands do not need

            yield session, SerialSearch()
            return
        from cluster.ray_pool import RayPool
        from cluster.ray_tune import TuneSearch

        assert isinstance(session.pool, RayPool)
        share = gpus_per_worker * (session.device == "cuda")
        yield (
            session,
            TuneSearch(workers=workers, gpus_per_worker=share, release_idle_workers=session.pool.release_idle_workers),
        )


def create_metrics(prefix: str, run: str, counters: "MetricTable", gauges: "MetricTable") -> "Telemetry":
    """Create the metrics of this driver, within open_ray_pool; see Telemetry."""
    from cluster.metrics import Telemetry  # imports Ray, whose authentication mode connect() sets first

    return Telemetry(prefix, run, counters, gauges)


def format_dashboard_hint(url: str | None) -> str:
    """Return a line with the dashboard's address and what Ray's own commands need to reach it."""
    if url is None:
        return "the cluster reports no dashboard; it may have been started without one"
    return f"dashboard {url} (its token: ray get-auth-token); for Ray's own commands: {format_export_line(url)}"
