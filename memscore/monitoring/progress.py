"""Monitor a run: count the jobs and results that pass through its pool, and report them every few seconds.

Jobs and results pass unchanged. A thread reports, so that a run whose models take hours still shows that it is alive; a
report that fails is a warning and never ends the run.
"""

import logging
import math
import os
import secrets
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Protocol, Self

from cluster.pool import Failure, Pool
from memscore.monitoring.heartbeat import Heartbeat, choose_period_s, get_pid_namespace, read_heartbeat, write_heartbeat
from memscore.monitoring.prometheus import Publisher, compute_counters, compute_gauges
from memscore.pipeline.jobs import BankJob, OriginalJob
from memscore.pipeline.precision import PrecisionForecast
from memscore.pipeline.proxy_job import ProxyJob
from memscore.pipeline.runner import Bank
from memscore.pipeline.train_bank import format_result
from memscore.store.parquet import CorruptFile
from memscore.store.shards import parse_model_index
from memscore.store.store import Store

DRIVER_PHASE = "scores and reports"  # the phase of what the driver computes itself
TICK_S = 1.0
# the rate is over three jobs of each worker, so that workers that finish together do not make it jump
RATE_ROUNDS, MIN_RATE_JOBS = 3, 16
EXIT_TIMEOUT_S = 2.0  # `ray job stop` kills after three seconds

PHASES: dict[type, str] = {BankJob: "models", OriginalJob: "originals", ProxyJob: "proxies"}

ForecastCallback = Callable[[PrecisionForecast, float | None], None]

_log = logging.getLogger(__name__)


