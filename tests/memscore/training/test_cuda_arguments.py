"""torch's own checks of what is passed to torch.cuda, without a GPU: only what lies below them is replaced.

A wrong argument (a device without an index where one is needed, a name that does not exist, a keyword that a version
lacks) raises its real error here. What the calls do on a GPU is tested by test_gpu.py.
"""

from types import SimpleNamespace
from unittest import mock

import pytest
import torch
from torch import nn
from torch.cuda._utils import _get_device_index

from memscore.pipeline.jobs import describe_worker
from memscore.training import engines
from memscore.training.graph_recording import forbid_device_sync, record_graph, run_warmup_steps
from memscore.training.numerics import limit_gpu_memory

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="this build of torch has no torch.cuda functions")
DEVICES = [torch.device("cuda"), torch.device("cuda:0")]
GIB = 2**30
MADE_LATER = {"torch.cuda._get_device_properties", "torch._C._host_emptyCache"}
"""Missing before CUDA is initialized, or in some versions."""


class FakeStream:
    """A stream of the first GPU that notes which streams it waits for."""

    def __init__(self, name):
        self.name, self.device, self.waited = name, torch.device("cuda:0"), []

    def wait_stream(self, other):
        self.waited.append(other.name)


@pytest.fixture
def driver(monkeypatch):
    """Replace CUDA's driver below torch's Python functions; returns what was set there."""
    state = SimpleNamespace(
        current=FakeStream("current"), sync_mode=0, fractions=[], synchronized=0, graph=None,
        memory=SimpleNamespace(name="a GPU", total_memory=80 * GIB, multi_processor_count=132),
    )  # fmt: skip
    # autospec refuses arguments that this version's functions do not have
    state.graph = mock.create_autospec(torch.cuda.CUDAGraph, instance=True)

    def current_stream(device=None):
        assert _get_device_index(device, optional=True) == 0
        return state.current

    def check_index(index):
        assert index == 0
        return state.memory

    replaced = {
        "torch.cuda._lazy_init": lambda: None,
        "torch.cuda.memory._lazy_init": lambda: None,
        "torch.cuda.random._lazy_init": lambda: None,
        "torch.cuda.is_available": lambda: True,
        "torch.cuda.is_initialized": lambda: True,
        "torch.cuda.device_count": lambda: 1,
        "torch.cuda.current_device": lambda: 0,
        "torch.cuda.current_stream": current_stream,
        "torch.cuda.set_stream": lambda stream: setattr(state, "current", stream),
        "torch.cuda.CUDAGraph": lambda: state.graph,
        "torch.cuda.default_generators": (torch.Generator(),),
        "torch.cuda._get_device_properties": check_index,
        "torch._C._cuda_getDevice": lambda: 0,
        "torch._C._cuda_synchronize": lambda: setattr(state, "synchronized", state.synchronized + 1),
        "torch._C._cuda_emptyCache": lambda: None,
        "torch._C._host_emptyCache": lambda: None,
        "torch._C._cuda_get_sync_debug_mode": lambda: state.sync_mode,
        "torch._C._cuda_set_sync_debug_mode": lambda mode: setattr(state, "sync_mode", mode),
        "torch._C._cuda_setMemoryFraction": lambda fraction, index: state.fractions.append((fraction, index)),
        "torch.cuda._exchange_device": lambda index: 0,
        "torch.cuda._maybe_exchange_device": lambda index: 0,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(name, value, raising=name not in MADE_LATER)
    return state


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_the_receipt_names_the_gpu(driver, device):
    assert describe_worker(device, "highest")["device"] == "a GPU"


def test_a_share_of_the_memory_is_set_for_a_device_by_its_index(driver, monkeypatch):
    monkeypatch.setenv("MEMSCORE_GPU_SHARE", "0.5")
    limit_gpu_memory(torch.device("cuda:0"))
    [(fraction, index)] = driver.fractions
    assert 0.4 < fraction <= 0.5
    assert index == 0


def test_waiting_and_freeing_take_what_torch_takes(driver):
    engines.synchronize()
    engines._engine_cache["an engine",] = []
    engines.clear_engine_cache()
    assert (driver.synchronized, engines._engine_cache) == (2, {})


def test_synchronization_is_forbidden_by_a_mode_that_torch_knows_and_then_allowed_again(driver):
    driver.sync_mode = 1
    with forbid_device_sync():
        assert driver.sync_mode == 2
    assert driver.sync_mode == 1


@pytest.mark.parametrize("device", DEVICES, ids=str)
def test_warmup_steps_ask_the_generator_of_the_device(driver, device):
    generator = torch.cuda.default_generators[0]
    assert not run_warmup_steps(lambda: None, nn.Linear(1, 1), device)
    assert run_warmup_steps(lambda: torch.rand(1, generator=generator), nn.Linear(1, 1), device)
    assert driver.sync_mode == 0


def test_a_graph_is_recorded_on_its_stream_and_the_current_stream_is_restored(driver):
    before, own, calls = driver.current, FakeStream("own"), []
    recorded = record_graph(lambda: calls.append(driver.current.name), nn.Linear(1, 1), own)
    assert calls == ["own"] * 4  # three to warm up, one that is recorded
    assert driver.current is before
    assert (own.waited, before.waited) == (["current"], ["own"])
    driver.graph.capture_begin.assert_called_once()
    driver.graph.capture_end.assert_called_once()
    recorded.replay()
    driver.graph.replay.assert_called_once()


def test_a_step_that_fails_while_it_is_recorded_raises_and_restores_the_current_stream(driver):
    before, calls = driver.current, []

    def step():
        calls.append(driver.current.name)
        if len(calls) == 4:
            raise ValueError("not while recording")

    with pytest.raises(Exception, match="not while recording"):
        record_graph(step, nn.Linear(1, 1), FakeStream("own"))
    assert driver.current is before


def test_these_checks_find_arguments_that_torch_refuses(driver):
    with pytest.raises(ValueError, match="with a specified index"):
        torch.cuda.set_per_process_memory_fraction(0.5, torch.device("cuda"))
    with pytest.raises(RuntimeError, match="invalid value of debug_mode"):
        torch.cuda.set_sync_debug_mode("errors")
    with pytest.raises(TypeError, match="capture_mode"):
        torch.cuda.graph(driver.graph, stream=FakeStream("own"), capture_mode="thread_local")
    # a keyword that this version's graphs do not take is refused when a recording begins
    with pytest.raises(TypeError, match="unknown"):
        driver.graph.capture_begin(unknown="global")
