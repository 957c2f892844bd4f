"""One network in static storage on a GPU: whole training steps, and whole evaluations, as one CUDA graph each.

The step is training.Single's: gather the batch, augment, forward, cross entropy, backward, fused optimizer. All that it
reads lies in tables on the device, for up to 256 steps ahead; a counter that the step itself moves on says where it
stands. So between two steps the host does nothing but start the graph again.

The storage outlives its first network. The next network of the same architecture copies its fresh weights in, the
optimizer's state goes back to zero, and the same graph is replayed: nothing is compiled or recorded twice.

Differs from Single: the momentum starts as zeros instead of as the first gradient (the same after one step, where
dampening is 0), and the learning rate is rounded to float32 before it is used, not after.

A step recorded once as a CUDA graph: afterwards one launch does what hundreds did.

A graph repeats the kernels of one step on the same addresses. What it would not repeat is looked for before anything is
recorded, because a recording that fails may leave torch's generators unusable: waiting for the device, random draws on
the host, and numbers that the network keeps in Python.
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
from memscore.training.recipes import Recipe

PLAIN_TYPES = (bool, int, float, complex, str, type(None))
SIZED_TYPES = (list, tuple, dict, set)


class GraphCaptureError(Exception):
    """Why a step cannot be recorded, in a few words that follow "because"."""


class RecordedStep(NamedTuple):
    """A step that can be done again.

    Attributes:
        replay: does it, on whatever stream is current.
        draws: whether it draws from the device's generator, whose place all graphs of a process share: two such graphs
            must not run at once.
    """

    replay: Callable[[], None]
    draws: bool


def record_graph(step: Callable[[], None], network: nn.Module, stream: torch.cuda.Stream) -> RecordedStep:
    """Run a step three times, then record it.

    Args:
        step: works on tensors that stay where they are; what it changes is the caller's to put back.
        network: what the step runs.
        stream: where the step is run and recorded; nothing else may use these tensors meanwhile.

    Returns:
        The recording. Torch's generators are as they were before.

    Raises:
        GraphCaptureError: the step waits for the device, or depends on something that a graph does not repeat.
        torch.OutOfMemoryError: the device is full.
    """
    graph = torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream(stream.device))
    try:
        with torch.random.fork_rng(devices=[stream.device]):
            with torch.cuda.stream(stream):
                draws = run_warmup_steps(step, network, stream.device)
            with torch.cuda.graph(graph, stream=stream):
                step()
    except (GraphCaptureError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever it is, the eager engine meets it again if it is the network's own fault
        if full := find_out_of_memory(error):
            raise full from error
        raise GraphCaptureError(f"recording it failed: {get_first_line(error)}") from error
    torch.cuda.current_stream(stream.device).wait_stream(stream)
    return RecordedStep(graph.replay, draws)


def run_warmup_steps(step: Callable[[], None], network: nn.Module, device: torch.device) -> bool:
    """Three steps on the current stream, for the libraries to settle; the second must not wait for the device.

    Returns:
        Whether they drew from the device's generator.

    Raises:
        GraphCaptureError: a step waits, or changes something on the host.
        RuntimeError: the device is full.
    """
    before, drawn = snapshot_host_state(network), torch.cuda.get_rng_state(device)
    step()
    try:
        with forbid_device_sync():
            step()
    except RuntimeError as error:
        if find_out_of_memory(error):
            raise
        raise GraphCaptureError(f"a step waits for the device: {get_first_line(error)}") from error
    step()
    require_unchanged_host_state(before, snapshot_host_state(network))
    return not torch.equal(drawn, torch.cuda.get_rng_state(device))


@contextmanager
def forbid_device_sync() -> Generator[None, None, None]:
    """Whatever makes the host wait for the device is an error, as far as torch can tell."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it cannot always tell; recording finds the rest
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)


def snapshot_host_state(network: nn.Module) -> dict[str, Any]:
    """What a step could change on the host: generators, and plain values that the modules hold."""
    held = {
        f"{name or 'the network'}.{key}": value if isinstance(value, PLAIN_TYPES) else len(value)
        for name, module in network.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, (*PLAIN_TYPES, *SIZED_TYPES))
    }
    # ruff: ignore[numpy-legacy-random] - nothing is drawn; a user's network might
    draws = np.random.get_state(legacy=False)
    return held | {
        "numpy's generator": repr(draws),
        "Python's generator": random.getstate(),
        "torch's generator on the CPU": bytes(torch.get_rng_state().numpy()),
    }


def require_unchanged_host_state(before: dict[str, Any], after: dict[str, Any]) -> None:
    """A graph repeats none of these changes.

    Raises:
        GraphCaptureError: there are some.
    """
    names = [name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name)]
    if names:
        raise GraphCaptureError(f"a step changes {', '.join(names)}")


