"""Train and evaluate one network on a GPU by CUDA graphs: one launch per step or batch.

The step is that of loop.EagerEngine: gather the batch, augment, forward, cross entropy, backward, fused optimizer. All
that it reads lies in tables on the device, for up to 256 steps ahead; a counter that the step itself increments is the
index into them. So between two steps the host only launches the graph again.

The static storage outlives its first network. For the next network of the same architecture, fresh weights are copied
in, the optimizer's state is set to zero, and the same graph is replayed: nothing is compiled or captured twice.

A graph repeats the kernels of one step on the same addresses. What it would not repeat is checked before the capture,
because a failed capture may leave torch's generators unusable: synchronization with the device, random draws on the
host, and numbers that the network stores in Python attributes.

Differs from EagerEngine: the momentum starts as zeros instead of as the first gradient (the same after one step, where
dampening is 0), and the learning rate is rounded to float32 before it is used, not after.
"""

import copy
import random
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.models.architectures import compute_logits
from memscore.training.augmentation import apply_augmentation, sample_augmentation
from memscore.training.device_data import DeviceImages
from memscore.training.loop import LOGIT_BYTES, TrainingRun, build_optimizer, keep_gradient_layout, send_to_device
from memscore.training.numerics import get_autocast_dtype
from memscore.training.recipes import Recipe

MAX_TABLE_STEPS = 256  # steps in the tables, at most
GRAPH_EVALUATION_BATCH = 1024  # images per evaluation; the same as evaluation.evaluate_examples uses
PLAIN_TYPES = (bool, int, float, complex, str, type(None))
SIZED_TYPES = (list, tuple, dict, set)


