"""Data sets from a user's function: arrays, dictionaries of arrays, torch Datasets, or finished Splits."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from memscore.data.array_images import to_numpy
from memscore.data.array_sources import SPLIT_PREFIXES, RawSplit, build_from_arrays, build_from_keys
from memscore.data.image_size import Size
from memscore.data.sources import PublishedDataset, require_no_test_share
from memscore.data.splits import Splits
from memscore.user_functions import explain_user_error, import_user_function

RULE = (
    "(images, labels), (images, labels, test images, test labels), a torch Dataset of (image, label), "
    "(train Dataset, test Dataset), a dictionary with images and labels and perhaps ids and class_names, "
    "a dictionary {'train': ..., 'test': ...} of these, or memscore.data.splits.Splits"
)
IMAGE_FIELDS, LABEL_FIELDS = ("image", "img", "pixel_values", "x"), ("label", "labels", "target", "fine_label", "y")
"""Names in the items of a dataset that gives dictionaries, as Hugging Face's do."""
SPLITS = ("train", "validation", "test")


def call_function(name: str, test: float | None, size: Size | None) -> PublishedDataset:
    """Call the user's function and build the data set that it returns.

    Args:
        name: "module:function".
        test: as load_dataset's.
        size: height and width to which images are brought.

    Returns:
        The data set.

    Raises:
        ValueError: a function that cannot be imported, fails, or returns something else than RULE.
    """
    load = import_user_function("data set", name, "a function without arguments that returns a data set")
    with explain_user_error("data set", name):
        result, label = load(), name.replace(":", ".")
    if isinstance(result, Splits):
        require_no_test_share(result.name, test, len(result.test))
        # The user's Splits are taken whole: without validation images none are taken from train either.
        return PublishedDataset(
            name=result.name,
            train=result.train,
            test=result.test,
            n_classes=result.n_classes,
            validation=result.validation if len(result.validation) else None,
            default_validation=0,
            mean_std=(result.mean, result.std),
            label_changes=result.label_changes,
            class_names=result.class_names,
            notes=result.notes,
        )
    if isinstance(result, Mapping) and not set(result) <= set(SPLIT_PREFIXES):
        return build_from_keys(label, result, f"what {name} returns", test=test, size=size)
    splits = _split_result(name, result)
    class_names = next((names for part in splits.values() if (names := _find_class_names(part)) is not None), None)
    raw = {split: _read_part(name, part) for split, part in splits.items()}
    return build_from_arrays(label, raw, class_names=class_names, test=test, size=size)


def _split_result(name: str, result: Any) -> dict[str, Any]:
    """Tell which split is which; a part is a Dataset, a pair of arrays or a dictionary of arrays."""
    if isinstance(result, Mapping):
        splits = {SPLIT_PREFIXES[key]: part for key, part in result.items()}
        if set(splits) == {"train"}:
            return {"all": splits["train"]}
        if set(splits) == {"train", "validation"}:  # as in a folder
            return {"train": splits["train"], "test": splits["validation"]}
        if {"train", "test"} <= set(splits):
            return splits
    elif _is_dataset(result):
        return {"all": result}
    elif isinstance(result, tuple | list):
        # Two or three parts are splits, as of Keras' load_data; else the items are images and labels in turn.
        if len(result) in {2, 3} and all(_is_dataset(item) or _is_pair(item) for item in result):
            return dict(zip(("train", "test") if len(result) == 2 else SPLITS, result, strict=True))
        if len(result) in {2, 4, 6} and not any(_is_dataset(item) for item in result):
            keys = {2: ("all",), 4: ("train", "test"), 6: SPLITS}[len(result)]
            return {key: (result[2 * k], result[2 * k + 1]) for k, key in enumerate(keys)}
    kind = type(result).__name__
    kind += f" of {len(result)}" if isinstance(result, tuple | list) else ""
    hint = "; return its .dataset" if hasattr(result, "dataset") and hasattr(result, "batch_size") else ""
    raise ValueError(f"{name} must return {RULE}, got {kind}{hint}; fix that function")


