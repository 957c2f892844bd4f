"""Splits: train, validation and test images with labels and ids; datasets.py loads them."""

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from memscore.data.text_array import make_text_array
from memscore.seeds import generator

MOVED_ROWS = 256  # images that are moved at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Dataset:
    """Images uint8 [N, C, H, W] with labels int64 [N] and ids str [N]."""

    images: np.ndarray
    labels: np.ndarray  # as trained
    labels_true: np.ndarray  # as published
    ids: np.ndarray

    def __post_init__(self) -> None:
        # object.__setattr__ because the dataclass is frozen; the ids of a user's function may be a list.
        ids = make_text_array(self.ids, "ids") if isinstance(self.ids, list) else np.asarray(self.ids, dtype=str)
        object.__setattr__(self, "ids", ids)
        columns = ("images", "labels", "labels_true", "ids")
        counts = {column: len(getattr(self, column)) for column in columns}
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count} {column}" for column, count in counts.items())
            first = f"; the first id is {self.ids[0]}" if len(self.ids) else ""
            raise ValueError(f"images, labels, labels_true and ids must be equally many, got {listed}{first}")
        if self.images.dtype != np.uint8 or self.images.ndim != 4:
            raise ValueError(f"images must be uint8 [N, C, H, W], got {self.images.dtype} {self.images.shape}")
        if self.labels.dtype != np.int64 or self.labels_true.dtype != np.int64:
            raise ValueError(
                f"labels must be int64, got {self.labels.dtype} and, as published, {self.labels_true.dtype}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def image_digests(self) -> np.ndarray:
        """Hash of each image's pixels and shape, 16 bytes [N]: equal for equal images. Computed once."""
        # One pass over images that may be memory-mapped. The chance of one equal pair by accident among a billion
        # images is 1e-21. NumPy strips zeros at the end of bytes, of all digests alike: they stay equal or different.
        start = hashlib.sha256(repr(self.images.shape[1:]).encode())
        digests = np.empty(len(self), "S16")
        for row, image in enumerate(self.images):
            digest = start.copy()
            digest.update(np.ascontiguousarray(image).data)
            digests[row] = digest.digest()[:16]
        return digests


@dataclass(frozen=True, kw_only=True, eq=False)
class Splits:
    """A data set for training, with mean and std per channel of its training images (scaled to [0, 1]).

    `class_names` are in the order of the labels, `notes` are lines for the user on what reading changed or left out,
    and `origin` says where it was read and how; none of them is part of the data set's identity.
    """

    name: str
    n_classes: int
    train: Dataset
    validation: Dataset
    test: Dataset
    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_changes: dict[str, object] = field(default_factory=dict)
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    origin: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.n_classes < 2:
            raise ValueError(f"n_classes must be 2 or more, got {self.n_classes}; a classifier needs a choice")
        if self.class_names is not None and len(self.class_names) != self.n_classes:
            raise ValueError(
                f"class_names must be one name for each of the {self.n_classes} classes, got {len(self.class_names)}"
            )
        if not len(self.train) or not len(self.test):
            raise ValueError(
                f"{self.name} needs images to train and to test on, got {len(self.train)} and {len(self.test)}"
            )
        for split, part in self._parts().items():
            if part.images.shape[1:] != self.input_shape:
                raise ValueError(
                    f"{split} images are {part.images.shape[1:]}, train images {self.input_shape}; use one"
                )
            for labels in (part.labels, part.labels_true):
                for row in np.flatnonzero((labels < 0) | (labels >= self.n_classes))[:1]:
                    allowed = f"0..{self.n_classes - 1}, the classes of the training set"
                    raise ValueError(f"{split} label {labels[row]} of {part.ids[row]} lies outside {allowed}; fix it")
        ids = np.concatenate([part.ids for part in self._parts().values()]).tolist()
        if len(set(ids)) < len(ids):
            twice = Counter(ids).most_common(1)[0][0]
            raise ValueError(f"ids must be unique over all splits, got {twice!r} more than once")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over images, labels, true labels, ids and the number of classes; not the name."""
        digest = hashlib.sha256(json.dumps({"n_classes": self.n_classes}).encode())
        # Shape and ids as JSON separate the arrays: moving bytes from one split to another changes the digest. Labels
        # are hashed little-endian, so every machine gets the same one.
        for split, part in self._parts().items():
            digest.update(json.dumps([split, part.images.shape, part.ids.tolist()]).encode())
            for values in (part.images, part.labels.astype("<i8"), part.labels_true.astype("<i8")):
                digest.update(np.ascontiguousarray(values).data)
        return digest.hexdigest()

    def _parts(self) -> dict[str, Dataset]:
        """Return the three splits in the order of their rows."""
        return {"train": self.train, "validation": self.validation, "test": self.test}


def make_dataset(split: str, images: Any, labels: Any, ids: list[str] | None = None) -> Dataset:
    """Make a Dataset of a publisher's arrays: uint8 [N, H, W], [N, H, W, C] or [N, C, H, W], and labels [N]."""
    images, labels = np.asarray(images), np.asarray(labels)
    if images.dtype != np.uint8:
        hint = "scale to 0..255, round and use .astype(numpy.uint8)"
        raise ValueError(f"{split} images must be uint8, got {images.dtype}; {hint}")
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{split} labels must be whole numbers [N], got {labels.dtype} {labels.shape}; use numpy.int64"
        )
    # The default ids are split and position, such as train/00042: they name rows of the publisher's arrays.
    label_ids = labels.astype(np.int64)
    names = [f"{split}/{position:05d}" for position in range(len(images))] if ids is None else ids
    return Dataset(
        images=_to_channels_first(images, split),
        labels=label_ids,
        labels_true=label_ids.copy(),
        ids=np.array(names, dtype=str),
    )


