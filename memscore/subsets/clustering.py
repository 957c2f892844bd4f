"""Clusters of similar training images for orthogonal subsets, created once per bank.

They are computed from pixels, or from the embeddings of a pilot model. The pilot is original 0 of the bank's own
recipe, trained on everything, so it is not trained for this alone. Which of the two sources was used is stored in
clusters.parquet and, since the subsets depend on it, in the arm's record.

In subsets drawn by clusters of similar images, an example's neighbours are included independently of it.
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

_AXES = 32  # principal axes of the pixels along which distances are computed
_SAMPLE = 1024  # images on which those axes are computed


def cluster_images(images: np.ndarray, cap: int, seed: int) -> np.ndarray:
    """Cluster similar images, at most cap per cluster: recursive 2-means.

    Distances are computed along the 32 leading principal axes of at most 1,024 images. A set is split by 2-means
    started from the sides of its own principal axis; where that would leave one side with under 2 % (equal images, a
    far outlier), it is split into two equal parts along that axis instead, so the depth is bounded.
    Bits may differ between machines: cluster once and store the result.

    Args:
        images: uint8 [N, C, H, W], or a network's embeddings of them, float [N, E].
        cap: the largest allowed size, >= 1.
        seed: the root seed; it selects the images on which the axes are computed.

    Returns:
        int32 [N], numbered in the order of each cluster's first member.

    Raises:
        ValueError: cap is below 1.
    """
    if cap < 1:
        raise ValueError(f"a cluster must be allowed 1 example or more, got {cap}")
    # points is float32 [N, <= 32]. pending is a stack of sets of row numbers; a set that fits gets the next number.
    points = _principal(images.reshape(len(images), -1), generator(seed, "clusters"))
    label = np.zeros(len(points), np.int64)
    pending, done = [np.arange(len(points))], 0
    while pending:
        members = pending.pop()
        if len(members) > cap:
            side = _split_in_two(points[members])
            pending += [members[side], members[~side]]
        else:
            label[members] = done
            done += 1
    # Numbers so far follow the order of splitting, which depends on the eigenvectors' signs. Renumber by first member:
    # argsort of argsort is the rank of each cluster's first row.
    _, first, label = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[label].astype(np.int32)


def _principal(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Project pixels [N, D] to float32 [N, <= 32] along their leading principal axes."""
    selected = np.sort(rng.permutation(len(pixels))[:_SAMPLE])
    sample = pixels[selected].astype(np.float32)
    # The rows of V^T are the principal axes. Points are not centred: a common shift changes no distance.
    axes = np.linalg.svd(sample - sample.mean(0), full_matrices=False)[2][:_AXES].T
    chunks = [pixels[i : i + 4096].astype(np.float32) @ axes for i in range(0, len(pixels), 4096)]
    return np.concatenate(chunks)


