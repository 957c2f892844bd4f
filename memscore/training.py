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

import platform
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from memscore.images import Images
from memscore.models.architectures import linear_layers, logits
from memscore.proxies.learning_events import Events
from memscore.recipes import Recipe, lr_at
from memscore.stacked import Stack

AtEpoch = Callable[[int], None]

LOGIT_BYTES = 64 * 2**20  # of logits kept until their learning events are counted


@dataclass(frozen=True, kw_only=True, eq=False)
class Assignment:
    """One model's training: its weights, its examples and its streams of chance.

    Attributes:
        model: freshly built; its weights are trained in place.
        rows: int64 [m], the examples it may see.
        order: draws its permutations.
        chance: draws its augmentations.
        architecture: what built it, input shape and classes included; two models that share it differ in numbers only.
            "" if nobody knows.
    """

    model: nn.Module
    rows: np.ndarray
    order: np.random.Generator
    chance: np.random.Generator
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
    assignments: Sequence[Assignment],
    images: Images,
    labels: Tensor,
    recipe: Recipe,
    steps: int,
    *,
    events: Events | None = None,
    at_epoch: AtEpoch | None = None,
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
        at_epoch: called with 1, 2, ... when the models have taken round(epoch * T / epochs) steps; weights are current.
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
    orders = [Order(a.rows, a.order) for a in assignments]
    if engine is None:
        engine = own_engine(assignments, images, labels, recipe)
    longest = smallest // recipe.batch
    if events is not None:
        step_bytes = 4 * len(assignments) * recipe.batch * (int(labels.max()) + 1)
        longest = min(longest, max(1, LOGIT_BYTES // step_bytes))
    done = 0
    for length, epoch in windows(steps, recipe.epochs, longest):
        taken = [order.take(length * recipe.batch) for order in orders]
        rows = sent(np.stack([t[0] for t in taken]), labels.device).view(len(orders), length, -1)
        rates = [lr_at(recipe, (done + step) / steps) for step in range(length)]
        said = engine.run(rows, rates, keep=events is not None)
        done += length
        if events is not None and said is not None:
            count_visits(events, rows.flatten(1), said.flatten(1, 2), labels, [t[1] for t in taken])
        if epoch and at_epoch:
            engine.write_back()
            at_epoch(epoch)
    engine.write_back()


def own_engine(assignments: Sequence[Assignment], images: Images, labels: Tensor, recipe: Recipe) -> Engine:
    """A stack where the models stack; else there is one of them."""
    if stacks(assignments[0].model, recipe):
        return Stack([a.model for a in assignments], images, labels, recipe)
    (alone,) = assignments
    return Single(alone, images, labels, recipe)


def sent(values: np.ndarray, device: torch.device) -> Tensor:
    """Numbers on the device; a GPU is not waited for, so that the next window is drawn while it works on this one."""
    here = torch.from_numpy(values)
    return here.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else here


def stacks(model: nn.Module, recipe: Recipe) -> bool:
    """Whether such models are trained side by side: fully connected, plain SGD in float32, nothing augmented."""
    plain = recipe.optimizer == "sgd" and not recipe.nesterov and not recipe.augment
    return plain and recipe.precision == "float32" and linear_layers(model) is not None


def windows(steps: int, epochs: int, longest: int) -> Iterator[tuple[int, int]]:
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
    for epoch in range(1, epochs + 1) if epochs <= steps else last_epochs(steps, epochs):
        end = round(epoch * steps / epochs)
        while done < end:
            length = min(longest, end - done)
            done += length
            yield length, epoch if done == end else 0


def last_epochs(steps: int, epochs: int) -> Iterator[int]:
    """Of more epochs than steps the last that ends with each step; no longer to go through for a billion of them."""
    for step in range(1, steps + 1):
        epoch = min(epochs, (2 * step + 1) * epochs // (2 * steps))
        yield epoch - (round(epoch * steps / epochs) > step)  # a half is rounded to the even step


class Order:
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


def count_visits(events: Events, rows: Tensor, said: Tensor, labels: Tensor, ending: Sequence[int]) -> None:
    """Add one window of visits: first those that end a pass, then those of the next; in each, examples are distinct."""
    position = torch.arange(rows.shape[1], device=rows.device)
    first = position < torch.tensor(ending, device=rows.device)[:, None]
    events.add(rows, said, labels[rows], first, ~first)


class Single:
    """One network of any kind, by autograd."""

    def __init__(self, assignment: Assignment, images: Images, labels: Tensor, recipe: Recipe):
        self.model, self.chance = assignment.model, assignment.chance
        self.images, self.labels, self.recipe = images, labels, recipe
        if not images.flat:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer_of(self.model, recipe)

    def run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        """Take one step for each rate; returns float32 logits [1, steps, B, K] before each step if they are wanted."""
        with one_layout(self.model) if not self.images.flat else nullcontext():
            return self._run(rows, rates, keep=keep)

    def _run(self, rows: Tensor, rates: Sequence[float], *, keep: bool) -> Tensor | None:
        said = []
        autocast = torch.bfloat16 if self.recipe.precision == "bfloat16" else None
        self.model.train()
        for batch, rate in zip(rows[0], rates, strict=True):
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            shown = augment(self.images.take(batch), self.images.black, self.recipe, self.chance)
            out = logits(self.model, shown, autocast)
            self.optimizer.zero_grad(set_to_none=True)
            cross_entropy(out, self.labels[batch]).backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            if keep:
                said.append(out.detach())
        return torch.stack(said)[None] if keep else None

    def write_back(self) -> None:
        """Nothing to do: the weights are the model's own."""


@contextmanager
def one_layout(model: nn.Module) -> Generator[None, None, None]:
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


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over all weights, fused."""
    weights = list(model.parameters())
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            weights, recipe.lr, recipe.momentum, weight_decay=recipe.weight_decay, nesterov=recipe.nesterov, fused=True
        )
    kind: type[torch.optim.Optimizer] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[recipe.optimizer]
    return kind(weights, lr=recipe.lr, weight_decay=recipe.weight_decay, fused=True)  # type: ignore[call-arg]


def augment(images: Tensor, black: Tensor, recipe: Recipe, chance: np.random.Generator) -> Tensor:
    """Crop and mirror, drawn for each image by itself.

    Args:
        images: float32 [B, C, H, W], normalised.
        black: [C], the value of padding.
        recipe: `augment` names what is done; crops are from images padded by `crop_padding` pixels.
        chance: the model's stream.

    Returns:
        [B, C, H, W], channels last; the same tensor if the recipe augments nothing.
    """
    corners, mirrored = (torch.from_numpy(drawn).to(images.device) for drawn in draw(recipe, len(images), chance))
    return changed(images, black, recipe, corners, mirrored)


def draw(recipe: Recipe, size: int, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One batch's chances: corners of the crops int64 [2, B] (top, left), and who is mirrored bool [B]; or zeros."""
    corners, mirrored = np.zeros((2, size), dtype=np.int64), np.zeros(size, dtype=bool)
    if "crop" in recipe.augment:
        corners = chance.integers(0, 2 * recipe.crop_padding + 1, (2, size))
    if "flip" in recipe.augment:
        mirrored = chance.random(size) < 0.5
    return corners, mirrored


def changed(images: Tensor, black: Tensor, recipe: Recipe, corners: Tensor, mirrored: Tensor) -> Tensor:
    """The images cropped and mirrored as `draw` says, [B, C, H, W]; the same tensor if the recipe augments nothing."""
    size, channels, height, width = images.shape
    if "crop" in recipe.augment:
        pad = recipe.crop_padding
        canvas = black.view(1, -1, 1, 1).expand(size, channels, height + 2 * pad, width + 2 * pad).clone()
        canvas[:, :, pad : pad + height, pad : pad + width] = images
        top, left = corners[..., None]
        rows, columns = (start + torch.arange(n, device=images.device) for start, n in ((top, height), (left, width)))
        each = torch.arange(size, device=images.device)[:, None, None]
        images = canvas.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
    if "flip" in recipe.augment:
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
    return images


def is_finite(model: nn.Module) -> bool:
    """Whether every weight and every running statistic is a finite number."""
    return all(bool(torch.isfinite(t).all()) for t in model.state_dict().values() if t.is_floating_point())


@contextmanager
def one_thread() -> Generator[None, None, None]:
    """One torch thread, whatever the process had before: two give other bits, and stall on busy cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def cpu_maker() -> str:
    """The maker's name as the CPU gives it, "GenuineIntel" or "AuthenticAMD"; "" where the system does not say."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else platform.processor()
    return next((name for name in ("GenuineIntel", "AuthenticAMD") if name in text), "")


@contextmanager
def exact_products(device: torch.device) -> Generator[str, None, None]:
    """The fastest matrix product on this machine that is still float32, checked against float64.

    On AMD's CPUs the usual library takes a slow path, and the setting "medium" picks another that is twice as fast and
    keeps full precision; on Intel's that other one is the slower (a step of a stack took 1.3 times as long).
    On some CPUs, and on GPUs, "medium" lowers the precision, so it is kept only where a 256 x 256 x 256 product shows
    float32's error. The maker decides and not a timing: a bank's bits must not hang on one. On a GPU the convolutions
    are held to float32 too, which they are not by default, and their kernels are chosen by a timing unless torch is
    told to be deterministic.

    Yields:
        The setting in force, "medium" or "highest", to be written on the receipt.
    """
    before, cudnn = torch.get_float32_matmul_precision(), torch.backends.cudnn
    convolutions = (cudnn.allow_tf32, cudnn.benchmark) if device.type == "cuda" else None
    chosen = "highest"
    try:
        if device.type == "cpu" and cpu_maker() == "AuthenticAMD":
            torch.set_float32_matmul_precision("medium")
            rng = torch.Generator().manual_seed(0)
            a, b = torch.randn(2, 256, 256, generator=rng)
            truth = a.double() @ b.double()
            if float(((a @ b).double() - truth).norm() / truth.norm()) < 2e-6:  # bfloat16 gives 3e-3, float32 3e-7
                chosen = "medium"
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = False, not torch.are_deterministic_algorithms_enabled()
        torch.set_float32_matmul_precision(chosen)
        yield chosen
    finally:
        torch.set_float32_matmul_precision(before)
        if convolutions:
            cudnn.allow_tf32, cudnn.benchmark = convolutions


def device_named(wish: str) -> str:
    """The device for this process: "auto" is a GPU where there is one.

    Args:
        wish: "auto", "cpu" or "cuda".

    Returns:
        "cpu" or "cuda".

    Raises:
        ValueError: a GPU is asked for and there is none.
    """
    there = torch.cuda.is_available()
    if wish == "cuda" and not there:
        raise ValueError("--device cuda, but torch sees no GPU here; use --device cpu, or auto")
    return "cuda" if there and wish != "cpu" else "cpu"
