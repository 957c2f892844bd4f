"""What a graph would not repeat is refused before the recording, and what follows if a recording fails."""

import gc
import random
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from cluster.device_errors import is_broken_device, is_memory_shortage
from memscore.training import graph_recording
from memscore.training.graph_recording import (
    STREAMS,
    GraphCaptureError,
    GraphRecordingError,
    describe_value,
    handle_failed_recording,
    record_graph,
    require_unchanged_host_state,
    snapshot_host_state,
    take_stream,
)
from tests.memscore.training.graph_emulator import EmulatedGraph, EmulatedStream, emulate_graphs

CPU = torch.device("cpu")
NOT_A_NUMBER = float("nan")


class HostSideEffect(nn.Module):
    """Has an effect on the host that a graph would not repeat."""

    def __init__(self, effect):
        super().__init__()
        self.effect, self.calls, self.seen, self.threshold = effect, 0, [], NOT_A_NUMBER
        self.counts, self.nested, self.recent = [0, 0], {"layer": [(1, 2.5), {"calls": 0}]}, deque([1.0], maxlen=1)
        self.histogram = np.zeros(3)
        self.large, self.others = [0] * 5000, [torch.zeros(1), object()]

    def forward(self, images):
        effects = {
            "counts": lambda: setattr(self, "calls", self.calls + 1),
            "remembers": lambda: self.seen.append(len(images)),
            "an element": lambda: self.counts.__setitem__(0, self.counts[0] + 1),
            "nested": lambda: self.nested["layer"][1].update(calls=1),
            "replaces": lambda: self.recent.append(2.0),
            "array": lambda: self.histogram.__setitem__(1, 1),
            "large": lambda: self.large.append(0),
            "others": lambda: self.others.append(object()),
            # ruff: ignore[numpy-legacy-random] - a user's network may
            "numpy": lambda: np.random.rand(),
            "python": random.random,
            "torch": lambda: torch.rand(1),
            "tensors": lambda: self.others[0].add_(1),
            "none": lambda: None,
        }
        effects[self.effect]()
        return images


@pytest.mark.parametrize(
    ("effect", "named"),
    [
        ("counts", "the network.calls"),
        ("remembers", "the network.seen"),
        ("an element", "the network.counts"),
        ("nested", "the network.nested"),
        ("replaces", "the network.recent"),
        ("array", "the network.histogram"),
        ("large", "the network.large"),
        ("others", "the network.others"),
        ("numpy", "numpy's generator"),
        ("python", "Python's generator"),
        ("torch", "torch's generator on the CPU"),
    ],
)
def test_what_a_graph_would_not_repeat_is_named(effect, named):
    network = HostSideEffect(effect)
    before = snapshot_host_state(network)
    network(torch.zeros(2))
    with pytest.raises(GraphCaptureError, match=f"^a step changes {named}$"):
        require_unchanged_host_state(before, snapshot_host_state(network))


@pytest.mark.parametrize("effect", ["none", "tensors"])
def test_what_a_graph_repeats_is_no_change_and_neither_is_a_nan(effect):
    pure = HostSideEffect(effect)
    before = snapshot_host_state(pure)
    pure(torch.zeros(2))
    require_unchanged_host_state(before, snapshot_host_state(pure))


def test_a_container_that_holds_itself_or_very_many_values_is_described_by_its_size():
    itself = [1]
    itself.append(itself)
    assert describe_value(itself) == "list of 2"
    assert describe_value([[0] * 600, [0] * 600]) == "list of 2"
    assert describe_value([[0] * 400, [0] * 400]) == repr([[0] * 400, [0] * 400])


class Failing:
    """A step that fails while it is recorded, not before; or ends so that ending the recording fails."""

    def __init__(self, error=None, ending=None, monkeypatch=None):
        self.error, self.x = error, torch.zeros(1)
        self.resets = []
        if ending is not None:
            real = EmulatedGraph.capture_end

            def capture_end(graph):
                real(graph)
                raise ending

            monkeypatch.setattr(EmulatedGraph, "capture_end", capture_end)
            monkeypatch.setattr(EmulatedGraph, "reset", lambda graph: self.resets.append(graph))

    def __call__(self):
        self.x.add_(torch.rand(1))
        if self.error is not None and torch.cuda.is_current_stream_capturing():
            raise self.error


INVALIDATED = "CUDA error: operation failed due to a previous error during capture"


def accelerator_error(text):
    """torch's class has no constructor of one argument in every version."""
    return type("AcceleratorError", (RuntimeError,), {})(text)


@pytest.fixture
def emulated(monkeypatch):
    """Emulated graphs, and no pool that replaces this process."""
    monkeypatch.delenv("MEMSCORE_WORKER", raising=False)
    with emulate_graphs():
        yield


