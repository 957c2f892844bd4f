"""Write results in a thread beside the training, in order, without losing an error."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from types import TracebackType


class BackgroundWriter:
    """Runs one write at a time in a thread while the caller goes on; without threads, at once.

    The error of a write is raised by the next `run`, or at the end of the context. If the caller has failed too, its
    own error is raised, with a note of the other, unless that one stops the run.
    """

    def __init__(self, threads: Executor | None) -> None:
        self.threads = threads
        self.pending: Future[None] | None = None

    def run(self, write: Callable[[], None]) -> None:
        """Start a write once the one before has ended, so that the results of one model at most wait in memory."""
        self.wait()
        if self.threads is None:
            write()
        else:
            self.pending = self.threads.submit(write)

    def wait(self) -> None:
        """Wait for the write that is running, and raise its error."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.result()

    def __enter__(self) -> "BackgroundWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.wait()
        except Exception as failure:
            if error is None or getattr(failure, "stops_the_run", False):
                raise
            error.add_note(f"and the results of the model before it could not be written: {failure}")
