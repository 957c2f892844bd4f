"""Which train examples a bank's models owe which targets to: the pairs that matter, as rows.

Feldman & Zhang 2020 publish the pairs of influence .15 or more whose train example has memorization .25 or more;
beside them stand the most influential examples of every target, whatever their influence. One pass over the train
examples, no N x T array: tiles of pairs are made, looked through and dropped.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pyarrow as pa

from memscore.choices import pick
from memscore.estimators.influence import Tile, contrast, pack, tiles
from memscore.estimators.memorization import from_counts, memorization
from memscore.store.parquet import to_table
from memscore.store.shards import shards_digest
from memscore.store.store import Store

TARGETS = ("test", "train", "train-held-out")
MOST_ROWS = 2_000_000
"""Pairs above the thresholds that may be found; they take some 300 bytes each, ids included, before they are a file."""

_SLACK = np.float32(1e-4)  # float32 tiles are a few 1e-7 off; what is picked is decided again in float64
_READ = 64 * 2**20  # bytes of two neighbouring blocks of train examples


def influence_rows(
    store: Store,
    arm: str,
    shards: Mapping[int, str],
    *,
    targets: str = "test",
    top: int = 10,
    least: float = 0.15,
    least_memorization: float = 0.25,
    max_rows: int = MOST_ROWS,
    progress: Callable[[int, int, str], object] | None = None,
) -> pa.Table:
    """The pairs of one arm that matter, streamed: the most influential examples of each target, and all strong pairs.

    Peak memory beyond the imports: M x T / 8 bytes of targets (twice that if held out), 64 MB of blocks as read, tiles
    (see tiles: 50 MB at 2,000 models), and some 300 bytes for each of at most top x T + max_rows pairs.

    Args:
        store: open.
        arm: name of an arm on file.
        shards: index of every valid model -> hash of its contents.
        targets: "test"; "train", the same contrast between train examples; "train-held-out", over models without the
            target.
        top: how many examples are kept for each target whatever their influence; ties go to the lower row.
        least: a pair is strong from this influence on,
        least_memorization: if the train example's memorization is at least this.
        max_rows: strong pairs that may be found.
        progress: told train examples done, all of them, and a line.

    Returns:
        train_row, train_id, test_row, test_id (rows and ids of the store, also where the target is a train example),
        influence, se (smoothed, never 0), memorization of the train example; by test_row, then falling influence. A
        pair of an example with itself is no row. The schema's metadata says arm, models, shards_digest, parameters, and
        `opposite`: how many pairs would be strong with their sign turned, influence -least or less.

    Raises:
        ValueError: an unknown kind of targets, a negative top, a threshold that is no number, no test examples, or more
            than max_rows strong pairs.
    """
    pick("kind of targets", targets, TARGETS)
    _refuse_senseless(top, {"least": least, "least_memorization": least_memorization})
    indices, train = sorted(shards), slice(0, store.manifest.split_sizes[0])
    rows = slice(sum(store.manifest.split_sizes[:2]), store.manifest.n_rows) if targets == "test" else train
    if rows.start == rows.stop:
        raise ValueError(f"{store.folder.shown} has no test examples; use targets 'train'")
    held_out = targets == "train-held-out"
    packed = pack(
        (block.columns["correct"], ~block.columns["member"] if held_out else None)
        for block in store.blocks(arm, indices, ["correct", "member"], rows, max_bytes=_READ)
    )
    scores: list[np.ndarray] = []

    def members() -> Iterator[np.ndarray]:
        for block in store.blocks(arm, indices, ["member", "correct"], train, max_bytes=_READ):
            scores.append(memorization(block.columns["correct"], block.columns["member"]))
            yield block.columns["member"]

    picked = _Picked(rows.stop - rows.start, top, max_rows)
    for tile in tiles(members(), packed):
        strong = np.concatenate(scores)[tile.train] >= least_memorization
        picked.add(tile, least, strong, without_self=targets != "test")
        if progress and tile.target.stop == rows.stop - rows.start:
            progress(tile.train.stop, train.stop, f"{picked.n_strong} strong pairs")
    columns = _columns(picked.pairs(), rows.start, np.concatenate(scores), store)
    asked = {"targets": targets, "top": top, "least": least, "least_memorization": least_memorization}
    metadata = {"arm": arm, "models": len(indices), "shards_digest": shards_digest(arm, shards)}
    metadata |= {**asked, "opposite": picked.opposite}
    return to_table(columns, {key: str(value) for key, value in metadata.items()})


class _Picked:
    """The best pairs of each target so far, and the strong ones: int64 [6, pairs], train, target and four counts."""

    def __init__(self, n_targets: int, top: int, max_rows: int) -> None:
        self.top, self.max_rows = top, max_rows
        self.floor = np.full(n_targets, -np.inf, np.float32)  # influence of each target's top-th best, if it has one
        self.best: dict[int, np.ndarray] = {}
        self.strong: list[np.ndarray] = []
        self.n_strong = self.opposite = 0

    def add(self, tile: Tile, least: float, strong: np.ndarray, without_self: bool) -> None:
        """Look through a tile; strong [a] says which of its train examples are memorized enough."""
        value = tile.influence()
        np.copyto(value, -np.inf, where=np.isnan(value))
        if without_self:
            same = np.arange(max(tile.train.start, tile.target.start), min(tile.train.stop, tile.target.stop))
            value[same - tile.train.start, same - tile.target.start] = -np.inf
        self._keep_strong(tile, value, least, strong)
        if self.top:
            self._keep_best(tile, value)

    def pairs(self) -> np.ndarray:
        """Every pair kept, once."""
        whole = np.concatenate([np.empty((6, 0), np.int64), *self.best.values(), *self.strong], axis=1)
        return whole[:, np.unique(whole[:2], axis=1, return_index=True)[1]]

    def _keep_strong(self, tile: Tile, value: np.ndarray, least: float, strong: np.ndarray) -> None:
        """Pairs at or above the thresholds, and how many are as far below 0, decided in float64."""
        rows = np.flatnonzero(strong)
        value = value[rows]
        a, b = np.nonzero(value >= least - _SLACK)
        found = _pairs(tile, rows[a], b)
        self.strong.append(found[:, contrast(found[2:]) >= least])
        a, b = np.nonzero((value <= _SLACK - least) & (value >= -2))  # -2: undefined is -inf
        self.opposite += int((contrast(tile.counts(rows[a], b)) <= -least).sum())
        self.n_strong += self.strong[-1].shape[1]
        if self.n_strong > self.max_rows:
            n = int(tile.n.max())
            raise ValueError(
                f"more than {self.max_rows} pairs reach influence {least}; with {n} models noise alone has a standard "
                f"deviation up to {1 / np.sqrt(n):.2f}: raise least or least_memorization, or train more models"
            )

    def _keep_best(self, tile: Tile, value: np.ndarray) -> None:
        """Merge the tile's candidates with the best so far; floors only rise, so few are candidates after the first."""
        floor = self.floor[tile.target]
        if len(value) >= self.top and np.isneginf(floor).any():
            floor = np.maximum(floor, np.partition(value, -self.top, axis=0)[-self.top])
        a, b = np.nonzero(value >= np.maximum(floor - _SLACK, -2))  # -2: undefined is -inf
        so_far = self.best.get(tile.target.start, np.empty((6, 0), np.int64))
        pairs = np.concatenate([so_far, _pairs(tile, a, b)], axis=1)
        exact = contrast(pairs[2:])
        order = np.lexsort((pairs[0], -exact, pairs[1]))
        target = pairs[1, order]
        rank = np.arange(len(order)) - np.searchsorted(target, target)
        best, last = order[rank < self.top], order[rank == self.top - 1]
        self.best[tile.target.start] = pairs[:, best]
        self.floor[pairs[1, last]] = exact[last]


