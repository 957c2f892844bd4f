"""Record a step as a CUDA graph, and what follows if a step is unfit for it or the recording fails.

A graph repeats the kernels of one step on the same addresses. What it would not repeat is checked before the recording:
synchronization with the device, random draws on the host, and plain values and small containers of them that the
network stores in Python attributes. State in other objects, or outside of the network's modules, is not seen: a graph
repeats what it was at the recording.

A network that these checks refuse is trained eagerly. A recording that fails all the same may leave the process unfit
for any later work: torch's allocator and generators may still believe that they record. So the process has to end, and
its successor does not record that network (`handle_failed_recording`).
"""

import hashlib
import os
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from cluster.device_errors import is_broken_device, is_memory_shortage
from memscore.models.random_state import read_generators, restore_generators

PLAIN_TYPES = (bool, int, float, complex, str, bytes, type(None))
CONTAINER_TYPES = (list, tuple, dict, set, frozenset, deque)
COMPARED_VALUES = 1000  # a container with more is compared by its length alone
STREAMS = 20  # for 16 models at once and an evaluation; torch has 32


class GraphCaptureError(Exception):
    """A step is not recorded; the message is a reason that can follow "because"."""


class GraphRecordingError(RuntimeError):
    """A recording failed, after which this process may be unfit for its GPU.

    cluster.device_errors knows this class by its name: a pool replaces the worker and runs its job again.

    Attributes:
        worker_environment: variables for the workers that a pool starts from now on.
    """

    worker_environment: dict[str, str]


class RecordedStep(NamedTuple):
    """A captured step.

    Attributes:
        replay: runs the step on the current stream.
        uses_device_rng: whether it draws from the device's generator, whose state all graphs of a process share: two
            such graphs must not run at once.
    """

    replay: Callable[[], None]
    uses_device_rng: bool


def record_graph(step: Callable[[], None], network: nn.Module, stream: torch.cuda.Stream) -> RecordedStep:
    """Run a step three times, then capture it as a CUDA graph; the global generators are restored.

    Args:
        step: changes tensors only, whose addresses stay the same.
        network: what it trains or evaluates.
        stream: of the graph.

    Returns:
        The recorded step.

    Raises:
        GraphCaptureError: a check refuses the step.
        GraphRecordingError: the recording itself failed.
        torch.OutOfMemoryError: memory ran out.
    """
    # The caller restores the values that the step changes. The streams wait for each other before and after: the
    # current one has written the step's tensors and will read them.
    graph, device, is_recording, step_bytes = torch.cuda.CUDAGraph(), stream.device, False, 0
    stream.wait_stream(torch.cuda.current_stream(device))
    try:
        # torch.cuda.graph leaves its stream the current one if ending the recording fails; the outer context does not.
        with restore_generators(device), torch.cuda.stream(stream):
            uses_device_rng = run_warmup_steps(step, network, device)
            # What the allocator holds and does not use is what a step took, and what the graph takes once more.
            step_bytes = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            is_recording = True
            # thread_local: other threads of this process may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
                step()
    except GraphCaptureError:
        raise
    except Exception as error:  # any kind; if the network itself is wrong, the eager engine raises the same error
        # Where memory runs out in a recording, ending it fails too, and that second error hides the first; or the
        # allocation is only reported as something that is not allowed while a graph is captured.
        hidden = is_recording and "captur" in str(error) and step_bytes > count_free_bytes(device)
        if is_recording:
            with suppress(Exception):
                graph.reset()  # frees the graph's memory
        raise_memory_shortage(error, hidden=hidden)
        if is_recording:
            raise GraphRecordingError(f"recording it failed: {get_first_line(error)}") from error
        if is_broken_device(error):
            raise
        raise GraphCaptureError(f"a step fails: {get_first_line(error)}") from error
    torch.cuda.current_stream(device).wait_stream(stream)
    return RecordedStep(graph.replay, uses_device_rng)


def raise_memory_shortage(error: Exception, *, hidden: bool = False) -> None:
    """Raise torch's error of a full device if this one means that: the pool decides what to do, not an engine."""
    if isinstance(error, torch.OutOfMemoryError):
        raise error
    if hidden or is_memory_shortage(error):
        raise torch.OutOfMemoryError(f"memory ran out while a step was recorded: {get_first_line(error)}") from error


def count_free_bytes(device: torch.device) -> float:
    """Count the bytes that this process can still allocate; infinite where the device no longer answers."""
    try:
        free, total = torch.cuda.mem_get_info(device)
        share = torch.cuda.get_per_process_memory_fraction(device) * total
        return min(free, share - torch.cuda.memory_reserved(device))
    except RuntimeError:
        return float("inf")


