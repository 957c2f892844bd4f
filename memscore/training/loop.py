"""The training loop: one network at a time, or many small ones in one stack.

Every engine and design follows the same step rule, so that all of them train the same way:

- a model takes T = round(epochs * keep * n_train / batch) steps and every batch is full;
- it reads its own permutation of its own examples and draws a new one when that is exhausted;
- the learning rate is a function of step / T.

Fully connected networks without augmentation under SGD are trained as a stack (stacked_mlp.py): one batched matrix
product for many models, forward and backward written by hand, or one product a model where products are in bfloat16
(bfloat16_stack.py). Every other network is trained by autograd, one at a time, and the small CNNs on a CPU by the same
gradients without it (direct_gradients.py); on a GPU jobs pass a third engine, which takes the same steps from a CUDA
graph (cuda_graphs.py). Architecture and recipe select the engine, never the number of models that remain, and a model's
bits do not depend on its place in a stack or on the other models: every tensor starts at a 128-byte boundary, and each
update ends at one.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.models.architectures import compute_logits, find_mlp_layers
from memscore.models.compiled_convolutions import keep_channels_last
from memscore.models.random_state import seed_generators
from memscore.training.augmentation import augment
from memscore.training.bfloat16_stack import Bfloat16StackEngine
from memscore.training.device_data import DeviceImages
from memscore.training.device_timer import DeviceTimer
from memscore.training.direct_gradients import compute_gradients, has_direct_gradients
from memscore.training.learning_events import LearningEvents
from memscore.training.numerics import get_autocast_dtype
from memscore.training.optimizers import FusedOptimizer
from memscore.training.precision import require_trained_precision
from memscore.training.recipes import BFLOAT16_PRODUCTS, Recipe, check_batch_size, compute_lr
from memscore.training.stacked_mlp import StackedMLPEngine
from memscore.training.user_training import UserOptimizer, build_user_optimizer
from memscore.user_functions import is_user_function

EpochCallback = Callable[[int], None]

LOGIT_BYTES = 64 * 2**20  # of logits in memory until their learning events are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """One model's training: its weights, its examples and its random streams.

    Attributes:
        model: freshly initialized; its weights are trained in place.
        rows: int64 [m], the examples of its subset.
        order_rng: draws its permutations.
        augmentation_rng: draws its augmentations.
        architecture: name of what built it, input shape and classes included; two models with the same name differ in
            the values of their tensors only. "" if unknown.
        network_seed: of what the network itself draws, such as dropout; None leaves that to the global generators.
    """

    model: nn.Module
    rows: np.ndarray
    order_rng: np.random.Generator
    augmentation_rng: np.random.Generator
    architecture: str = ""
    network_seed: int | None = None


class Engine(Protocol):
    """Takes the optimizer steps of S models."""

    def run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        """Take one step for each learning rate.

        Args:
            rows: int64 [S, steps, B], the examples that each model reads at each step.
            learning_rates: learning rate of each step.
            return_logits: whether to return logits.

        Returns:
            float32 logits [S, steps, B, K] before each step, or None.
        """
        ...

    def write_back(self) -> None:
        """Copy the weights into the models they belong to."""
        ...


def train(
    runs: Sequence[TrainingRun],
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    *,
    events: LearningEvents | None = None,
    event_timer: DeviceTimer | None = None,
    on_epoch_end: EpochCallback | None = None,
    engine: Engine | None = None,
) -> None:
    """Train these models in place, all for the same number of steps.

    Args:
        runs: S models of one architecture; more than one only where `is_stackable(model, recipe)`, or with an engine,
            and only if the network draws no random numbers.
        images: N images on the device, flat for stacks.
        labels: int64 [N], same device.
        recipe: optimizer, schedule, batch, augmentation.
        steps: T of the step rule.
        events: S x N learning events, counted at every visit.
        event_timer: measures how long the counting takes.
        on_epoch_end: called with 1, 2, ... when the models have taken round(epoch * T / epochs) steps; weights are
            current.
        engine: loaded with these runs, and not used since; None for a stack or a single network.

    Raises:
        ValueError: a batch is larger than the smallest subset.
    """
    smallest = min(len(run.rows) for run in runs)
    check_batch_size(recipe.batch, smallest, len(labels))
    if engine is None:
        engine = build_default_engine(runs, images, labels, recipe)
    # The generators are the network's until it is trained, so that its draws continue from window to window. Whatever
    # draws in a callback must restore them. Stacks draw nothing, and neither do networks that are trained together.
    draws = len(runs) == 1 and not isinstance(engine, StackedMLPEngine)
    with seed_generators(runs[0].network_seed if draws else None, labels.device):
        timer = event_timer or DeviceTimer(labels.device)
        take_steps(runs, labels, recipe, steps, smallest // recipe.batch, events, timer, on_epoch_end, engine)


def take_steps(
    runs: Sequence[TrainingRun],
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    longest: int,
    events: LearningEvents | None,
    event_timer: DeviceTimer,
    on_epoch_end: EpochCallback | None,
    engine: Engine,
) -> None:
    """Take all steps of these models, in windows of at most `longest` steps."""
    samplers = [EpochSampler(run.rows, run.order_rng) for run in runs]
    # An engine takes the steps of one window per call. A window reads one pass of the smallest subset at most, so each
    # model starts at most one new permutation in it; and the logits of its learning events fit into memory.
    if events is not None:
        step_bytes = 4 * len(runs) * recipe.batch * (int(labels.max()) + 1)
        longest = min(longest, max(1, LOGIT_BYTES // step_bytes))
    done = 0
    for length, epoch in split_into_windows(steps, recipe.epochs, longest):
        # rows is [S, steps of the window, B]; models of a stack have different permutations and pass boundaries.
        batches = [sampler.take(length * recipe.batch) for sampler in samplers]
        rows = send_to_device(np.stack([rows for rows, _ in batches]), labels.device).view(len(samplers), length, -1)
        # The schedule follows progress through all T steps, so the windows' lengths change nothing.
        learning_rates = [compute_lr(recipe, (done + step) / steps) for step in range(length)]
        logits = engine.run(rows, learning_rates, return_logits=events is not None)
        done += length
        if events is not None and logits is not None:
            with event_timer.measure():
                count_visits(events, rows.flatten(1), logits.flatten(1, 2), labels, [ending for _, ending in batches])
        # Engines train on copies of the weights, except the eager one.
        if epoch and on_epoch_end:
            engine.write_back()
            on_epoch_end(epoch)
    engine.write_back()


def build_default_engine(runs: Sequence[TrainingRun], images: DeviceImages, labels: Tensor, recipe: Recipe) -> Engine:
    """Build the default engine: a stack for stackable models, else the eager engine."""
    require_trained_precision(runs[0].model, recipe)
    if is_stackable(runs[0].model, recipe):
        engine = Bfloat16StackEngine if recipe.precision == BFLOAT16_PRODUCTS else StackedMLPEngine
        return engine([run.model for run in runs], images, labels, recipe)
    (run,) = runs
    return EagerEngine(run, images, labels, recipe)


def send_to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Copy values to the device without waiting for a GPU, which computes meanwhile."""
    # Only a copy from page-locked memory is asynchronous.
    tensor = torch.from_numpy(values)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def is_stackable(model: nn.Module, recipe: Recipe) -> bool:
    """Return whether models stack: fully connected, plain SGD, in one of the precisions of stacks."""
    has_precision = recipe.precision in {"float32", BFLOAT16_PRODUCTS}
    return recipe.is_plain_sgd and has_precision and find_mlp_layers(model) is not None


