"""Describe the classes of a data set, and name images that show nothing, for the user to check before a run."""

from collections.abc import Iterator, Sequence

import numpy as np

from memscore.data.splits import Dataset, Splits

NAMES_SHOWN = 10
CONSTANT_RANGE = 2
"""An image whose channels each span at most this many of 256 values shows nothing."""


def describe_classes(splits: Splits) -> str:
    """Say how many classes there are, what they are called and how many training images each has.

    Args:
        splits: the data set.

    Returns:
        One line; it also says which classes the other splits lack.
    """
    counts = np.bincount(splits.train.labels, minlength=splits.n_classes)
    names = splits.class_names
    listed = "" if names is None else f": {_join(names)}"
    low, high = int(counts.min()), int(counts.max())
    sizes = f"{low}" if low == high else f"{low} to {high}"
    lines = [f"{splits.n_classes} classes{listed}; {sizes} training images each"]
    for split, part in (("validation", splits.validation), ("test", splits.test)):
        missing = np.setdiff1d(np.arange(splits.n_classes), part.labels)
        if len(part) and len(missing):
            lacks = [str(label) if names is None else names[label] for label in missing]
            lines.append(f"{split} has no image of {len(lacks)} of them: {_join(lacks)}")
    return "; ".join(lines)


def describe_constant_images(splits: Splits) -> str:
    """Name the images of which every channel has nearly one value.

    Args:
        splits: the data set.

    Returns:
        A line with their number and the first id; empty where there are none.
    """
    ids = [example_id for part in (splits.train, splits.validation, splits.test) for example_id in _find_constant(part)]
    if not ids:
        return ""
    are = "image has" if len(ids) == 1 else "images have"
    return f"{len(ids)} {are} nearly one value in each channel and nothing to see, first {ids[0]}"


def _find_constant(part: Dataset) -> Iterator[str]:
    """Find the ids of images that show nothing, some images at a time."""
    rows = max(1, 2**24 // int(np.prod(part.images.shape[1:])))
    for start in range(0, len(part), rows):
        images = part.images[start : start + rows]
        spans = images.max((2, 3)) - images.min((2, 3))
        for row in np.flatnonzero((spans <= CONSTANT_RANGE).all(1)):
            yield str(part.ids[start + row])


def _join(names: Sequence[str]) -> str:
    """Join names, the middle left out where there are many."""
    if len(names) <= NAMES_SHOWN:
        return ", ".join(names)
    return f"{', '.join(names[: NAMES_SHOWN - 2])}, ..., {names[-1]}"
