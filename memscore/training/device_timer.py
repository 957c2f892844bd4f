"""Time parts of a training that are repeated, without making the host wait for a GPU."""

import time
from collections.abc import Generator
from contextlib import contextmanager

import torch


class DeviceTimer:
    """The seconds of all parts that ran within `measure`: of this process on a CPU, of the device's stream on a GPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    @contextmanager
    def measure(self) -> Generator[None, None, None]:
        """Measure what is done within."""
        if self.device.type == "cuda":
            # marks in the stream, which runs behind the host: reading their times now would wait for it
            began = self._mark()
            try:
                yield
            finally:
                self._events.append((began, self._mark()))
            return
        started = time.perf_counter()
        try:
            yield
        finally:
            self._seconds += time.perf_counter() - started

    def sum_seconds(self) -> float:
        """Sum all that was measured, once a GPU is done with it."""
        if self._events:
            torch.cuda.synchronize(self.device)
        milliseconds = sum(float(began.elapsed_time(ended)) for began, ended in self._events)
        return self._seconds + milliseconds / 1000

    def _mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event
