"""The clusters of a bank: from pixels, or from what a pilot model makes of the images; made once, kept, never changed.

The pilot is original 0 of the bank's own recipe, trained on everything, so it is not trained for this alone. Which of
the two was used stands in clusters.parquet and, since the subsets rest on it, in the arm's record.

Groups of similar images, for subsets in which an example's neighbours come and go independently of it.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np

from memscore.data.splits import Splits, build_examples_table
from memscore.seeds import generator
from memscore.store.store import Store
from memscore.subsets.designs import Arm, get_max_cluster_size

_AXES = 32  # principal axes of the pixels that distances are taken along
_SAMPLE = 1024  # images that those axes are found on


def cluster_images(images: np.ndarray, cap: int, seed: int) -> np.ndarray:
    """Groups of similar images, none larger than cap: recursive 2-means on pixels or on embeddings.

    Distances are taken along the 32 leading principal axes, found on at most 1,024 images. A set is cut
    by 2-means started from the sides of its own principal axis; where that would leave one side with under 2 % (equal
    images, a far outlier), it is cut in two equal parts along that axis instead, so the depth is bounded.
    Bits may differ between machines: cluster once and keep what came out.

    Args:
        images: uint8 [N, C, H, W], or what a network makes of them, float [N, E].
        cap: the largest allowed size, >= 1.
        seed: the root seed; it picks the images on which the axes are found.

    Returns:
        int32 [N], numbered in the order of each cluster's first member.

    Raises:
        ValueError: cap is below 1.
    """
    if cap < 1:
        raise ValueError(f"a cluster must be allowed 1 example or more, got {cap}")
    points = _principal(images.reshape(len(images), -1), generator(seed, "clusters"))
    label = np.zeros(len(points), np.int64)
    todo, done = [np.arange(len(points))], 0
    while todo:
        members = todo.pop()
        if len(members) > cap:
            side = _halves(points[members])
            todo += [members[side], members[~side]]
        else:
            label[members] = done
            done += 1
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label].astype(np.int32)


def _principal(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels [N, D] as float32 [N, <= 32] along their leading principal axes."""
    few = np.sort(rng.permutation(len(pixels))[:_SAMPLE])
    sample = pixels[few].astype(np.float32)
    axes = np.linalg.svd(sample - sample.mean(0), full_matrices=False)[2][:_AXES].T
    chunks = [pixels[i : i + 4096].astype(np.float32) @ axes for i in range(0, len(pixels), 4096)]
    return np.concatenate(chunks)


