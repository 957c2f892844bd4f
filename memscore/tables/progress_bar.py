"""How far a run is: a bar in a terminal, a plain line every few seconds in a log."""

import math
import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from memscore.monitoring.heartbeat import Heartbeat

EVERY_S = 5.0
STILL_S = 60.0  # a run whose models take long says so often that it lives


class ProgressBar:
    """Told how far something is; a context manager.

    Args:
        what: is counted.
        stream: where lines go, stderr if None; a bar is drawn where it is a terminal.
        every_s: seconds between two lines that say something new.
        still_s: seconds after which a line is repeated.
    """

    def __init__(
        self, what: str, stream: TextIO | None = None, every_s: float = EVERY_S, still_s: float = STILL_S
    ) -> None:
        self.what, self.every_s, self.still_s = what, every_s, still_s
        self.stream = stream or sys.stderr
        self.began = self.last = time.monotonic()
        self.said, self.silent = "", True
        self.bar: Progress | None = None
        if self.stream.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            text = TextColumn("{task.fields[line]}", markup=False)
            self.bar = Progress(*columns, text, console=Console(file=self.stream))
            self.task = self.bar.add_task(what, total=None, line="")

    def __enter__(self) -> "ProgressBar":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.live.transient = self.silent  # a bar of nothing is taken away
            self.bar.stop()

    def __call__(self, done: int, total: int, line: str) -> None:
        """Say that so many of so many are done; rate and time left are those since the beginning."""
        rate = done / max(time.monotonic() - self.began, 1e-9)
        left = f", {format_duration((total - done) / rate)} left" if rate and done < total else ""
        self._show(self.what, done, total, f"{rate:.3g}/s{left}", line, last=done == total)

    def beat(self, beat: Heartbeat) -> None:
        """Say how a watched run stands: done, rate, time left, failures, workers; always at its end."""
        last = beat.state != "running"
        if last:
            part = beat.phase if beat.phase in {"originals", "proxies"} else self.what
            after = f"{beat.state} after {format_duration(beat.at - beat.began)}"
            self._show(part, beat.done, beat.total, format_counts(beat), after, last=True)
        elif beat.total or beat.phase != "models":
            self._show(beat.phase, beat.done, beat.total, format_counts(beat), beat.line, last=False)

    def _show(self, what: str, done: int, total: int, facts: str, line: str, *, last: bool) -> None:
        """Move the bar, or write a line if one is due."""
        self.silent = False
        if self.bar:
            self.bar.update(self.task, description=what, completed=done, total=total, line=f"{facts}; {line}")
            return
        now = time.monotonic()
        new = f"{what} {done}" != self.said
        if last or now - self.last >= (self.every_s if new else self.still_s):
            self.stream.write(f"{what} {done}/{total}, {facts}" + (f"; {line}\n" if line else "\n"))
            self.stream.flush()
            self.last, self.said = now, f"{what} {done}"


def format_counts(beat: Heartbeat) -> str:
    """Rate, time left, what went wrong, and who works.

    Args:
        beat: a run at one moment.

    Returns:
        One line.
    """
    parts = [f"{3600 * beat.rate_per_s:.0f} an hour"] if beat.rate_per_s else []
    running = beat.state == "running"
    if running and beat.eta_s is not None and beat.phase == "models":
        parts.append(f"{format_duration(beat.eta_s)} left")
    parts.append(f"{beat.failed} failed")
    parts += [f"{beat.diverged} diverged"] if beat.diverged else []
    again = ", ".join(f"{many} {kind}" for kind, many in sorted(beat.retried.items()))
    parts += [f"tried again: {again}"] if again else []
    if running:
        busy = "" if beat.busy is None else f"{beat.busy} of "
        parts.append(f"{busy}{beat.workers} worker{'' if beat.workers == 1 else 's'}")
    return ", ".join(parts)


def format_duration(seconds: float) -> str:
    """Seconds as people say them.

    Args:
        seconds: 0 or more.

    Returns:
        Two units at most.

    >>> [duration(s) for s in (0.4, 59, 61, 3660, 200_000)]
    ['0 s', '59 s', '1 min 1 s', '1 h 1 min', '2 d 7 h']
    """
    if not math.isfinite(seconds):
        return "-"
    whole = max(int(seconds), 0)
    for unit, part, size in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        if whole >= size:
            rest = whole % size // (size // {"d": 24, "h": 60, "min": 60}[unit])
            return f"{whole // size} {unit} {rest} {part}"
    return f"{whole} s"
