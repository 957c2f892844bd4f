"""A step recorded once as a CUDA graph: afterwards one launch does what hundreds did.

A graph repeats the kernels of one step on the same addresses. What it would not repeat is looked for before anything is
recorded, because a recording that fails may leave torch's generators unusable: waiting for the device, random draws on
the host, and numbers that the network keeps in Python.
"""

import random
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

PLAIN = (bool, int, float, complex, str, type(None))
SIZED = (list, tuple, dict, set)


class CannotCapture(Exception):
    """Why a step cannot be recorded, in a few words that follow "because"."""


class Recorded(NamedTuple):
    """A step that can be done again.

    Attributes:
        replay: does it, on whatever stream is current.
        draws: whether it draws from the device's generator, whose place all graphs of a process share: two such graphs
            must not run at once.
    """

    replay: Callable[[], None]
    draws: bool


def record(step: Callable[[], None], network: nn.Module, stream: torch.cuda.Stream) -> Recorded:
    """Run a step three times, then record it.

    Args:
        step: works on tensors that stay where they are; what it changes is the caller's to put back.
        network: what the step runs.
        stream: where the step is run and recorded; nothing else may use these tensors meanwhile.

    Returns:
        The recording. Torch's generators are as they were before.

    Raises:
        CannotCapture: the step waits for the device, or depends on something that a graph does not repeat.
        torch.OutOfMemoryError: the device is full.
    """
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        with torch.random.fork_rng(devices=[stream.device]):
            with torch.cuda.stream(stream):
                draws = rehearse(step, network, stream.device)
            with torch.cuda.graph(graph, stream=stream):
                step()
    except (CannotCapture, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever it is, the eager engine meets it again if it is the network's own fault
        if full := out_of_memory_behind(error):
            raise full from error
        raise CannotCapture(f"recording it failed: {first_line(error)}") from error
    torch.cuda.current_stream(stream.device).wait_stream(stream)
    return Recorded(graph.replay, draws)


def rehearse(step: Callable[[], None], network: nn.Module, device: torch.device) -> bool:
    """Three steps on the current stream, for the libraries to settle; the second must not wait for the device.

    Returns:
        Whether they drew from the device's generator.

    Raises:
        CannotCapture: a step waits, or changes something on the host.
        RuntimeError: the device is full.
    """
    before, drawn = host_state(network), torch.cuda.get_rng_state(device)
    step()
    try:
        with refusing_to_wait():
            step()
    except RuntimeError as error:
        if out_of_memory_behind(error):
            raise
        raise CannotCapture(f"a step waits for the device: {first_line(error)}") from error
    step()
    refuse_changes(before, host_state(network))
    return not torch.equal(drawn, torch.cuda.get_rng_state(device))


@contextmanager
def refusing_to_wait() -> Generator[None, None, None]:
    """Whatever makes the host wait for the device is an error, as far as torch can tell."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it cannot always tell; recording finds the rest
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def host_state(network: nn.Module) -> dict[str, Any]:
    """What a step could change on the host: generators, and plain values that the modules hold."""
    held = {
        f"{name or 'the network'}.{key}": value if isinstance(value, PLAIN) else len(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (*PLAIN, *SIZED))
    }
    draws = np.random.get_state(legacy=False)  # ruff: ignore[numpy-legacy-random] - nothing is drawn; a user's network might
    return held | {
        "numpy's generator": repr(draws),
        "Python's generator": random.getstate(),
        "torch's generator on the CPU": bytes(torch.get_rng_state().numpy()),
    }


def refuse_changes(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A graph repeats none of these changes.

    Raises:
        CannotCapture: there are some.
    """
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if names:
        raise CannotCapture(f"a step changes {', '.join(names)}")


def out_of_memory_behind(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The device's want of memory that an exception came of: ending a recording that failed raises another one."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def first_line(error: Exception) -> str:
    """An exception in one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__
