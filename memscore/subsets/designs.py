"""Who is in which model: three designs of subsets, and the clusters that the orthogonal one needs.

`iid`         every model draws round(keep * n) examples, independent of all other models (Feldman & Zhang 2020).
`exact`       in each block of models every example is in exactly keep * block, drawn per example (Carlini et al. 2022).
`orthogonal`  as exact, and any two examples of one cluster are included independently, exactly, within each block:
              their inclusion vectors are distinct columns of an orthogonal array of strength 2. Rows are shuffled per
              cluster and each example leaves out a level of its own, so each single model is a plain Bernoulli(keep)
              sample: unbiased, while the part of the noise that comes from an example's neighbours is cancelled.

Membership is a pure function of (root seed, arm, index, clusters): no model's row depends on which
others are asked for.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from scipy.linalg import hadamard

from memscore.choices import validate_choice
from memscore.seeds import seed_for

DEFAULT_BLOCK_SIZES = {"iid": 1, "exact": 64, "orthogonal": 64}
"""Every design, with the number of models that one block of it has by default."""

_LEVELS = {0.5: 2, 0.75: 4}  # leaving out one level of so many keeps this share
_CELLS = 2**18  # of a chunk of an exact block: 4,096 examples at 64 models


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way of drawing subsets: which design, which share of the examples, how many models a block."""

    design: str = "orthogonal"
    keep: float = 0.5  # 0.7 in Feldman & Zhang 2020
    block: int | None = None  # None: the design's own, see BLOCKS

    def __post_init__(self) -> None:
        validate_choice("design", self.design, DEFAULT_BLOCK_SIZES)
        if not 0 < self.keep < 1:
            raise ValueError(
                f"keep must lie between 0 and 1, got {self.keep}; 0.5 suits LiRA, 0.7 is Feldman & Zhang's"
            )
        if self.block is None:
            object.__setattr__(self, "block", DEFAULT_BLOCK_SIZES[self.design])
        {"iid": _check_iid, "exact": _check_exact, "orthogonal": _check_orthogonal}[self.design](self)

    @property
    def models_per_block(self) -> int:
        """The block, which is an int once the arm exists."""
        return cast(int, self.block)

    @property
    def name(self) -> str:
        """Names the arm in files and in seeds.

        >>> Arm(design="iid", keep=0.7).name, Arm(block=16).name
        ('iid-k0.700', 'orthogonal-k0.500-b16')
        """
        own_block = "" if self.block == DEFAULT_BLOCK_SIZES[self.design] else f"-b{self.block}"
        return f"{self.design}-k{self.keep:.3f}{own_block}"


def parse_arm_record(record: Mapping[str, Any]) -> Arm:
    """The arm that a store has on record."""
    return Arm(design=record["design"], keep=record["keep"], block=record["block"])


def count_whole_blocks(n_models: int, arm: Arm) -> int:
    """The number of blocks in n_models.

    Args:
        n_models: how many models the arm is to have.
        arm: the arm.

    Returns:
        n_models / block, at least 1.

    Raises:
        ValueError: n_models is no whole number of blocks, or none; the message names the two nearest counts.

    >>> count_whole_blocks(128, Arm())
    2
    """
    blocks, left = divmod(n_models, arm.models_per_block)
    if left or blocks < 1:
        low = max(blocks, 1) * arm.models_per_block
        rule = f"{arm.name} trains whole blocks of {arm.block} models"
        raise ValueError(f"{rule}, got {n_models}; use {low} or {low + arm.models_per_block}")
    return blocks


def get_max_cluster_size(arm: Arm) -> int:
    """How many examples a cluster may have: the columns of the arm's orthogonal array.

    Args:
        arm: an orthogonal arm.

    Returns:
        block - 1 at keep 0.5, (block - 1) / 3 at keep 0.75.

    Raises:
        ValueError: the arm's design has no clusters.

    >>> get_max_cluster_size(Arm()), get_max_cluster_size(Arm(keep=0.75))
    (63, 21)
    """
    if arm.design != "orthogonal":
        raise ValueError(f"{arm.name} has no clusters; only orthogonal arms have")
    return int(_array(_LEVELS[arm.keep], arm.models_per_block).shape[1])


