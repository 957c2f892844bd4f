"""Number, mean and spread of each target's shadow models, on one side: trained with an example, or without it.

Every model in turn is the target, so [T, n] moments are needed of M models and n examples. How many shadows a target
has depends on the example and on a group of targets only: in iid and exact designs on whether the target was trained on
the example, with shadows of other blocks on the target's block. So what depends on numbers of shadows alone is computed
once for each group and example, as a table [G, n], and then expanded to targets.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from memscore.estimators.masks import keep_where, make_mask, select_rows
from memscore.estimators.shadow_models import ShadowModels, sum_blocks


@dataclass(frozen=True, kw_only=True, eq=False)
class TargetGroups:
    """Targets with equally many shadows: non-members and members (mask), blocks, or one target (neither).

    Attributes:
        mask: from make_mask, int64 [T, n], the targets that were trained on the example: row 1 of a table.
        sizes: targets of each block in order, int [G].
    """

    mask: np.ndarray | None = None
    sizes: np.ndarray | None = None

    def expand(self, table: np.ndarray) -> np.ndarray:
        """Expand a table, float64 [G, n], to targets: [T, n], or [1, n] for one target."""
        if self.mask is not None:
            return select_rows(self.mask, table[1], table[0])
        return table if self.sizes is None else np.repeat(table, self.sizes, axis=0)


class SideMoments(NamedTuple):
    """Moments of one side's shadows of each target; the centre is an origin for their precision, [n]."""

    n: np.ndarray  # float64 [G, n], numbers of shadows
    mean: np.ndarray  # [T, n], relative to the centre
    spread: np.ndarray  # [T, n], sum of squares around the mean
    centre: np.ndarray
    groups: TargetGroups

    def compute_mean(self) -> np.ndarray:
        """Return the mean of the shadows, [T, n], NaN without any."""
        mean: np.ndarray = self.centre + self.mean
        if not self.n.all():
            mean += self.groups.expand(np.where(self.n > 0, 0.0, np.nan))
        return mean


def find_in_surplus(member: np.ndarray, keep: float) -> np.ndarray:
    """Find where in-shadows exceed their share, so that one of them is dropped.

    sum over m != t of member[m, i]  >  keep * (M - 1)

    Args:
        member: bool [M, n], example i was in model m's training set.
        keep: the share of in-cells. LiRA passes ShadowPrior.keep, the share observed over all models and examples;
            lira_variants.py and rmia.py pass the keep fraction that the arm was drawn with.

    Returns:
        bool [M, n], for every model as target: true to drop an in-shadow, false, also in a tie, to drop an out-shadow.
    """
    of_others, of_members = _find_group_surplus(member.sum(0), len(member), keep)
    # a member that has too many in-shadows although it is none of them implies the same of a non-member
    exceeding: np.ndarray = of_others & (of_members | ~member)
    return exceeding


def find_next_models(side: np.ndarray) -> np.ndarray:
    """Find the next model after each target on a side, cyclically.

    Args:
        side: bool [M, n].

    Returns:
        int32 [M, n], positions of models; M where that side is empty.
    """
    models = len(side)
    # a model's own position on the side, else M: from behind, the smallest so far is the next one
    position = models + side * np.arange(-models, 0, dtype=np.int32)[:, None]
    nearest = np.minimum.accumulate(position[::-1], axis=0)[::-1]
    following = np.empty(side.shape, np.int32)
    following[:-1], following[-1] = nearest[1:], models
    # behind the last model of the side the first one follows
    return np.where(following == models, nearest[0], following)


def find_next_on_side(values: np.ndarray, side: np.ndarray) -> np.ndarray:
    """Find the value of the next model after the target on that side, cyclically: the dropped shadow.

    Args:
        values: [M, n].
        side: bool [M, n].

    Returns:
        [M, n] of the type of values; 0 where that side is empty.
    """
    return take_models(values, find_next_models(side))


