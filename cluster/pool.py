"""The promise of a pool, without Ray: a function, jobs, what they share; each job back once, with a result or Failure.

    with SerialPool() as pool:
        for job, outcome in pool.run(train, jobs, shared=images):
            ...

A job may have `split()`, which gives smaller jobs that together do the same work. A pool that has seen a job take its
worker down again and again yields those parts in its stead, so one bad model does not cost a whole stack.

An exception whose attribute `is_fatal` is true ends the run and reaches the caller of `run`; it may be defined
anywhere, so that what publishes results need not know this package. Any other exception is that job's own Failure.
"""

import pickle
import traceback
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job has no result.

    kind says what ended it: an "exception" of the job itself; its "worker" died; more than a few "node"s were lost
    under it; "memory" ran out (the host's or the GPU's); its "deadline" passed; "publish": it could not be kept.
    """

    error: str  # one line: type and message
    kind: Literal["exception", "worker", "node", "memory", "deadline", "publish"] = "exception"
    attempts: int = 1
    traceback: str = ""  # of the exception, or the cluster's account of what it saw


class RunStopped(OSError):
    """Nothing can be kept any more: the run stops, and goes on where it was with the next command."""

    stops_the_run = True


RERUN_HINT = "what is finished is kept: run the same command again"


class ClusterLost(RuntimeError):
    """What runs the jobs failed itself: the run ends, and goes on where it was with the next command."""

    exit_code = 1


class Pool(Protocol):
    """What runs jobs, here or elsewhere; nobody who is handed one sees which."""

    @property
    def workers(self) -> int:
        """How many jobs run at once, as things stand now."""

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for every job; yield each job once, in any order; arrays in shared are read-only."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class SerialPool:
    """The promise in this process and in order: for tests, breakpoints and laptops."""

    workers = 1

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for each job in order.

        Args:
            fn: a function of a job and of what all jobs share.
            jobs: the work; read as it is needed.
            shared: what every job may read; must be picklable.

        Yields:
            The job, and its result or Failure.

        Raises:
            Exception: the one with a true `is_fatal` that a job raised.
        """
        shared = make_read_only_copy(shared)
        for job in jobs:
            outcome: Result | Failure
            try:
                outcome = fn(job, shared)
            except Exception as error:  # one bad job must not end the other 9,999
                if is_fatal(error):
                    raise
                outcome = Failure(error=format_error(error), traceback=traceback.format_exc())
            yield job, outcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to hand back."""


def is_fatal(error: BaseException) -> bool:
    """Whether an exception says of itself that no further job can succeed."""
    return bool(getattr(error, "stops_the_run", False))


def format_error(error: BaseException) -> str:
    """Type and message of an exception on a single line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")


def make_read_only_copy(shared: Any) -> Any:
    """A twin of shared whose contiguous arrays are the same memory, read-only."""
    buffers: list[pickle.PickleBuffer] = []
    head = pickle.dumps(shared, protocol=5, buffer_callback=buffers.append)
    return pickle.loads(head, buffers=[buffer.raw().toreadonly() for buffer in buffers])