def _halves(points: np.ndarray) -> np.ndarray:
    """Bool [n]: the side of each point under 2-means, both sides non-empty."""
    centred = points - points.mean(0)
    along: np.ndarray = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    side: np.ndarray = along > 0
    for _ in range(20):
        if not 0.02 < side.mean() < 0.98:
            break
        one, other = centred[side].mean(0), centred[~side].mean(0)
        moved = centred @ (one - other) > (one @ one - other @ other) / 2
        if (moved == side).all():
            return side
        side = moved
    if 0.02 < side.mean() < 0.98:
        return side
    equal = np.zeros(len(points), dtype=bool)
    equal[np.argsort(along, kind="stable")[: len(points) // 2]] = True
    return equal


ORTHOGONAL = "orthogonal"
ClusteringSource = Literal["pixels", "pilot"]
TrainPilot = Callable[[], tuple[str, np.ndarray]]  # its key, and its embeddings [n_train, E]


def count_models_in_partial_blocks(indices: Iterable[int], block: int) -> int:
    """How many models are in blocks of which others are missing; such models help less.

    Args:
        indices: of the models that there are.
        block: models of a whole one.

    Returns:
        The count.

    >>> unfinished([0, 1, 2, 3, 5], 4), unfinished([0, 7], 1)
    (1, 0)
    """
    return sum(count for count in Counter(index // block for index in indices).values() if count < block)


def find_clustering_source(store: Store, wish: ClusteringSource | None) -> ClusteringSource:
    """What the clusters of a store are made from: as on file, else as wished, else pixels.

    Args:
        store: open, or not begun yet.
        wish: of the user, if any.

    Returns:
        "pixels" or "pilot".

    Raises:
        ValueError: the store has clusters of the other kind.
    """
    there = _kind_on_file(store)
    if there and wish and there != wish:
        raise ValueError(
            f"the clusters of the store {store.folder.display_name} were made from {_shown(there)}, asked for "
            f"{_shown(wish)}; "
            f"its subsets rest on them: leave out --clusters, or give another --store for --clusters {wish}"
        )
    return there or wish or "pixels"


def require_compatible_clusters(store: Store, arms: Sequence[Arm], wish: ClusteringSource | None) -> None:
    """Stop before anything is begun if arms cannot have the clusters that a store has.

    Args:
        store: open, or not begun yet.
        arms: orthogonal ones.
        wish: what clusters are to be made from.

    Raises:
        ValueError: they are of the other kind, or an orthogonal array has fewer columns than a cluster has examples.
    """
    find_clustering_source(store, wish)
    if (kept := store.clusters()) is None:
        return
    largest = int(np.bincount(kept).max())
    for arm in arms:
        if get_max_cluster_size(arm) < largest:
            raise ValueError(
                f"{arm.name} can take clusters of {get_max_cluster_size(arm)} examples at most, and the store "
                f"{store.folder.display_name} has one of {largest}, made for another arm; give another --store for "
                "this one"
            )


def get_or_create_clusters(
    store: Store, arms: Sequence[Arm], splits: Splits, wish: ClusteringSource | None, pilot: TrainPilot
) -> np.ndarray:
    """Clusters of similar training images, made once and kept.

    Args:
        store: open.
        arms: orthogonal ones, at least one.
        splits: the data set.
        wish: what clusters are to be made from, if the store has none.
        pilot: gives the pilot; called only where its embeddings are needed.

    Returns:
        int32 [n_train].
    """
    kind, kept = find_clustering_source(store, wish), store.clusters()
    if kept is None:
        key, points = pilot() if kind == "pilot" else ("", splits.train.images)
        kept = cluster_images(points, min(map(get_max_cluster_size, arms)), store.manifest.seed)
        store.write_clusters(kept, {"made_from": kind} | ({"pilot": key} if key else {}))
    if store.examples()["cluster"].null_count == store.manifest.n_rows:
        store.write_table("examples.parquet", build_examples_table(splits, kept))
    return kept


def build_arm_record(arm: Arm, clusters: np.ndarray | None, kind: ClusteringSource) -> dict[str, object]:
    """What decides an arm's subsets; that clusters are of pixels is not on record, as in stores that knew no other.

    Args:
        arm: the arm.
        clusters: int32 [n_train] if it is orthogonal.
        kind: what they were made from.

    Returns:
        The record that store.add_arm wants.
    """
    hash_ = None if clusters is None else hashlib.sha256(clusters.astype("<i4").tobytes()).hexdigest()
    record = {"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": hash_}
    return record | ({"clusters_from": kind} if clusters is not None and kind != "pixels" else {})


def _kind_on_file(store: Store) -> ClusteringSource | None:
    """From clusters.parquet, or from an arm where that file was set aside; None in a store without clusters."""
    made_from = store.read_clusters_source()
    if made_from is None:
        arms = [record for record in store.arms().values() if record["design"] == ORTHOGONAL]
        made_from = arms[0].get("clusters_from", "pixels") if arms else None
    return None if made_from is None else ("pilot" if made_from == "pilot" else "pixels")


def _shown(kind: ClusteringSource) -> str:
    """A kind in a sentence."""
    return "a pilot's embeddings (pilot)" if kind == "pilot" else "pixels (pixels)"
