"""A Ray pool, and a search beside it, with the cluster under them, in one step, for the doors."""

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
    """Stop before anything is begun if such workers cannot be.

    Args:
        pool: "ray" or "serial".
        workers: how many at once.
        address: of a running cluster.
        gpus_per_worker: 1, or a share of a GPU.
        dashboard: whether Ray's dashboard is wanted.

    Returns:
        Whether all workers will be on this machine, so that its GPUs are theirs.

    Raises:
        ValueError: fewer than one worker, or workers or a dashboard of a pool that has none, or no share of a GPU.
        ConnectionError: nothing listens where the cluster should be.
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
    """How many will work, as far as can be said before there is a cluster.

    Args:
        pool: "ray" or "serial".
        workers: that are wanted; None for all that fit.
        local: of validate_pool_options; on this machine no more fit than it has CPUs.

    Returns:
        The number.
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
        run_on_each_node: runs a function on every node of a cluster that was joined and gives those that return
            something, with what it was; None where all workers are on this machine.
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
        workers: how many at once.
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
        workers: how many at once; None for all that fit.
        device: "cpu", "cuda", or "auto" for GPUs where the cluster has any.
        gpus_per_worker: 1, or the share of a GPU, and of its memory, that each worker has.
        dashboard: start Ray's dashboard on 127.0.0.1 with a cluster started here, and say where it is.

    Yields:
        The pool, before any worker is started, with the device that its workers will have.

    Raises:
        ValueError: GPUs are asked for and no node has one, or no share of one for each worker.
    """
    joined = resolve_address(address) != "local"
    with connect(address=address, workers=workers, dashboard=dashboard) as url:
        from cluster.preflight import run_on_each_node, warn_if_full  # these import Ray, whose mode of authentication
        from cluster.ray_pool import RayPool  # connect() chooses

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
    """Open a pool and a search of either kind, which take turns on the same workers' places.

    Args:
        kind: as in open_pool.
        address: as in open_pool.
        workers: as in open_pool.
        device: as in open_pool.
        gpus_per_worker: as in open_pool.
        dashboard: as in open_pool.

    Yields:
        The pool with its device, and the search.
    """
    with open_pool(kind, address, workers, device, gpus_per_worker, dashboard=dashboard) as session:
        if kind == "serial":
            from cluster.search import SerialSearch  # Optuna, which nobody else needs

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


def create_metrics(prefix: str, run: str, totals: "MetricTable", levels: "MetricTable") -> "Telemetry":
    """The metrics of this driver, inside open_ray_pool; see Telemetry."""
    from cluster.metrics import Telemetry  # imports Ray, whose mode of authentication connect() chooses

    return Telemetry(prefix, run, totals, levels)


def format_dashboard_hint(url: str | None) -> str:
    """Where the dashboard is, and what Ray's own commands need to reach it."""
    if url is None:
        return "the cluster says nothing of a dashboard; it may have been started without one"
    return f"dashboard {url} (its token: ray get-auth-token); for Ray's own commands: {format_export_line(url)}"