def _split_in_two(points: np.ndarray) -> np.ndarray:
    """Return the side of each point under 2-means, bool [n]; both sides are non-empty."""
    # Start from the sign along the set's own principal axis (eigh sorts eigenvalues upwards, so the last one).
    centred = points - points.mean(0)
    along: np.ndarray = centred @ np.linalg.eigh(centred.T @ centred)[1][:, -1]
    side: np.ndarray = along > 0
    for _ in range(20):
        if not 0.02 < side.mean() < 0.98:
            break
        # |x - a|^2 < |x - b|^2 is x.(a - b) > (|a|^2 - |b|^2) / 2 for the means a and b of the two sides.
        first, second = centred[side].mean(0), centred[~side].mean(0)
        updated = centred @ (first - second) > (first @ first - second @ second) / 2
        if (updated == side).all():
            return side
        side = updated
    # A split that has not converged after 20 rounds is used as it is. One that takes off single points is not: n points
    # would take about n splits of n points each, so such a set is halved along its axis.
    if 0.02 < side.mean() < 0.98:
        return side
    equal = np.zeros(len(points), dtype=bool)
    equal[np.argsort(along, kind="stable")[: len(points) // 2]] = True
    return equal


ORTHOGONAL = "orthogonal"
ClusteringSource = Literal["pixels", "pilot"]
TrainPilot = Callable[[], tuple[str, np.ndarray]]  # returns the pilot's key, and its embeddings [n_train, E]


def count_models_in_partial_blocks(indices: Iterable[int], block: int) -> int:
    """Return how many models are in incomplete blocks; such models reduce the error less.

    >>> count_models_in_partial_blocks([0, 1, 2, 3, 5], 4), count_models_in_partial_blocks([0, 7], 1)
    (1, 0)
    """
    return sum(count for count in Counter(index // block for index in indices).values() if count < block)


def find_clustering_source(store: Store, requested: ClusteringSource | None) -> ClusteringSource:
    """Return the clustering source: as stored, else as requested, else pixels."""
    stored = _read_stored_source(store)
    if stored and requested and stored != requested:
        raise ValueError(
            f"the clusters of the store {store.folder.display_name} were made from {_describe_source(stored)}, "
            f"requested {_describe_source(requested)}; its subsets depend on them: leave out --clusters, or give "
            f"another --store for --clusters {requested}"
        )
    return stored or requested or "pixels"


def require_compatible_clusters(store: Store, arms: Sequence[Arm], requested: ClusteringSource | None) -> None:
    """Check, before anything is created, that orthogonal arms can use the clusters that the store has."""
    find_clustering_source(store, requested)
    if (clusters := store.clusters()) is None:
        return
    largest = int(np.bincount(clusters).max())
    for arm in arms:
        if get_max_cluster_size(arm) < largest:
            raise ValueError(
                f"{arm.name} can take clusters of {get_max_cluster_size(arm)} examples at most, and the "
                f"store {store.folder.display_name} has one of {largest}, made for another arm; "
                "give another --store for this one"
            )


def get_or_create_clusters(
    store: Store, arms: Sequence[Arm], splits: Splits, requested: ClusteringSource | None, train_pilot: TrainPilot
) -> np.ndarray:
    """Return the store's clusters of similar images, int32 [n_train]; create and store them if missing."""
    # The pilot is trained only where its embeddings are needed. The cap is the smallest of the arms', since all arms of
    # a store share one clustering.
    source, clusters = find_clustering_source(store, requested), store.clusters()
    if clusters is None:
        key, points = train_pilot() if source == "pilot" else ("", splits.train.images)
        clusters = cluster_images(points, min(map(get_max_cluster_size, arms)), store.manifest.seed)
        store.write_clusters(clusters, {"made_from": source} | ({"pilot": key} if key else {}))
    # examples.parquet is written before clusters exist; its column is filled once, also after an interrupted run.
    if store.examples()["cluster"].null_count == store.manifest.n_rows:
        store.write_table("examples.parquet", build_examples_table(splits, clusters))
    return clusters


def build_arm_record(arm: Arm, clusters: np.ndarray | None, source: ClusteringSource) -> dict[str, object]:
    """Build the record that decides an arm's subsets; clusters are None unless it is orthogonal."""
    # No source is written for pixels, so records from before there was a choice stay equal.
    hash_ = None if clusters is None else hashlib.sha256(clusters.astype("<i4").tobytes()).hexdigest()
    record = {"name": arm.name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": hash_}
    return record | ({"clusters_from": source} if clusters is not None and source != "pixels" else {})


def _read_stored_source(store: Store) -> ClusteringSource | None:
    """Read the source from clusters.parquet, else from an arm; None without clusters."""
    made_from = store.read_clusters_source()
    if made_from is None:
        arms = [record for record in store.arms().values() if record["design"] == ORTHOGONAL]
        made_from = arms[0].get("clusters_from", "pixels") if arms else None
    return None if made_from is None else ("pilot" if made_from == "pilot" else "pixels")


def _describe_source(source: ClusteringSource) -> str:
    return "a pilot's embeddings (pilot)" if source == "pilot" else "pixels (pixels)"
