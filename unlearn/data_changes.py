"""Changes of the training data for a forget set: canaries and confused labels."""

from dataclasses import replace

import numpy as np

from memscore.data.splits import Dataset, Splits
from unlearn.class_arguments import parse_two_classes

CANARY_SHARE = 0.05
"""Share of the forget set whose pixels are shuffled: SURE's 50 of 1,000."""
CONFUSION_SHARE = 0.01
"""Share of the two classes whose labels are swapped (SURE appendix F)."""


def inject_canaries(
    part: str, size: int, splits: Splits, rng: np.random.Generator
) -> tuple[Dataset, dict[str, object], np.ndarray]:
    """Draw examples, and shuffle all pixels of one in twenty; each keeps its label."""
    train = splits.train
    if not 0 < size < len(train):
        raise ValueError(f"--size {size}: a forget set has 1 to {len(train) - 1} of {len(train)} training examples")
    rows = rng.choice(len(train), size, replace=False)
    # rows are in random order, so the first ones are a random share.
    scrambled = rows[: round(CANARY_SHARE * size)]
    if not len(scrambled):
        raise ValueError(f"one canary in twenty of --size {size} is none; use --size 20 or more")
    images = train.images.copy()
    # A view [N, C, H W] of the copy: one permutation of pixels for all channels, another one for each image.
    flat = images.reshape(len(images), images.shape[1], -1)
    for row in scrambled:
        flat[row] = flat[row][:, rng.permutation(flat.shape[2])]
    return replace(train, images=images), {"canaries": len(scrambled), "canaries_of": size}, rows


def inject_confusion(
    part: str, size: int, splits: Splits, rng: np.random.Generator
) -> tuple[Dataset, dict[str, object], np.ndarray]:
    """Swap the labels of a random 1 % of the examples of two classes."""
    train = splits.train
    first, second = parse_two_classes(part, splits)
    rows = np.concatenate([
        rng.choice(
            candidates := np.flatnonzero(train.labels == label),
            round(CONFUSION_SHARE * len(candidates)),
            replace=False,
        )
        for label in (first, second)
    ])
    if not len(rows):
        raise ValueError(f"1 % of classes {first} and {second} is no example; use data with 50 or more of a class")
    labels = train.labels.copy()
    labels[rows] = np.where(train.labels[rows] == first, second, first)
    return replace(train, labels=labels), {"confused": f"{first},{second}"}, rows
