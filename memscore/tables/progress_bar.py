"""Show the progress of a run: a bar in a terminal, a plain line every few seconds in a log."""

import sys
import time
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from memscore.monitoring.heartbeat import Heartbeat
from memscore.units import format_count, format_duration, format_rate
from memscore.visible_text import escape_controls

UPDATE_S = 5.0
BAR_WIDTH = 20
REPEAT_S = 60.0  # so a run whose models take long shows that it is alive


class ProgressBar:
    """Shows how many of something are done, as a bar if the stream is a terminal, else as lines; a context manager.

    In a log, a line with new counts follows after update_s seconds at the earliest, the same line after repeat_s.
    """

    def __init__(
        self, label: str, stream: TextIO | None = None, update_s: float = UPDATE_S, repeat_s: float = REPEAT_S
    ) -> None:
        self.label, self.update_s, self.repeat_s = label, update_s, repeat_s
        self.stream = stream or sys.stderr
        self.began = self.last = time.monotonic()
        self.last_text, self.is_empty = "", True
        # no columns of rich for speed and time left: the text has them, as in a log
        self.bar: Progress | None = None
        if self.stream.isatty():
            # rich's column of counts shows a question mark where there is no total
            columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=BAR_WIDTH))
            # in as many lines as it takes; rich's own columns are cut
            text = TextColumn("{task.fields[line]}", markup=False, table_column=Column(no_wrap=False))
            self.bar = Progress(*columns, text, console=Console(file=self.stream))
            self.task = self.bar.add_task(label, total=None, line="")

    def __enter__(self) -> "ProgressBar":
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.live.transient = self.is_empty  # an empty bar is removed
            self.bar.stop()

    def __call__(self, done: int, total: int, line: str) -> None:
        """Show the number done of the total; rate and time left are averages since the start."""
        rate = done / max(time.monotonic() - self.began, 1e-9)
        left = f", {format_duration((total - done) / rate)} left" if rate and done < total else ""
        self._show(self.label, done, total, f"{format_rate(rate)}{left}", line, is_last=done == total)

    def show_heartbeat(self, heartbeat: Heartbeat) -> None:
        """Show a monitored run: done, rate, time left, failures, workers; always at its end."""
        # Nothing is shown before the first jobs are known. The last line is about the models, unless the run ended
        # among originals or proxies.
        is_last = heartbeat.state != "running"
        if is_last:
            phase = heartbeat.phase if heartbeat.phase in {"originals", "proxies"} else self.label
            line = f"{heartbeat.state} after {format_duration(heartbeat.at - heartbeat.began)}"
            self._show(phase, heartbeat.done, heartbeat.total, format_counts(heartbeat), line, is_last=True)
        elif heartbeat.total or heartbeat.phase != "models":
            self._show(
                heartbeat.phase,
                heartbeat.done,
                heartbeat.total,
                format_counts(heartbeat),
                heartbeat.line,
                is_last=False,
            )

    def _show(self, label: str, done: int, total: int, counts: str, line: str, *, is_last: bool) -> None:
        """Move the bar, or write a line if one is due."""
        self.is_empty = False
        label, counts, line = map(escape_controls, (label, counts, line))
        if self.bar:
            text = "; ".join(filter(None, (counts, line)))
            self.bar.update(
                self.task, description=format_progress(label, done, total), completed=done, total=total, line=text
            )
        now = time.monotonic()
        is_new = f"{label} {done}" != self.last_text
        if is_last or now - self.last >= (self.update_s if is_new else self.repeat_s):
            text = f"{format_progress(label, done, total)}, {counts}" + (f"; {line}" if line else "")
            # a bar shows it already; only the log of the store, if stderr has one, keeps it as a line
            if self.bar is None:
                self.stream.write(f"{text}\n")
                self.stream.flush()
            elif keep_lines := getattr(self.stream, "keep_lines", None):
                keep_lines(text)
            self.last, self.last_text = now, f"{label} {done}"


def format_progress(label: str, done: int, total: int) -> str:
    """Format what is done, and how many of how many; without counts where there is nothing to count.

    >>> format_progress("models", 3, 256), format_progress("models", 0, 0)
    ('models 3/256', 'models: none to train')
    >>> format_progress("scores and reports", 0, 0)
    'scores and reports'
    """
    if total:
        return f"{label} {done}/{total}"
    return f"{label}: none to train" if label == "models" else label


def format_counts(heartbeat: Heartbeat) -> str:
    """Format rate, time left, failures and workers of a run in one line; what is unknown or 0 is left out."""
    parts = [format_rate(heartbeat.rate_per_s)] if heartbeat.rate_per_s else []
    is_running = heartbeat.state == "running"
    if is_running and heartbeat.eta_s is not None and heartbeat.phase == "models":
        parts.append(f"{format_duration(heartbeat.eta_s)} left")
    parts.append(f"{heartbeat.failed} failed")
    parts += [f"{heartbeat.diverged} diverged"] if heartbeat.diverged else []
    retried = ", ".join(f"{count} {kind}" for kind, count in sorted(heartbeat.retried.items()))
    parts += [f"tried again: {retried}"] if retried else []
    if is_running:
        busy = "" if heartbeat.busy is None else f"{heartbeat.busy} of "
        parts.append(f"{busy}{format_count(heartbeat.workers, 'worker')}")
    return ", ".join(parts)
