"""Unlearning problems: theta_o, the retain, forget, validation and test sets, and batches of their examples.

An algorithm gets theta_o, the retain set and the forget set, some also the validation set; only measures read the test
set. A set of examples is a list of rows of images that stay on one device: selecting a thousand of them, or giving them
other labels, copies no image and changes the labels of no other set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from memscore.training.augmentation import augment
from memscore.training.device_data import DeviceImages
from memscore.training.recipes import Recipe


@dataclass(eq=False)
class ReadCounter:
    """Count the examples that algorithms read, each time they read one: a cost that does not depend on the machine."""

    examples: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleSet:
    """A set of examples: rows of resident images, and a label for each.

    Attributes:
        images: all images on the device; never changed.
        rows: int64 [n], on the images' device.
        labels: int64 [n], on the same device.
        n_classes: K.
        recipe: how theta_o was trained; its augmentation is applied to training batches.
        read_counter: counts the examples that are read; shared with all sets derived from this one.
    """

    images: DeviceImages
    rows: Tensor
    labels: Tensor
    n_classes: int
    recipe: Recipe
    read_counter: ReadCounter = field(default_factory=ReadCounter)

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, positions: Tensor) -> Tensor:
        """Read the images [B, C, H, W] at these positions of the set, normalised, not augmented; they are counted."""
        self.read_counter.examples += len(positions)
        # Two steps of indices: positions in the set, then rows of the images.
        return self.images.take(self.rows[positions])

    def select(self, positions: Tensor) -> "ExampleSet":
        """Select the examples at these positions, in that order."""
        return replace(self, rows=self.rows[positions], labels=self.labels[positions])

    def concatenate(self, others: "ExampleSet") -> "ExampleSet":
        """Append the other examples to these."""
        rows, labels = torch.cat([self.rows, others.rows]), torch.cat([self.labels, others.labels])
        return replace(self, rows=rows, labels=labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One unlearning problem: measures see all of it, algorithms all but the test set.

    Attributes:
        theta_o: the original, in evaluation mode.
        retain: the training examples to keep.
        forget: the training examples to forget.
        validation: held out, for selection.
        test: held out, for measures.
    """

    theta_o: nn.Module
    retain: ExampleSet
    forget: ExampleSet
    validation: ExampleSet
    test: ExampleSet

    @property
    def train(self) -> ExampleSet:
        """All training examples, in the order of their rows, with the same read counter."""
        # Both sets hold rows of the same images, so that sorting them restores the order of the training set.
        training = self.retain.concatenate(self.forget)
        return training.select(training.rows.argsort())


def validate_forget_rows(forget: Sequence[int] | np.ndarray, n_train: int) -> np.ndarray:
    """Return the rows of a forget set, int64, rising; ValueError if empty, repeated, out of range or all rows."""
    rows = np.asarray(forget, dtype=np.int64)
    if not len(rows):
        raise ValueError("the forget set is empty; name at least one training example")
    distinct, counts = np.unique(rows, return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"the forget set names row {distinct[counts > 1][0]} more than once; name each example once")
    if distinct[0] < 0 or distinct[-1] >= n_train:
        outside = distinct[0] if distinct[0] < 0 else distinct[-1]
        raise ValueError(f"the forget set names row {outside}, but the training set has rows 0 to {n_train - 1}")
    if len(distinct) == n_train:
        raise ValueError(f"the forget set is all {n_train} training examples; an untrained network has forgotten them")
    return distinct


def make_problem(
    theta_o: nn.Module,
    images: DeviceImages,
    labels: Tensor,
    sizes: tuple[int, int, int],
    forget: Sequence[int] | np.ndarray,
    recipe: Recipe,
    n_classes: int,
    validation_rows: np.ndarray | None = None,
) -> Problem:
    """Return the problem of forgetting these rows of the training set; its four sets share one read counter.

    Images and labels, int64 [N] as trained, have rows = train, validation, test, of these sizes. theta_o was trained by
    the recipe on all training rows. validation_rows are those that algorithms may read, where others are reserved for
    selection; None means all of them.
    """
    train, validation, test = sizes
    is_forgotten = np.zeros(train, dtype=bool)
    is_forgotten[validate_forget_rows(forget, train)] = True
    read_counter = ReadCounter()

    def examples(rows: np.ndarray) -> ExampleSet:
        # A copy, as arrays shared by a pool are read-only, for which torch warns.
        index = torch.from_numpy(np.array(rows)).to(labels.device)
        return ExampleSet(
            images=images,
            rows=index,
            labels=labels[index],
            n_classes=n_classes,
            recipe=recipe,
            read_counter=read_counter,
        )

    return Problem(
        # Rows of the three splits follow each other.
        theta_o=theta_o.eval(),
        retain=examples(np.flatnonzero(~is_forgotten)),
        forget=examples(np.flatnonzero(is_forgotten)),
        validation=examples(np.arange(validation) + train if validation_rows is None else validation_rows),
        test=examples(np.arange(test) + train + validation),
    )


Batch = tuple[Tensor, Tensor]
"""Images float32 [B, C, H, W], normalised; labels int64 [B]."""


class BatchSampler:
    """Draw shuffled, augmented batches of a set of examples; one iteration is one pass.

    Each pass draws a new order and new augmentations, also where a small set is read several times (the reference codes
    cache the first pass). The last batch is smaller where the size does not divide the set; no example is dropped.

    Args:
        examples: the set.
        size: batch size; larger than the set means one batch of the whole set.
        rng: draws orders and augmentations.
    """

    def __init__(self, examples: ExampleSet, size: int, rng: np.random.Generator) -> None:
        if size is None:
            raise ValueError(
                "the batch size follows from the data and is not known here; give the config a number for it and for "
                "the epochs, or take unlearn.optimization.steps.resolve_steps"
            )
        self.examples, self.size = examples, size
        # Separate streams: orders do not depend on how much the augmentation draws. Spawning does not move rng itself.
        self.order_rng, self.augmentation_rng = rng.spawn(2)

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, _ in self.with_positions():
            yield images, labels

    def with_positions(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Make one pass; yield also the positions of the examples in the set, int64 [B]."""
        examples = self.examples
        # Drawn by NumPy on the CPU: the same order on every device.
        order = torch.from_numpy(self.order_rng.permutation(len(examples))).to(examples.rows.device)
        for positions in torch.split(order, self.size):
            images = examples.take(positions)
            # Crops are padded with black, which is not 0 after normalisation.
            augmented = augment(images, examples.images.black, examples.recipe, self.augmentation_rng)
            yield augmented, examples.labels[positions], positions

    def cycle(self) -> Iterator[Batch]:
        """Repeat passes without end."""
        while True:
            yield from self


def iterate_in_order(examples: ExampleSet, size: int) -> Iterator[Batch]:
    """Make one pass in the order of the set without augmentation, for sums that must not depend on a random order."""
    for positions in torch.split(torch.arange(len(examples), device=examples.rows.device), size):
        yield examples.take(positions), examples.labels[positions]
