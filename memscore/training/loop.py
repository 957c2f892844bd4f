"""The fast training loop, for one network at a time or many small ones side by side.

One step law for every engine and design (so that all of them train the same way):

- a model takes T = round(epochs * keep * n_train / batch) steps and every batch is full;
- it reads its own permutation of its own examples and draws a new one when that is exhausted;
- the learning rate is a function of step / T.

Two engines. Fully connected networks without augmentation under SGD are trained as a stack (stacked.py): one batched
matrix product for many models, forward and backward written by hand. Everything else is trained one network at a time;
on a GPU jobs hand in a third engine, which takes the same steps from a CUDA graph (captured.py). Architecture and
recipe decide which, never how many models remain, and a model's bits do not depend on its place in a stack or on its
company: every tensor starts at a 128-byte boundary, and each update ends at one.
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
from memscore.training.augmentation import augment
from memscore.training.device_data import DeviceImages
from memscore.training.learning_events import LearningEvents
from memscore.training.recipes import Recipe, compute_lr
from memscore.training.stacked_mlp import StackedMLPEngine

EpochCallback = Callable[[int], None]

LOGIT_BYTES = 64 * 2**20  # of logits kept until their learning events are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingRun:
    """One model's training: its weights, its examples and its streams of chance.

    Attributes:
        model: freshly built; its weights are trained in place.
        rows: int64 [m], the examples it may see.
        order_rng: draws its permutations.
        augmentation_rng: draws its augmentations.
        architecture: what built it, input shape and classes included; two models that share it differ in numbers only.
            "" if nobody knows.
    """

    model: nn.Module
    rows: np.ndarray
    order_rng: np.random.Generator
    augmentation_rng: np.random.Generator
    architecture: str = ""


class Engine(Protocol):
    """What takes the steps of S models."""

    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate.

        Args:
            rows: int64 [S, steps, B], what each model reads at each step.
            rates: learning rate of each step.
            keep: whether logits are wanted.

        Returns:
            float32 logits [S, steps, B, K] before each step, or None.
        """
        ...

    def write_back(self) -> None:
        """Bring the weights into the models they belong to."""
        ...


