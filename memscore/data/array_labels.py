"""Labels as arrays: whole numbers, names, [N, 1] and one-hot become 0..K-1, by one rule for all splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memscore.data.array_images import to_numpy


def encode_labels(
    labels_by_split: Mapping[str, Any], class_names: Sequence[str] | None = None
) -> tuple[dict[str, np.ndarray], tuple[str, ...] | None, list[str]]:
    """Number the classes of all splits by those of the training set.

    Args:
        labels_by_split: split -> labels; "train" or "all" decides which classes there are.
        class_names: names in the order of the labels, where the source gives them.

    Returns:
        Split -> int64 [N] in 0..K-1; the names of the classes, None for labels that were 0..K-1 without names; lines on
        what was changed.

    Raises:
        ValueError: labels that name no class; the message says what to do.
    """
    notes: list[str] = []
    raw = {split: _flatten(to_numpy(labels), split, notes) for split, labels in labels_by_split.items()}
    train = raw["all"] if "all" in raw else raw["train"]
    classes = np.unique(train)
    if len(classes) < 2:
        shown = f": {classes[0]}" if len(classes) else ""
        raise ValueError(f"the training set must have at least 2 classes, got {len(classes)}{shown}; add another")
    for split, labels in raw.items():
        for row in np.flatnonzero(~np.isin(labels, classes))[:1]:
            raise ValueError(
                f"{split} label {labels[row]} of {split}/{row:05d} lies outside the {len(classes)} classes of the "
                f"training set, {_shorten(classes)}; leave such images out"
            )
    if classes.dtype.kind == "U":
        if class_names is not None and set(class_names) >= set(classes.tolist()):
            classes = np.array([name for name in class_names if name in set(classes.tolist())])
        order = np.argsort(classes)
        numbers = {split: order[np.searchsorted(classes, labels, sorter=order)] for split, labels in raw.items()}
        names: tuple[str, ...] | None = tuple(classes.tolist())
    else:
        names = _choose_names(classes, class_names, notes)
        numbers = {split: np.searchsorted(classes, labels) for split, labels in raw.items()}
    return {split: labels.astype(np.int64) for split, labels in numbers.items()}, names, list(dict.fromkeys(notes))


def _choose_names(classes: np.ndarray, class_names: Sequence[str] | None, notes: list[str]) -> tuple[str, ...] | None:
    """Name the classes of whole numbers, and say so where the numbers change."""
    n_classes, is_renumbered = len(classes), not np.array_equal(classes, np.arange(len(classes)))
    if is_renumbered:
        notes.append(f"labels are {_shorten(classes)}: numbered 0..{n_classes - 1} in this order")
    if class_names is None:
        return tuple(str(label) for label in classes) if is_renumbered else None
    names = tuple(map(str, class_names))
    if classes[-1] < len(names):  # also a set that lacks some of its classes
        return tuple(names[label] for label in classes)
    if len(names) == n_classes:
        return names
    raise ValueError(
        f"class_names must be one name for each of the {n_classes} classes {_shorten(classes)}, got {len(names)}"
    )


def _flatten(labels: np.ndarray, split: str, notes: list[str]) -> np.ndarray:
    """Return labels as whole numbers or text, [N]."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        notes.append("labels [N, 1] are read as [N]")
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.shape[1] > 1 and labels.dtype.kind in "buif":
        is_one_hot = bool(np.isin(labels, (0, 1)).all() and (labels.sum(1) == 1).all())
        if not is_one_hot:
            raise ValueError(
                f"{split} labels {labels.shape} are not one-hot, and memscore has one class for each image; if the "
                "largest counts, use labels.argmax(1)"
            )
        notes.append(f"labels [N, {labels.shape[1]}] are one-hot: the position of the 1 is the label")
        labels = labels.argmax(1)
    if labels.ndim != 1:
        raise ValueError(f"{split} labels must be one for each image, [N], got {labels.shape}; flatten them")
    if labels.dtype.kind == "O" and all(isinstance(label, str | bytes) for label in labels):
        labels = labels.astype(str) if all(isinstance(label, str) for label in labels) else labels.astype("S")
    if labels.dtype.kind in "TS":
        labels = labels.astype(str)
    if labels.dtype.kind == "b":
        return labels.astype(np.int64)
    if labels.dtype.kind == "f" and np.isfinite(labels).all() and (labels == np.floor(labels)).all():
        notes.append(f"{labels.dtype} labels are whole numbers and read as such")
        labels = labels.astype(np.int64)
    if labels.dtype.kind not in "iuU":
        shown = f", such as {labels[0]!r}" if labels.size else ""
        raise ValueError(
            f"{split} labels must be whole numbers or names of classes, [N], got {labels.dtype}{shown}; a number that "
            "is measured has no classes: cut it into ranges first"
        )
    # -1 and 1 are two classes; -1 among others marks images without a label in many published sets.
    if labels.dtype.kind == "i" and (labels < 0).any() and not set(np.unique(labels).tolist()) <= {-1, 1}:
        row = int(np.flatnonzero(labels < 0)[0])
        raise ValueError(
            f"{split} label {labels[row]} of {split}/{row:05d} is negative, which often means that an image has no "
            "label; leave such images out, or number the classes from 0"
        )
    return labels


def _shorten(classes: np.ndarray) -> str:
    """List a few classes."""
    values = [str(value) for value in classes]
    return ", ".join(values) if len(values) <= 6 else f"{', '.join(values[:3])}, ..., {values[-1]}"