@pytest.mark.parametrize("during", [None, ValueError("only while recording")])
def test_a_failed_recording_restores_stream_and_generators_and_is_an_error_of_its_own(emulated, monkeypatch, during):
    step = Failing(during, accelerator_error(INVALIDATED), monkeypatch)
    stream, rng_state = torch.cuda.current_stream(), torch.default_generator.get_state()
    with pytest.raises(GraphRecordingError, match=r"^recording it failed: CUDA error: operation failed") as raised:
        record_graph(step, nn.Identity(), EmulatedStream())
    assert torch.cuda.current_stream() is stream
    assert torch.equal(rng_state, torch.default_generator.get_state())
    assert len(step.resets) == 1
    assert step.resets[0].capture_error_mode == "thread_local"
    assert is_broken_device(raised.value)
    assert not is_memory_shortage(raised.value)


def test_an_error_while_recording_alone_counts_as_broken_too(emulated):
    with pytest.raises(GraphRecordingError, match=r"^recording it failed: only while recording") as raised:
        record_graph(Failing(ValueError("only while recording")), nn.Identity(), EmulatedStream())
    assert is_broken_device(raised.value)


@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
@pytest.mark.parametrize("hidden", [False, True])
def test_memory_that_runs_out_in_a_recording_is_the_pool_s_business_by_whatever_name(
    emulated, monkeypatch, full, hidden
):
    step = Failing(full, accelerator_error(INVALIDATED) if hidden else None, monkeypatch)
    with pytest.raises(torch.OutOfMemoryError):
        record_graph(step, nn.Identity(), EmulatedStream())


@pytest.mark.parametrize(
    ("free", "kind"), [(99, torch.OutOfMemoryError), (100, GraphRecordingError), (10**6, GraphRecordingError)]
)
def test_an_allocation_that_a_recording_does_not_allow_is_short_memory_where_a_step_takes_more_than_is_free(
    emulated, monkeypatch, free, kind
):
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 150)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 50)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**6))
    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", lambda device: 1.0)
    step = Failing(None, accelerator_error(INVALIDATED), monkeypatch)
    with pytest.raises(kind):
        record_graph(step, nn.Identity(), EmulatedStream())


def test_errors_before_the_recording(emulated):
    def fail(error):
        def step():
            raise error

        return step

    # the network's own error comes again in the eager engine; a broken device is no reason to go on
    with pytest.raises(GraphCaptureError, match=r"^a step fails: wrong shape$"):
        record_graph(fail(ValueError("wrong shape")), nn.Identity(), EmulatedStream())
    with pytest.raises(RuntimeError, match="illegal memory access") as raised:
        record_graph(fail(accelerator_error("CUDA error: an illegal memory access")), nn.Identity(), EmulatedStream())
    assert not isinstance(raised.value, GraphRecordingError)
    with pytest.raises(torch.OutOfMemoryError):
        record_graph(fail(RuntimeError("CUDNN_STATUS_ALLOC_FAILED")), nn.Identity(), EmulatedStream())


def fail_to_record(network="a network", recorded=0):
    with handle_failed_recording(network, recorded, CPU):
        raise GraphRecordingError("recording it failed: CUDA error")


def test_without_a_pool_that_replaces_it_a_process_goes_on_without_the_graph_if_its_gpu_works(emulated, monkeypatch):
    with pytest.raises(GraphCaptureError, match=r"^recording it failed: CUDA error$"):
        fail_to_record()
    # and does not try again, whatever else it trains in between
    with (
        pytest.raises(GraphCaptureError, match=r"^recording it has failed before$"),
        handle_failed_recording("a network", 0, CPU),
    ):
        pytest.fail("it is recorded again")
    with handle_failed_recording("another network", 0, CPU):
        pass

    def broken(*args, **kwargs):
        raise accelerator_error("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(torch, "rand", broken)
    with pytest.raises(GraphRecordingError):
        fail_to_record("a third network")


def test_a_worker_that_is_replaced_raises_and_its_successor_knows(emulated, monkeypatch):
    monkeypatch.setenv("MEMSCORE_WORKER", "1")
    with pytest.raises(GraphRecordingError) as raised:
        fail_to_record(recorded=1)
    variables = raised.value.worker_environment
    for name in variables:
        monkeypatch.delenv(name)
    with handle_failed_recording("a network", 1, CPU):
        pass
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with handle_failed_recording("a network", 0, CPU):  # one graph was recorded, so one can be
        pass
    with (
        pytest.raises(GraphCaptureError, match=r"^recording another graph has failed before$"),
        handle_failed_recording("a network", 1, CPU),
    ):
        pytest.fail("it is recorded again")


def test_living_engines_have_streams_of_their_own_and_those_of_dead_ones_are_used_again(emulated):
    class Engine:
        pass

    alive = [Engine() for _ in range(STREAMS)]
    streams = [take_stream(engine, CPU) for engine in alive]
    assert len(set(map(id, streams))) == STREAMS
    with pytest.raises(RuntimeError, match=f"{STREAMS} CUDA graphs exist"):
        take_stream(Engine(), CPU)
    del alive[3]
    gc.collect()
    another = Engine()
    assert take_stream(another, CPU) is streams[3]
    assert len(graph_recording._streams[CPU]) == STREAMS