class MonitoredPool:
    """Pool that counts the jobs and results that pass through it, and reports them from a thread; a context manager.

    The caller holds the store's lock. Planned has the models of each arm requested in total, None where an error was
    requested, which is target_rmse. Listeners are called at the beginning, every second, and at the end.
    """

    def __init__(
        self,
        pool: Pool,
        store: Store,
        planned: Mapping[str, int | None],
        target_rmse: float | None = None,
        listeners: Sequence[Callable[[Heartbeat], object]] = (),
    ) -> None:
        self.pool, self.store, self.listeners = pool, store, listeners
        # Two threads change what follows: the caller's, which counts results, and the one that reports. The lock is
        # held for the counting only, never while the cluster or the store is asked, so that no result waits for them.
        # A heartbeat is immutable, and replaced as a whole: whoever has read it may use it without the lock.
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._report_regularly, name="memscore-monitor", daemon=True)
        self._forecasts: dict[str, PrecisionForecast] = {}
        self._done: Counter[str] = Counter()  # by phase, as _total
        self._total: Counter[str] = Counter()
        self._steps: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=4096)  # when, models done
        self._names = {name.removesuffix(".parquet") for name in store.folder.names("shards")}
        self._unmeasured: list[str] = []
        self._warned: set[str] = set()  # kinds of errors with a warning
        self._written_at = -math.inf
        # requests of earlier commands for other arms stay in the record, which this run overwrites
        planned = {**read_planned_models(store), **planned}
        self._heartbeat = Heartbeat(
            run=secrets.token_hex(8),
            pid=os.getpid(),
            host=socket.gethostname(),
            space=get_pid_namespace(),
            began=time.time(),
            at=time.time(),
            every_s=choose_period_s(store.folder),
            planned=planned,
            wish=target_rmse,
            models={arm: sum(parse_model_index(name, arm) is not None for name in self._names) for arm in planned},
        )

    @property
    def workers(self) -> int:
        """How many jobs can run at once, at the moment."""
        return self.pool.workers

    def run(
        self, fn: Callable[..., Any], jobs: Iterable[Any], shared: Any = None
    ) -> Generator[tuple[Any, Any], None, None]:
        """Run jobs on the wrapped pool and yield its results in the pool's order; all jobs are read at once."""
        # a list, because the total must be known before the first result
        jobs = list(jobs)
        if jobs and type(jobs[0]) not in PHASES:  # blocks of examples that are scored: a part of the driver's phase
            yield from self.pool.run(fn, jobs, shared)
            return
        for job in jobs:
            self._total[get_phase(job)] += count_models(job)
        self._update(phase=self._find_phase(DRIVER_PHASE))
        # counted before it is passed on, since the caller may raise and never ask for the next one
        for job, result in self.pool.run(fn, jobs, shared):
            self._count_result(job, result)
            self._update(phase=self._find_phase(get_phase(job)))
            yield job, result
        self._update(phase=DRIVER_PHASE)

    def wrap_on_forecast(self, on_forecast: ForecastCallback) -> ForecastCallback:
        """Wrap a callback for forecasts of arms, so that this pool records them too."""

        def record_and_call(forecast: PrecisionForecast, target_rmse: float | None) -> None:
            with self._lock:
                self._forecasts[forecast.arm.name] = forecast
            on_forecast(forecast, target_rmse)

        return record_and_call

    def update_heartbeat(self) -> Heartbeat:
        """Update the heartbeat to this moment, and return it."""
        # outside the lock: a cluster may take seconds to answer
        workers = self.pool.workers
        changes: dict[str, Any] = {"retried": dict(getattr(self.pool, "setbacks", {}))}  # SerialPool has none
        changes["busy"] = getattr(self.pool, "busy", None)
        with self._lock:
            heartbeat, rate_per_s = self._heartbeat, self._compute_rate(workers)
            new_models = list(self._unmeasured)
            predicted_rmse = {
                arm: forecast.measured.predict_rmse(forecast.arm.keep, heartbeat.models[arm])
                for arm, forecast in self._forecasts.items()
            }
            # the driver's own phase has no jobs; the models' counts are shown beside it
            phase = heartbeat.phase if heartbeat.phase in self._total else "models"
            done, total = self._done[phase], self._total[phase]
        # only these fields: results that were counted since the lock was released stay
        self._update(
            at=time.time(),
            done=done,
            total=total,
            workers=workers,
            rmse={arm: predicted_rmse.get(arm) for arm in heartbeat.planned},
            rate_per_s=rate_per_s,
            eta_s=(total - done) / rate_per_s if rate_per_s and phase == "models" else None,
            **changes,
        )
        self._add_bytes(new_models)
        return self._heartbeat

    def _add_bytes(self, models: Sequence[str]) -> None:
        """Add the bytes of the shards of the models that wait first; those of a store that does not answer wait on."""
        try:
            size = sum_shard_sizes(self.store, models)
        except Exception as error:  # the rest of the heartbeat needs no store
            self._warn_once(error)
            return
        # Results add models at the end of the list meanwhile. Only one thread reports at a time, so the first ones are
        # still those that were measured, and each is added once.
        with self._lock:
            del self._unmeasured[: len(models)]
            self._heartbeat = replace(self._heartbeat, bytes=self._heartbeat.bytes + size)

    def __enter__(self) -> Self:
        self._report()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Report how the run ended, unless the thread still waits for a store."""
        # The thread must be over first: a report of its own, begun before the end, could overwrite the last record with
        # "running". If it hangs in a store that does not answer, there is no last record, and the age of the one before
        # it shows that the run is over.
        self._ended.set()
        self._thread.join(EXIT_TIMEOUT_S)
        if not self._thread.is_alive():
            self._update(state="stopped" if kind else "ended")
            self._report()

    def _update(self, **changes: Any) -> None:
        with self._lock:
            self._heartbeat = replace(self._heartbeat, **changes)

    def _find_phase(self, otherwise: str) -> str:
        """Return the first phase that has jobs left; models and originals are trained side by side."""
        return next((phase for phase in PHASES.values() if self._done[phase] < self._total[phase]), otherwise)

    def _count_result(self, job: Any, result: Any) -> None:
        phase, n_models = get_phase(job), count_models(job)
        receipts = [] if isinstance(result, Failure) else result
        diverged = [receipt for receipt in receipts if receipt.get("diverged")]
        stored = [receipt["model"] for receipt in receipts if not receipt.get("diverged")] if phase == "models" else []
        # A model that was stored before, and trained again for its learning events, is trained but not new. One block
        # under the lock: what is read and what replaces it must be of the same heartbeat.
        with self._lock:
            heartbeat, new_models = self._heartbeat, [name for name in stored if name not in self._names]
            self._names.update(new_models)
            self._unmeasured += stored
            self._done[phase] += n_models
            if phase == "models":
                self._steps.append((time.monotonic(), self._done[phase]))
            self._heartbeat = replace(
                heartbeat,
                trained=heartbeat.trained + len(stored),
                failed=heartbeat.failed + (n_models if isinstance(result, Failure) else 0),
                diverged=heartbeat.diverged + len(diverged),
                models={**heartbeat.models, job.arm: heartbeat.models.get(job.arm, 0) + len(new_models)}
                if new_models
                else heartbeat.models,
                line=format_result(result),
            )

    def _compute_rate(self, workers: int) -> float | None:
        """Compute models per second over the last rounds; it falls while nothing finishes."""
        # the caller holds the lock; a step is the time of a result and the models done by then, the first is (start, 0)
        steps = list(self._steps)[-(max(RATE_ROUNDS * workers, MIN_RATE_JOBS) + 1) :]
        if steps[0][1] == 0 and len(steps) > workers + 1:
            steps = steps[1:]  # workers have started by then, which is no part of the rate
        (start, done_before), (last, done) = steps[0], steps[-1]
        # while models are trained, up to now: between two results the rate falls instead of standing still
        end = time.monotonic() if self._heartbeat.phase == "models" else last
        return (done - done_before) / max(end - start, 1e-9) if done > done_before else None

    def _report_regularly(self) -> None:
        while not self._ended.wait(TICK_S):
            self._report()

    def _report(self) -> None:
        """Pass a heartbeat to all listeners; one that fails gets the next heartbeat again."""
        try:
            heartbeat = self.update_heartbeat()
        except Exception as error:  # the cluster or the store does not answer; the run itself raises if that matters
            self._warn_once(error)
            return
        # the store gets fewer records than the listeners, but always the first and the last
        is_due = heartbeat.state != "running" or time.monotonic() - self._written_at >= heartbeat.every_s
        for listener in (*self.listeners, *([self._write_heartbeat] if is_due else [])):
            try:
                listener(heartbeat)
            except Exception as error:  # a report must never end the run
                self._warn_once(error)

    def _write_heartbeat(self, heartbeat: Heartbeat) -> None:
        # before the attempt, so that a store that fails is tried again after a period and not every second
        self._written_at = time.monotonic()
        write_heartbeat(self.store.folder, heartbeat)

    def _warn_once(self, error: Exception) -> None:
        """Warn once for each kind of error, in one line."""
        if type(error).__name__ not in self._warned:
            self._warned.add(type(error).__name__)
            _log.warning("progress reporting failed, the run continues: %s", " ".join(str(error).split()))


class RunDisplay(Protocol):
    """Shows a run to its user; tables.progress_bar.ProgressBar conforms to it."""

    def show_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Show the state of the run at one moment; called every second."""


