"""A Ray pool, and a search beside it, with the cluster under them, in one step, for the doors."""

import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cluster.auth import export_line
from cluster.pool import Pool, SerialPool
from cluster.preflight import refuse_unreachable
from cluster.session import address_of, connect, gpus, refuse_workers

if TYPE_CHECKING:
    from cluster.metrics import Table, Telemetry
    from cluster.search import Search


Ask = Callable[[Callable[[], str | None]], dict[str, str]]
Ready = Callable[[Ask | None], None]


def refuse_staff(
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
    refuse_workers(workers)
    cluster = address_of(address)
    if pool == "ray" and cluster != "local":
        refuse_unreachable(cluster)
    return pool == "serial" or cluster == "local"


def expected_workers(pool: str, workers: int | None, *, near: bool) -> int:
    """How many will work, as far as can be said before there is a cluster.

    Args:
        pool: "ray" or "serial".
        workers: that are wanted; None for all that fit.
        near: of refuse_staff; on this machine no more fit than it has CPUs.

    Returns:
        The number.
    """
    if pool == "serial":
        return 1
    cpus = os.cpu_count() or 1
    return min(workers or cpus, cpus) if near else workers or cpus


@contextmanager
def open_pool(
    kind: str,
    address: str | None,
    workers: int | None,
    device: str,
    here: Callable[[str], str],
    ready: Ready,
    gpus_per_worker: float,
    *,
    dashboard: bool,
) -> Generator[tuple[Pool, str], None, None]:
    """A pool of either kind.

    Args:
        kind: "ray", for which see ray_pool, or "serial".
        address: of a running cluster.
        workers: how many at once.
        device: "cpu", "cuda" or "auto".
        here: gives the device that a serial pool has.
        ready: as in ray_pool.
        gpus_per_worker: as in ray_pool.
        dashboard: as in ray_pool.

    Yields:
        The pool, and the device that its workers have.
    """
    if kind == "serial":
        where = here(device)
        ready(None)
        yield SerialPool(), where
        return
    with ray_pool(address, workers, device, ready, gpus_per_worker, dashboard=dashboard) as staffed:
        yield staffed


@contextmanager
def ray_pool(
    address: str | None,
    workers: int | None,
    device: str,
    ready: Ready = lambda ask: None,
    gpus_per_worker: float = 1,
    *,
    dashboard: bool = False,
) -> Generator[tuple[Pool, str], None, None]:
    """Join or start a cluster and staff it, each worker with a GPU, a share of one, or none.

    Args:
        address: of a running cluster; None starts one on this machine unless RAY_ADDRESS names one.
        workers: how many at once; None for all that fit.
        device: "cpu", "cuda", or "auto" for GPUs where the cluster has any.
        ready: called once the workers can be had, before the first is; handed a function that asks the nodes of a
            cluster that was joined, else None. It stops with an exception where they are not fit for the work.
        gpus_per_worker: 1, or the share of a GPU, and of its memory, that each worker has.
        dashboard: start Ray's dashboard on 127.0.0.1 with a cluster started here, and say where it is.

    Yields:
        The pool, and the device that its workers have.

    Raises:
        ValueError: GPUs are asked for and no node has one, or no share of one for each worker.
    """
    joined = address_of(address) != "local"
    with connect(address=address, workers=workers, dashboard=dashboard) as url:
        from cluster.preflight import ask_each_node, say_if_full  # these import Ray, whose mode of authentication
        from cluster.ray_pool import RayPool  # connect() chooses

        if dashboard:
            sys.stderr.write(f"{dashboard_words(url)}\n")
        chosen = ("cuda" if gpus() else "cpu") if device == "auto" else device
        if chosen == "cuda" and not gpus():
            raise ValueError("--device cuda, but no node of the Ray cluster has a GPU; use --device cpu, or auto")
        with RayPool(workers=workers, gpus_per_worker=gpus_per_worker * (chosen == "cuda")) as pool:
            ready(ask_each_node if joined else None)
            if joined:
                say_if_full("GPU" if chosen == "cuda" else "CPU", 1, pool.wait_s)
            yield pool, chosen


@contextmanager
def open_staff(
    kind: str,
    address: str | None,
    workers: int | None,
    device: str,
    here: Callable[[str], str],
    ready: Ready,
    gpus_per_worker: float,
    *,
    dashboard: bool = False,
) -> Generator[tuple[Pool, "Search", str], None, None]:
    """A pool and a search of either kind, that take turns on the same workers' places.

    Args:
        kind: as in open_pool.
        address: as in open_pool.
        workers: as in open_pool.
        device: as in open_pool.
        here: as in open_pool.
        ready: as in open_pool.
        gpus_per_worker: as in open_pool.
        dashboard: as in open_pool.

    Yields:
        The pool, the search, and the device that the workers of both have.
    """
    with open_pool(kind, address, workers, device, here, ready, gpus_per_worker, dashboard=dashboard) as (pool, chosen):
        if kind == "serial":
            from cluster.search import SerialSearch  # Optuna, which nobody else needs

            yield pool, SerialSearch(), chosen
            return
        from cluster.ray_pool import RayPool
        from cluster.ray_tune import TuneSearch

        assert isinstance(pool, RayPool)
        share = gpus_per_worker * (chosen == "cuda")
        yield pool, TuneSearch(workers=workers, gpus_per_worker=share, rest=pool.rest), chosen


def ray_metrics(prefix: str, run: str, totals: "Table", levels: "Table") -> "Telemetry":
    """The metrics of this driver, inside ray_pool; see Telemetry."""
    from cluster.metrics import Telemetry  # imports Ray, whose mode of authentication connect() chooses

    return Telemetry(prefix, run, totals, levels)


def dashboard_words(url: str | None) -> str:
    """Where the dashboard is, and what Ray's own commands need to reach it."""
    if url is None:
        return "the cluster says nothing of a dashboard; it may have been started without one"
    return f"dashboard {url} (its token: ray get-auth-token); for Ray's own commands: {export_line(url)}"
