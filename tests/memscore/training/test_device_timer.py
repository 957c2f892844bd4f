"""Seconds of parts of a training, on a GPU by marks that the host does not wait for."""

import pytest
import torch

from memscore.training.device_timer import DeviceTimer


def test_only_what_is_measured_counts_also_where_it_raises(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])
    timer = DeviceTimer(torch.device("cpu"))
    assert timer.sum_seconds() == 0
    for seconds in (2, 3):
        with timer.measure():
            clock[0] += seconds
        clock[0] += 100

    def fail():
        with timer.measure():
            clock[0] += 1
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert timer.sum_seconds() == 6


def test_on_a_gpu_the_host_waits_once_at_the_end(monkeypatch):
    """Marks of a made-up stream, in which 250 ms pass between any two."""
    calls = []

    class Mark:
        def __init__(self, *, enable_timing):
            assert enable_timing

        def record(self, stream):
            self.at = 250 * len(calls)
            calls.append("mark")

        def elapsed_time(self, later):
            assert calls[-1] == "wait"  # else the stream has not come so far
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Mark)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: calls.append("wait"))
    timer = DeviceTimer(torch.device("cuda"))
    for _ in range(3):
        with timer.measure():
            pass
    assert calls == ["mark"] * 6
    assert timer.sum_seconds() == 0.75