def _to_channels_first(images: np.ndarray, split: str) -> np.ndarray:
    """Convert [N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3 to [N, C, H, W]."""
    if images.ndim == 3:
        return images[:, None]
    # With 1 or 3 at both ends (or neither) the layout would be a guess.
    first, last = (images.ndim == 4 and images.shape[axis] in {1, 3} for axis in (1, -1))
    if first == last:
        rule = "[N, H, W], [N, H, W, C] or [N, C, H, W] with C = 1 or 3 in one place only"
        raise ValueError(f"{split} images must be {rule}, got {images.shape}; reshape them")
    return np.ascontiguousarray(images if first else images.transpose(0, 3, 1, 2))


def select_rows(dataset: Dataset, rows: np.ndarray) -> Dataset:
    """Copy the examples at some rows: int64 positions, in their order, or a bool mask [N]."""
    return Dataset(
        images=dataset.images[rows],
        labels=dataset.labels[rows],
        labels_true=dataset.labels_true[rows],
        ids=dataset.ids[rows],
    )


def split_stratified(
    dataset: Dataset, size: int, rng: np.random.Generator, *, in_place: bool = False
) -> tuple[Dataset, Dataset]:
    """Draw exactly size examples, each class in proportion by largest remainder.

    With n_k of n examples in class k, class k gets floor(size n_k / n) of them, and one more where the remainder is
    among the largest; of equal remainders the lower label comes first.

    Args:
        dataset: n >= 1 examples.
        size: how many to draw, in [0, n].
        rng: decides which; one permutation per class, in the order of the classes.
        in_place: use the memory of the data set's images, whose order is lost: first rest, then drawn.

    Returns:
        (drawn, rest), both in data-set order.
    """
    classes, counts = np.unique(dataset.labels, return_counts=True)
    quota, remainder = np.divmod(counts * size, len(dataset))
    # In whole numbers the quotas add up exactly, and equal remainders are equal.
    quota[np.argsort(-remainder, kind="stable")[: size - quota.sum()]] += 1
    drawn = np.zeros(len(dataset), bool)
    for label, share in zip(classes, quota, strict=True):
        drawn[rng.permutation(np.flatnonzero(dataset.labels == label))[:share]] = True
    if in_place:
        return _move_rows(dataset, drawn)
    return select_rows(dataset, drawn), select_rows(dataset, ~drawn)


