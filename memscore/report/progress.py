"""How far a run is: a bar in a terminal, a plain line every few seconds in a log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class Meter:
    """Told done, total and a line after every job; a context manager."""

    def __init__(self, what: str, every_s: float = 5.0) -> None:
        self.what, self.every_s = what, every_s
        self.console = Console(stderr=True)
        self.started = self.last = time.monotonic()
        self.bar = self.task = None
        if sys.stderr.isatty():
            self.bar = Progress(
                TextColumn(what),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[line]}", markup=False),
                console=self.console,
            )
            self.task = self.bar.add_task(what, total=None, line="")

    def __enter__(self) -> "Meter":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def __call__(self, done: int, total: int, line: str) -> None:
        """Show that so many of so many models are done."""
        if self.bar and self.task is not None:
            self.bar.update(self.task, completed=done, total=total, line=line)
            return
        now = time.monotonic()
        if done == total or now - self.last >= self.every_s:
            rate = done / max(now - self.started, 1e-9)
            left = (total - done) / rate if rate else float("inf")
            print(f"{self.what} {done}/{total}, {rate:.2f}/s, {left:.0f} s left; {line}", file=sys.stderr, flush=True)
            self.last = now
