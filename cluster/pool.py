"""The interface of a worker pool, without Ray: call a function for every job; each job returns a result or a Failure.

    with SerialPool() as pool:
        for job, outcome in pool.run(train, jobs, shared=images):
            ...

A job may have `split()`, which returns smaller jobs that together do the same work. A pool in which a job has ended its
worker several times yields those parts instead of the job, so that one bad model does not cost a whole stack.

An exception whose attribute `stops_the_run` is true ends the run and reaches the caller of `run`; it may be defined
anywhere, so that code that publishes results does not import this package. Ctrl-C in this process ends it too. Any
other exception, also of sys.exit, becomes the Failure of that job.

A run whose first jobs all end in one and the same failure stops (FailureCounter), unless it shall keep going.
"""

import pickle
import re
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

from cluster.device_errors import is_broken_device

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job has no result.

    Attributes:
        error: one line: type and message.
        kind: what ended the job: an "exception" of its own; its "worker" died; more than a few "node"s were lost while
            it ran there; "memory" ran out (the host's or the GPU's); its "deadline" passed; "publish": its result could
            not be stored.
        attempts: how often it was tried.
        traceback: of the exception, or the cluster's description of the loss.
    """

    error: str
    kind: Literal["exception", "worker", "node", "memory", "deadline", "publish"] = "exception"
    attempts: int = 1
    traceback: str = ""


class RunStopped(OSError):
    """No further job can be done or stored: the run stops, and the same command continues it."""

    stops_the_run = True


class RepeatedFailure(RunStopped):
    """The first jobs of a run have all failed in the same way, and the others were not tried."""

    exit_code = 1


MAX_LOST_GPUS = 2
MIN_REPEATED_JOBS, MIN_REPEATED_ATTEMPTS, REPEATED_ATTEMPTS_PER_WORKER = 3, 8, 2
VARYING_TEXT = re.compile(r"'[^']*'|\"[^\"]*\"|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b|\d+")
"""What differs between failures of one cause: quoted names, numbers, addresses and hashes."""
RERUN_HINT = "what is finished is kept: run the same command again"


class ClusterLost(RuntimeError):
    """The cluster itself failed: the run ends, and the same command continues it."""

    exit_code = 1


class Pool(Protocol):
    """Runs jobs, in this process or on a cluster; code that uses a pool does not depend on which."""

    @property
    def workers(self) -> int:
        """How many jobs run at once; the number may change during a run."""

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for every job.

        Args:
            fn: a function that workers can import: of an installed module, or of one in the driver's working folder or
                beside its script.
            jobs: the work; a pool may read all of it before the first job runs.
            shared: the object that every job may read; must be picklable, and its arrays arrive read-only.

        Yields:
            Each job once, in any order, with its result or Failure. A job with `split()` is yielded as its parts if it
            had to be split; text is never split.

        Raises:
            Exception: the one with a true `stops_the_run` that a job raised; no further job is started.
            RepeatedFailure: as of FailureCounter.
        """

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class FailureCounter:
    """Stops a run whose first outcomes are all one failure, as of a network that raises in every model.

    Attempts are counted, so that jobs that end their worker each time, which takes long, stop a run after fewer jobs.

    Args:
        count_workers: returns how many jobs run at once.
        keep_going: nothing is counted.
    """

    def __init__(self, count_workers: Callable[[], int], *, keep_going: bool) -> None:
        self._count_workers, self._is_counting = count_workers, not keep_going
        self._n_jobs = self._n_attempts = 0
        self._first: tuple[str, str] | None = None

    def record(self, outcome: Any) -> None:
        """Count the outcome of a job; RepeatedFailure once enough of them are the same failure."""
        if not self._is_counting:
            return
        if not isinstance(outcome, Failure):
            self._is_counting = False
            return
        # Numbers and names differ from job to job where the cause is one.
        kind_and_text = outcome.kind, VARYING_TEXT.sub("#", outcome.error)
        self._first = self._first or kind_and_text
        if kind_and_text != self._first:
            self._is_counting = False
            return
        self._n_jobs, self._n_attempts = self._n_jobs + 1, self._n_attempts + outcome.attempts
        # Three jobs at least: a single one that lost ten nodes has ten attempts. The workers are counted last, since on
        # a cluster that is a request.
        if (
            self._n_jobs >= MIN_REPEATED_JOBS
            and self._n_attempts >= MIN_REPEATED_ATTEMPTS
            and self._n_attempts >= REPEATED_ATTEMPTS_PER_WORKER * self._count_workers()
        ):
            attempts = f" ({self._n_attempts} attempts)" if self._n_attempts > self._n_jobs else ""
            raise RepeatedFailure(
                f"the first {self._n_jobs} jobs{attempts} all failed in the same way, and the others were not tried: "
                f"{outcome.error}; correct the cause and run the same command again, or add --keep-going to try them"
            )


class SerialPool:
    """A pool in this process, one job after the other: for tests, breakpoints and laptops.

    Args:
        keep_going: also where the first jobs all fail in the same way; see FailureCounter.
    """

    workers = 1

    def __init__(self, *, keep_going: bool = False) -> None:
        self.keep_going = keep_going

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for each job in order, reading the jobs one by one; see Pool.run."""
        # a job that writes into its arrays fails here as it would on a cluster
        shared, n_lost_gpus = make_read_only_copy(shared), 0
        counter = FailureCounter(lambda: 1, keep_going=self.keep_going)
        for job in jobs:
            outcome: Result | Failure
            try:
                outcome, n_lost_gpus = fn(job, shared), 0
            except BaseException as error:  # one bad job must not end the other 9,999
                if passes_pool(error):
                    raise
                outcome = Failure(error=format_error(error), traceback=traceback.format_exc())
                n_lost_gpus = n_lost_gpus + 1 if is_broken_device(error) else 0
            yield job, outcome
            if isinstance(outcome, Failure):
                check_lost_gpus(n_lost_gpus, outcome.error)
            counter.record(outcome)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """There are no workers to end."""


def check_lost_gpus(n_lost: int, error: str) -> None:
    """Raise RunStopped if the last jobs of this process show that it can no longer use its GPU."""
    # one of them may be that job's own fault, and then the next one succeeds; all others of the run would fail too
    if n_lost >= MAX_LOST_GPUS:
        raise RunStopped(
            f"this process lost its GPU, in {n_lost} jobs in a row ({error}); {RERUN_HINT}, "
            "or use --pool ray, which replaces such a process"
        )


def is_fatal(error: BaseException) -> bool:
    """Return whether an exception is marked as one after which no further job can succeed."""
    return bool(getattr(error, "stops_the_run", False))


def passes_pool(error: BaseException) -> bool:
    """Return whether an exception of a job in this process ends the run: it says so, or the user pressed Ctrl-C."""
    # Others that are no Exception, such as SystemExit, are raised by a user's code, and are that job's failure.
    return isinstance(error, KeyboardInterrupt) or is_fatal(error)


def format_error(error: BaseException) -> str:
    """Return type and message of an exception on a single line; the message alone if it is `for_user`."""
    message = " ".join(str(error).split())
    return message if getattr(error, "for_user", False) else f"{type(error).__name__}: {message}".removesuffix(": ")


def make_read_only_copy(shared: Any) -> Any:
    """Return a copy of shared whose contiguous arrays use the same memory, read-only, as a worker receives it."""
    # protocol 5 hands out an array's memory instead of a copy; rebuilt from read-only views, the copies share it
    buffers: list[pickle.PickleBuffer] = []
    content = pickle.dumps(shared, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(content, buffers=[buffer.raw().toreadonly() for buffer in buffers])
