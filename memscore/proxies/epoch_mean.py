"""The mean of a score over the epochs of one training, as a function that training calls after each of them."""

from collections.abc import Callable, Collection

import numpy as np


class EpochMean:
    """Hand it to `train(..., at_epoch=...)`; afterwards `mean()` is the score averaged over the epochs it was taken at.

    Attributes:
        score: () -> [N], of the weights as they stand.
        epochs: those that count, from 1; None is all.
        count: epochs taken so far.
    """

    def __init__(self, score: Callable[[], np.ndarray], epochs: Collection[int] | None = None) -> None:
        self.score, self.epochs, self.count = score, epochs, 0
        self.sum: np.ndarray | None = None

    def __call__(self, epoch: int) -> None:
        """Take the score, if this epoch counts."""
        if self.epochs is not None and epoch not in self.epochs:
            return
        now = np.asarray(self.score(), np.float64)
        self.sum = now if self.sum is None else self.sum + now
        self.count += 1

    def mean(self) -> np.ndarray:
        """The average over the epochs taken.

        Returns:
            float64 [N]; NaN where it was NaN at any of them.

        Raises:
            ValueError: no epoch was taken.
        """
        if self.sum is None:
            wanted = "any epoch" if self.epochs is None else f"epochs {sorted(self.epochs)}"
            raise ValueError(f"no score was taken at {wanted}; hand this object to train(..., at_epoch=...)")
        return self.sum / self.count
