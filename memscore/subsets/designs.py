"""Subset designs: which examples each model of a bank is trained on.

`iid`         every model draws round(keep * n) examples, independent of all other models (Feldman & Zhang 2020).
`exact`       in each block of models every example is in exactly keep * block, drawn per example (Carlini et al. 2022).
`orthogonal`  as exact, and any two examples of one cluster are included independently, exactly, within each block:
              their inclusion vectors are distinct columns of an orthogonal array of strength 2. Rows are shuffled per
              cluster and each example leaves out a level of its own, so each single model is a plain Bernoulli(keep)
              sample: unbiased, while the part of the noise that comes from an example's neighbours is cancelled.

Membership is a pure function of (root seed, arm, index, clusters): no model's row depends on which other rows are
requested.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from memscore.choices import validate_choice
from memscore.seeds import seed_for

DEFAULT_BLOCK_SIZES = {"iid": 1, "exact": 64, "orthogonal": 64}
"""Every design, with its default number of models per block."""

MAX_ADDED = 0.2
"""Largest share of a requested number of models that is added to fill the last block."""

_LEVELS = {0.5: 2, 0.75: 4}  # leaving out one of this many levels keeps this fraction
# Cells per chunk of an exact block: 4,096 examples at 64 models. Each chunk has its own random stream, so this number
# is part of every exact draw: with another one a bank's membership would change.
_CELLS = 2**18


@dataclass(frozen=True, kw_only=True)
class Arm:
    """How subsets are drawn: the design, the fraction of the examples, the models per block."""

    design: str = "orthogonal"
    keep: float = 0.5  # 0.7 in Feldman & Zhang 2020
    block: int | None = None  # None: the design's default, see DEFAULT_BLOCK_SIZES

    def __post_init__(self) -> None:
        validate_choice("design", self.design, DEFAULT_BLOCK_SIZES)
        if not 0 < self.keep < 1:
            raise ValueError(
                f"keep must lie between 0 and 1, got {self.keep}; 0.5 suits LiRA, 0.7 is Feldman & Zhang's"
            )
        # The default is filled in here, once, so that equal arms are equal and a stored arm has its number of models.
        if self.block is None:
            object.__setattr__(self, "block", DEFAULT_BLOCK_SIZES[self.design])
        {"iid": _check_iid, "exact": _check_exact, "orthogonal": _check_orthogonal}[self.design](self)

    @property
    def models_per_block(self) -> int:
        """The block size, which is an int once the arm is created."""
        return cast(int, self.block)

    @property
    def name(self) -> str:
        """The arm's name in files and in seeds.

        >>> Arm(design="iid", keep=0.7).name, Arm(block=16).name
        ('iid-k0.700', 'orthogonal-k0.500-b16')
        """
        # The name is part of every seed and file name, so it must never change. It leaves out a default block.
        suffix = "" if self.block == DEFAULT_BLOCK_SIZES[self.design] else f"-b{self.block}"
        return f"{self.design}-k{self.keep:.3f}{suffix}"


def parse_arm_record(record: Mapping[str, Any]) -> Arm:
    """Make the arm of a stored record."""
    return Arm(design=record["design"], keep=record["keep"], block=record["block"])


def count_whole_blocks(n_models: int, arm: Arm) -> int:
    """Count the blocks in n_models, which must be a whole number of them.

    Args:
        n_models: number of models requested for the arm.
        arm: its examples are balanced over whole blocks only.

    Returns:
        n_models / block, at least 1.

    Raises:
        ValueError: n_models is 0 or not a whole number of blocks; the message names the two nearest counts.

    >>> count_whole_blocks(128, Arm())
    2
    """
    blocks, remainder = divmod(n_models, arm.models_per_block)
    if remainder or blocks < 1:
        low = max(blocks, 1) * arm.models_per_block
        rule = f"{arm.name} trains whole blocks of {arm.block} models"
        raise ValueError(f"{rule}, got {n_models}; use {low} or {low + arm.models_per_block}")
    return blocks


def round_up_to_blocks(n_models: int, arm: Arm) -> int:
    """Round a number of models up to whole blocks, where that adds few.

    Args:
        n_models: number of models requested for the arm.
        arm: its examples are balanced over whole blocks only.

    Returns:
        The smallest number of whole blocks that is not below n_models.

    Raises:
        ValueError: that is more than MAX_ADDED above n_models; the message names the two nearest counts.

    >>> round_up_to_blocks(250, Arm()), round_up_to_blocks(256, Arm())
    (256, 256)
    """
    rounded = -(-n_models // arm.models_per_block) * arm.models_per_block
    if n_models < 1 or rounded - n_models > MAX_ADDED * n_models:
        count_whole_blocks(n_models, arm)
    return rounded


def get_max_cluster_size(arm: Arm) -> int:
    """Return the largest allowed cluster size: the columns of the arm's orthogonal array.

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
    return int(_orthogonal_array(_LEVELS[arm.keep], arm.models_per_block).shape[1])


