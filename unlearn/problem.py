"""What is to be forgotten, by which model, and what is to stay.

Algorithms are handed theta_o, the retain set and the forget set, some of them the validation set; the test set belongs
to the measures alone. A set of examples is rows of images that are resident on one device, so that forgetting a
thousand of them, or giving them other labels, copies no image and changes nobody else's labels.

Passes over a set of examples in batches.
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
    """How many examples algorithms have read, each time that they read one: the cost that no machine's speed enters."""

    examples: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ExampleSet:
    """A set of examples: rows of resident images, and a label for each.

    Attributes:
        images: all that are resident; never changed.
        rows: int64 [n], on the images' device.
        labels: int64 [n], on the same device.
        n_classes: K.
        recipe: how theta_o was trained; its augmentation is applied to what is trained on.
        read_counter: counts what is taken; shared with the sets that are made of this one.
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
        """Images [B, C, H, W] at these positions of the set, normalised, not augmented; counted."""
        self.read_counter.examples += len(positions)
        return self.images.take(self.rows[positions])

    def select(self, positions: Tensor) -> "ExampleSet":
        """The examples at these positions, in that order."""
        return replace(self, rows=self.rows[positions], labels=self.labels[positions])

    def with_labels(self, labels: Tensor) -> "ExampleSet":
        """The same examples with other labels, int64 [n]."""
        return replace(self, labels=labels)

    def concatenate(self, others: "ExampleSet") -> "ExampleSet":
        """These examples, then the others."""
        rows, labels = torch.cat([self.rows, others.rows]), torch.cat([self.labels, others.labels])
        return replace(self, rows=rows, labels=labels)


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """One request to forget: measures see all of it, algorithms all but the test set.

    Attributes:
        theta_o: the original, in evaluation mode.
        retain: what stays of the training set.
        forget: what is to be forgotten of it.
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
        """All training examples, in the order of their rows, counted into the same tally."""
        everything = self.retain.concatenate(self.forget)
        return everything.select(everything.rows.argsort())


def validate_forget_rows(wanted: Sequence[int] | np.ndarray, n_train: int) -> np.ndarray:
    """Check a forget set.

    Args:
        wanted: rows of the training set.
        n_train: its size.

    Returns:
        The rows, int64, rising.

    Raises:
        ValueError: none, one twice, one out of range, or all of them.
    """
    rows = np.asarray(wanted, dtype=np.int64)
    if not len(rows):
        raise ValueError("the forget set is empty; name at least one training example")
    found, counts = np.unique(rows, return_counts=True)
    if counts.max() > 1:
        raise ValueError(f"the forget set names row {found[counts > 1][0]} more than once; name each example once")
    if found[0] < 0 or found[-1] >= n_train:
        outside = found[0] if found[0] < 0 else found[-1]
        raise ValueError(f"the forget set names row {outside}, but the training set has rows 0 to {n_train - 1}")
    if len(found) == n_train:
        raise ValueError(f"the forget set is all {n_train} training examples; an untrained network has forgotten them")
    return found


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
    """Cut a data set into what an algorithm may see.

    Args:
        theta_o: trained on all training rows, on the images' device.
        images: rows = train, validation, test.
        labels: int64, one a row, as trained.
        sizes: of the three splits.
        forget: rows of the training set.
        recipe: how theta_o was trained.
        n_classes: K.
        validation_rows: int64, those that algorithms may read, where others are kept for selection; None for all.

    Returns:
        The problem; its four sets count into one tally.

    Raises:
        ValueError: a forget set that is not one; see forgettable.
    """
    train, validation, test = sizes
    dropped = np.zeros(train, dtype=bool)
    dropped[validate_forget_rows(forget, train)] = True
    tally = ReadCounter()

    def examples(rows: np.ndarray) -> ExampleSet:
        here = torch.from_numpy(np.array(rows)).to(labels.device)  # what a pool shares is read-only
        return ExampleSet(
            images=images, rows=here, labels=labels[here], n_classes=n_classes, recipe=recipe, read_counter=tally
        )

    return Problem(
        theta_o=theta_o.eval(),
        retain=examples(np.flatnonzero(~dropped)),
        forget=examples(np.flatnonzero(dropped)),
        validation=examples(np.arange(validation) + train if validation_rows is None else validation_rows),
        test=examples(np.arange(test) + train + validation),
    )


Batch = tuple[Tensor, Tensor]
"""Images float32 [B, C, H, W], normalised; labels int64 [B]."""


class BatchSampler:
    """Batches of a set of examples; iterating makes one pass.

    Each pass has an order and augmentations of its own, also where it follows on another because this set is the
    smaller of two (the reference codes cache the first pass). The last batch is smaller where the size does not divide
    the set; none is dropped.

    Args:
        examples: the set.
        size: of a batch; one of the whole set if that is smaller.
        rng: draws orders and augmentations.
    """

    def __init__(self, examples: ExampleSet, size: int, rng: np.random.Generator) -> None:
        self.examples, self.size = examples, size
        self.order, self.chance = rng.spawn(2)

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, _ in self.with_positions():
            yield images, labels

    def with_positions(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One pass; with each batch also the positions of its examples in the set, int64 [B]."""
        examples = self.examples
        order = torch.from_numpy(self.order.permutation(len(examples))).to(examples.rows.device)
        for positions in torch.split(order, self.size):
            plain = examples.take(positions)
            shown = augment(plain, examples.images.black, examples.recipe, self.chance)
            yield shown, examples.labels[positions], positions

    def cycle(self) -> Iterator[Batch]:
        """Pass after pass."""
        while True:
            yield from self


def iterate_in_order(examples: ExampleSet, size: int) -> Iterator[Batch]:
    """One pass in the order of the set, nothing augmented: for sums over a set, which no order should change."""
    for positions in torch.split(torch.arange(len(examples), device=examples.rows.device), size):
        yield examples.take(positions), examples.labels[positions]
