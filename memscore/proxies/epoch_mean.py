"""Average a score over the epochs of a training, as an epoch callback."""

from collections.abc import Callable, Collection

import numpy as np


class EpochMean:
    """Callback for `train(..., on_epoch_end=...)`; `mean()` is the score's mean.

    Attributes:
        score: () -> [N], at the current weights.
        epochs: those that are averaged, from 1; None is all.
        count: epochs added so far.
    """

    def __init__(self, score: Callable[[], np.ndarray], epochs: Collection[int] | None = None) -> None:
        self.score, self.epochs, self.count = score, epochs, 0
        self.sum: np.ndarray | None = None

    def __call__(self, epoch: int) -> None:
        """Add the score at the current weights, if this epoch is averaged."""
        if self.epochs is not None and epoch not in self.epochs:
            return
        values = np.asarray(self.score(), np.float64)
        self.sum = values if self.sum is None else self.sum + values
        self.count += 1

    def mean(self) -> np.ndarray:
        """Return the average over the epochs.

        Returns:
            float64 [N]; NaN where it was NaN at any of them.

        Raises:
            ValueError: the score was never computed.
        """
        if self.sum is None:
            epochs = "any epoch" if self.epochs is None else f"epochs {sorted(self.epochs)}"
            raise ValueError(f"no score was taken at {epochs}; pass this object to train(..., on_epoch_end=...)")
        return self.sum / self.count
