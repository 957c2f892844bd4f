"""Train and evaluate one network on a GPU by CUDA graphs: one launch per step or batch.

The step is that of loop.EagerEngine: gather the batch, augment, forward, cross entropy, backward, fused optimizer. All
that it reads lies in tables on the device, for up to 256 steps ahead; a counter that the step itself increments is the
index into them. So between two steps the host only launches the graph again.

The static storage outlives its first network. For the next network of the same architecture, fresh weights are copied
in, the optimizer's state is set to zero, and the same graph is replayed: nothing is compiled or captured twice.

graph_recording.py records the step, and says what a graph would not repeat. A network that draws on the device, such
as one with dropout, draws anew at every replay.

Differs from EagerEngine: the momentum starts as zeros instead of as the first gradient (the same after one step, where
dampening is 0), and the learning rate is rounded to float32 before it is used, not after.
"""

import copy
import logging
from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from cluster.device_errors import is_broken_device, is_memory_shortage
from memscore.models.architectures import compute_logits
from memscore.models.random_state import read_generators, restore_generators
from memscore.training.augmentation import apply_augmentation, sample_augmentation
from memscore.training.device_data import EVALUATION_BATCH, DeviceImages
from memscore.training.graph_recording import GraphCaptureError, get_first_line, record_graph, take_stream
from memscore.training.loop import LOGIT_BYTES, TrainingRun, build_optimizer, keep_gradient_layout, send_to_device
from memscore.training.numerics import get_autocast_dtype
from memscore.training.recipes import Recipe

MAX_TABLE_STEPS = 256  # steps in the tables, at most
GRAPH_EVALUATION_BATCH = EVALUATION_BATCH  # images per replay of an evaluation

_log = logging.getLogger(__name__)


class CudaGraphEngine:
    """Static storage for training one network, and the captured step.

    The model is copied and not changed; `load` puts another one of the same architecture in its place. Without
    `capture` the step itself is run instead of the graph, also on a CPU. `compiled` fuses the network's kernels by
    torch.compile before they are captured: it rounds differently, and takes a minute for the first network. A network
    that cannot be compiled is captured as it is, with a warning.

    Attributes:
        length: steps that the tables hold.
        compile_error: why the network is not compiled although it was to be; else empty.
        logits_table: float32 [length, B, K], logits before each step since `fill_tables`.
        uses_device_rng: whether the network draws from the device's generator (without `capture`: from any), so that
            two must not run at once.

    Raises:
        GraphCaptureError: the step cannot be captured.
        GraphRecordingError: capturing it failed.
        torch.OutOfMemoryError: memory ran out.
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
        self.compiled, self.compile_error = compiled, ""
        self.compute_logits = torch.compile(compute_logits, dynamic=False) if compiled else compute_logits
        self.model, self.augmentation_rng = model, np.random.default_rng(0)  # until the first load
        device, batch = labels.device, recipe.batch
        self.stream = take_stream(self, device) if capture else None
        self.uses_device_rng = False
        with self.ordered_on_stream(), restore_generators(device):
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
            # A rate that is a number would be recorded as a constant; as a tensor it is read at every replay, as Adam's
            # step count is.
            for group in self.optimizer.param_groups:
                group["lr"] = self.learning_rate
            if compiled:
                self.compile_step()
            # A first step creates the optimizer's state, which `load` sets to zero. With a graph, the warm-up does it.
            if self.stream is None:
                before = read_generators(device)
                self.step()
                self.uses_device_rng = before != read_generators(device)
                self.replay: Callable[[], None] = self.step
        if self.stream is not None:
            self.replay, self.uses_device_rng = record_graph(self.step_to_capture, self.network, self.stream)

    def compile_step(self) -> None:
        """Compile the network by a first step; without a compiler, or for a network unfit for it, do without."""
        try:
            self.step()
        except Exception as error:
            if is_memory_shortage(error) or is_broken_device(error):
                raise
            # If the network itself is wrong, the step that is not compiled raises the same error.
            self.compile_error = get_first_line(error)
            _log.warning("the network is not compiled, so it is slower, because %s", self.compile_error)
            self.compiled, self.compute_logits = False, compute_logits
        self.position.zero_()

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
        self.optimizer.zero_grad()
        labels = self.labels.index_select(0, rows)
        loss = cross_entropy(output, labels, label_smoothing=self.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
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

    Attributes:
        user: whose weights it has; for the caller to set and to compare.

    Raises:
        GraphCaptureError: the forward pass cannot be captured.
        GraphRecordingError: capturing it failed.
        torch.OutOfMemoryError: memory ran out.
    """

    def __init__(self, model: nn.Module, like: Tensor, recipe: Recipe, *, capture: bool = True):
        self.autocast, self.network = get_autocast_dtype(recipe.precision), copy_network(model, None).eval()
        self.user: object = None
        # The graph reads one layout; copying images of another one into the storage would convert them at every batch.
        shape, device = (GRAPH_EVALUATION_BATCH, *like.shape[1:]), like.device
        layout = torch.channels_last if like.shape[1] > 1 and like.stride(1) == 1 else torch.contiguous_format
        self.images = torch.zeros(shape, device=device).to(memory_format=layout)
        self.logits = torch.zeros(0)
        self.replay: Callable[[], None] = self.step
        if capture:
            self.replay = record_graph(self.step, self.network, take_stream(self, device)).replay

    @torch.no_grad()
    def step(self) -> None:
        """Compute the logits of the images in the static storage."""
        # The tensor made in the capture stays: every replay writes its logits there.
        self.logits = compute_logits(self.network, self.images, self.autocast)

    @torch.no_grad()
    def load(self, model: nn.Module) -> None:
        """Copy the weights of the model that is evaluated next."""
        copy_state(model, self.network)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the loaded model's logits float32 [B, K] by replaying the graph on batches."""
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