def draw_membership(
    arm: Arm, models: Sequence[int], n: int, clusters: np.ndarray | None = None, *, seed: int = 0
) -> np.ndarray:
    """Draw which examples each of these models is trained on.

    A row does not depend on which other rows are requested, nor on their order. Besides the requested rows, memory
    holds one chunk of one block. What each design draws is at the top of this module.

    Args:
        arm: the arm that the models belong to.
        models: their indices within the arm, each >= 0.
        n: number of examples.
        clusters: int [n], the cluster of each example, >= 0; required by orthogonal arms, ignored by the others.
        seed: the root seed.

    Returns:
        bool [len(models), n], true where the model is trained on the example.

    Raises:
        ValueError: an index is negative, a subset would have no example or all, or clusters are missing, of another
            length or too large.
    """
    indices = np.asarray(models, dtype=np.int64).reshape(-1)
    if indices.size and indices.min() < 0:
        raise ValueError(f"a model's index must be 0 or more, got {indices.min()}")
    # Index i is row i % block of block i // block. A block's seed depends on its number alone and each draw is made for
    # the whole block, of which only the requested rows are kept: that is what makes rows independent of the request.
    member = np.zeros((indices.size, n), dtype=bool)
    blocks, block_rows = np.divmod(indices, arm.models_per_block)
    groups = _list_clusters(arm, n, clusters) if arm.design == "orthogonal" else []
    for block in np.unique(blocks):
        positions = np.flatnonzero(blocks == block)
        root = seed_for(seed, "subsets", arm.name, int(block))
        # included is [requested rows of this block, examples of one chunk or cluster]
        for examples, included in _draw(arm, block_rows[positions], root, n, groups):
            member[positions[:, None], examples] = included
    return member


def compute_min_subset_size(
    arm: Arm, models: Sequence[int], n: int, clusters: np.ndarray | None = None, seed: int = 0
) -> int:
    """Compute the number of examples in the smallest training set of these models, the largest valid batch."""
    if arm.design == "iid":
        return _iid_size(arm, n)
    # Block by block, so that memory holds one block's rows and not those of a whole bank.
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
    # An example is in exactly keep * block models, so this must be a whole number, up to the rounding of the product.
    if abs(arm.keep * block - round(arm.keep * block)) > 1e-9 or not 0 < round(arm.keep * block) < block:
        low = min(max(int(arm.keep * block), 1), block - 1)
        near = " or ".join(f"{k / block:g}" for k in (low, low + 1) if k < block)
        raise ValueError(f"keep * block must be whole, got {arm.keep} * {block}; the nearest valid keep is {near}")


def _check_orthogonal(arm: Arm) -> None:
    block = arm.models_per_block
    if arm.keep not in _LEVELS:
        raise ValueError(f"orthogonal arms have keep 0.5 or 0.75, got {arm.keep}; take exact or iid for other shares")
    # _orthogonal_array exists for powers of the number of levels; by whole numbers, since a float logarithm rounds.
    levels = _LEVELS[arm.keep]
    power = levels
    while power < block:
        power *= levels
    if power != block:
        raise ValueError(
            f"at keep {arm.keep} an orthogonal block is a power of {levels}, got {block}; 64 is the default"
        )


def _iid_size(arm: Arm, n: int) -> int:
    """Return the number of examples per model of an iid arm."""
    size = round(arm.keep * n)
    if not 0 < size < n:
        raise ValueError(f"{arm.name} would put {size} of {n} examples into each model; more examples are needed")
    return size