def find_out_of_memory(error: BaseException | None) -> torch.OutOfMemoryError | None:
    """The device's want of memory that an exception came of: ending a recording that failed raises another one."""
    while error is not None:
        if isinstance(error, torch.OutOfMemoryError):
            return error
        error = error.__cause__ or error.__context__
    return None


def get_first_line(error: Exception) -> str:
    """An exception in one line."""
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__


MAX_TABLE_STEPS = 256  # steps in the tables, at most
GRAPH_EVALUATION_BATCH = 1024  # images an evaluation; the same as observing.observe's


class CudaGraphEngine:
    """Static storage for one network in training, and its step.

    Args:
        model: on the device; copied, so it stays as it is.
        images: resident.
        labels: int64 [N], same device.
        recipe: how it is trained.
        capture: False runs the step itself wherever the graph would be replayed; for a CPU.
        compiled: fuse the network's kernels by torch.compile before they are recorded; other roundings, and a minute
            for the first network.

    Attributes:
        length: steps that the tables hold.
        said: float32 [length, B, K], logits before each step since `begin`.
        draws: whether the network draws from the device's generator, so that two must not run at once.

    Raises:
        GraphCaptureError: see graphs.record.
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
        self.autocast = get_autocast_dtype(recipe)
        self.compiled = compiled
        self.logits = torch.compile(compute_logits, dynamic=False) if compiled else compute_logits
        self.model, self.augmentation_rng = model, np.random.default_rng(0)  # until the first load
        device, batch = labels.device, recipe.batch
        self.stream = torch.cuda.Stream(device) if capture else None  # type: ignore[no-untyped-call]
        with self.beside(), preserve_torch_generators(device):
            self.net = copy_network(model, images)
            with torch.no_grad():
                classes = compute_logits(
                    self.net.eval(), images.take(torch.arange(2, device=device)), self.autocast
                ).shape[1]
            self.net.train()
            self.length = min(MAX_TABLE_STEPS, max(1, LOGIT_BYTES // (4 * batch * classes)))
            self.at = torch.zeros(1, dtype=torch.int64, device=device)
            self.rows = torch.arange(self.length * batch, device=device).remainder_(len(labels)).view(-1, batch)
            self.rates = torch.zeros(self.length, device=device)
            self.corners = torch.zeros(self.length, 2, batch, dtype=torch.int64, device=device)
            self.mirrored = torch.zeros(self.length, batch, dtype=torch.bool, device=device)
            self.said = torch.zeros(self.length, batch, classes, device=device)
            self.rate = torch.zeros((), device=device)
            self.optimizer = build_optimizer(self.net, recipe)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate
                if "capturable" in group:
                    group["capturable"] = device.type == "cuda"
            if self.stream is None:
                self.first_step()
                self.replay: Callable[[], None] = self.step
        self.draws = False
        if self.stream is not None:
            self.replay, self.draws = record_graph(self.rehearsed, self.net, self.stream)

    def step(self) -> None:
        """One step, at the place in the tables where the counter stands."""
        rows = self.here(self.rows)
        self.rate.copy_(self.here(self.rates))
        shown = self.images.take(rows)
        if self.recipe.augment:
            corners, mirrored = self.here(self.corners), self.here(self.mirrored)
            shown = apply_augmentation(shown, self.images.black, self.recipe, corners, mirrored)
        with nullcontext() if self.images.flat or self.compiled else keep_gradient_layout(self.net):
            out = self.logits(self.net, shown, self.autocast)
        self.optimizer.zero_grad(set_to_none=True)
        cross_entropy(out, self.labels.index_select(0, rows)).backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.said.index_copy_(0, self.at, out.detach()[None])
        self.at.add_(1)

    def here(self, table: Tensor) -> Tensor:
        """The row of a table at the counter, without asking the device where that is."""
        return table.index_select(0, self.at)[0]

    def load(self, assignment: TrainingRun) -> None:
        """Begin another model: its weights and buffers, its stream of chance, an optimizer that has seen nothing."""
        self.model, self.augmentation_rng = assignment.model, assignment.augmentation_rng
        with self.beside(), torch.no_grad():
            if not self.images.flat:
                self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            copy_state(self.model, self.net)
            for state in self.optimizer.state.values():
                for value in state.values():
                    if isinstance(value, Tensor):
                        value.zero_()

    def begin(self, rows: Tensor, rates: Sequence[float]) -> None:
        """Fill the tables for the next steps, on the current stream.

        Args:
            rows: int64 [steps, B], no more steps than `length`.
            rates: learning rate of each step.
        """
        steps, device = len(rates), self.labels.device
        self.at.zero_()
        self.rows[:steps].copy_(rows)
        self.rates[:steps].copy_(send_to_device(np.array(rates, dtype=np.float32), device))
        if self.recipe.augment:
            drawn = [sample_augmentation(self.recipe, self.recipe.batch, self.augmentation_rng) for _ in rates]
            for table, values in zip((self.corners, self.mirrored), zip(*drawn, strict=True), strict=True):
                table[:steps].copy_(send_to_device(np.stack(values), device))

    def write_back(self) -> None:
        """Copy weights and buffers into the model that was loaded."""
        with self.beside(), torch.no_grad():
            copy_state(self.net, self.model)

    def first_step(self) -> None:
        """A step from the top of the tables."""
        self.at.zero_()
        self.step()

    def on_stream(self) -> AbstractContextManager[object]:
        """What is started inside runs on the engine's own stream."""
        return torch.cuda.stream(self.stream) if self.stream is not None else nullcontext()

    def fork(self) -> None:
        """Let the engine's stream wait for the current one."""
        if self.stream is not None:
            self.stream.wait_stream(torch.cuda.current_stream(self.stream.device))

    def join(self) -> None:
        """Let the current stream wait for the engine's."""
        if self.stream is not None:
            torch.cuda.current_stream(self.stream.device).wait_stream(self.stream)

    @contextmanager
    def beside(self) -> Generator[None, None, None]:
        """What is started inside runs on the engine's stream, after what came before and before what comes next."""
        self.fork()
        with self.on_stream():
            yield
        self.join()

    def rehearsed(self) -> None:
        """The step as it is recorded; while nothing is recorded yet, from the top of the tables."""
        if not torch.cuda.is_current_stream_capturing():
            self.at.zero_()
        self.step()


