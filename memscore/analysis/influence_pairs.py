"""Find pairs of train and target examples with high influence in a bank, and plot the strongest.

Feldman & Zhang 2020 publish the pairs of influence .15 or more whose train example has memorization .25 or more; here
the most influential examples of every target are added, whatever their influence. One pass over the train examples, no
N x T array: tiles of pairs are computed, searched and discarded.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.analysis.arms import check_arm
from memscore.choices import validate_choice
from memscore.data.splits import Splits
from memscore.estimators.influence import Tile, influence_from_counts, iterate_tiles, pack_targets
from memscore.estimators.memorization import memorization, memorization_from_counts
from memscore.pipeline.config import reload_splits
from memscore.plots.bank import format_label, plot_influence
from memscore.score_registry import get_estimator_version
from memscore.store.parquet import decode_metadata, to_table
from memscore.store.score_files import build_version_metadata
from memscore.store.shards import hash_shards
from memscore.store.store import Store
from memscore.subsets.clustering import count_models_in_partial_blocks
from memscore.subsets.designs import parse_arm_record

TARGETS = ("test", "train", "train-held-out")
MAX_ROWS = 2_000_000
"""Most pairs above the thresholds; they take some 300 bytes each in memory, ids included, before they are written."""
EXAMPLES_PER_TARGET = 5
"""Train examples shown with each target in the picture."""
MAX_PICTURES = 100
"""Targets in one picture; some 300 would exceed the pixels of a PNG in matplotlib."""

_TOLERANCE = np.float32(1e-4)  # float32 tiles are a few 1e-7 off; selected pairs are checked again in float64
_BLOCK_BYTES = 64 * 2**20  # of two consecutive blocks of train examples


def find_influence_pairs(
    store: Store,
    arm: str,
    shards: Mapping[int, str],
    *,
    targets: str = "test",
    top: int = 10,
    least: float = 0.15,
    least_memorization: float = 0.25,
    max_rows: int = MAX_ROWS,
    progress: Callable[[int, int, str], object] | None = None,
) -> pa.Table:
    """Find the most influential train examples of each target, and all strong pairs, of one arm in one pass.

    Peak memory beyond the imports: M x T / 8 bytes of targets (twice that if held out), 64 MB of blocks, tiles
    (see iterate_tiles: 50 MB at 2,000 models), and some 300 bytes for each of at most top x T + max_rows pairs.

    Args:
        store: the bank.
        arm: name of a stored arm.
        shards: index of every valid model -> hash of its contents.
        targets: "test"; "train", the same contrast between train examples; "train-held-out", over models without the
            target.
        top: how many examples are kept for each target whatever their influence; ties go to the lower row.
        least: a pair is strong if its influence is at least this,
        least_memorization: and its train example's memorization at least this.
        max_rows: most strong pairs.
        progress: called with train examples done, their total, and a line.

    Returns:
        train_row, train_id, test_row, test_id (rows and ids of the store, also where the target is a train example),
        influence, se (smoothed, never 0), memorization of the train example; by test_row, then falling influence. A
        pair of an example with itself is left out. The schema's metadata has arm, models, hash_shards, parameters, and
        `opposite`: how many pairs would be strong with the opposite sign, influence -least or less.

    Raises:
        ValueError: an unknown kind of targets, a negative top, a threshold that is no number, no test examples, or more
            than max_rows strong pairs.
    """
    validate_choice("kind of targets", targets, TARGETS)
    _validate_thresholds(top, {"least": least, "least_memorization": least_memorization})
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
    # Memorization needs the same columns, so it is computed as the blocks pass. A tile is made after its block was
    # read, so memorization of its train examples is in the list by then.
    scores: list[np.ndarray] = []

    def members() -> Iterator[np.ndarray]:
        for block in store.read_blocks(arm, indices, ["member", "correct"], train, max_bytes=_BLOCK_BYTES):
            scores.append(memorization(block.columns["correct"], block.columns["member"]))
            yield block.columns["member"]

    # tiles come range by range of train examples: the one with the last target ends a range
    selection = _PairSelection(rows.stop - rows.start, top, max_rows)
    for tile in iterate_tiles(members(), packed):
        strong = np.concatenate(scores)[tile.train] >= least_memorization
        selection.add(tile, least, strong, without_self=targets != "test")
        if progress and tile.target.stop == rows.stop - rows.start:
            progress(tile.train.stop, train.stop, f"{selection.n_strong} strong pairs")
    columns = _build_columns(selection.pairs(), rows.start, np.concatenate(scores), store)
    parameters = {"targets": targets, "top": top, "least": least, "least_memorization": least_memorization}
    metadata = {"arm": arm, "models": len(indices), "shards_digest": hash_shards(arm, shards)}
    metadata |= build_version_metadata(get_estimator_version("influence"))
    metadata |= {**parameters, "opposite": selection.opposite}
    return to_table(columns, {key: str(value) for key, value in metadata.items()})


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
        self.n_strong = self.opposite = 0

    def add(self, tile: Tile, least: float, strong: np.ndarray, without_self: bool) -> None:
        """Select pairs of a tile; strong [a] is true for its train examples with enough memorization."""
        # undefined pairs are -inf, below every threshold and every defined influence, which is -1 or more
        value = tile.influence()
        np.copyto(value, -np.inf, where=np.isnan(value))
        # the diagonal, where it crosses the tile: rows that are both among its train examples and its targets
        if without_self:
            same = np.arange(max(tile.train.start, tile.target.start), min(tile.train.stop, tile.target.stop))
            value[same - tile.train.start, same - tile.target.start] = -np.inf
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


def _validate_thresholds(top: int, thresholds: Mapping[str, float]) -> None:
    """Raise ValueError if the parameters would select nothing without an error."""
    if top < 0:
        raise ValueError(f"top must be 0 or more, got {top}; 0 keeps the strong pairs only")
    for name, value in thresholds.items():
        if np.isnan(value):
            raise ValueError(f"{name} must be a number, got nan; Feldman & Zhang use .15 and .25")


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
        least: a pair is strong if its influence is at least this,
        least_memorization: and its train example's memorization at least this.
        opposite: pairs that would be strong with the opposite sign.
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
    least_memorization: float
    opposite: int
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
    least: float,
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
    return InfluenceResult(
        arm=name,
        suffix=store.arms()[name]["suffix"],
        models=len(shards.valid),
        unfinished=count_models_in_partial_blocks(shards.valid, parse_arm_record(store.arms()[name]).models_per_block),
        damaged=shards.damaged,
        targets=targets,
        n_targets=n_test if targets == "test" else n_train,
        least=least,
        least_memorization=least_memorization,
        opposite=int(decode_metadata(table.schema)["opposite"]),
        table=table,
    )


def reload_images(store: Store, data: str | None, folder: str | None) -> Splits:
    """Load the bank's data again, for the picture; the error, always ValueError, says how to do without."""
    try:
        return reload_splits(store, data, folder)
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{error}; --pictures 0 does without images") from error