def _draw(
    arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, n: int, groups: list[tuple[int, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield sets of examples, together all n, and their membership in the block's rows, [rows, examples]."""
    # A block of an iid arm is one model: its row is the first keep * n of a permutation of all examples.
    if arm.design == "iid":
        member = np.zeros((1, n), dtype=bool)
        member[0, np.random.default_rng(root).permutation(n)[: _iid_size(arm, n)]] = True
        yield np.arange(n), member
    elif arm.design == "exact":
        yield from _draw_exact(arm, rows, root, n)
    else:
        yield from _draw_orthogonal(arm, rows, root, groups)


def _part_rng(root: np.random.SeedSequence, part: int) -> np.random.Generator:
    """Return the random stream of one chunk or cluster of a block."""
    # As SeedSequence.spawn would, but a child can be had without its elder siblings.
    return np.random.default_rng(np.random.SeedSequence(root.entropy, spawn_key=(*root.spawn_key, part)))


def _draw_exact(
    arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, n: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw exactly keep * block of the block's models for each example; yield as _draw does."""
    # pattern has keep * block ones. permuted shuffles each example's row by itself, where permutation would shuffle
    # whole columns. A chunk is drawn for the whole block, [examples, block], before the requested rows are taken.
    chunk = max(_CELLS // arm.models_per_block, 1)
    pattern = np.arange(arm.models_per_block) < round(arm.keep * arm.models_per_block)
    for part, start in enumerate(range(0, n, chunk)):
        examples = np.arange(start, min(start + chunk, n))
        included = _part_rng(root, part).permuted(np.tile(pattern, (len(examples), 1)), axis=1)
        yield examples, included[:, rows].T


def _draw_orthogonal(
    arm: Arm, rows: np.ndarray, root: np.random.SeedSequence, groups: list[tuple[int, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draw distinct columns of an orthogonal array for each cluster's examples; yield as _draw does."""
    # Example i of a cluster is in model r of the block if array[row(r), column(i)] is not the level that i leaves out.
    array = _orthogonal_array(_LEVELS[arm.keep], arm.models_per_block)
    for number, examples in groups:
        rng = _part_rng(root, number)
        # The three draws are part of every bank: their order and sizes must stay. All rows are shuffled before some are
        # taken, so a model's row does not depend on the others requested.
        shuffled = rng.permutation(len(array))[rows]
        # Distinct columns have strength 2: over a block two examples of a cluster are included independently, exactly.
        # Rows are shuffled anew for every cluster, so examples of different clusters are independent on average.
        columns = rng.permutation(array.shape[1])[: len(examples)]
        # One of q levels is left out, uniformly and for each example by itself. Whatever a row of the array holds, each
        # of its entries then differs from the level with probability 1 - 1/q = keep: one model is a Bernoulli sample.
        left_out = rng.integers(0, _LEVELS[arm.keep], len(examples))
        yield examples, array[shuffled[:, None], columns] != left_out


@functools.cache
def _orthogonal_array(levels: int, runs: int) -> np.ndarray:
    """Build an orthogonal array of strength 2: int8 [runs, (runs - 1) / (levels - 1)], entries 0 .. levels - 1."""
    # Any two columns show each pair of levels equally often. With q levels and q^m runs (Rao-Hamming construction): the
    # rows are all vectors v of GF(q)^m, the columns those vectors d whose first non-zero entry is 1, and the entry is
    # their inner product. Two such d are linearly independent, so v -> (v.d, v.d') is a linear map onto all q^2 pairs
    # and takes each of them q^(m-2) times. For q = 2 the signs of a Sylvester-Hadamard matrix are these inner products.
    if levels == 2:
        from scipy.linalg import hadamard  # takes longer to import than all that --help needs

        two: np.ndarray = (hadamard(runs)[:, 1:] > 0).astype(np.int8)  # without the constant column
        return two
    # Multiplication in GF(4) = {0, 1, w, w + 1}, coded 0 to 3 as polynomials in w over GF(2), w^2 = w + 1.
    times = np.array([[0, 0, 0, 0], [0, 1, 2, 3], [0, 2, 3, 1], [0, 3, 1, 2]], dtype=np.int8)
    digits = round(np.log(runs) / np.log(4))
    vectors = np.stack(np.unravel_index(np.arange(runs), (4,) * digits), axis=1)
    # One vector of each line through 0: its multiples would give the same column with renamed levels.
    directions = np.array([v for v in vectors if v.any() and v[np.flatnonzero(v)[0]] == 1])
    # Products are [runs, columns, m]; adding over GF(4) is xor of the codes.
    four: np.ndarray = np.bitwise_xor.reduce(times[vectors[:, None, :], directions[None, :, :]], axis=2)
    return four


def _list_clusters(arm: Arm, n: int, clusters: np.ndarray | None) -> list[tuple[int, np.ndarray]]:
    """Return every cluster's number and its examples in data-set order."""
    if clusters is None:
        raise ValueError(
            f"{arm.name} needs clusters; make them with cluster_images(images, get_max_cluster_size(arm), seed)"
        )
    if clusters.shape != (n,) or clusters.min(initial=0) < 0:
        raise ValueError(f"clusters must be {n} numbers >= 0, one per example, got shape {clusters.shape}")
    # A stable sort by cluster leaves each cluster's examples in data-set order, and that order decides which column of
    # the array an example gets.
    order = np.argsort(clusters, kind="stable")
    numbers, starts, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    if sizes.max(initial=0) > get_max_cluster_size(arm):
        worst = f"cluster {numbers[sizes.argmax()]} has {sizes.max()} examples"
        raise ValueError(
            f"{worst}, but {arm.name} has {get_max_cluster_size(arm)} columns; make clusters with that cap"
        )
    return list(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True))
