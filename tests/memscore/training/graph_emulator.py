"""CUDA graphs on a CPU: record every operation of a step with its tensors, and replay them into the same storages.

What the host does in the step (numbers, branches, draws from host generators) is frozen at the recording, as in a CUDA
graph. torch's generator on the CPU stands for the device's, so networks with dropout draw anew at every replay. Under
torch's sync debug mode "error", and in a recording, an operation that would wait for the device raises.

    with emulate_graphs():
        engine = CudaGraphEngine(model, images, labels, recipe, capture=True)

torch.cuda.graph itself is torch's own, so what it does around a recording that fails is what the installed version
does.
"""

import contextlib
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from memscore.models import compiled_convolutions
from memscore.training import graph_recording
from memscore.training.graph_recording import snapshot_host_state

WAITING = {
    f"aten.{name}"
    for name in (
        *("_local_scalar_dense.default", "nonzero.default", "masked_select.default", "is_nonzero.default"),
        *("equal.default", "item.default", "unique_consecutive.default", "_unique2.default"),
    )
}


class EmulatedStream:
    """Names a place in the order of work; on a CPU everything runs at once and in order."""

    def __init__(self, device=None, **_):
        self.device = torch.device("cpu")

    def wait_stream(self, other):
        assert isinstance(other, EmulatedStream)


class WaitingForbidden(TorchDispatchMode):
    """Raises where a GPU would have to wait, with torch's words."""

    message = "called a synchronizing CUDA operation"

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if str(operation) in WAITING:
            raise RuntimeError(f"{self.message}: {operation}")
        return operation(*args, **(kwargs or {}))


class Recorder(WaitingForbidden):
    """Runs operations and keeps them with their arguments and results."""

    message = "CUDA error: operation not permitted when stream is capturing"

    def __init__(self, operations):
        super().__init__()
        self.operations = operations

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = super().__torch_dispatch__(operation, types, args, kwargs)
        self.operations.append((operation, args, kwargs or {}, result))
        return result


class EmulatedGraph:
    """In place of torch.cuda.CUDAGraph."""

    capturing = None  # the graph that is recorded now

    def __init__(self):
        self.operations = []
        self.recorder = Recorder(self.operations)

    def capture_begin(self, *pool, capture_error_mode="global", **_):
        self.capture_error_mode = capture_error_mode
        EmulatedGraph.capturing = self
        self.recorder.__enter__()

    def capture_end(self):
        self.recorder.__exit__(None, None, None)
        EmulatedGraph.capturing = None

    def reset(self):
        self.operations.clear()

    @torch.no_grad()
    def replay(self):
        """Run the operations again; results go where those of the recording are, as a graph's addresses are fixed."""
        for operation, args, kwargs, recorded in self.operations:
            if str(operation).startswith("aten.empty"):  # what it returned is written by a later operation
                continue
            results = zip(tree_leaves(operation(*args, **kwargs)), tree_leaves(recorded), strict=True)
            for result, storage in results:
                if isinstance(result, torch.Tensor) and result.data_ptr() != storage.data_ptr():
                    storage.detach().copy_(result)


@contextlib.contextmanager
def run_plain_convolutions():
    """Run the small CNN's layers one by one, as a GPU does: on a CPU they are compiled, and have other bits."""
    with mock.patch.object(compiled_convolutions, "find_processor", return_value="a GPU is emulated"):
        yield


@contextlib.contextmanager
def emulate_graphs():
    """Patch torch.cuda so that graphs are emulated on the CPU."""
    current, checks = [EmulatedStream()], []

    @contextlib.contextmanager
    def use_stream(stream):
        # as torch.cuda.StreamContext: leaving it sets the stream that was the current one when it was entered
        before, current[:] = current[0], [stream]
        try:
            yield
        finally:
            current[:] = [before]

    def set_sync_debug_mode(mode):
        if mode == "error":
            checks.append(WaitingForbidden())
            checks[-1].__enter__()
        elif checks:
            checks.pop().__exit__(None, None, None)

    def get_state(device=None):
        return torch.default_generator.get_state()

    cuda = {
        "Stream": EmulatedStream,
        "CUDAGraph": EmulatedGraph,
        "stream": use_stream,
        "current_stream": lambda device=None: current[0],
        "is_current_stream_capturing": lambda: EmulatedGraph.capturing is not None,
        "synchronize": lambda device=None: None,
        "empty_cache": lambda: None,
        "get_rng_state": get_state,
        "get_sync_debug_mode": lambda: "default",
        "set_sync_debug_mode": set_sync_debug_mode,
        "mem_get_info": lambda device=None: (2**40, 2**40),
        "get_per_process_memory_fraction": lambda device=None: 1.0,
        "memory_reserved": lambda device=None: 0,
        "memory_allocated": lambda device=None: 0,
    }

    def snapshot(network):
        # The host's generator, which a graph would not repeat, is another one than the device's.
        return {k: v for k, v in snapshot_host_state(network).items() if k != "torch's generator on the CPU"}

    with contextlib.ExitStack() as stack:
        for name, replacement in cuda.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, replacement))
        stack.enter_context(mock.patch.object(torch._C, "_host_emptyCache", create=True))
        for name, replacement in (("snapshot_host_state", snapshot), ("_streams", {}), ("_stream_users", {})):
            stack.enter_context(mock.patch.object(graph_recording, name, replacement))
        yield