def write_picture(store: Store, result: InfluenceResult, splits: Splits, pictures: int) -> str | None:
    """Plot the targets with the strongest influences, each with the train examples that help it most.

    Returns the picture's path within the store; None if there is no pair to show.
    """
    # the first targets in the order of their strongest pair, each once
    rows = result.table["test_row"].to_numpy()
    targets = list(dict.fromkeys(rows[result.strongest()].tolist()))[:pictures]
    if not targets:
        return None
    # rows of targets are the store's: test examples come after train and validation
    part = splits.test if result.targets == "test" else splits.train
    first = sum(store.manifest.split_sizes[:2]) if result.targets == "test" else 0
    examples, strong = store.examples(), result.strong
    images: list[list[np.ndarray]] = []
    captions: list[list[list[str]]] = []
    faint: list[list[bool]] = []
    for target in targets:
        # the table is sorted by target, then falling influence: the first rows of a target are its most helpful pairs
        start, stop = np.searchsorted(rows, [target, target + 1])
        stop = min(stop, start + EXAMPLES_PER_TARGET)
        pairs = result.table.slice(start, stop - start).to_pylist()
        images.append([part.images[target - first], *(splits.train.images[pair["train_row"]] for pair in pairs)])
        captions.append([[f"label {format_label(examples, target)}", f"row {target}"]])
        captions[-1] += [format_caption(pair, examples) for pair in pairs]
        faint.append([False, *~strong[start:stop]])
    title = (
        f"{splits.name}, {result.models} models, {result.suffix}, {result.targets}: each target (framed) and the\n"
        "training examples that help it most; label as trained, influence ± standard error,\n"
        f"memorization; faint where influence < {result.least:g} or memorization < {result.least_memorization:g}"
    )
    relpath = f"reports/influence_{result.name}.png"
    store.folder.replace(relpath, plot_influence(images, captions, faint, title))
    return relpath


def format_caption(pair: Mapping[str, Any], examples: pa.Table) -> list[str]:
    """Return the lines of text under a training example."""
    return [
        f"label {format_label(examples, pair['train_row'])}",
        f"{pair['influence']:.2f} ± {pair['se']:.2f}",
        f"row {pair['train_row']}, mem {pair['memorization']:.2f}",
    ]
