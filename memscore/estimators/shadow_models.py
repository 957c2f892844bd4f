"""Shadow models of a target: which models of a bank they are, and what one of them may change.

Which models. In iid and exact designs the shadows of a target are all other models but one that is dropped (lira.py).
In a block of an orthogonal design that is not enough: two examples of a cluster are included independently over the
block as a whole, so without the target its other models lean against the target's own neighbours. With neighbours that
matter noise then has an AUC below one half. There the shadows are the models of all other blocks, which were drawn
independently of the target's: noise has an AUC of one half, and no model need be dropped, since the numbers of shadows
with and without an example do not depend on the target's training set.

What one may change. Rules that look at all confidences of an example, the target's too, and never at memberships cannot
reveal membership: under noise, confidences that were changed by them are still independent of memberships.

- A model is outlying if it is more than 6 median absolute deviations (4 standard deviations of a normal distribution)
  from the median model on more than half of the examples. As a shadow it counts as the median of the other models.
- A confidence far beyond the middle of its example's is moved to its limit (winsorized).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

OUTLYING_DISTANCE = 6.0
"""Median absolute deviations between a model and the median model, from which on an example counts against it."""
OUTLYING_SHARE = 0.5
"""Share of the examples above which a model is outlying."""
FEWEST_TO_COMPARE = 4
"""Models from which on one can be outlying: the median of three is moved by one of them."""
WINSOR_WIDTHS = 20.0
"""Ranges, of the example or the typical one if that is wider, by which a confidence may lie beyond its quantiles."""
LEVEL_BINS, FEWEST_PER_BIN = 20, 25
"""Bins of examples by level at most, and examples per bin at least if there is more than one bin."""
SCATTERED = 30.0
"""An example whose range exceeds that of the typical one so many times adds nothing to variances over examples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShadowModels:
    """The models of an arm as shadows of each other.

    Attributes:
        keep: the fraction of the examples that a model is trained on.
        outlying: bool [M], models that count as the median of the others where they are shadows.
        blocks: int [M], the block of each model, ascending; every target's shadows are the models of other blocks.
            None: all models but the target and a dropped one.
        typical_range: median over some examples, of those that have one, of the range of their confidences; 0: none.
        level_edges: [B - 1], ascending, limits between bins of about equally many examples by their mean confidence.
    """

    keep: float
    outlying: np.ndarray
    blocks: np.ndarray | None = None
    typical_range: float = 0.0
    level_edges: np.ndarray = field(default_factory=lambda: np.empty(0))

    @property
    def unit(self) -> float:
        """The typical range, or 1."""
        return self.typical_range or 1.0

    @classmethod
    def from_sample(cls, confidence: np.ndarray, keep: float, blocks: np.ndarray | None = None) -> Self:
        """Find outlying models and the typical range in the confidences [M, n] of some examples."""
        phi = confidence.astype(np.float64)
        models = cls(keep=keep, blocks=blocks, outlying=find_outlying(phi))
        low, high = _find_quantiles(phi, models)
        ranges = (high - low)[high > low]
        models = replace(models, typical_range=float(np.median(ranges)) if len(ranges) else 0.0)
        levels = winsorize(phi, models).mean(0)
        levels = levels[~np.isnan(levels)]
        bins = int(np.clip(len(levels) // FEWEST_PER_BIN, 1, LEVEL_BINS))
        return replace(models, level_edges=np.quantile(levels, np.arange(1, bins) / bins) if bins > 1 else np.empty(0))


def find_blocks_of_shadows(indices: Sequence[int], models_per_block: int) -> np.ndarray | None:
    """Find the block of each model of an orthogonal arm, if other blocks have enough models to be its shadows.

    Two blocks must have half of their models: with one whole block and a few models of the next, targets of the whole
    one would have these few as shadows. The choice depends on numbers of models only, never on memberships.

    Args:
        indices: of the models in the arm, ascending.
        models_per_block: of the arm.

    Returns:
        int [M], or None.
    """
    blocks = np.asarray(indices) // models_per_block
    return blocks if (2 * np.bincount(blocks) >= models_per_block).sum() > 1 else None


def sum_other_blocks(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Sum over the models of all other blocks, for every model as target.

    Args:
        values: [M, n].
        blocks: int [M], ascending.

    Returns:
        [M, n]; equal for all targets of a block.
    """
    # the total less the target's own block
    own, sizes = sum_blocks(values, blocks), np.unique(blocks, return_counts=True)[1]
    others: np.ndarray = np.repeat(own.sum(0) - own, sizes, axis=0)
    return others


def sum_blocks(values: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Sum values [M, n] over the models of each block, in ascending order of blocks: [B, n]."""
    # blocks are consecutive, so one pass makes the sums of all
    starts = np.unique(blocks, return_index=True)[1]
    sums: np.ndarray = np.add.reduceat(
        values, starts, axis=0, dtype=np.float64 if values.dtype.kind == "f" else np.int64
    )
    return sums


def find_outlying(confidence: np.ndarray) -> np.ndarray:
    """Find models whose confidences are far from the other models' on most examples, whatever the memberships.

    Args:
        confidence: float [M, n]; examples with a NaN are passed over.

    Returns:
        bool [M]; all false with fewer than four models.
    """
    models, n = confidence.shape
    if models < FEWEST_TO_COMPARE or not n:
        return np.zeros(models, bool)
    distance = np.abs(confidence - compute_median_model(confidence))
    # where more than half of the models are equal, the limit is 0 and every other value is far
    far = distance > OUTLYING_DISTANCE * compute_median_model(distance)
    outlying: np.ndarray = far.mean(1) > OUTLYING_SHARE
    return outlying


def winsorize(confidence: np.ndarray, shadows: ShadowModels) -> np.ndarray:
    """Replace outlying models, and limit each example's confidences, for shadows; targets keep theirs.

    Args:
        confidence: float64 [M, n].
        shadows: the models.

    Returns:
        [M, n].
    """
    low, high = _find_quantiles(confidence, shadows)
    # of a few models, or of models that are mostly equal, the range may be small by chance
    width = WINSOR_WIDTHS * np.maximum(high - low, shadows.typical_range)
    limits = np.where(width > 0, low - width, -np.inf), np.where(width > 0, high + width, np.inf)
    limited: np.ndarray = np.clip(replace_outlying(confidence, shadows), *limits)
    return limited


def replace_outlying(confidence: np.ndarray, shadows: ShadowModels) -> np.ndarray:
    """Replace outlying models by the median of the others, example by example; nothing else is changed."""
    if not shadows.outlying.any():
        return confidence
    median = compute_median_model(confidence[~shadows.outlying])
    return np.where(shadows.outlying[:, None], median, confidence)


def find_scattered(confidence: np.ndarray, shadows: ShadowModels) -> np.ndarray:
    """Find examples [n] whose confidences range far wider than the typical example's, whatever the memberships."""
    low, high = _find_quantiles(confidence, shadows)
    scattered: np.ndarray = high - low > (SCATTERED * shadows.typical_range or np.inf)
    return scattered


def _find_quantiles(confidence: np.ndarray, shadows: ShadowModels) -> tuple[np.ndarray, np.ndarray]:
    """Find two quantiles [n] of the models that are not outlying: the middles of the smaller side, at either end."""
    # With an example that is memorized, confidences with and without it are two groups, of which the smaller has a
    # share of min(keep, 1 - keep). Quantiles at half of that share lie within both groups.
    regular = confidence[~shadows.outlying] if shadows.outlying.any() else confidence
    last = len(regular) - 1
    place = min(shadows.keep, 1 - shadows.keep) / 2 * last
    start, weight = int(place), place % 1
    after = min(start + 1, last)
    ordered = sort_models(regular)
    low = (1 - weight) * ordered[:, start] + weight * ordered[:, after]
    return low, (1 - weight) * ordered[:, last - start] + weight * ordered[:, last - after]


def sort_models(values: np.ndarray) -> np.ndarray:
    """Sort the models' values [M, n] of each example: [n, M], NaN last."""
    # contiguous rows: a full sort of them takes a third of the time of np.partition along the first axis
    return np.sort(np.ascontiguousarray(values.T), axis=1)


def compute_median_model(values: np.ndarray) -> np.ndarray:
    """Compute the median over models, [M, n], of each example, [n]; NaN where a value is."""
    ordered, models = sort_models(values), len(values)
    median: np.ndarray = (ordered[:, (models - 1) // 2] + ordered[:, models // 2]) / 2
    return np.where(np.isnan(ordered[:, -1]), np.nan, median)
