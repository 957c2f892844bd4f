"""A run is watched from the pool it works on: what passes through is counted, and told every few seconds.

Nothing that passes is changed. A thread tells, so that a run whose models take hours still says that it lives; what
cannot be told is a warning, never the end of the run.
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
from memscore.pipeline.proxy_jobs import ProxyJob
from memscore.pipeline.runner import Bank
from memscore.pipeline.train_bank import format_result
from memscore.store.parquet import CorruptFile
from memscore.store.shards import parse_model_index
from memscore.store.store import Store

OWN = "scores and reports"  # what the driver does itself
TICK_S = 1.0
ROUNDS, LEAST = 3, 16  # the rate is over three jobs of each worker, so that workers in step do not make it jump
LEAVE_S = 2.0  # `ray job stop` gives three seconds

PHASES: dict[type, str] = {BankJob: "models", OriginalJob: "originals", ProxyJob: "proxies"}

Told = Callable[[PrecisionForecast, float | None], None]

_log = logging.getLogger(__name__)


class MonitoredPool:
    """A pool that counts what passes through it; a context manager.

    Args:
        pool: where jobs run.
        store: whose progress.json is kept; the caller holds its lock.
        planned: arm -> models asked for in all; None where a precision was.
        wish: that precision.
        tell: each is handed a Beat at the beginning, every second, and at the end.
    """

    def __init__(
        self,
        pool: Pool,
        store: Store,
        planned: Mapping[str, int | None],
        wish: float | None = None,
        tell: Sequence[Callable[[Heartbeat], object]] = (),
    ) -> None:
        self.pool, self.store, self.tell = pool, store, tell
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep_telling, name="memscore-watch", daemon=True)
        self._outlooks: dict[str, PrecisionForecast] = {}
        self._done: Counter[str] = Counter()  # by phase, as the next one
        self._total: Counter[str] = Counter()
        self._steps: deque[tuple[float, int]] = deque([(time.monotonic(), 0)], maxlen=4096)  # when, models done
        self._names = {name.removesuffix(".parquet") for name in store.folder.names("shards")}
        self._unweighed: list[str] = []
        self._unsaid: set[str] = set()  # errors that were warned of
        self._written_at = -math.inf
        planned = {**planned_before(store), **planned}
        self._beat = Heartbeat(
            run=secrets.token_hex(8),
            pid=os.getpid(),
            host=socket.gethostname(),
            space=get_pid_namespace(),
            began=time.time(),
            at=time.time(),
            every_s=choose_period_s(store.folder),
            planned=planned,
            wish=wish,
            models={arm: sum(parse_model_index(name, arm) is not None for name in self._names) for arm in planned},
        )

    @property
    def workers(self) -> int:
        """How many jobs run at once, as things stand now."""
        return self.pool.workers

    def run(
        self, fn: Callable[..., Any], jobs: Iterable[Any], shared: Any = None
    ) -> Generator[tuple[Any, Any], None, None]:
        """What the pool yields, as it yields it.

        Args:
            fn: of a job and what all share.
            jobs: the work, read at once.
            shared: what all share.

        Yields:
            Each job once, with its result or failure.
        """
        jobs = list(jobs)
        if jobs and type(jobs[0]) not in PHASES:  # blocks of examples that are scored: the driver's own work, shared
            yield from self.pool.run(fn, jobs, shared)
            return
        for job in jobs:
            self._total[phase_of(job)] += models_of(job)
        self._set(phase=phase_of(jobs[0]) if jobs else OWN)
        for job, result in self.pool.run(fn, jobs, shared):
            self._count(job, result)
            yield job, result
        self._set(phase=OWN)

    def wrap_on_forecast(self, told: Told) -> Told:
        """The same function of what an arm's first models say; the watch takes note of it too."""

        def note(found: PrecisionForecast, wish: float | None) -> None:
            with self._lock:
                self._outlooks[found.arm.name] = found
            told(found, wish)

        return note

    def beat(self) -> Heartbeat:
        """How things stand now."""
        workers = self.pool.workers
        changes: dict[str, Any] = {"retried": dict(getattr(self.pool, "setbacks", {}))}  # SerialPool knows of none
        changes["busy"] = getattr(self.pool, "busy", None)
        with self._lock:
            beat, rate = self._beat, self._rate(workers)
            new, self._unweighed = self._unweighed, []
            found = {arm: one.variance.rmse(one.arm.keep, beat.models[arm]) for arm, one in self._outlooks.items()}
            phase = beat.phase if beat.phase in self._total else "models"
            done, total = self._done[phase], self._total[phase]
        self._set(
            at=time.time(),
            done=done,
            total=total,
            workers=workers,
            rmse={arm: found.get(arm) for arm in beat.planned},
            rate_per_s=rate,
            eta_s=(total - done) / rate if rate and phase == "models" else None,
            bytes=beat.bytes + sizes(self.store, new),
            **changes,
        )
        return self._beat

    def __enter__(self) -> Self:
        self._say()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Say how it ended, unless a record is still on its way to a store that does not answer."""
        self._ended.set()
        self._thread.join(LEAVE_S)
        if not self._thread.is_alive():
            self._set(state="stopped" if kind else "ended")
            self._say()

    def _set(self, **changes: Any) -> None:
        with self._lock:
            self._beat = replace(self._beat, **changes)

    def _count(self, job: Any, result: Any) -> None:
        """Note what came of a job."""
        phase, many = phase_of(job), models_of(job)
        receipts = [] if isinstance(result, Failure) else result
        lost = [receipt for receipt in receipts if receipt.get("diverged")]
        kept = [receipt["model"] for receipt in receipts if not receipt.get("diverged")] if phase == "models" else []
        with self._lock:
            beat, new = self._beat, [name for name in kept if name not in self._names]
            self._names.update(new)
            self._unweighed += kept
            self._done[phase] += many
            if phase == "models":
                self._steps.append((time.monotonic(), self._done[phase]))
            self._beat = replace(
                beat,
                trained=beat.trained + len(kept),
                failed=beat.failed + (many if isinstance(result, Failure) else 0),
                diverged=beat.diverged + len(lost),
                models={**beat.models, job.arm: beat.models.get(job.arm, 0) + len(new)} if new else beat.models,
                line=format_result(result),
            )

    def _rate(self, workers: int) -> float | None:
        """Models of arms a second over the last rounds; the time since the last one counts, so a standstill shows."""
        steps = list(self._steps)[-(max(ROUNDS * workers, LEAST) + 1) :]
        if steps[0][1] == 0 and len(steps) > workers + 1:
            steps = steps[1:]  # workers have started by then, which is no part of the rate
        (first, before), (last, done) = steps[0], steps[-1]
        until = time.monotonic() if self._beat.phase == "models" else last
        return (done - before) / max(until - first, 1e-9) if done > before else None

    def _keep_telling(self) -> None:
        while not self._ended.wait(TICK_S):
            self._say()

    def _say(self) -> None:
        """Hand a beat to all that are to be told; whoever cannot take it is tried again with the next."""
        try:
            beat = self.beat()
        except Exception as error:  # the cluster or the store does not answer; the run itself will say what it means
            self._warn(error)
            return
        due = beat.state != "running" or time.monotonic() - self._written_at >= beat.every_s
        for tell in (*self.tell, *([self._write] if due else [])):
            try:
                tell(beat)
            except Exception as error:  # what is told must never end the run
                self._warn(error)

    def _write(self, beat: Heartbeat) -> None:
        self._written_at = time.monotonic()
        write_heartbeat(self.store.folder, beat)

    def _warn(self, error: Exception) -> None:
        """Once for each kind of error."""
        if type(error).__name__ not in self._unsaid:
            self._unsaid.add(type(error).__name__)
            _log.warning(
                "the run goes on, but how far it is cannot be told everywhere: %s", " ".join(str(error).split())
            )


class Teller(Protocol):
    """What shows a run to its user; report.progress.Meter does."""

    def beat(self, beat: Heartbeat) -> None:
        """Show one moment, every second."""


def monitor_pool(bank: Bank, pool: Pool, teller: Teller, publisher: Publisher | None) -> MonitoredPool:
    """The watch over one run of estimate.

    Args:
        bank: from open_bank.
        pool: where its jobs run.
        teller: shows it to the user.
        publisher: of metrics, where there is a cluster that takes them.

    Returns:
        A pool, to be entered.
    """
    wish = bank.config.until_rmse
    tell: list[Callable[[Heartbeat], object]] = [teller.beat]
    if publisher:
        tell.append(lambda beat: publisher.publish(compute_counters(beat), compute_gauges(beat)))
    planned = {arm.name: bank.count if wish is None else None for arm in bank.arms}
    return MonitoredPool(pool, bank.store, planned, wish, tell)


def planned_before(store: Store) -> dict[str, int | None]:
    """What earlier commands asked for, by arm; nothing where their record is damaged, as it is written again now."""
    try:
        before = read_heartbeat(store.folder)
    except CorruptFile:
        return {}
    return dict(before.planned) if before else {}


def phase_of(job: Any) -> str:
    """What a run is at while it does such a job."""
    return PHASES[type(job)]


def models_of(job: Any) -> int:
    """How many models a job is for; those that a bank's job was split into are jobs themselves."""
    return len(job.models) if isinstance(job, BankJob) else 1


def sizes(store: Store, models: Sequence[str]) -> int:
    """Bytes of the shards of these models."""
    if not models:
        return 0
    paths = [store.folder.path(f"shards/{model}.parquet") for model in models]
    return sum(entry.size or 0 for entry in store.folder.filesystem.get_file_info(paths))