def monitor_pool(bank: Bank, pool: Pool, display: RunDisplay, publisher: Publisher | None) -> MonitoredPool:
    """Wrap the pool of one run of estimate, so that its progress is reported; the result is a context manager."""
    target_rmse = bank.config.until_rmse
    listeners: list[Callable[[Heartbeat], object]] = [display.show_heartbeat]
    if publisher:
        listeners.append(lambda heartbeat: publisher.publish(compute_counters(heartbeat), compute_gauges(heartbeat)))
    planned = {arm.name: bank.count if target_rmse is None else None for arm in bank.arms}
    return MonitoredPool(pool, bank.store, planned, target_rmse, listeners)


def read_planned_models(store: Store) -> dict[str, int | None]:
    """Read the models that earlier commands requested, by arm; empty if their record is damaged."""
    try:
        heartbeat = read_heartbeat(store.folder)
    except CorruptFile:
        return {}  # this run overwrites the record
    return dict(heartbeat.planned) if heartbeat else {}


def get_phase(job: Any) -> str:
    """Return the phase that a job belongs to."""
    return PHASES[type(job)]


def count_models(job: Any) -> int:
    """Count the models of a job; the jobs that a bank job was split into count by themselves."""
    return len(job.models) if isinstance(job, BankJob) else 1


def sum_shard_sizes(store: Store, models: Sequence[str]) -> int:
    """Sum the bytes of the shards of these models; a missing one adds 0."""
    if not models:
        return 0
    paths = [store.folder.path(f"shards/{model}.parquet") for model in models]
    return sum(entry.size or 0 for entry in store.folder.filesystem.get_file_info(paths))