def _move_rows(dataset: Dataset, drawn: np.ndarray) -> tuple[Dataset, Dataset]:
    """Move the images of drawn behind the rest, so that both are parts of one array."""
    images, rest = dataset.images, np.flatnonzero(~drawn)
    moved = images[drawn]
    # Row k of the rest comes from row rest[k] >= k, so no row is written before it is read.
    for start in range(0, len(rest), MOVED_ROWS):
        stop = start + MOVED_ROWS
        images[start : min(stop, len(rest))] = images[rest[start:stop]]
    images[len(rest) :] = moved
    parts = []
    for rows, pixels in ((drawn, images[len(rest) :]), (~drawn, images[: len(rest)])):
        labels, labels_true, ids = dataset.labels[rows], dataset.labels_true[rows], dataset.ids[rows]
        parts.append(Dataset(images=pixels, labels=labels, labels_true=labels_true, ids=ids))
    return parts[0], parts[1]


def join_images(parts: Sequence[Dataset]) -> np.ndarray:
    """Join the images of some splits, without a copy where they follow each other in one array.

    Args:
        parts: splits with images of one shape.

    Returns:
        uint8 [N, C, H, W].
    """
    arrays = [part.images for part in parts if len(part)]
    base, starts = arrays[0].base, [array.__array_interface__["data"][0] for array in arrays]
    is_consecutive = all(
        array.base is base and array.flags.c_contiguous and start == expected
        for array, start, expected in zip(
            arrays, starts, np.cumsum([starts[0], *(array.nbytes for array in arrays[:-1])]), strict=True
        )
    )
    if is_consecutive and isinstance(base, np.ndarray) and base.flags.c_contiguous and base.dtype == np.uint8:
        first = starts[0] - base.__array_interface__["data"][0]
        pixels = base.reshape(-1)[first : first + sum(array.nbytes for array in arrays)]
        return pixels.reshape(-1, *arrays[0].shape[1:])
    return np.concatenate([part.images for part in parts])


def split_halves(dataset: Dataset, seed: int) -> tuple[Dataset, Dataset]:
    """Split into disjoint stratified halves in data-set order; of an odd number the second has one more."""
    # Halves of the validation split: the first is for algorithms that train on validation images, the second for
    # selection, which would otherwise see images that were trained on.
    if len(dataset) < 2:
        raise ValueError(f"{len(dataset)} validation images cannot be halved; load with a validation share above 0")
    return split_stratified(dataset, len(dataset) // 2, generator(seed, "validation", "halves"))


def compute_mean_std(images: np.ndarray) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute mean and standard deviation (at least 1e-6) of each channel, of pixels scaled to [0, 1]."""
    # Sums are exact integers over chunks of images, so the result does not depend on the chunks. The variance is
    # (count * squares - sum^2) / count^2 in Python's integers: the product does not fit into 64 bits for CIFAR-10.
    n_images, channels, height, width = images.shape
    rows = max(1, 2**22 // (channels * height * width))
    sums, squares = np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, n_images, rows):
        pixels = images[start : start + rows].astype(np.int64)
        sums += pixels.sum((0, 2, 3))
        squares += (pixels**2).sum((0, 2, 3))
    count = n_images * height * width
    moments = [(int(total), int(square)) for total, square in zip(sums, squares, strict=True)]
    mean = tuple(total / count / 255 for total, _ in moments)
    std = tuple(max(1e-6, (count * square - total**2) ** 0.5 / count / 255) for total, square in moments)
    return mean, std


def build_examples_table(splits: Splits, clusters: np.ndarray | None = None) -> pa.Table:
    """Build a table with one row per example: train, validation, test, as in every shard."""
    # clusters is int32 [n_train]; the column is null outside train, and everywhere if no design needs clusters.
    parts = splits._parts()
    lengths = [len(part) for part in parts.values()]
    cluster_ids = np.zeros(0, np.int32) if clusters is None else clusters
    if clusters is not None and len(clusters) != lengths[0]:
        raise ValueError(f"clusters belong to train: expected {lengths[0]} of them, got {len(clusters)}; cluster again")
    nulls = pa.nulls(sum(lengths) - len(cluster_ids), pa.int32())
    return pa.table({
        "row": pa.array(np.arange(sum(lengths), dtype=np.int32)),
        "id": pa.array(np.concatenate([part.ids for part in parts.values()]).tolist(), pa.string()),
        "split": pa.array(np.repeat(list(parts), lengths).tolist(), pa.string()),
        "label": pa.array(np.concatenate([part.labels for part in parts.values()])),
        "label_true": pa.array(np.concatenate([part.labels_true for part in parts.values()])),
        "cluster": pa.concat_arrays([pa.array(cluster_ids, pa.int32()), nulls]),
    })
