"""Passes over a set of examples in batches."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from memscore.training.augmentation import augment
from unlearn.problem import Examples

Batch = tuple[Tensor, Tensor]
"""Images float32 [B, C, H, W], normalised; labels int64 [B]."""


class Batches:
    """Batches of a set of examples; iterating makes one pass.

    Each pass has an order and augmentations of its own, also where it follows on another because this set is the
    smaller of two (the reference codes cache the first pass). The last batch is smaller where the size does not divide
    the set; none is dropped.

    Args:
        examples: the set.
        size: of a batch; one of the whole set if that is smaller.
        rng: draws orders and augmentations.
    """

    def __init__(self, examples: Examples, size: int, rng: np.random.Generator) -> None:
        self.examples, self.size = examples, size
        self.order, self.chance = rng.spawn(2)

    def __len__(self) -> int:
        return -(-len(self.examples) // self.size)

    def __iter__(self) -> Iterator[Batch]:
        for images, labels, _ in self.numbered():
            yield images, labels

    def numbered(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """One pass; with each batch also the positions of its examples in the set, int64 [B]."""
        examples = self.examples
        order = torch.from_numpy(self.order.permutation(len(examples))).to(examples.rows.device)
        for positions in torch.split(order, self.size):
            plain = examples.take(positions)
            shown = augment(plain, examples.images.black, examples.recipe, self.chance)
            yield shown, examples.labels[positions], positions

    def endless(self) -> Iterator[Batch]:
        """Pass after pass."""
        while True:
            yield from self


def in_order(examples: Examples, size: int) -> Iterator[Batch]:
    """One pass in the order of the set, nothing augmented: for sums over a set, which no order should change."""
    for positions in torch.split(torch.arange(len(examples), device=examples.rows.device), size):
        yield examples.take(positions), examples.labels[positions]
