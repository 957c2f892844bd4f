"""One run of `influence`, step by step: the models of one arm, the pairs that matter, their file, and a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.data.splits import Splits
from memscore.influence_rows import influence_rows
from memscore.pipeline.config import splits_again
from memscore.plots.bank import influencers, label_text
from memscore.store.parquet import metadata_of
from memscore.store.store import Store
from memscore.subsets.clustering import unfinished
from memscore.subsets.designs import arm_from

BESIDE = 5
"""Train examples beside each target in the picture."""
MOST_PICTURES = 100
"""Targets in one picture; some 300 would be more pixels than a PNG of matplotlib's may have."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Influence:
    """What a run has found.

    Attributes:
        arm: whose models were read.
        suffix: ends the names of its scores and files.
        models: how many.
        unfinished: those in blocks that are not whole.
        damaged: shards that could not be read -> why.
        targets: kind of targets, see influence_rows.
        n_targets: how many there are.
        least: a pair is strong from this influence on,
        least_memorization: if the train example's memorization is at least this.
        opposite: pairs that would be strong with their sign turned.
        table: of influence_rows.
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
        """Of its file in the store, and for Store.read_influence."""
        return f"{self.targets}_{self.suffix}"

    @property
    def strong(self) -> np.ndarray:
        """Bool [rows of the table]."""
        influence, memorization = (self.table[key].to_numpy() for key in ("influence", "memorization"))
        return np.asarray((influence >= self.least) & (memorization >= self.least_memorization))

    def strongest(self) -> np.ndarray:
        """Rows of the strong pairs, of all pairs where none is strong; the most influential first."""
        influence, strong = self.table["influence"].to_numpy(), self.strong
        rows = np.flatnonzero(strong) if strong.any() else np.arange(len(strong))
        return rows[np.argsort(-influence[rows], kind="stable")]


def find(
    store: Store,
    name: str,
    *,
    targets: str,
    top: int,
    least: float,
    least_memorization: float,
    progress: Callable[[int, int, str], object] | None = None,
) -> Influence:
    """The pairs of one arm that matter; nothing is written.

    Args:
        store: open; the caller holds its lock, so that no shard comes or goes.
        name: of the arm.
        targets: as for influence_rows, and so are
        top: examples kept for each target,
        least: the threshold for influence,
        least_memorization: and for memorization,
        progress: and who is told.

    Returns:
        The pairs, and what they are of.

    Raises:
        ValueError: an unknown arm, one without models, or what influence_rows refuses.
    """
    shards = store.check(name, verify=False)
    if not shards.valid:
        raise ValueError(
            f"arm {name} of {store.folder.shown} has no models that can be read; `python -m memscore.estimate "
            f"--store {store.folder.shown}` trains them"
        )
    table = influence_rows(
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
    return Influence(
        arm=name,
        suffix=store.arms()[name]["suffix"],
        models=len(shards.valid),
        unfinished=unfinished(shards.valid, arm_from(store.arms()[name]).models_per_block),
        damaged=shards.damaged,
        targets=targets,
        n_targets=n_test if targets == "test" else n_train,
        least=least,
        least_memorization=least_memorization,
        opposite=int(metadata_of(table.schema)["opposite"]),
        table=table,
    )


def images_again(store: Store, data: str | None, folder: str | None) -> Splits:
    """The bank's data for the picture.

    Args:
        store: open.
        data: as estimate's --data, or None.
        folder: as estimate's --folder, or None.

    Returns:
        The splits.

    Raises:
        ValueError: they cannot be found again; says how to do without.
    """
    try:
        return splits_again(store, data, folder)
    except (ValueError, OSError, RuntimeError) as error:
        raise ValueError(f"{error}; --pictures 0 does without images") from error


def draw(store: Store, found: Influence, splits: Splits, pictures: int) -> str | None:
    """Write a picture of the targets with the strongest influences, each beside the train examples that help it most.

    Args:
        store: open.
        found: of find.
        splits: the bank's data.
        pictures: targets at most.

    Returns:
        Its path within the store; None if there is no pair to show.
    """
    rows = found.table["test_row"].to_numpy()
    shown = list(dict.fromkeys(rows[found.strongest()].tolist()))[:pictures]
    if not shown:
        return None
    part = splits.test if found.targets == "test" else splits.train
    first = sum(store.manifest.split_sizes[:2]) if found.targets == "test" else 0
    examples, strong = store.examples(), found.strong
    images: list[list[np.ndarray]] = []
    captions: list[list[list[str]]] = []
    faint: list[list[bool]] = []
    for target in shown:
        start, stop = np.searchsorted(rows, [target, target + 1])
        stop = min(stop, start + BESIDE)
        pairs = found.table.slice(start, stop - start).to_pylist()
        images.append([part.images[target - first], *(splits.train.images[pair["train_row"]] for pair in pairs)])
        captions.append([[f"label {label_text(examples, target)}", f"row {target}"]])
        captions[-1] += [caption(pair, examples) for pair in pairs]
        faint.append([False, *~strong[start:stop]])
    title = (
        f"{splits.name}, {found.models} models, {found.suffix}, {found.targets}: each target (framed) and the\n"
        "training examples that help it most; label as trained, influence ± standard error,\n"
        f"memorization; faint where influence < {found.least:g} or memorization < {found.least_memorization:g}"
    )
    relpath = f"reports/influence_{found.name}.png"
    store.folder.replace(relpath, influencers(images, captions, faint, title))
    return relpath


def caption(pair: Mapping[str, Any], examples: pa.Table) -> list[str]:
    """What stands under a training example."""
    return [
        f"label {label_text(examples, pair['train_row'])}",
        f"{pair['influence']:.2f} ± {pair['se']:.2f}",
        f"row {pair['train_row']}, mem {pair['memorization']:.2f}",
    ]