def split_into_windows(steps: int, epochs: int, longest: int) -> Iterator[tuple[int, int]]:
    """Split T steps into windows of at most `longest` steps, ending at every epoch.

    Args:
        steps: T.
        epochs: of the recipe; epoch e ends after round(e * T / epochs) steps.
        longest: steps per window at most.

    Yields:
        Number of steps, and the epoch that ends with them, or 0.

    >>> list(split_into_windows(10, 2, 4))
    [(4, 0), (1, 1), (4, 0), (1, 2)]
    """
    done = 0
    # With more epochs than steps (a billion are allowed) only the epochs that end with a step are visited.
    for epoch in range(1, epochs + 1) if epochs <= steps else find_last_epochs(steps, epochs):
        end = round(epoch * steps / epochs)
        while done < end:
            length = min(longest, end - done)
            done += length
            yield length, epoch if done == end else 0


def find_last_epochs(steps: int, epochs: int) -> Iterator[int]:
    """Yield the last epoch that ends with each step, for more epochs than steps."""
    # Epoch e ends with step s if round(e T / E) = s, so the last one is floor((2 s + 1) E / (2 T)), in whole numbers,
    # except where its e T / E lies exactly halfway and is rounded up.
    for step in range(1, steps + 1):
        epoch = min(epochs, (2 * step + 1) * epochs // (2 * steps))
        yield epoch - (round(epoch * steps / epochs) > step)  # round() rounds a half to the even step


class EpochSampler:
    """Endless sampler of one model's examples, int64 [m]: permutation after permutation, without a gap between them."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator):
        self.rows, self.rng = rows, rng
        self.remaining = rows[:0]

    def take(self, count: int) -> tuple[np.ndarray, int]:
        """Return the next rows to read.

        Args:
            count: how many, at most one pass.

        Returns:
            int64 [count], and how many of them complete the pass in progress.
        """
        # A batch may start with the last examples of one permutation and end with the first of the next: every batch is
        # full and none is skipped. Another permutation is drawn only when its first example is read.
        ending = min(count, len(self.remaining))
        rows, self.remaining = self.remaining[:ending], self.remaining[ending:]
        if ending < count:
            permutation = self.rng.permutation(self.rows)
            rows, self.remaining = np.concatenate([rows, permutation[: count - ending]]), permutation[count - ending :]
        return rows, ending


def count_visits(events: LearningEvents, rows: Tensor, logits: Tensor, labels: Tensor, ending: Sequence[int]) -> None:
    """Count one window of visits: those that complete a pass, then those of the next."""
    # An example can be read twice in a window, once in each pass, and forgetting depends on the order of its visits. So
    # the passes are counted one after the other; `first` is bool [S, L], and `ending` differs between models.
    position = torch.arange(rows.shape[1], device=rows.device)
    first = position < send_to_device(np.array(ending), rows.device)[:, None]
    events.add(rows, logits, labels[rows], first, ~first)


class EagerEngine:
    """Train one network of any kind by autograd; small CNNs on a CPU by the gradients that autograd would give."""

    def __init__(self, run: TrainingRun, images: DeviceImages, labels: Tensor, recipe: Recipe):
        self.model, self.augmentation_rng = run.model, run.augmentation_rng
        self.images, self.labels, self.recipe = images, labels, recipe
        if not images.flat:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer: FusedOptimizer | UserOptimizer
        if is_user_function(recipe.optimizer):
            self.optimizer = build_user_optimizer(self.model, recipe)
        else:
            self.optimizer = build_optimizer(self.model, recipe)

    def run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        """Take a step per learning rate; optionally return logits [1, steps, B, K] before each."""
        with keep_gradient_layout(self.model) if not self.images.flat else nullcontext():
            return self._run(rows, learning_rates, return_logits=return_logits)

    def _run(self, rows: Tensor, learning_rates: Sequence[float], *, return_logits: bool) -> Tensor | None:
        # rows is [1, steps, B]. train() each time: a callback at an epoch's end may have evaluated the model.
        logits_before, direct = [], None
        autocast = get_autocast_dtype(self.recipe.precision)
        self.model.train()
        for batch, learning_rate in zip(rows[0], learning_rates, strict=True):
            self.optimizer.set_lr(learning_rate)
            augmented = augment(self.images.take(batch), self.images.black, self.recipe, self.augmentation_rng)
            if direct is None:  # the images of all batches are alike
                direct = has_direct_gradients(self.model, augmented, self.recipe)
            if direct:
                output = compute_gradients(self.model, augmented, self.labels[batch])
            else:
                output = compute_logits(self.model, augmented, autocast)
                self.optimizer.zero_grad()
                loss = cross_entropy(output, self.labels[batch], label_smoothing=self.recipe.label_smoothing)
                loss.backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if return_logits:
                logits_before.append(output.detach())
        return torch.stack(logits_before)[None] if return_logits else None

    def write_back(self) -> None:
        """Do nothing: the model itself is trained."""


@contextmanager
def keep_gradient_layout(model: nn.Module) -> Generator[None, None, None]:
    """Give gradients at Flatten layers their input's layout: mixed layouts are slow."""
    hooks = [
        layer.register_forward_pre_hook(keep_channels_last)
        for layer in model.modules()
        if isinstance(layer, nn.Flatten)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def build_optimizer(model: nn.Module, recipe: Recipe) -> FusedOptimizer:
    """Build the recipe's optimizer over all weights."""
    return FusedOptimizer(
        [(model.parameters(), recipe.lr)],
        recipe.optimizer,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )
