"""Find pairs of train and target examples with high influence in a bank.

Feldman & Zhang 2020 publish the pairs of influence .15 or more whose train example has memorization .25 or more, from
2,000 models. With fewer models noise alone reaches .15, so the least influence of a strong pair is by default the one
from memscore.units import format_count
from which a tenth of the pairs are expected to be false (memscore/estimators/influence_null.py). The most influential
examples of every target are added, whatever their influence. One pass over the train examples, no N x T array: tiles of
pairs are computed, searched and discarded.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from memscore.analysis.arms import check_arm
from memscore.choices import validate_choice
from memscore.estimators.influence import (
    TILE_SIZE,
    PackedTargets,
    Tile,
    influence_from_counts,
    iterate_tiles,
    pack_targets,
)
from memscore.estimators.influence_null import PairCounts, count_pairs
from memscore.estimators.memorization import memorization, memorization_from_counts
from memscore.score_registry import get_estimator_version
from memscore.seeds import generator
from memscore.store.parquet import decode_metadata, to_table
from memscore.store.score_files import build_version_metadata
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.clustering import count_models_in_partial_blocks
from memscore.subsets.designs import Arm, parse_arm_record

TARGETS = ("test", "train", "train-held-out")
MAX_ROWS = 2_000_000
"""Most pairs above the thresholds; they take some 300 bytes each in memory, ids included, before they are written."""
MAX_FALSE_SHARE = 0.1
"""Expected share of false pairs among the strong ones, from which their least influence is chosen."""
MAX_CHOSEN = 200_000
"""Most strong pairs of a least influence that is chosen; a larger one is taken where there are more."""
MAX_PERMUTATIONS = 10
"""Of memberships; fewer where they would cost more than the influences themselves, and CHEAP_PRODUCTS."""
CHEAP_PRODUCTS = 3 * 10**11
"""Pairs times models that all permutations may cost in any case: some ten seconds of a core."""

_TOLERANCE = np.float32(1e-4)  # float32 tiles are a few 1e-7 off; selected pairs are checked again in float64
_BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of train examples


def find_influence_pairs(
    store: Store,
    arm: str,
    shards: Mapping[int, str],
    *,
    targets: str = "test",
    top: int = 10,
    least: float | None = None,
    least_memorization: float = 0.25,
    max_rows: int = MAX_ROWS,
    progress: Callable[[int, int, str], object] | None = None,
) -> pa.Table:
    """Find the most influential train examples of each target, and all strong pairs, of one arm in one pass.

    Peak memory beyond the imports: M x (T + N) / 8 bytes of targets and memberships (T twice if held out), 64 MB of
    blocks, tiles (see iterate_tiles: 50 MB at 2,000 models), and some 300 bytes for each of at most top x T + max_rows
    pairs.

    Args:
        store: the bank.
        arm: name of a stored arm.
        shards: index of every valid model -> hash of its contents.
        targets: "test"; "train", the same contrast between train examples; "train-held-out", over models without the
            target.
        top: how many examples are kept for each target whatever their influence; ties go to the lower row.
        least: a pair is strong if its influence is at least this, in (0, 1]; None chooses it by MAX_FALSE_SHARE,
        least_memorization: and its train example's memorization at least this, in [-1, 1].
        max_rows: most strong pairs.
        progress: called with train examples done, their total, and a line.

    Returns:
        train_row, train_id, test_row, test_id (rows and ids of the store, also where the target is a train example),
        influence, se (smoothed, never 0), memorization of the train example, and q, the expected share of false pairs
        among those of this influence or more, null where memorization is below least_memorization; by test_row, then
        falling influence. A pair of an example with itself is left out. The schema's metadata has arm, models,
        hash_shards, parameters, and

        - `least_chosen`: whether least was chosen; it is then "inf" where no pair is strong enough;
        - `false_expected`, `opposite`, `opposite_expected`: strong pairs expected by chance, pairs that would be strong
          with the opposite sign, influence -least or less, and these expected by chance; `permutations`, of the null;
        - `pairs`, `undefined`: all pairs, and those with no model on one side, which have no influence.

    Raises:
        ValueError: an unknown kind of targets, a negative top, a threshold out of its range, no test examples, or more
            than max_rows strong pairs.
    """
    validate_choice("kind of targets", targets, TARGETS)
    _validate_thresholds(top, least, least_memorization)
    indices, train = sorted(shards), slice(0, store.manifest.split_sizes[0])
    rows = slice(sum(store.manifest.split_sizes[:2]), store.manifest.n_rows) if targets == "test" else train
    if rows.start == rows.stop:
        raise ValueError(f"{store.folder.display_name} has no test examples; use targets 'train'")
    # the correctness of all models on all targets stays in memory, as bits
    held_out = targets == "train-held-out"
    packed = pack_targets(
        (block.columns["correct"], ~block.columns["member"] if held_out else None)
        for block in store.read_blocks(arm, indices, ["correct", "member"], rows, max_bytes=_BLOCK_BYTES)
    )
    # and so do memberships, since the least influence must be known before pairs are kept
    scores, bits = [], []
    for block in store.read_blocks(arm, indices, ["member", "correct"], train, max_bytes=_BLOCK_BYTES):
        scores.append(memorization(block.columns["correct"], block.columns["member"]))
        bits.append(np.packbits(block.columns["member"], axis=0))
    memorized, member = np.concatenate(scores), np.concatenate(bits, axis=1)
    strong = memorized >= least_memorization  # false where memorization is undefined
    blocks = _group_models(parse_arm_record(store.arms()[arm]), indices)
    counts = _count_strong(member, strong, packed, blocks, store.manifest.seed, arm, targets != "test", progress)
    chosen = counts.choose_least(MAX_FALSE_SHARE, min(max_rows, MAX_CHOSEN)) if least is None else least
    # tiles come range by range of train examples: the one with the last target ends a range
    selection = _PairSelection(rows.stop - rows.start, top, max_rows)
    for tile in iterate_tiles(_unpack(member, len(indices)), packed):
        selection.add(tile, chosen, strong[tile.train], without_self=targets != "test")
        if progress and tile.target.stop == rows.stop - rows.start:
            progress(tile.train.stop, train.stop, f"{selection.n_strong} strong pairs")
    columns = _build_columns(selection.pairs(), rows.start, memorized, store)
    columns["q"] = np.where(strong[columns["train_row"]], counts.compute_q(columns["influence"]), np.nan)
    parameters = {"targets": targets, "top": top, "least": chosen, "least_memorization": least_memorization}
    metadata = {"arm": arm, "models": len(indices), "shards_digest": hash_shards(arm, shards)}
    metadata |= build_version_metadata(get_estimator_version("influence"))
    false_expected, opposite_expected = counts.expect_by_chance(chosen)
    metadata |= {
        **parameters,
        "least_chosen": str(least is None).lower(),
        "false_expected": false_expected,
        "opposite": selection.opposite,
        "opposite_expected": opposite_expected,
        "permutations": counts.permutations,
        "pairs": selection.n_pairs,
        "undefined": selection.undefined,
    }
    return to_table(columns, {key: str(value) for key, value in metadata.items()})


def _unpack(member: np.ndarray, models: int) -> Iterator[np.ndarray]:
    """Unpack memberships for one range of train examples after the other, bool [M, n] each."""
    for start in range(0, member.shape[1], TILE_SIZE):
        yield np.unpackbits(member[:, start : start + TILE_SIZE], axis=0, count=models).astype(bool)


def _group_models(arm: Arm, indices: list[int]) -> np.ndarray:
    """Number the whole block of each model, -1 for those of blocks that are not whole, and for all of an iid arm."""
    numbers = np.array(indices) // arm.models_per_block
    whole = np.isin(numbers, [n for n, count in Counter(numbers.tolist()).items() if count == arm.models_per_block])
    return np.where(whole & (arm.models_per_block > 1), numbers, -1)


def _count_strong(
    member: np.ndarray,
    strong: np.ndarray,
    packed: PackedTargets,
    blocks: np.ndarray,
    seed: int,
    arm: str,
    without_self: bool,
    progress: Callable[[int, int, str], object] | None,
) -> PairCounts:
    """Count the pairs of memorized train examples by influence, as they are and by chance."""
    # pairs of other examples are never strong
    rows, n_targets = np.flatnonzero(strong), packed.right.shape[1]
    budget = max(len(strong) * n_targets * packed.models, CHEAP_PRODUCTS)
    cost = max(len(rows) * n_targets * packed.models, 1)
    permutations = int(np.clip(budget // cost, 1, MAX_PERMUTATIONS))
    if progress:
        progress(0, len(strong), f"{len(rows)} memorized, {permutations} permutations")
    rngs = [generator(seed, "bootstrap", f"influence {arm}", number) for number in range(permutations)]
    return count_pairs(member[:, rows], packed, blocks, rngs, rows if without_self else None)


class _PairSelection:
    """The best pairs of each target so far, and the strong ones: int64 [6, pairs], train, target and four counts.

    A tile's influence is float32, so it only proposes pairs, down to _TOLERANCE below a threshold; their counts are
    exact, and influence computed from them in float64 decides.
    """

    def __init__(self, n_targets: int, top: int, max_rows: int) -> None:
        self.top, self.max_rows = top, max_rows
        self.floor = np.full(n_targets, -np.inf, np.float32)  # influence of each target's top-th best, if it has one
        # the best pairs by the first target of a tile: every range of train examples has tiles of the same targets
        self.best: dict[int, np.ndarray] = {}
        self.strong: list[np.ndarray] = []
        self.n_strong = self.opposite = self.n_pairs = self.undefined = 0

    def add(self, tile: Tile, least: float, strong: np.ndarray, without_self: bool) -> None:
        """Select pairs of a tile; strong [a] is true for its train examples with enough memorization."""
        # undefined pairs are -inf, below every threshold and every defined influence, which is -1 or more
        value = tile.influence()
        undefined = np.isnan(value)
        np.copyto(value, -np.inf, where=undefined)
        self.n_pairs += value.size
        # the diagonal, where it crosses the tile: rows that are both among its train examples and its targets
        if without_self:
            same = np.arange(max(tile.train.start, tile.target.start), min(tile.train.stop, tile.target.stop))
            diagonal = same - tile.train.start, same - tile.target.start
            value[diagonal], undefined[diagonal] = -np.inf, False
            self.n_pairs -= len(same)
        self.undefined += int(undefined.sum())
        self._keep_strong(tile, value, least, strong)
        if self.top:
            self._keep_best(tile, value)

    def pairs(self) -> np.ndarray:
        """Return every selected pair once, int64 [6, pairs], although a strong one may be among the best too."""
        pairs = np.concatenate([np.empty((6, 0), np.int64), *self.best.values(), *self.strong], axis=1)
        return pairs[:, np.unique(pairs[:2], axis=1, return_index=True)[1]]

    def _keep_strong(self, tile: Tile, value: np.ndarray, least: float, strong: np.ndarray) -> None:
        """Select pairs at or above the thresholds, and count those as far below 0, both in float64."""
        # only train examples with enough memorization; a and b are positions among these and among the targets
        rows = np.flatnonzero(strong)
        value = value[rows]
        a, b = np.nonzero(value >= least - _TOLERANCE)
        pairs = _build_pairs(tile, rows[a], b)
        self.strong.append(pairs[:, influence_from_counts(pairs[2:]) >= least])
        a, b = np.nonzero((value <= _TOLERANCE - least) & (value >= -2))  # -2: undefined is -inf
        self.opposite += int((influence_from_counts(tile.counts(rows[a], b)) <= -least).sum())
        # Checked after every tile, before the pairs fill the memory. A difference of two shares, each of half of n
        # models, has a variance of p (1 - p) 4 / n, at most 1 / n.
        self.n_strong += self.strong[-1].shape[1]
        if self.n_strong > self.max_rows:
            n = int(tile.n.max())
            raise ValueError(
                f"more than {self.max_rows} pairs reach influence {least}; with {n} models noise alone has a standard "
                f"deviation up to {1 / np.sqrt(n):.2f}: raise least or least_memorization, or train more models"
            )

    def _keep_best(self, tile: Tile, value: np.ndarray) -> None:
        """Merge the tile's candidates with the best so far; floors only rise, so few are candidates after the first."""
        # Only a pair that reaches its target's floor can be among the best. Targets have none yet in their first tile,
        # where the top-th largest of the tile serves: without it, every pair of the tile would be a candidate.
        floor = self.floor[tile.target]
        if len(value) >= self.top and np.isneginf(floor).any():
            floor = np.maximum(floor, np.partition(value, -self.top, axis=0)[-self.top])
        a, b = np.nonzero(value >= np.maximum(floor - _TOLERANCE, -2))  # -2: undefined is -inf
        so_far = self.best.get(tile.target.start, np.empty((6, 0), np.int64))
        pairs = np.concatenate([so_far, _build_pairs(tile, a, b)], axis=1)
        # by target, then falling influence, then train row, so that ties do not depend on the order of the tiles
        exact = influence_from_counts(pairs[2:])
        order = np.lexsort((pairs[0], -exact, pairs[1]))
        # rank within the target: position minus the position of the target's first pair
        target = pairs[1, order]
        rank = np.arange(len(order)) - np.searchsorted(target, target)
        best, last = order[rank < self.top], order[rank == self.top - 1]
        self.best[tile.target.start] = pairs[:, best]
        self.floor[pairs[1, last]] = exact[last]


