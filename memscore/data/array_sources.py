"""Data sets of arrays: .npz files under the names that publishers use, and what functions return."""

import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from memscore.data.array_files import read_archive
from memscore.data.array_images import convert_images, to_numpy
from memscore.data.array_labels import encode_labels
from memscore.data.image_size import Size, resize_images
from memscore.data.sources import PublishedDataset, build_published
from memscore.data.splits import Dataset
from memscore.data.text_array import make_text_array

IMAGE_KEYS, LABEL_KEYS, ID_KEYS, CLASS_NAMES = ("images", "x"), ("labels", "y"), ("ids",), "class_names"
SPLIT_PREFIXES = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
}
KEYS_RULE = (
    "images and labels, or train_images, train_labels, test_images and test_labels, or x_train, y_train, x_test and "
    "y_test; also val_..., ids and class_names"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class RawSplit:
    """Images and labels of one split as a user has them."""

    images: Any
    labels: Any
    ids: Any = None


def build_from_arrays(
    name: str,
    splits: Mapping[str, RawSplit],
    *,
    class_names: Any = None,
    test: float | None = None,
    size: Size | None = None,
    is_owned: bool = False,
) -> PublishedDataset:
    """Build a data set of arrays.

    Args:
        name: its name in the store.
        splits: "train" and "test", perhaps "validation"; or "all".
        class_names: names in the order of the labels, or None.
        test: as load_dataset's.
        size: height and width to which images are brought.
        is_owned: nobody else has the arrays, so that their images may be moved.

    Returns:
        The data set; its notes say what was changed.

    Raises:
        ValueError: images or labels that cannot be taken.
    """
    try:
        images, image_notes = convert_images({split: raw.images for split, raw in splits.items()}, size)
        names = None if class_names is None else [str(text) for text in np.asarray(class_names).ravel().tolist()]
        labels, class_list, label_notes = encode_labels({split: raw.labels for split, raw in splits.items()}, names)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    parts = {}
    for split, raw in splits.items():
        require_equal_lengths(name, split, raw)
        pixels = images[split] if size is None else resize_images(images[split], size)
        # The default ids are split and position, such as train/00042: they name rows of the user's arrays.
        ids = [f"{split}/{position:05d}" for position in range(len(pixels))] if raw.ids is None else to_numpy(raw.ids)
        parts[split] = Dataset(
            images=pixels,
            labels=labels[split],
            labels_true=labels[split].copy(),
            ids=make_text_array(ids, "ids") if isinstance(ids, list) else np.asarray(ids, str),
        )
    published = build_published(name, parts, test=test, class_names=class_list, is_owned=is_owned)
    return replace(published, notes=(*image_notes, *label_notes))


def require_equal_lengths(name: str, split: str, raw: RawSplit) -> None:
    """Raise ValueError if a split does not have one label, and one id if there are any, for each image."""
    counts = {"images": len(raw.images), "labels": len(raw.labels)}
    counts |= {} if raw.ids is None else {"ids": len(raw.ids)}
    if len(set(counts.values())) > 1:
        where = "" if split == "all" else f" for {split}"
        listed = " and ".join(f"{count} {column}" for column, count in counts.items())
        raise ValueError(f"{name} has {listed}{where}; each image needs one label, and one id where there are ids")


def read_npz(path: Path, name: str, test: float | None, size: Size | None) -> PublishedDataset:
    """Read images and labels from an .npz file: one set, or train, test and perhaps validation.

    Args:
        path: the file.
        name: the data set's name in the store.
        test: as load_dataset's.
        size: height and width to which images are brought.

    Returns:
        The data set.

    Raises:
        ValueError: no archive of plain arrays, or other keys or content than KEYS_RULE.
    """
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is no .npz archive; save the arrays with numpy.savez")
    return build_from_keys(name, read_archive(path), str(path), test=test, size=size, is_owned=True)


def build_from_keys(
    name: str, arrays: Mapping[str, Any], place: str, *, test: float | None, size: Size | None, is_owned: bool = False
) -> PublishedDataset:
    """Build a data set of named arrays.

    Args:
        name: its name in the store.
        arrays: by the names of KEYS_RULE.
        place: the file or function, for messages.
        test: as load_dataset's.
        size: height and width to which images are brought.
        is_owned: nobody else has the arrays, so that their images may be moved.

    Returns:
        The data set.

    Raises:
        ValueError: an array is missing, or cannot be taken.
    """
    columns: dict[str, dict[str, Any]] = {}
    for key, values in arrays.items():
        split, column = _parse_key(key)
        if column:
            columns.setdefault(split, {})[column] = values
    splits = {split: row for split, row in columns.items() if split != "all" or "images" in row or "labels" in row}
    if "all" not in splits:
        splits = {"train": {}, "test": {}} | splits
    elif "train" not in splits:
        splits = {"all": {}} | splits
    missing = [
        f"{'' if split == 'all' else split + '_'}{column}"
        for split, row in splits.items()
        for column in ("images", "labels")
        if column not in row
    ]
    if missing or ("all" in splits and len(splits) > 1):
        problem = f"lacks {', '.join(missing)}" if missing else "has both images and images of splits"
        raise ValueError(f"{place} {problem} (it has {', '.join(arrays)}); it needs {KEYS_RULE}")
    raw = {split: RawSplit(**row) for split, row in splits.items()}
    for split, part in raw.items():
        require_equal_lengths(place, split, part)
    class_names = arrays.get(CLASS_NAMES)
    return build_from_arrays(name, raw, class_names=class_names, test=test, size=size, is_owned=is_owned)


def _parse_key(key: str) -> tuple[str, str]:
    """Return split and column of an array's name; an empty column for other names."""
    words = [word for word in re.split(r"[_\W]+", key.lower()) if word]
    splits = [SPLIT_PREFIXES[word] for word in words if word in SPLIT_PREFIXES]
    rest = [word for word in words if word not in SPLIT_PREFIXES]
    if len(rest) != 1 or len(splits) > 1:
        return "", ""
    for column, keys in (("images", IMAGE_KEYS), ("labels", LABEL_KEYS), ("ids", ID_KEYS)):
        if rest[0] in keys:
            return (splits[0] if splits else "all"), column
    return "", ""
