"""Open a worker pool, and optionally a search backend, together with the Ray cluster they need; for the commands."""

import math
import os
import sys
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from cluster.auth import format_export_line
from cluster.auto_pool import AutoPool, LateMetrics, MetricPublisher, describe_missing_workers
from cluster.pool import Pool, SerialPool
from cluster.preflight import require_reachable
from cluster.session import connect, count_gpus, is_submitted_job, resolve_address, validate_workers

if TYPE_CHECKING:
    from cluster.metrics import MetricTable, Telemetry
    from cluster.search import SearchBackend


RAY_START_S = 10.0
"""Seconds that Ray and its workers, which import torch, take to start and end."""
RAY_MARGIN = 1.5
"""How many times faster a run with Ray workers must be than this process before --pool auto takes them.

Workers are slower than their number says: each does its own imports, and they leave no core to this process.
"""
SWITCH_FACTOR = 2
"""Times compute_serial_limit: remaining seconds from which on a pool that began here goes on with workers."""

RunOnEachNode = Callable[[Callable[[], str | None]], dict[str, str]]


@dataclass(frozen=True, kw_only=True)
class PoolOptions:
    """Where the jobs of a command run.

    Attributes:
        pool: ray: worker processes on this machine or on a cluster; serial: this process, one job after the other;
            auto: serial unless Ray workers, with their start, would be much faster or another option here needs Ray.
        workers: processes at once (default: every CPU or GPU of the cluster); needs Ray.
        address: of a running Ray cluster (default: RAY_ADDRESS, or one started on this machine).
        device: auto: a GPU for each worker if the cluster has one, else CPUs.
        gpus_per_worker: below 1, workers share a GPU, each with that part of its memory; they take turns on it, so
            this saves memory and no time.
        keep_going: try the other jobs too where the first ones all fail in the same way (default: the run stops then).
        dashboard: also start Ray's dashboard, on 127.0.0.1, if the cluster is started here, and print its address.
    """

    pool: Literal["auto", "serial", "ray"] = "auto"
    workers: Annotated[int | None, tyro.conf.arg(help_behavior_hint="")] = None
    address: Annotated[str | None, tyro.conf.arg(help_behavior_hint="")] = None
    device: Literal["auto", "cpu", "cuda"] = "auto"
    gpus_per_worker: float = 1
    keep_going: bool = False
    dashboard: bool = False


@dataclass(frozen=True, kw_only=True)
class ForecastPool(PoolOptions):
    """Ray workers that a forecast has chosen and no option: without a cluster, the jobs run in this process."""


def validate_pool_options(options: PoolOptions) -> bool:
    """Check a command's pool options before anything is started.

    Returns whether all workers will be on this machine, so that its GPUs are theirs. Raises ValueError for fewer than
    one worker, options of a Ray pool given to a serial one, or a GPU share outside (0, 1]; ConnectionError if nothing
    listens at the cluster's address.
    """
    pool, gpus_per_worker = options.pool, options.gpus_per_worker
    if pool == "serial" and (options.workers is not None or options.address is not None):
        raise ValueError("--pool serial is this process alone; leave out --workers and --address, or use --pool ray")
    if pool == "serial" and options.dashboard:
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
    validate_workers(options.workers)
    cluster = resolve_address(options.address)
    if pool != "serial" and cluster != "local":
        require_reachable(cluster)
    return pool == "serial" or cluster == "local"


def compute_serial_limit(workers: int) -> float:
    """Compute the seconds on one core from which on so many Ray workers are much faster than this process.

    The least t with t >= RAY_MARGIN * (RAY_START_S + t / workers); infinite if there is none.
    """
    if workers <= RAY_MARGIN:
        return math.inf
    return RAY_MARGIN * RAY_START_S / (1 - RAY_MARGIN / workers)