def _validate_thresholds(top: int, least: float | None, least_memorization: float) -> None:
    """Raise ValueError if the parameters would select nothing without an error."""
    if top < 0:
        raise ValueError(f"top must be 0 or more, got {top}; 0 keeps the strong pairs only")
    if least is not None and not 0 < least <= 1:
        raise ValueError(f"least must lie in (0, 1], got {least:g}; leave it out, or take Feldman & Zhang's .15")
    if not -1 <= least_memorization <= 1:
        raise ValueError(
            f"least_memorization must lie in [-1, 1], got {least_memorization:g}; Feldman & Zhang take .25"
        )


def _build_columns(pairs: np.ndarray, first: int, memorized: np.ndarray, store: Store) -> dict[str, np.ndarray]:
    """Build the sorted columns of the pairs; targets begin at row `first` of the store."""
    # influence is the contrast of memorization, applied to the target's predictions
    influence = memorization_from_counts(*pairs[2:])
    ids = np.array(store.examples()["id"].to_pylist(), dtype=np.str_)
    order = np.lexsort((pairs[0], -influence["value"], pairs[1]))
    train, target = pairs[0, order], pairs[1, order] + first
    return {
        "train_row": train.astype(np.int32),
        "train_id": ids[train],
        "test_row": target.astype(np.int32),
        "test_id": ids[target],
        "influence": influence["value"][order],
        "se": influence["se"][order],
        "memorization": memorized[train],
    }