def run_warmup_steps(step: Callable[[], None], network: nn.Module, device: torch.device) -> bool:
    """Return whether a step draws from the device's generator; refuse a step that a graph would not repeat."""
    # The first step may synchronize: it creates the optimizer's state and whatever libraries set up when first used.
    # The later ones must be what a graph repeats.
    before, rng_state = snapshot_host_state(network), torch.cuda.get_rng_state(device)
    step()
    try:
        with forbid_device_sync():
            step()
    except RuntimeError as error:
        if is_memory_shortage(error) or is_broken_device(error):
            raise
        raise GraphCaptureError(f"a step waits for the device: {get_first_line(error)}") from error
    step()
    require_unchanged_host_state(before, snapshot_host_state(network))
    return not torch.equal(rng_state, torch.cuda.get_rng_state(device))


@contextmanager
def forbid_device_sync() -> Generator[None, None, None]:
    """Turn synchronization with the device into an error, as far as torch detects it."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it cannot detect all of them; the capture finds the rest
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def snapshot_host_state(network: nn.Module) -> dict[str, Any]:
    """Return the host state that a step could change: generators, plain values of modules, small containers of them."""
    # Tensors are left out: a replay changes them as the step does.
    attributes = {
        f"{name or 'the network'}.{key}": describe_value(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (*PLAIN_TYPES, *CONTAINER_TYPES, np.ndarray))
    }
    # not the device's generator: a replay draws from it anew
    return attributes | read_generators(torch.device("cpu"))


def describe_value(value: Any) -> str:
    """Describe a value so that two descriptions differ if its contents do; of what is large or not plain, its size."""
    # repr and not the value: NaN is not equal to itself, and a list would be compared with itself.
    if isinstance(value, np.ndarray):
        return f"{value.dtype} {value.shape} {value.tobytes()!r}" if value.size <= COMPARED_VALUES else "large"
    plain = count_plain_values(value, COMPARED_VALUES) is not None
    return repr(value) if plain else f"{type(value).__name__} of {len(value)}"


def count_plain_values(value: Any, limit: int) -> int | None:
    """Count the plain values in nested containers; None above the limit, or if anything in them is not plain."""
    if isinstance(value, PLAIN_TYPES):
        return 1
    if not isinstance(value, CONTAINER_TYPES) or len(value) > limit:
        return None
    count = 0
    for element in [*value, *value.values()] if isinstance(value, dict) else value:
        # The limit shrinks with every value, so a container that holds itself ends here too.
        elements = count_plain_values(element, limit - count - 1)
        if elements is None or count + elements > limit:
            return None
        count += elements
    return count


def require_unchanged_host_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise GraphCaptureError, naming what a step changed on the host: a graph would not repeat it."""
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if names:
        raise GraphCaptureError(f"a step changes {', '.join(names)}")


def get_first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type where there is no message."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


_streams: dict[torch.device, list[torch.cuda.Stream]] = {}
_stream_users: dict[torch.cuda.Stream, weakref.ref[object]] = {}


def take_stream(user: object, device: torch.device) -> torch.cuda.Stream:
    """Return a stream that no other living engine uses: one of STREAMS of this process and device."""
    # Two graphs that are recorded on one stream share cuBLAS's workspace, and deleting the one frees it under the other
    # (pytorch#193402). torch hands out its own 32 streams in turn, also those in use.
    if device not in _streams:
        _streams[device] = [torch.cuda.Stream(device) for _ in range(STREAMS)]  # type: ignore[no-untyped-call]
    for stream in _streams[device]:
        if stream not in _stream_users or _stream_users[stream]() is None:
            _stream_users[stream] = weakref.ref(user)
            return stream
    raise RuntimeError(f"{STREAMS} CUDA graphs exist, and each needs a stream of its own; delete one before the next")


def format_variable(network: str) -> str:
    """Return the name of the environment variable that says how many graphs of a network were recorded at most."""
    return f"MEMSCORE_GRAPHS_{hashlib.sha256(network.encode()).hexdigest()[:16]}"


@contextmanager
def handle_failed_recording(network: str, recorded: int, device: torch.device) -> Generator[None, None, None]:
    """Let a failed recording end a worker of a pool; elsewhere, and where it has failed before, do without the graph.

    Args:
        network: its name.
        recorded: how many graphs of this network the process has.
        device: of the network.

    Raises:
        GraphCaptureError: the caller does without the graph.
        GraphRecordingError: the process has to end.
    """
    variable = format_variable(network)
    if recorded >= float(os.environ.get(variable, "inf")):
        raise GraphCaptureError(f"recording {'another graph' if recorded else 'it'} has failed before")
    try:
        yield
    except GraphRecordingError as error:
        # A pool that replaces its workers sets MEMSCORE_WORKER, and gives this variable to the successors.
        error.worker_environment = {variable: str(recorded)}
        os.environ |= error.worker_environment
        if "MEMSCORE_WORKER" in os.environ or not is_device_usable(device):
            raise
        raise GraphCaptureError(str(error)) from error


def is_device_usable(device: torch.device) -> bool:
    """Return whether the process can still compute and draw on the device."""
    try:
        with restore_generators(device):
            return bool(torch.rand(2, device=device).sum().isfinite().item())
    except RuntimeError:
        return False