def choose_pool(options: PoolOptions, forecast: Callable[[float], float]) -> PoolOptions:
    """Choose where --pool auto runs, and write a line that says so; the options are checked.

    `forecast` is called with a limit, and returns the seconds that all jobs take on one core; at or above the limit
    a lower bound, and NaN if there is none. The pool of the result is "ray", or it stays "auto": this process, at
    first (AutoPool).
    """
    if options.pool != "auto":
        return options
    if options != PoolOptions(device=options.device, keep_going=options.keep_going) or is_submitted_job():
        return replace(options, pool="ray")
    if resolve_address(None) != "local":
        write_line("on the cluster that RAY_ADDRESS names; --pool serial for this process")
        return replace(options, pool="ray")
    # Ray starts a worker for each CPU where no option says how many
    workers = count_cpus()
    limit_s = compute_serial_limit(workers)
    if math.isinf(limit_s):
        write_line("one CPU: in this process; --pool ray for a worker")
        return options
    seconds = forecast(limit_s)
    if seconds < limit_s:
        write_line(f"about {math.ceil(seconds)} s on one core: in this process; --pool ray for workers")
        return options
    reason = "no forecast" if math.isnan(seconds) else f"{limit_s:.0f} s or more on one core"
    write_line(f"{reason}: in {workers} Ray workers; --pool serial for this process")
    return ForecastPool(pool="ray", device=options.device)


def count_cpus() -> int:
    """Count the CPUs of this machine, as Ray does."""
    return os.cpu_count() or 1


