"""Groups of similar images, for subsets in which an example's neighbours come and go independently of it."""

import numpy as np

from memscore.seeds import generator

_AXES = 32  # principal axes of the pixels that distances are taken along
_SAMPLE = 1024  # images that those axes are found on


def cluster(images: np.ndarray, cap: int, seed: int) -> np.ndarray:
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