def _is_dataset(value: Any) -> bool:
    """Tell whether a value is a torch Dataset, or one of Hugging Face: it has a length and items by number."""
    is_loader = hasattr(value, "dataset") and hasattr(value, "batch_size")
    is_plain = isinstance(value, np.ndarray | Mapping | Sequence | str) or hasattr(value, "detach")
    is_table = hasattr(value, "iloc")
    return not (is_plain or is_loader or is_table) and hasattr(value, "__getitem__") and hasattr(value, "__len__")


def _is_pair(value: Any) -> bool:
    """Tell whether a value is (images, labels)."""
    return isinstance(value, tuple) and len(value) == 2


def _find_class_names(part: Any) -> list[str] | None:
    """Find the class names that torchvision (classes) and Hugging Face (features) keep, below Subsets too."""
    while part is not None and not isinstance(part, tuple | Mapping):
        if names := getattr(part, "classes", None):
            return [str(name) for name in names]
        for field in LABEL_FIELDS:
            features = getattr(part, "features", None)
            if isinstance(features, Mapping) and (names := getattr(features.get(field), "names", None)):
                return list(names)
        part = getattr(part, "dataset", None)
    return part.get("class_names") if isinstance(part, Mapping) else None


def _read_part(name: str, part: Any) -> RawSplit:
    """Return the images and labels of one split."""
    if isinstance(part, Mapping):
        try:
            return RawSplit(images=part["images"], labels=part["labels"], ids=part.get("ids"))
        except KeyError as error:
            raise ValueError(f"{name} returns a split without {error}; it has {', '.join(map(str, part))}") from error
    if _is_dataset(part):
        return _read_dataset(name, part)
    images, labels = part
    return RawSplit(images=images, labels=labels)


def _read_dataset(name: str, dataset: Any) -> RawSplit:
    """Read a dataset item by item; images of one shape go into one array at once."""
    if not len(dataset):
        raise ValueError(f"{name} returns a Dataset without items; fix that function")
    first, again = (_read_item(name, dataset, 0)[0] for _ in range(2))
    if first.shape != again.shape or not np.array_equal(first, again):
        raise ValueError(
            f"{name} returns a Dataset whose first image differs between two reads; leave out random transforms "
            "(memscore augments by --augment)"
        )
    images: Any = np.empty((len(dataset), *first.shape), first.dtype)
    labels = []
    for row in range(len(dataset)):
        image, label = _read_item(name, dataset, row)
        if isinstance(images, np.ndarray) and image.shape != first.shape:
            images = list(images[:row])  # several sizes: --image-size can still bring them to one
        if isinstance(images, list):
            images.append(image)
        else:
            images[row] = image
        labels.append(label if isinstance(label, str) else to_numpy(label))
    return RawSplit(images=images, labels=labels if isinstance(labels[0], str) else np.stack(labels))


def _read_item(name: str, dataset: Any, row: int) -> tuple[np.ndarray, Any]:
    """Return image and label of one item, which is a pair or a dictionary."""
    item = dataset[row]
    if isinstance(item, Mapping):
        fields = [next((key for key in keys if key in item), None) for keys in (IMAGE_FIELDS, LABEL_FIELDS)]
        if None in fields:
            raise ValueError(
                f"items of {name}'s Dataset have {', '.join(map(str, item))}; they need image and label: rename them"
            )
        image, label = (item[field] for field in fields)
    elif isinstance(item, Sequence) and len(item) >= 2:
        image, label = item[0], item[1]
    else:
        raise ValueError(f"items of {name}'s Dataset must be (image, label), got {type(item).__name__}")
    if hasattr(image, "convert") and image.mode not in {"L", "RGB"}:  # a picture of Pillow
        image = image.convert("L" if image.mode in {"1", "LA"} else "RGB")
    return to_numpy(image), label
