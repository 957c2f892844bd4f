"""A pool that begins in this process, and goes on with workers if its jobs take much longer than was forecast.

Starting and ending Ray and its workers takes longer than a small run. So `--pool auto` takes this pool where
a forecast says that the run is small, and Ray is neither imported nor started unless the forecast was wrong. Where jobs
run changes none of their results. This file imports no Ray.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any, Protocol, Self

from cluster.pool import Failure, Job, Pool, Result, SerialPool, format_error

START_S = 15.0  # what only the first job of a kind does, as imports, takes less, also on a busy machine
MetricValues = Mapping[str, float | Mapping[str, float]]


class AutoPool:
    """Runs jobs in this process, one after the other; opens a pool of workers once the rest would take too long.

    Args:
        open_workers: opens the pool of workers.
        limit_s: seconds of remaining jobs from which on it is opened.
        tell: called with a line for the user.
        keep_going: as of SerialPool.
    """

    def __init__(
        self,
        open_workers: Callable[[], AbstractContextManager[Pool]],
        limit_s: float,
        tell: Callable[[str], object],
        *,
        keep_going: bool = False,
    ) -> None:
        self._open_workers, self.limit_s, self.tell = open_workers, limit_s, tell
        self._stack = ExitStack()
        self._serial = SerialPool(keep_going=keep_going)
        # another thread, which reports progress, reads it too
        self._pool: Pool = self._serial
        self._may_open = True
        self._times: dict[object, tuple[int, float, float]] = {}  # by kind: finished jobs, seconds of all, of the first

    @property
    def is_serial(self) -> bool:
        """Whether jobs run in this process."""
        return self._pool is self._serial

    @property
    def workers(self) -> int:
        """How many jobs run at once."""
        return self._pool.workers

    @property
    def busy(self) -> int | None:
        """How many jobs run now; None in this process."""
        return getattr(self._pool, "busy", None)

    def release_idle_workers(self) -> None:
        """Free the CPUs of workers that have no job; see RayPool."""
        if not self.is_serial:
            self._pool.release_idle_workers()  # type: ignore[attr-defined]

    @property
    def setbacks(self) -> Mapping[str, int]:
        """How often jobs were interrupted, by kind; see RayPool."""
        return getattr(self._pool, "setbacks", {})

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for every job, here or in workers; see Pool.run. All jobs are read at once."""
        remaining = deque(jobs)
        kinds = Counter(type(job) for job in remaining)

        def run_timed(job: Job, shared: Any) -> Result:
            started = time.monotonic()
            try:
                return fn(job, shared)
            finally:
                self.add_time(type(job), time.monotonic() - started)

        # Handed out one by one, as SerialPool reads them, so that those which remain can go to workers.
        def take_jobs() -> Generator[Job, None, None]:
            while remaining and not self.takes_too_long(kinds):
                kinds[type(remaining[0])] -= 1
                yield remaining.popleft()

        while remaining:
            if not self.open_if_slow(kinds):
                yield from self._serial.run(run_timed, take_jobs(), shared)
            else:
                yield from self._pool.run(fn, list(remaining), shared)
                return

    def add_time(self, kind: object, seconds: float) -> None:
        """Record the seconds of a job of some kind."""
        done, total, first = self._times.get(kind, (0, 0.0, seconds))
        self._times[kind] = done + 1, total + seconds, first

    def forecast(self, kinds: Mapping[Any, int]) -> float:
        """Forecast the seconds of so many jobs of each kind in this process; those of an unknown kind count 0."""
        # The first of a kind may have waited for imports, unless it took longer than these do.
        seconds = 0.0
        for kind, count in kinds.items():
            done, total, first = self._times.get(kind, (0, 0.0, 0.0))
            seconds += count * ((total - first) / (done - 1) if done > 1 else first * (first > START_S))
        return seconds

    def takes_too_long(self, kinds: Mapping[Any, int]) -> bool:
        """Return whether workers should run jobs of these kinds; never again once they could not be started."""
        return self._may_open and self.forecast(kinds) > self.limit_s

    def open_if_slow(self, kinds: Mapping[Any, int]) -> bool:
        """Open the workers if jobs of these kinds would take too long here; return whether they are open."""
        if self.is_serial and self.takes_too_long(kinds):
            self._may_open = False
            self.tell(
                f"{format_left(sum(kinds.values()), 'job')} about {self.forecast(kinds):.0f} s in this process, longer "
                "than forecast: starting Ray workers for them"
            )
            try:
                self._pool = self._stack.enter_context(self._open_workers())
            except Exception as error:  # the run itself does not depend on them
                self.tell(describe_missing_workers(error))
        return not self.is_serial

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the workers, if there are any."""
        self._stack.__exit__(kind, error, trace)


def format_left(count: int, noun: str) -> str:
    """Format how many of something are left, up to how long they take."""
    return f"1 {noun} is left and takes" if count == 1 else f"{count} {noun}s are left and take"


def describe_missing_workers(error: Exception) -> str:
    """Return a line for a run that goes on without workers, because none could be started."""
    return f"no workers ({format_error(error)}); going on in this process"


class MetricPublisher(Protocol):
    """Publishes counters and gauges; see cluster.metrics.Telemetry."""

    def publish(self, counters: MetricValues, gauges: MetricValues) -> None:
        """Set counters and gauges."""


class LateMetrics:
    """Publishes metrics once a pool has workers, in whose cluster they are published."""

    def __init__(self, pool: AutoPool, create: Callable[[], MetricPublisher]) -> None:
        self._pool, self._create = pool, create
        self._published: MetricPublisher | None = None

    def publish(self, counters: MetricValues, gauges: MetricValues) -> None:
        """Set counters and gauges, if the pool has workers."""
        if self._pool.is_serial:
            return
        self._published = self._published or self._create()
        self._published.publish(counters, gauges)