def write_line(line: str) -> None:
    """Write a line for the user of a command."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def estimate_worker_count(options: PoolOptions, *, local: bool) -> int:
    """Estimate how many workers will run, before there is a cluster.

    `local` is of validate_pool_options, and the pool was chosen by choose_pool.
    """
    if options.pool != "ray":
        return 1
    cpus = count_cpus()
    return min(options.workers or cpus, cpus) if local else options.workers or cpus


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
def open_pool(options: PoolOptions, resolve_device: Callable[[str], str]) -> Generator[PoolSession, None, None]:
    """Open a pool of any kind; the options are checked, and the pool was chosen by choose_pool.

    Where a forecast has chosen Ray and no cluster can be started, a line says so, and the pool is this process.
    `resolve_device` gives the device of this machine's workers: "auto", "cpu" or "cuda" -> "cpu" or "cuda".
    """
    if options.pool != "ray":
        device = resolve_device(options.device)
        # this process keeps its memory on a GPU, which workers that it opens later would lack
        if options.pool == "serial" or device == "cuda":
            yield PoolSession(pool=SerialPool(keep_going=options.keep_going), device=device)
            return
        limit_s = SWITCH_FACTOR * compute_serial_limit(count_cpus())
        open_workers = partial(open_cpu_workers, options)
        with AutoPool(open_workers, limit_s, write_line, keep_going=options.keep_going) as pool:
            yield PoolSession(pool=pool, device=device)
        return
    # torch and not Ray says what this machine has: Ray also counts a GPU that torch cannot use
    if not is_joining(options):
        options = replace(options, device="cuda" if resolve_device(options.device) == "cuda" else "cpu")
    with ExitStack() as stack:
        # only the start is tried: what the run itself raises comes from the block of the caller
        try:
            session = stack.enter_context(open_ray_pool(options))
        except Exception as error:
            if not isinstance(options, ForecastPool):
                raise
            write_line(describe_missing_workers(error))
            session = PoolSession(pool=SerialPool(), device=resolve_device(options.device))
        yield session


def is_joining(options: PoolOptions) -> bool:
    """Return whether the workers will be on a cluster that runs already, not only on this machine."""
    return options.pool != "serial" and resolve_address(options.address) != "local"


def resolve_worker_device(options: PoolOptions, resolve_device: Callable[[str], str]) -> str:
    """Return the device that open_pool will give the workers, "cpu" or "cuda", and start none of them.

    `resolve_device` is that of open_pool. A cluster is joined only where it alone knows, and left again unless this
    process is in it already.
    """
    if not is_joining(options):
        return resolve_device(options.device)
    if options.device != "auto":
        return options.device
    with connect(address=options.address):
        return "cuda" if count_gpus() else "cpu"


@contextmanager
def open_cpu_workers(options: PoolOptions) -> Generator[Pool, None, None]:
    """Open the workers of an AutoPool."""
    with open_ray_pool(replace(options, device="cpu")) as session:
        yield session.pool


@contextmanager
def open_ray_pool(options: PoolOptions) -> Generator[PoolSession, None, None]:
    """Join or start a cluster and start workers on it, each with a GPU, a share of one, or none.

    Without an address, a cluster is started on this machine unless RAY_ADDRESS names one. The pool is yielded before
    any worker is started. Raises ValueError if GPUs are requested and no node has one, or not the share that each
    worker needs.
    """
    joined = resolve_address(options.address) != "local"
    with connect(address=options.address, workers=options.workers, dashboard=options.dashboard) as url:
        # both import Ray, whose authentication mode connect() sets first
        from cluster.preflight import run_on_each_node, warn_if_full
        from cluster.ray_nodes import warn_if_unused_or_too_few
        from cluster.ray_pool import RayPool

        if options.dashboard:
            sys.stderr.write(f"{format_dashboard_hint(url)}\n")
        device = ("cuda" if count_gpus() else "cpu") if options.device == "auto" else options.device
        if device == "cuda" and not count_gpus():
            raise ValueError("--device cuda, but no node of the Ray cluster has a GPU; use --device cpu")
        gpus = options.gpus_per_worker * (device == "cuda")
        with RayPool(workers=options.workers, gpus_per_worker=gpus, keep_going=options.keep_going) as pool:
            warn_if_unused_or_too_few(options.workers, gpus, grows=joined)
            if joined:
                warn_if_full("GPU" if device == "cuda" else "CPU", 1, pool.wait_s)
            yield PoolSession(pool=pool, device=device, run_on_each_node=run_on_each_node if joined else None)


@contextmanager
def open_pool_and_search(
    options: PoolOptions, resolve_device: Callable[[str], str]
) -> Generator[tuple[PoolSession, "SearchBackend"], None, None]:
    """Open a pool, as open_pool does, and a search backend, which use the same CPUs and GPUs in turn."""
    # the modules of a search import Optuna, which other commands do not need
    with open_pool(options, resolve_device) as session:
        if isinstance(session.pool, AutoPool):
            from cluster.auto_search import AutoSearch

            open_tune = partial(create_tune_search, options, session)
            yield session, AutoSearch(session.pool, open_tune, keep_going=options.keep_going)
        elif isinstance(session.pool, SerialPool):
            from cluster.search import SerialSearch

            yield session, SerialSearch(keep_going=options.keep_going)
        else:
            yield session, create_tune_search(options, session)


def create_tune_search(options: PoolOptions, session: PoolSession) -> "SearchBackend":
    """Create the search backend of a cluster whose pool is open."""
    from cluster.tune.tune_search import TuneSearch

    return TuneSearch(
        workers=options.workers,
        gpus_per_worker=options.gpus_per_worker * (session.device == "cuda"),
        keep_going=options.keep_going,
        release_idle_workers=session.pool.release_idle_workers,  # type: ignore[attr-defined]
    )


def create_metrics(
    pool: Pool, prefix: str, run: str, counters: "MetricTable", gauges: "MetricTable"
) -> MetricPublisher | None:
    """Create the metrics of this driver, see Telemetry; None where no job will run on Ray."""

    def create() -> "Telemetry":
        from cluster.metrics import Telemetry  # imports Ray, whose authentication mode connect() sets first

        return Telemetry(prefix, run, counters, gauges)

    if isinstance(pool, AutoPool):
        return LateMetrics(pool, create)
    return None if isinstance(pool, SerialPool) else create()


def format_dashboard_hint(url: str | None) -> str:
    """Return a line with the dashboard's address and what Ray's own commands need to reach it."""
    if url is None:
        return "the cluster reports no dashboard; it may have been started without one"
    return f"dashboard {url} (its token: ray get-auth-token); for Ray's own commands: `{format_export_line(url)}`"
