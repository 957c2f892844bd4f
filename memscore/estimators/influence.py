"""Influence: how much a training example raises the probability that a target is correct.

    infl(i, j) = P[correct(j) | i in the training set] - P[correct(j) | i not in it]

Feldman & Zhang 2020 (NeurIPS), equation 2 and the estimator of section 4.1, from the same models as memorization, which
is the influence of an example on itself: the diagonal of train x train. The paper's thresholds are infl >= .15 and
mem(i) >= .25.

Counts are products of 0/1 matrices in float32, exact below 2^24 models; one product per pair of blocks gives both
sides, since right and out = right - right and in. N x T values are never in memory at once: only tiles of TILE_SIZE x
TILE_SIZE pairs are, and the pairs selected from them.

Differs from the paper: a pair with an empty side has no value, where the authors' code divides by max(count, 1e-10);
and the models that count for a target may be restricted. Between train examples, models trained without the target are
more informative: a model trained on its target is right whatever else it was trained on, so over all models influence
shrinks to about 1 - keep of that.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch

from memscore.units import format_count

TILE_SIZE = 1024
"""Train examples and targets per tile."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedTargets:
    """Correctness of all models on the targets, one bit per model, uint8 [ceil(M / 8), T].

    Attributes:
        models: M.
        right: the model counts for the target and predicts it correctly.
        counted: the model counts for the target; None if all do.
    """

    models: int
    right: np.ndarray
    counted: np.ndarray | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Tile:
    """Counts for all pairs of some train examples [a] with some targets [b].

    Attributes:
        train: which train examples.
        target: which targets.
        k_in: float32 [a, b], models trained on the example that are right.
        n_in: float32 [a, 1] or [a, b], models trained on it.
        k: float32 [b], models that are right.
        n: float32 [1] or [b], models that count.
    """

    train: slice
    target: slice
    k_in: np.ndarray
    n_in: np.ndarray
    k: np.ndarray
    n: np.ndarray

    def influence(self) -> np.ndarray:
        """Compute each pair's influence, float32 [a, b], to a few 1e-7; NaN for empty sides."""
        # k_in / n_in - (k - k_in) / n_out with k_in factored out, which takes fewer passes over arrays [a, b]. An empty
        # side gives 0 times infinity, or infinity minus infinity, and so NaN.
        with np.errstate(divide="ignore", invalid="ignore"):
            per_in, per_out = 1 / self.n_in, 1 / (self.n - self.n_in)
            value: np.ndarray = self.k_in * (per_in + per_out)
            value -= self.k * per_out
        return value

    def counts(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """Return k_in, n_in, k_out, n_out of these pairs, int64 [4, pairs]."""
        k_in = self.k_in[a, b]
        # n_in and n have one entry for a whole row or tile where all models count
        n_in, n = (np.broadcast_to(count, self.k_in.shape)[a, b] for count in (self.n_in, self.n))
        return np.stack([k_in, n_in, self.k[b] - k_in, n - n_in]).astype(np.int64)


def influence(member: np.ndarray, correct: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
    """Compute the influence of every example on every target, dense: for small sets only.

    Args:
        member: bool [M, N], example i was in model m's training set.
        correct: bool [M, T], model m labels target j right.
        counted: bool [M, T], the models that count for a target; all if None.

    Returns:
        float64 [N, T] in [-1, 1], higher helps the target more; NaN where an example was always in or always out.
    """
    targets = pack_targets([(correct, counted)])
    dense = np.empty((member.shape[1], correct.shape[1]))
    for tile in iterate_tiles([member], targets):
        # from the counts in float64, not Tile.influence in float32: small sets can afford it
        pairs = np.indices(tile.k_in.shape).reshape(2, -1)
        dense[tile.train, tile.target] = influence_from_counts(tile.counts(*pairs)).reshape(tile.k_in.shape)
    return dense


def pack_targets(blocks: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> PackedTargets:
    """Pack targets as bits, an eighth of their memory.

    Args:
        blocks: (correct, counted) of consecutive targets, bool [M, t] each; counted None throughout if all models
            count.

    Returns:
        All targets.
    """
    right, counted, models = [], [], 0
    for correct, counts in blocks:
        models = len(correct)
        # a model that does not count for a target is not right there either, so k needs no second mask
        right.append(np.packbits(correct if counts is None else correct & counts, axis=0))
        counted += [] if counts is None else [np.packbits(counts, axis=0)]
    return PackedTargets(
        models=models, right=np.concatenate(right, axis=1), counted=np.concatenate(counted, axis=1) if counted else None
    )


def iterate_tiles(train: Iterable[np.ndarray], targets: PackedTargets, tile: int = TILE_SIZE) -> Iterator[Tile]:
    """Iterate over all pairs of a train example and a target, tile by tile, each pair once.

    Memory: two or three float32 arrays of M x tile and, with the values computed from a tile, some five of tile x tile;
    50 MB at 2,000 models.

    Args:
        train: member of consecutive train examples, bool [M, n] each.
        targets: from pack_targets, of the same models.
        tile: train examples and targets per tile.

    Yields:
        For each range of train examples its tiles with all targets.

    Raises:
        ValueError: `train` and `targets` have different numbers of models.
    """
    start = 0
    for block in train:
        if len(block) != targets.models:
            raise ValueError(
                f"members are of {format_count(len(block), 'model')}, targets of {targets.models}; give the same models"
            )
        for offset in range(0, block.shape[1], tile):
            member = block[:, offset : offset + tile].astype(np.float32)
            # [a, 1]; a sum of zeros and ones, so exact in float32
            n_in = member.sum(0)[:, None]
            rows = slice(start + offset, start + offset + member.shape[1])
            for column in range(0, targets.right.shape[1], tile):
                yield _count_tile(
                    member, n_in, rows, targets, slice(column, min(column + tile, targets.right.shape[1]))
                )
        start += block.shape[1]


def influence_from_counts(counts: np.ndarray) -> np.ndarray:
    """Compute influence from counts.

    Args:
        counts: [4, pairs], k_in, n_in, k_out, n_out.

    Returns:
        float64 [pairs], 0 / 0 being NaN.
    """
    k_in, n_in, k_out, n_out = counts
    with np.errstate(invalid="ignore"):
        difference: np.ndarray = k_in / n_in - k_out / n_out
    return difference


def _count_tile(member: np.ndarray, n_in: np.ndarray, train: slice, targets: PackedTargets, columns: slice) -> Tile:
    """Count one tile: one matrix product, or two where not all models count for all targets."""
    # right is [M, b]. Where all models count, n is M for each target and n_in depends on the train example alone; else
    # both depend on the pair, and n_in is a second product.
    right = _unpack(targets.right[:, columns], targets.models)
    n = np.array([targets.models], np.float32)
    k, k_in = right.sum(0), _count_both(member, right)
    if targets.counted is not None:
        counted = _unpack(targets.counted[:, columns], targets.models)
        n, n_in = counted.sum(0), _count_both(member, counted)
    return Tile(train=train, target=columns, k_in=k_in, n_in=n_in, k=k, n=n)


def _unpack(bits: np.ndarray, models: int) -> np.ndarray:
    """Unpack bits to float32 [M, b] of 0 and 1."""
    return np.unpackbits(bits, axis=0, count=models).astype(np.float32)


def _count_both(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Count the models in which both are 1, float32 [a, b]."""
    # torch's product took half of NumPy's time with AVX-512
    product: np.ndarray = (torch.from_numpy(left).T @ torch.from_numpy(right)).numpy()
    return product