class GraphCaptureError(Exception):
    """A step cannot be captured; the message is a reason that can follow "because"."""


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
    """Run a step three times, then capture it as a CUDA graph; torch's generators are restored."""
    # The step works on tensors whose addresses stay the same, and the caller restores the values that it changes. The
    # streams wait for each other before and after: the current one has written these tensors and will read them.
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        with torch.random.fork_rng(devices=[stream.device]):
            with torch.cuda.stream(stream):
                uses_device_rng = run_warmup_steps(step, network, stream.device)
            with torch.cuda.graph(graph, stream=stream):
                step()
    # A full device is no reason to train eagerly: the pool decides what to do. Where memory runs out during a capture,
    # ending the capture fails too, and that second error hides the first.
    except (GraphCaptureError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # any kind; if the network itself is wrong, the eager engine raises the same error
        if full := find_oom_error(error):
            raise full from error
        raise GraphCaptureError(f"recording it failed: {get_first_line(error)}") from error
    torch.cuda.current_stream(stream.device).wait_stream(stream)
    return RecordedStep(graph.replay, uses_device_rng)


def run_warmup_steps(step: Callable[[], None], network: nn.Module, device: torch.device) -> bool:
    """Return whether a step draws from the device's generator; refuse a step that a graph would not repeat."""
    # The first step may synchronize: it creates the optimizer's state and whatever libraries set up when first used.
    # The later ones must be what a graph repeats. Checked here and not by trying a capture: one that fails may leave
    # torch's generators unusable.
    before, rng_state = snapshot_host_state(network), torch.cuda.get_rng_state(device)
    step()
    try:
        with forbid_device_sync():
            step()
    except RuntimeError as error:
        if find_oom_error(error):
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
    """Return the host state that a step could change: generators, plain values of modules."""
    # Tensors are left out: a replay changes them as the step does. Of lists, tuples, dicts and sets only the length is
    # compared, which is enough for a network that appends something at every call.
    attributes = {
        f"{name or 'the network'}.{key}": value if isinstance(value, PLAIN_TYPES) else len(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (*PLAIN_TYPES, *SIZED_TYPES))
    }
    # ruff: ignore[numpy-legacy-random] - nothing is drawn; a user's network might
    numpy_state = np.random.get_state(legacy=False)
    return attributes | {
        "numpy's generator": repr(numpy_state),
        "Python's generator": random.getstate(),
        "torch's generator on the CPU": bytes(torch.get_rng_state().numpy()),
    }


def require_unchanged_host_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Raise GraphCaptureError, naming what a step changed on the host: a graph would not repeat it."""
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if names:
        raise GraphCaptureError(f"a step changes {', '.join(names)}")


def find_oom_error(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """Find the out-of-memory error behind an exception that a failed capture raised."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def get_first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the error's type where there is no message."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


class CudaGraphEngine:
    """Static storage for training one network, and the captured step.

    The model is copied and not changed; `load` puts another one of the same architecture in its place. Without
    `capture` the step itself is run instead of the graph, also on a CPU. `compiled` fuses the network's kernels by
    torch.compile before they are captured: it rounds differently, and takes a minute for the first network.

    Attributes:
        length: steps that the tables hold.
        logits_table: float32 [length, B, K], logits before each step since `fill_tables`.
        uses_device_rng: whether the network draws from the device's generator, so that two must not run at once.

    Raises:
        GraphCaptureError: the step cannot be captured.
    """

    def __init__(
        self,
        model: nn.Module,
        images: DeviceImages,
        labels: Tensor,
        recipe: Recipe,
        *,
        capture: bool = True,
        compiled: bool = False,
    ):
        self.images, self.labels, self.recipe = images, labels, recipe
        self.autocast = get_autocast_dtype(recipe.precision)
        self.compiled = compiled
        self.compute_logits = torch.compile(compute_logits, dynamic=False) if compiled else compute_logits
        self.model, self.augmentation_rng = model, np.random.default_rng(0)  # until the first load
        device, batch = labels.device, recipe.batch
        self.stream = torch.cuda.Stream(device) if capture else None  # type: ignore[no-untyped-call]
        cuda_devices = [device] if device.type == "cuda" else []
        with self.ordered_on_stream(), torch.random.fork_rng(devices=cuda_devices):
            self.network = copy_network(model, images)
            # The number of classes sizes the table of logits. In evaluation mode, so that no running statistic moves.
            with torch.no_grad():
                classes = compute_logits(
                    self.network.eval(), images.take(torch.arange(2, device=device)), self.autocast
                ).shape[1]
            self.network.train()
            # Everything that a step reads or writes keeps its address: the graph records addresses. The rows must be
            # valid even before the first window, because the warm-up steps train on them.
            self.length = min(MAX_TABLE_STEPS, max(1, LOGIT_BYTES // (4 * batch * classes)))
            self.position = torch.zeros(1, dtype=torch.int64, device=device)
            self.rows = torch.arange(self.length * batch, device=device).remainder_(len(labels)).view(-1, batch)
            self.learning_rates = torch.zeros(self.length, device=device)
            self.corners = torch.zeros(self.length, 2, batch, dtype=torch.int64, device=device)
            self.mirrored = torch.zeros(self.length, batch, dtype=torch.bool, device=device)
            self.logits_table = torch.zeros(self.length, batch, classes, device=device)
            self.learning_rate = torch.zeros((), device=device)
            self.optimizer = build_optimizer(self.network, recipe)
            # A rate that is a number would be recorded as a constant; as a tensor it is read at every replay. So is
            # Adam's step count, if it is capturable.
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
                if "capturable" in group:
                    group["capturable"] = device.type == "cuda"
            # A first step creates the optimizer's state, which `load` sets to zero. With a graph, the warm-up does it.
            if self.stream is None:
                self.step()
                self.replay: Callable[[], None] = self.step
        self.uses_device_rng = False
        if self.stream is not None:
            self.replay, self.uses_device_rng = record_graph(self.step_to_capture, self.network, self.stream)

    def step(self) -> None:
        """Run one step, from the tables' row at the counter."""
        # All of this is recorded once, so nothing may depend on a value on the host: a counter on the device, which the
        # step increments at the end, says which row of the tables is this step's.
        rows = self.current_row(self.rows)
        self.learning_rate.copy_(self.current_row(self.learning_rates))
        augmented = self.images.take(rows)
        if self.recipe.augment:
            corners, mirrored = self.current_row(self.corners), self.current_row(self.mirrored)
            augmented = apply_augmentation(augmented, self.images.black, self.recipe, corners, mirrored)
        # torch.compile chooses the layouts itself.
        with nullcontext() if self.images.flat or self.compiled else keep_gradient_layout(self.network):
            output = self.compute_logits(self.network, augmented, self.autocast)
        # Gradients of None make backward() allocate them, in a capture from the graph's own memory, instead of adding.
        self.optimizer.zero_grad(set_to_none=True)
        cross_entropy(output, self.labels.index_select(0, rows)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.logits_table.index_copy_(0, self.position, output.detach()[None])
        self.position.add_(1)

    def current_row(self, table: Tensor) -> Tensor:
        """Return the row of a table at the counter, without reading the counter on the host."""
        return table.index_select(0, self.position)[0]

    def load(self, run: TrainingRun) -> None:
        """Start another model: its weights and random stream, and a zeroed optimizer state."""
        self.model, self.augmentation_rng = run.model, run.augmentation_rng
        with self.ordered_on_stream(), torch.no_grad():
            # Channels last, as the eager engine leaves a model; then both sides of the copy have one layout.
            if not self.images.flat:
                self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            copy_state(self.model, self.network)
            # In place: the graph reads these addresses. Momenta, second moments and step counts all start from zero.
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        value.zero_()

    def fill_tables(self, rows: Tensor, learning_rates: Sequence[float]) -> None:
        """Fill the tables for the next steps, at most `length`, with rows int64 [steps, B], on the current stream."""
        steps, device = len(learning_rates), self.labels.device
        self.position.zero_()
        self.rows[:steps].copy_(rows)
        self.learning_rates[:steps].copy_(send_to_device(np.array(learning_rates, dtype=np.float32), device))
        # One draw per step, in the order of the steps: the stream of random numbers is the eager engine's.
        if self.recipe.augment:
            augmentations = [
                sample_augmentation(self.recipe, self.recipe.batch, self.augmentation_rng) for _ in learning_rates
            ]
            for table, values in zip((self.corners, self.mirrored), zip(*augmentations, strict=True), strict=True):
                table[:steps].copy_(send_to_device(np.stack(values), device))

    def write_back(self) -> None:
        """Copy weights and buffers into the model that was loaded."""
        with self.ordered_on_stream(), torch.no_grad():
            copy_state(self.network, self.model)

    def on_stream(self) -> AbstractContextManager[object]:
        """Run kernels launched inside the context on the engine's stream."""
        return torch.cuda.stream(self.stream) if self.stream is not None else nullcontext()

    def wait_for_current_stream(self) -> None:
        """Make the engine's stream wait for the current one."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def make_current_stream_wait(self) -> None:
        """Make the current stream wait for the engine's."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)

    @contextmanager
    def ordered_on_stream(self) -> Generator[None, None, None]:
        """Run kernels on the engine's stream, ordered with the current stream's other work."""
        self.wait_for_current_stream()
        with self.on_stream():
            yield
        self.make_current_stream_wait()

    def step_to_capture(self) -> None:
        """Run the step that is captured; before the capture, from the first row of the tables."""
        # The reset must not be recorded: every replay would start from the first row again.
        if not torch.cuda.is_current_stream_capturing():
            self.position.zero_()
        self.step()


class CudaGraphForward:
    """Static storage for evaluating one network, and its captured forward pass over one batch.

    The model is copied; `like` are images [B, C, H, W] of the shape and layout of later calls, for any B.

    Raises:
        GraphCaptureError: the forward pass cannot be captured.
    """

    def __init__(self, model: nn.Module, like: Tensor, recipe: Recipe, *, capture: bool = True):
        self.autocast, self.network = get_autocast_dtype(recipe.precision), copy_network(model, None).eval()
        # The graph reads one layout; copying images of another one into the storage would convert them at every batch.
        shape, device = (GRAPH_EVALUATION_BATCH, *like.shape[1:]), like.device
        layout = torch.channels_last if like.shape[1] > 1 and like.stride(1) == 1 else torch.contiguous_format
        self.images = torch.zeros(shape, device=device).to(memory_format=layout)
        self.logits = torch.zeros(0)
        self.replay: Callable[[], None] = self.step
        if capture:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.replay = record_graph(self.step, self.network, stream).replay

    @torch.no_grad()
    def step(self) -> None:
        """Compute the logits of the images in the static storage."""
        # The tensor made in the capture stays: every replay writes its logits there.
        self.logits = compute_logits(self.network, self.images, self.autocast)

    @torch.no_grad()
    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Return a model's logits float32 [B, K] by replaying the graph on batches."""
        copy_state(model, self.network)
        # A short batch is filled up by what the storage held before, whose logits are cut off. clone, because the next
        # replay overwrites the logits.
        batches = []
        for part in torch.split(images, GRAPH_EVALUATION_BATCH):
            self.images[: len(part)].copy_(part)
            self.replay()
            batches.append(self.logits[: len(part)].clone())
        return torch.cat(batches)


def copy_network(model: nn.Module, images: DeviceImages | None) -> nn.Module:
    """Copy a network, channels last if the images are; GraphCaptureError if it cannot be copied."""
    try:
        network = copy.deepcopy(model)
    except Exception as error:
        raise GraphCaptureError(f"it cannot be copied: {get_first_line(error)}") from error
    if images is not None and not images.flat:
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return network


def copy_state(source: nn.Module, target: nn.Module) -> None:
    """Copy all parameters and buffers into a network of the same architecture, in place."""
    # One call per dtype, since torch copies a list of tensors with few kernels only where all have one dtype.
    pairs = zip(chain(target.parameters(), target.buffers()), chain(source.parameters(), source.buffers()), strict=True)
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for to_value, from_value in pairs:
        targets, sources = groups.setdefault(to_value.dtype, ([], []))
        targets.append(to_value.detach())
        sources.append(from_value.detach())
    for targets, sources in groups.values():
        torch._foreach_copy_(targets, sources)
