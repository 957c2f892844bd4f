"""How many pairs reach an influence by chance: the same models with each other's memberships.

If no training example had an influence, memberships could be permuted among the models: every outcome would be as
probable as before. Each permutation gives one set of pairs without influence, and the expected share of false pairs
among those of influence v or more is

    q(v) = min over t <= v of  (mean of the pairs >= t under permutation + 1 / permutations) / pairs >= t

the q value of Storey & Tibshirani 2003 (PNAS 100). All pairs are taken for false, as in Benjamini & Hochberg 1995,
which overstates the share. 1 / permutations keeps pairs beyond all permuted ones from a share of 0, which nobody saw.

Memberships are permuted as whole rows, so that what one model was trained on stays together, and within the blocks in
which a design balances them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from memscore.estimators.influence import TILE_SIZE, PackedTargets, iterate_tiles

STEPS = 1000
"""Pairs are counted in steps of influence of 1 / STEPS."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairCounts:
    """Pairs by influence, at every step from -1 to 1.

    Attributes:
        found: int64 [2 STEPS + 1], pairs of this influence or more.
        by_chance: float64, the same under permuted memberships, mean over permutations.
        opposite_by_chance: float64, pairs of this influence with the opposite sign, or less, in the same way.
        permutations: their number.
    """

    found: np.ndarray
    by_chance: np.ndarray
    opposite_by_chance: np.ndarray
    permutations: int

    def compute_q(self, influence: np.ndarray) -> np.ndarray:
        """Compute the expected share of false pairs among those of an influence or more.

        Args:
            influence: of any shape, in [-1, 1].

        Returns:
            q in (0, 1], which never rises with influence; NaN where influence is.
        """
        # where no pair is above, the share is that of the last ones below
        share = np.full(len(self.found), np.inf)
        np.divide(self.by_chance + 1 / self.permutations, self.found, out=share, where=self.found > 0)
        q = np.minimum(np.minimum.accumulate(share), 1.0)
        undefined = np.isnan(influence)
        return np.where(undefined, np.nan, q[find_step(np.where(undefined, 0.0, influence))])

    def choose_least(self, max_share: float, max_pairs: int, multiple: int = 10) -> float:
        """Choose the least influence at which few pairs are expected to be false.

        Args:
            max_share: the largest expected share.
            max_pairs: no more pairs than this.
            multiple: it is a multiple of this many steps.

        Returns:
            An influence in (0, 1]; infinity if no pair is strong enough.
        """
        steps = np.arange(STEPS + multiple, 2 * STEPS + 1, multiple)
        influence, pairs = (steps - STEPS) / STEPS, self.found[steps]
        fits = (self.compute_q(influence) <= max_share) & (pairs <= max_pairs) & (pairs > 0)
        return float(influence[fits.argmax()]) if fits.any() else float("inf")

    def expect_by_chance(self, least: float) -> tuple[float, float]:
        """Return how many pairs are expected to reach an influence by chance.

        Args:
            least: above 0; beyond 1 there is none.

        Returns:
            Expected pairs of `least` or more, and of `-least` or less.
        """
        if least > 1:
            return 0.0, 0.0
        step = int(find_step(np.array(least)))
        return float(self.by_chance[step]), float(self.opposite_by_chance[step])


def find_step(influence: np.ndarray) -> np.ndarray:
    """Find the step at or below an influence.

    Args:
        influence: in [-1, 1], of any shape.

    Returns:
        Its position in PairCounts, int64.
    """
    # float32 is a few 1e-7 off, and 0.15 a little below 3/20: a thousandth of a step is the smaller error
    return ((influence + 1) * STEPS + 1e-3).astype(np.int64)


def count_pairs(
    member: np.ndarray,
    targets: PackedTargets,
    blocks: np.ndarray,
    rngs: Sequence[np.random.Generator],
    own_target: np.ndarray | None = None,
) -> PairCounts:
    """Count pairs by influence, as they are and under permuted memberships.

    Args:
        member: uint8 [ceil(M / 8), n], memberships of train examples, one bit per model.
        targets: of the same models.
        blocks: int64 [M], memberships are permuted within each.
        rngs: each draws one permutation; at least one.
        own_target: int64 [n], the target that is the train example itself and is left out; None if none is.

    Returns:
        The counts.
    """
    found, _ = _count_steps(member, targets, np.arange(targets.models), own_target)
    permuted = np.zeros((2, len(found)))
    for rng in rngs:
        order = np.arange(targets.models)
        for block in np.unique(blocks):
            models = np.flatnonzero(blocks == block)
            order[models] = rng.permutation(models)
        permuted += _count_steps(member, targets, order, own_target)
    permuted /= len(rngs)
    return PairCounts(found=found, by_chance=permuted[0], opposite_by_chance=permuted[1], permutations=len(rngs))


def _count_steps(
    member: np.ndarray, targets: PackedTargets, order: np.ndarray, own_target: np.ndarray | None
) -> np.ndarray:
    """Count pairs at and above each step, and below its opposite; int64 [2, 2 STEPS + 1]."""

    def read() -> Iterator[np.ndarray]:
        for start in range(0, member.shape[1], TILE_SIZE):
            bits = np.unpackbits(member[:, start : start + TILE_SIZE], axis=0, count=targets.models)
            yield bits[order].astype(bool)

    counts = np.zeros((2, 2 * STEPS + 1), np.int64)
    for tile in iterate_tiles(read(), targets):
        value = tile.influence()
        if own_target is not None:
            own = own_target[tile.train] - tile.target.start
            inside = (own >= 0) & (own < value.shape[1])
            value[np.flatnonzero(inside), own[inside]] = np.nan
        value = value[~np.isnan(value)]
        for row, signed in zip(counts, (value, -value), strict=True):
            row += np.bincount(find_step(signed), minlength=len(row))
    # from the highest step down: at and above
    return counts[:, ::-1].cumsum(axis=1)[:, ::-1]