def _build_pairs(tile: Tile, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Build int64 [6, pairs]: train, target, k_in, n_in, k_out and n_out of a tile's positions a, b."""
    return np.concatenate([[a + tile.train.start, b + tile.target.start], tile.counts(a, b)])


@dataclass(frozen=True, kw_only=True, eq=False)
class InfluenceResult:
    """The pairs of one arm.

    Attributes:
        arm: whose models were read.
        suffix: of the names of its scores and files.
        models: their number.
        unfinished: those in blocks that are not whole.
        damaged: shards that could not be read -> reason.
        targets: kind of targets, see find_influence_pairs.
        n_targets: their number.
        least: a pair is strong if its influence is at least this, infinite if no value was found,
        least_chosen: whether it was chosen by the expected share of false pairs,
        least_memorization: and its train example's memorization at least this.
        false_expected: strong pairs expected by chance,
        permutations: of the models' memberships, by which they are counted.
        opposite: pairs that would be strong with the opposite sign,
        opposite_expected: and these expected by chance.
        pairs: of a train example and a target.
        undefined: of these, pairs without a model on one side.
        table: from find_influence_pairs.
    """

    arm: str
    suffix: str
    models: int
    unfinished: int
    damaged: dict[str, str]
    targets: str
    n_targets: int
    least: float
    least_chosen: bool
    least_memorization: float
    false_expected: float
    permutations: int
    opposite: int
    opposite_expected: float
    pairs: int
    undefined: int
    table: pa.Table

    @property
    def name(self) -> str:
        """The name of its file in the store, and for Store.read_influence."""
        return f"{self.targets}_{self.suffix}"

    @property
    def strong(self) -> np.ndarray:
        """Bool [rows of the table]."""
        influence, memorization = (self.table[key].to_numpy() for key in ("influence", "memorization"))
        return np.asarray((influence >= self.least) & (memorization >= self.least_memorization))

    def strongest(self) -> np.ndarray:
        """Return the rows of the strong pairs, or of all pairs where none is strong; the most influential first."""
        influence, strong = self.table["influence"].to_numpy(), self.strong
        rows = np.flatnonzero(strong) if strong.any() else np.arange(len(strong))
        return rows[np.argsort(-influence[rows], kind="stable")]


def compute_influence(
    store: Store,
    name: str,
    *,
    targets: str,
    top: int,
    least: float | None,
    least_memorization: float,
    progress: Callable[[int, int, str], object] | None = None,
) -> InfluenceResult:
    """Compute the influence pairs of one arm by find_influence_pairs; nothing is written.

    The caller holds the store's lock, so that no shard is added or removed. ValueError for an arm without models, and
    for what find_influence_pairs refuses.
    """
    # shards that cannot be read are left out and named in the result
    shards = check_arm(store, name)
    table = find_influence_pairs(
        store,
        name,
        shards.valid,
        targets=targets,
        top=top,
        least=least,
        least_memorization=least_memorization,
        progress=progress,
    )
    n_train, _, n_test = store.manifest.split_sizes
    found = decode_metadata(table.schema)
    return InfluenceResult(
        arm=name,
        suffix=store.arms()[name]["suffix"],
        models=len(shards.valid),
        unfinished=count_models_in_partial_blocks(shards.valid, parse_arm_record(store.arms()[name]).models_per_block),
        damaged=shards.damaged,
        targets=targets,
        n_targets=n_test if targets == "test" else n_train,
        least=float(found["least"]),
        least_chosen=found["least_chosen"] == "true",
        least_memorization=least_memorization,
        false_expected=float(found["false_expected"]),
        permutations=int(found["permutations"]),
        opposite=int(found["opposite"]),
        opposite_expected=float(found["opposite_expected"]),
        pairs=int(found["pairs"]),
        undefined=int(found["undefined"]),
        table=table,
    )