def train(
    assignments: Sequence[TrainingRun],
    images: DeviceImages,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    *,
    events: LearningEvents | None = None,
    on_epoch_end: EpochCallback | None = None,
    engine: Engine | None = None,
) -> None:
    """Train these models in place, all for the same number of steps.

    Args:
        assignments: S models of one architecture; more than one only where `stacks(model, recipe)`, or with an engine.
        images: N resident images, flat for stacks.
        labels: int64 [N], same device.
        recipe: optimizer, schedule, batch, augmentation.
        steps: T of the step law.
        events: S x N learning events to be counted at every visit.
        on_epoch_end: called with 1, 2, ... when the models have taken round(epoch * T / epochs) steps, with current
            weights.
        engine: made of these assignments, and not used since; None for a stack or a single network.

    Raises:
        ValueError: a batch larger than the smallest subset.
    """
    smallest = min(len(a.rows) for a in assignments)
    if recipe.batch > smallest:
        raise ValueError(
            f"a batch of {recipe.batch} is larger than the smallest subset, {smallest} examples; "
            f"use --batch {smallest} or less, or a larger keep fraction"
        )
    orders = [EpochSampler(a.rows, a.order_rng) for a in assignments]
    if engine is None:
        engine = build_default_engine(assignments, images, labels, recipe)
    longest = smallest // recipe.batch
    if events is not None:
        step_bytes = 4 * len(assignments) * recipe.batch * (int(labels.max()) + 1)
        longest = min(longest, max(1, LOGIT_BYTES // step_bytes))
    done = 0
    for length, epoch in split_into_windows(steps, recipe.epochs, longest):
        taken = [order.take(length * recipe.batch) for order in orders]
        rows = send_to_device(np.stack([t[0] for t in taken]), labels.device).view(len(orders), length, -1)
        rates = [compute_lr(recipe, (done + step) / steps) for step in range(length)]
        said = engine.run(rows, rates, keep=events is not None)
        done += length
        if events is not None and said is not None:
            count_visits(events, rows.flatten(1), said.flatten(1, 2), labels, [t[1] for t in taken])
        if epoch and on_epoch_end:
            engine.write_back()
            on_epoch_end(epoch)
    engine.write_back()


def build_default_engine(
    assignments: Sequence[TrainingRun], images: DeviceImages, labels: Tensor, recipe: Recipe
) -> Engine:
    """A stack where the models stack; else there is one of them."""
    if is_stackable(assignments[0].model, recipe):
        return StackedMLPEngine([a.model for a in assignments], images, labels, recipe)
    (alone,) = assignments
    return EagerEngine(alone, images, labels, recipe)


def send_to_device(values: np.ndarray, device: torch.device) -> Tensor:
    """Numbers on the device; a GPU is not waited for, so that the next window is drawn while it works on this one."""
    here = torch.from_numpy(values)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


def is_stackable(model: nn.Module, recipe: Recipe) -> bool:
    """Whether such models are trained side by side: fully connected, plain SGD in float32, nothing augmented."""
    plain = recipe.optimizer == "sgd" and not recipe.nesterov and not recipe.augment
    return plain and recipe.precision == "float32" and find_mlp_layers(model) is not None


def split_into_windows(steps: int, epochs: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cut T steps into runs no longer than one pass over the smallest subset, ending at every epoch.

    Args:
        steps: T.
        epochs: of the recipe; epoch e ends after round(e * T / epochs) steps.
        longest: steps a window at most.

    Yields:
        Number of steps, and the epoch that ends with them or 0.

    >>> list(windows(10, 2, 4))
    [(4, 0), (1, 1), (4, 0), (1, 2)]
    """
    done = 0
    for epoch in range(1, epochs + 1) if epochs <= steps else find_last_epochs(steps, epochs):
        end = round(epoch * steps / epochs)
        while done < end:
            length = min(longest, end - done)
            done += length
            yield length, epoch if done == end else 0


def find_last_epochs(steps: int, epochs: int) -> Iterator[int]:
    """Of more epochs than steps the last that ends with each step; no longer to go through for a billion of them."""
    for step in range(1, steps + 1):
        epoch = min(epochs, (2 * step + 1) * epochs // (2 * steps))
        yield epoch - (round(epoch * steps / epochs) > step)  # a half is rounded to the even step


class EpochSampler:
    """A model's endless reading order: a permutation of its examples, and a new one whenever it is exhausted."""

    def __init__(self, rows: np.ndarray, rng: np.random.Generator):
        self.rows, self.rng = rows, rng
        self.left = rows[:0]

    def take(self, count: int) -> tuple[np.ndarray, int]:
        """The next rows to read.

        Args:
            count: how many, at most one pass.

        Returns:
            int64 [count], and how many of them end the pass that was under way.
        """
        ending = min(count, len(self.left))
        taken, self.left = self.left[:ending], self.left[ending:]
        if ending < count:
            again = self.rng.permutation(self.rows)
            taken, self.left = np.concatenate([taken, again[: count - ending]]), again[count - ending :]
        return taken, ending


def count_visits(events: LearningEvents, rows: Tensor, said: Tensor, labels: Tensor, ending: Sequence[int]) -> None:
    """Add one window of visits: first those that end a pass, then those of the next; in each, examples are distinct."""
    position = torch.arange(rows.shape[1], device=rows.device)
    first = position < torch.tensor(ending, device=rows.device)[:, None]
    events.add(rows, said, labels[rows], first, ~first)


class EagerEngine:
    """One network of any kind, by autograd."""

    def __init__(self, assignment: TrainingRun, images: DeviceImages, labels: Tensor, recipe: Recipe):
        self.model, self.augmentation_rng = assignment.model, assignment.augmentation_rng
        self.images, self.labels, self.recipe = images, labels, recipe
        if not images.flat:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = build_optimizer(self.model, recipe)

    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate; returns float32 logits [1, steps, B, K] before each step if they are wanted."""
        with keep_gradient_layout(self.model) if not self.images.flat else nullcontext():
            return self._run(rows, rates, keep=keep)

    def _run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        said = []
        autocast = torch.bfloat16 if self.recipe.precision == "bfloat16" else None
        self.model.train()
        for batch, rate in zip(rows[0], rates, strict=True):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            shown = augment(self.images.take(batch), self.images.black, self.recipe, self.augmentation_rng)
            out = compute_logits(self.model, shown, autocast)
            self.optimizer.zero_grad(set_to_none=True)
            cross_entropy(out, self.labels[batch]).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if keep:
                said.append(out.detach())
        return torch.stack(said)[None] if keep else None

    def write_back(self) -> None:
        """Nothing to do: the weights are the model's own."""


@contextmanager
def keep_gradient_layout(model: nn.Module) -> Generator[None, None, None]:
    """Let what flows back through a Flatten have the layout of what went in: mixed layouts take torch's slow path."""

    def watch(_: nn.Module, given: tuple[Tensor]) -> None:
        if given[0].ndim == 4 and given[0].requires_grad:
            given[0].register_hook(  # type: ignore[no-untyped-call]
                lambda slope: slope.contiguous(memory_format=torch.channels_last)
            )

    hooks = [layer.register_forward_pre_hook(watch) for layer in model.modules() if isinstance(layer, nn.Flatten)]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all weights, fused."""
    weights = list(model.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            weights, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov, fused=True
        )
    kind: type[torch.optim.Optimizer] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(weights, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)  # type: ignore[call-arg]