def take_models(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Take values [M, n] of the models at positions int [M, n], 0 where one is M."""
    models, n = values.shape
    flat = np.minimum(positions, models - 1) * np.int64(n) + np.arange(n)
    taken: np.ndarray = values.ravel().take(flat)
    empty = (positions == models).any(0)
    if empty.any():
        taken[:, empty] = 0
    return taken


def compute_moments(phi: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute count, mean and sum of squared deviations of one side of each example, and the deviations.

    Args:
        phi: float64 [M, n].
        mask: from make_mask, [M, n], the models that count.

    Returns:
        Three arrays [n], of which mean and sum of an empty side are 0; and float64 [M, n], 0 for other models.
    """
    # deviations from the mean, not squares of phi, which would cancel
    count = -mask.sum(0)
    mean = keep_where(mask, phi).sum(0) / np.maximum(count, 1)
    deviation = keep_where(mask, phi - mean)
    return count, mean, (deviation**2).sum(0), deviation


def summarize_whole_side(phi: np.ndarray, side: np.ndarray) -> SideMoments:
    """Summarize all models of one side, bool [M, n], as shadows of one target outside the bank."""
    count, centre, squares, _ = compute_moments(phi, make_mask(side))
    return SideMoments(count[None].astype(np.float64), np.zeros((1, len(count))), squares[None], centre, TargetGroups())


def summarize_sides(
    phi: np.ndarray, member: np.ndarray, keep: float, shadows: ShadowModels
) -> tuple[list[SideMoments], list[SideMoments]]:
    """Summarize the shadows of every model as target, in and out.

    Args:
        phi: float64 [M, n], winsorized.
        member: bool [M, n].
        keep: the share of in-cells, which decides what is dropped; see find_in_surplus.
        shadows: the models.

    Returns:
        In and out of the shadows that each target is compared with; and the same before one of them is dropped.
    """
    mask = make_mask(member)
    if shadows.blocks is not None:
        others = [_sum_other_blocks(phi, side, shadows.blocks) for side in (mask, ~mask)]
        return others, others
    groups = TargetGroups(mask=mask)
    inside, dev_in = _leave_out_target(phi, mask, groups, member_row=1)
    outside, dev_out = _leave_out_target(phi, ~mask, groups, member_row=0)
    surplus = np.stack(_find_group_surplus(member.sum(0), len(phi), keep))
    drop_in = surplus[0] & (surplus[1] | ~member)
    dropping = make_mask(drop_in)
    # of each target one model is dropped, and its deviation is read from that side
    position = find_next_models(~member)
    position += drop_in * (find_next_models(member) - position)
    dropped = take_models(dev_in + dev_out, position)
    kept = [
        _drop(side, keep_where(each, dropped), of_group)
        for side, each, of_group in ((inside, dropping, surplus), (outside, ~dropping, ~surplus))
    ]
    return kept, [inside, outside]


def _find_group_surplus(count: np.ndarray, models: int, keep: float) -> tuple[np.ndarray, np.ndarray]:
    """Return where in-shadows exceed their share, for targets that are non-members and members: bool [n] each."""
    return count > keep * (models - 1), count - 1 > keep * (models - 1)


def _leave_out_target(
    phi: np.ndarray, mask: np.ndarray, groups: TargetGroups, *, member_row: int
) -> tuple[SideMoments, np.ndarray]:
    """Summarize one side without each target, whose group is row `member_row` if it is of the side; and deviations."""
    # moments of the side less those of what is left out; relative to the centre, since squares of large confidences
    # would cancel
    count, centre, squares, deviation = compute_moments(phi, mask)
    # two groups of targets, non-members and members of the side, whose numbers of shadows differ by one
    n = np.stack([count, count]).astype(np.float64)
    n[member_row] -= 1
    mean = deviation / -groups.expand(np.maximum(n, 1))
    spread = squares - deviation**2
    spread -= groups.expand(n) * mean**2
    return SideMoments(n, mean, np.maximum(spread, 0, out=spread), centre, groups), deviation


def _drop(moments: SideMoments, dropped: np.ndarray, drop: np.ndarray) -> SideMoments:
    """Leave out one more model, whose deviation is `dropped`, 0 for a target that keeps all; drop is bool [G, n]."""
    # In place and in this order: each array of [T, n] that is not made saves a pass through memory.
    n = np.maximum(moments.n - drop, 0)
    total = moments.groups.expand(moments.n) * moments.mean
    spread = total * moments.mean
    spread += moments.spread
    spread -= dropped**2
    total -= dropped
    mean = total / moments.groups.expand(np.maximum(n, 1))
    spread -= moments.groups.expand(n) * mean**2
    return SideMoments(n, mean, np.maximum(spread, 0, out=spread), moments.centre, moments.groups)


def _sum_other_blocks(phi: np.ndarray, mask: np.ndarray, blocks: np.ndarray) -> SideMoments:
    """Summarize one side without the block of each target."""
    _, centre, _, deviation = compute_moments(phi, mask)
    n, total, squares = (sum_blocks(values, blocks) for values in (-mask, deviation, deviation**2))
    n, total, squares = (own.sum(0) - own for own in (n, total, squares))
    groups = TargetGroups(sizes=np.unique(blocks, return_counts=True)[1])
    n = n.astype(np.float64)
    mean = total / np.maximum(n, 1)
    spread = np.maximum(squares - n * mean**2, 0)
    return SideMoments(n, groups.expand(mean), groups.expand(spread), centre, groups)