def _refuse_senseless(top: int, thresholds: Mapping[str, float]) -> None:
    """Stop at parameters that would find nothing without saying so."""
    if top < 0:
        raise ValueError(f"top must be 0 or more, got {top}; 0 keeps the strong pairs only")
    for name, value in thresholds.items():
        if np.isnan(value):
            raise ValueError(f"{name} must be a number, got nan; Feldman & Zhang use .15 and .25")


def _columns(pairs: np.ndarray, first: int, memorized: np.ndarray, store: Store) -> dict[str, np.ndarray]:
    """Pairs as columns in their order; targets begin at row `first` of the store."""
    found, ids = from_counts(*pairs[2:]), np.array(store.examples()["id"].to_pylist(), dtype=np.str_)
    order = np.lexsort((pairs[0], -found["value"], pairs[1]))
    train, target = pairs[0, order], pairs[1, order] + first
    return {
        "train_row": train.astype(np.int32),
        "train_id": ids[train],
        "test_row": target.astype(np.int32),
        "test_id": ids[target],
        "influence": found["value"][order],
        "se": found["se"][order],
        "memorization": memorized[train],
    }


def _pairs(tile: Tile, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """int64 [6, pairs]: train, target and the four counts."""
    return np.concatenate([[a + tile.train.start, b + tile.target.start], tile.counts(a, b)])