def draw_membership(
    arm: Arm, models: Sequence[int], n: int, clusters: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """Which examples each of these models is trained on.

    A row is the same whatever other rows are asked for, and in any order. Besides the rows asked for, memory holds
    one chunk of one block.

    Args:
        arm: the arm that the models belong to.
        models: their indices within the arm, each >= 0.
        n: number of examples.
        clusters: int [n], the cluster of each example, >= 0; orthogonal arms need it, the others ignore it.
        seed: the root seed.

    Returns:
        bool [len(models), n].

    Raises:
        ValueError: a negative index, a share of n that is nobody or everybody, clusters missing, of another length or
            too large.
    """
    wanted = np.asarray(models, dtype=np.int64).reshape(-1)
    if wanted.size and wanted.min() < 0:
        raise ValueError(f"a model's index must be 0 or more, got {wanted.min()}")
    member = np.zeros((wanted.size, n), dtype=bool)
    block_of, row_of = np.divmod(wanted, arm.models_per_block)
    groups = _groups(arm, n, clusters) if arm.design == "orthogonal" else []
    for block in np.unique(block_of):
        here = np.flatnonzero(block_of == block)
        root = seed_for(seed, "subsets", arm.name, int(block))
        for examples, included in _draw(arm, row_of[here], root, n, groups):
            member[here[:, None], examples] = included
    return member


def compute_min_subset_size(
    arm: Arm, models: Sequence[int], n: int, clusters: np.ndarray | None = None, seed: int = 0
) -> int:
    """The size of the smallest training set among these models, which no batch may exceed.

    Args:
        arm: the arm that the models belong to.
        models: their indices within the arm, at least one.
        n: number of examples.
        clusters: int [n], as for membership.
        seed: the root seed.

    Returns:
        The number of examples in it.
    """
    if arm.design == "iid":
        return _iid_size(arm, n)
    blocks: dict[int, list[int]] = {}
    for index in models:
        blocks.setdefault(index // arm.models_per_block, []).append(index)
    return min(int(draw_membership(arm, block, n, clusters, seed=seed).sum(1).min()) for block in blocks.values())


def _check_iid(arm: Arm) -> None:
    if arm.block != 1:
        raise ValueError(f"iid models are drawn one by one, got blocks of {arm.block}; leave block out, or take exact")


def _check_exact(arm: Arm) -> None:
    block = arm.models_per_block
    if block < 2:
        raise ValueError(f"a block of an exact arm needs 2 models or more, got {block}; 64 is the default")
    if abs(arm.keep * block - round(arm.keep * block)) > 1e-9 or not 0 < round(arm.keep * block) < block:
        low = min(max(int(arm.keep * block), 1), block - 1)
        near = " or ".join(f"{k / block:g}" for k in (low, low + 1) if k < block)
        raise ValueError(f"keep * block must be whole, got {arm.keep} * {block}; the nearest valid keep is {near}")


def _check_orthogonal(arm: Arm) -> None:
    block = arm.models_per_block
    if arm.keep not in _LEVELS:
        raise ValueError(f"orthogonal arms have keep 0.5 or 0.75, got {arm.keep}; take exact or iid for other shares")
    levels = _LEVELS[arm.keep]
    power = levels
    while power < block:
        power *= levels
    if power != block:
        raise ValueError(
            f"at keep {arm.keep} an orthogonal block is a power of {levels}, got {block}; 64 is the default"
        )


def _iid_size(arm: Arm, n: int) -> int:
    """Examples a model of an iid arm holds."""
    size = round(arm.keep * n)
    if not 0 < size < n:
        raise ValueError(f"{arm.name} would put {size} of {n} examples into each model; more examples are needed")
    return size


def _draw(
    arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, n: int, groups: list[tuple[int, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Sets of examples, together all n, and who of them is in these rows of the block."""
    if arm.design == "iid":
        member = np.zeros((1, n), dtype=bool)
        member[0, np.random.default_rng(root).permutation(n)[: _iid_size(arm, n)]] = True
        yield np.arange(n), member
    elif arm.design == "exact":
        yield from _exact(arm, rows, root, n)
    else:
        yield from _orthogonal(arm, rows, root, groups)


def _part(root: np.random.SeedSequence, part: int) -> np.random.Generator:
    """The stream of one chunk or cluster of a block."""
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, part)))


def _exact(arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, n: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of examples and these rows of the block there."""
    chunk = max(_CELLS // arm.models_per_block, 1)
    pattern = np.arange(arm.models_per_block) < round(arm.keep * arm.models_per_block)
    for part, start in enumerate(range(0, n, chunk)):
        examples = np.arange(start, min(start + chunk, n))
        drawn = _part(root, part).permuted(np.tile(pattern, (len(examples), 1)), axis=1)
        yield examples, drawn[:, rows].T


def _orthogonal(
    arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, groups: list[tuple[int, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Clusters of examples and these rows of the block there."""
    array = _array(_LEVELS[arm.keep], arm.models_per_block)
    for number, examples in groups:
        rng = _part(root, number)
        shuffled = rng.permutation(len(array))[rows]
        columns = rng.permutation(array.shape[1])[: len(examples)]
        left_out = rng.integers(0, _LEVELS[arm.keep], len(examples))
        yield examples, array[shuffled[:, None], columns] != left_out


@functools.cache
def _array(levels: int, runs: int) -> np.ndarray:
    """An orthogonal array [runs, columns]: in any two columns, all pairs of levels are equally frequent."""
    if levels == 2:
        two: np.ndarray = (hadamard(runs)[:, 1:] > 0).astype(np.int8)  # without the constant column
        return two
    times = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]], dtype=np.int8)
    digits = round(np.log(runs) / np.log(4))
    vectors = np.stack(np.unravel_index(np.arange(runs), (4,) * digits), axis=1)
    directions = np.array([v for v in vectors if v.any() and v[np.flatnonzero(v)[0]] == 1])
    # the inner product of every vector with every direction over GF(4), where adding is xor
    four: np.ndarray = np.bitwise_xor.reduce(times[vectors[:, None, :], directions[None, :, :]], axis=2)
    return four


def _groups(arm: Arm, n: int, clusters: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    """Every cluster's number and members."""
    if clusters is None:
        raise ValueError(f"{arm.name} needs clusters; make them with cluster(images, largest_cluster(arm), seed)")
    if clusters.shape != (n,) or clusters.min(initial=0) < 0:
        raise ValueError(f"clusters must be {n} numbers >= 0, one an example, got shape {clusters.shape}")
    order = np.argsort(clusters, kind="stable")
    numbers, starts, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    if sizes.max(initial=0) > get_max_cluster_size(arm):
        worst = f"cluster {numbers[sizes.argmax()]} has {sizes.max()} examples"
        raise ValueError(
            f"{worst}, but {arm.name} has {get_max_cluster_size(arm)} columns; make clusters with that cap"
        )
    return list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