class CudaGraphForward:
    """Static storage for one network in evaluation mode, and its forward pass over one batch.

    Args:
        model: on the device; copied.
        like: images [B, C, H, W] as they will come, for shape and layout.
        recipe: whose precision it computes in.
        capture: False for a CPU, as above.

    Raises:
        GraphCaptureError: see graphs.record.
    """

    def __init__(self, model: nn.Module, like: Tensor, recipe: Recipe, *, capture: bool = True):
        self.autocast, self.net = get_autocast_dtype(recipe), copy_network(model, None).eval()
        shape, device = (GRAPH_EVALUATION_BATCH, *like.shape[1:]), like.device
        layout = torch.channels_last if like.shape[1] > 1 and like.stride(1) == 1 else torch.contiguous_format
        self.shown = torch.zeros(shape, device=device).to(memory_format=layout)
        self.out = torch.zeros(0)
        self.replay: Callable[[], None] = self.step
        if capture:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            self.replay = record_graph(self.step, self.net, stream).replay

    @torch.no_grad()
    def step(self) -> None:
        """Logits of the images that are in place."""
        self.out = compute_logits(self.net, self.shown, self.autocast)

    @torch.no_grad()
    def __call__(self, model: nn.Module, images: Tensor) -> Tensor:
        """Logits float32 [B, K] of a model whose weights are copied in first; a part too small is filled up."""
        copy_state(model, self.net)
        said = []
        for part in torch.split(images, GRAPH_EVALUATION_BATCH):
            self.shown[: len(part)].copy_(part)
            self.replay()
            said.append(self.out[: len(part)].clone())
        return torch.cat(said)


def get_autocast_dtype(recipe: Recipe) -> torch.dtype | None:
    """What the body's products are computed in, if not in float32."""
    return torch.bfloat16 if recipe.precision == "bfloat16" else None


def copy_network(model: nn.Module, images: DeviceImages | None) -> nn.Module:
    """A network of its own, channels last if the images are.

    Returns:
        The copy.

    Raises:
        GraphCaptureError: a network that cannot be copied.
    """
    try:
        net = copy.deepcopy(model)
    except Exception as error:
        raise GraphCaptureError(f"it cannot be copied: {get_first_line(error)}") from error
    if images is not None and not images.flat:
        net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return net


def copy_state(source: nn.Module, target: nn.Module) -> None:
    """All parameters and buffers of one network into another of the same architecture, in place."""
    pairs = zip(chain(target.parameters(), target.buffers()), chain(source.parameters(), source.buffers()), strict=True)
    groups: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
    for own, new in pairs:
        to, come = groups.setdefault(own.dtype, ([], []))
        to.append(own.detach())
        come.append(new.detach())
    for to, come in groups.values():
        torch._foreach_copy_(to, come)


def preserve_torch_generators(device: torch.device) -> AbstractContextManager[None]:
    """Torch's generators are afterwards as they were before."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
