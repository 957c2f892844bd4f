"""Load data sets by name, path or function as Splits of uint8 images, in published order.

Without a publisher's test split (digits, a plain folder, one pair of arrays) the test set is a stratified draw with a
constant seed, so that no user's seed changes it. Validation is taken from train by the root seed; then the limit keeps
a stratified part of the rest, so a limit never changes the validation set; then labels are flipped. Folders of images
are decoded by image_folder.py; splits.py defines the result.
"""

import importlib
import os
import re
import zipfile
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from memscore.choices import validate_choice
from memscore.data import image_folder
from memscore.data.image_size import Size, parse_image_size, resize_images
from memscore.data.published import (
    TORCHVISION_CLASSES,
    find_download_folder,
    find_idx_folder,
    load_digits,
    load_torchvision,
)
from memscore.data.sources import PublishedDataset, build_published, require_every_class, require_no_test_share
from memscore.data.splits import Dataset, Splits, compute_mean_std, make_dataset, select_rows, split_stratified
from memscore.seeds import generator


def load_dataset(
    name: str,
    *,
    validation: float | None = None,
    test: float | None = None,
    train_limit: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    folder: str | None = None,
    resize: str | None = None,
    skip_bad: bool = False,
) -> Splits:
    """Load a data set by name, path or function, split and ready to train on.

    Args:
        name: digits, a key of TORCHVISION_CLASSES, a path (a folder of images, .npz), or "module:function". A built-in
            name wins over a folder of that name: write ./name.
        validation: share of train to hold out, in [0, 1); None keeps the publisher's split, or takes 10 %
            (digits: 197 images).
        test: share of a data set without a test split that becomes the test set, in (0, 1); None takes 20 % (digits:
            400 images).
        train_limit: how many training images to keep after that, stratified, in data-set order.
        label_noise: share of training labels to flip to another class, in [0, 1); exactly round(share * n).
        seed: root seed of the validation set, the limit and the flips.
        folder: for a key of TORCHVISION_CLASSES the folder of its files, existing or to be downloaded (default
            $MEMSCORE_DATA or ~/.cache/memscore/data); with any other name the path that is read under this name.
        resize: "SIDE" or "HEIGHTxWIDTH" in pixels, to which every image is scaled and cropped; None keeps their size.
        skip_bad: leave out image files that cannot be used, instead of raising; origin["left_out"] lists them.

    Returns:
        The splits; the test set does not depend on the seed.

    Raises:
        ValueError: a name, share, limit or content that breaks one of these rules.
    """
    for option, share in (("validation", validation or 0.0), ("label_noise", label_noise)):
        if not 0 <= share < 1:
            raise ValueError(f"{option} is a share and must lie in [0, 1), got {share}; 0.1 is one in ten, 0 is none")
    splits = split_published(
        read_published(name, folder, test=test, resize=resize, skip_bad=skip_bad),
        validation=validation,
        train_limit=train_limit,
        label_noise=label_noise,
        seed=seed,
    )
    return replace(splits, origin=splits.origin | {"validation": validation, "train_limit": train_limit})


def split_published(
    source: PublishedDataset,
    *,
    validation: float | None = None,
    train_limit: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
) -> Splits:
    """Split a data set that is in memory; the arguments are those of load_dataset."""
    # Validation first: banks of one seed with different limits then share their validation set.
    train, held_out = _take_validation(source, validation, seed)
    if train_limit is not None:
        train = _limit_train(train, train_limit, source.n_classes, seed)
    # A user's Splits bring their normalization; else it is that of the images left to train on. Flips come last, so
    # that split and limit are stratified by the published labels, and the share is one of the images that remain.
    mean, std = source.mean_std or compute_mean_std(train.images)
    changes = dict(source.label_changes)
    if label_noise:
        train, changes = (
            _flip_labels(train, label_noise, source.n_classes, seed),
            changes | {"label_noise": label_noise},
        )
    return Splits(
        name=source.name,
        n_classes=source.n_classes,
        train=train,
        validation=held_out,
        test=source.test,
        mean=mean,
        std=std,
        label_changes=changes,
        class_names=source.class_names,
        notes=source.notes,
        origin=dict(source.origin),
    )


def _take_validation(source: PublishedDataset, share: float | None, seed: int) -> tuple[Dataset, Dataset]:
    """Return (train, validation) by the user's share, the publisher's split or the default."""
    train = source.train
    if source.validation is not None:
        if share:
            reason = f"{source.name} has its own validation split ({len(source.validation)} images)"
            raise ValueError(
                f"{reason}, so validation cannot be {share}; leave it out to use that split, or give 0 for none"
            )
        return train, select_rows(source.validation, np.arange(0)) if share == 0 else source.validation
    # Without a share the size is the data set's own default, else 10 %. A share that rounds to no image is a mistake.
    default = max(1, round(len(train) / 10)) if source.default_validation is None else source.default_validation
    size = default if share is None else round(share * len(train))
    if share and not size:
        raise ValueError(f"validation {share} of {len(train)} training images is none of them; use a larger share or 0")
    held_out, rest = split_stratified(train, size, generator(seed, "validation"))
    require_every_class(rest, source.n_classes, f"a validation set of {size} images", "lower validation")
    return rest, held_out


def _limit_train(train: Dataset, limit: int, n_classes: int, seed: int) -> Dataset:
    """Select a stratified part of train, in data-set order."""
    if not 2 * n_classes <= limit <= len(train):
        rule = f"from {2 * n_classes} (two a class) to {len(train)} (all that validation leaves)"
        raise ValueError(f"train_limit must lie {rule}, got {limit}; leave it out to train on everything")
    selected, _ = split_stratified(train, limit, generator(seed, "validation", "train-limit"))
    require_every_class(selected, n_classes, f"a train_limit of {limit}", "raise train_limit")
    return selected


def _flip_labels(train: Dataset, share: float, n_classes: int, seed: int) -> Dataset:
    """Change exactly round(share * n) labels to a random other class; labels_true stays."""
    rng = generator(seed, "label-noise")
    rows = rng.permutation(len(train))[: round(share * len(train))]
    labels = train.labels.copy()
    # Adding 1 to K - 1 modulo K reaches every class but the present one, each equally likely.
    labels[rows] = (labels[rows] + rng.integers(1, n_classes, len(rows))) % n_classes
    return Dataset(images=train.images, labels=labels, labels_true=train.labels_true, ids=train.ids)


def read_published(
    name: str,
    folder: str | None = None,
    *,
    test: float | None = None,
    resize: str | None = None,
    skip_bad: bool = False,
) -> PublishedDataset:
    """Read a data set as published, by the reader for its name, and note where and how it was read.

    Args:
        name: as load_dataset's.
        folder: as load_dataset's.
        test: as load_dataset's.
        resize: as load_dataset's.
        skip_bad: as load_dataset's.

    Returns:
        The data set; its origin has the keys name, folder, path, class_names, image_size ([height, width]), test,
        resize, skip_bad and left_out.

    Raises:
        ValueError: a name, share, size or content that cannot be read.
    """
    if test is not None and not 0 < test < 1:
        raise ValueError(
            f"test is a share and must lie in (0, 1), got {test}; 0.2 is one in five, and accuracy on test images is "
            "part of every result"
        )
    size = None if resize is None else parse_image_size(resize)
    source = _read_by_name(name, folder, test=test, size=size, skip_bad=skip_bad)
    if size is not None:
        parts = {split: _resize_dataset(getattr(source, split), size) for split in ("train", "validation", "test")}
        source = replace(source, **parts)
    path = _find_place(name, folder)
    return replace(
        source,
        origin={
            "name": name,
            "folder": folder,
            "path": None if path is None else str(path.resolve()),
            "class_names": None if source.class_names is None else list(source.class_names),
            "image_size": list(source.train.images.shape[2:]),
            "test": test,
            "resize": resize,
            "skip_bad": skip_bad,
            "left_out": [dict(entry) for entry in source.left_out],
        },
    )


def _find_place(name: str, folder: str | None) -> Path | None:
    """Find the folder or file that a data set is read from; None for digits and a function."""
    if name in TORCHVISION_CLASSES:
        if name == "fashion-mnist" and (idx := find_idx_folder(folder)):
            return idx
        return find_download_folder(folder)
    path = Path(folder or name).expanduser()
    return path if name != "digits" and path.exists() else None


def _resize_dataset(part: Dataset | None, size: Size) -> Dataset | None:
    """Bring the images of one split to a size; those of image files have it already."""
    return part if part is None else replace(part, images=resize_images(part.images, size))


def _read_by_name(
    name: str, folder: str | None, *, test: float | None, size: Size | None, skip_bad: bool
) -> PublishedDataset:
    """Read a data set by the reader for its name."""
    is_function = re.fullmatch(r"[\w.]+:\w+", name) is not None
    if folder is not None and (is_function or name == "digits"):
        raise ValueError(f"{name} is not read from a folder, got folder {folder!r}; leave folder out")
    if name == "digits":
        return load_digits(test)
    if name in TORCHVISION_CLASSES:
        return load_torchvision(name, folder, test)
    if is_function:
        return _call_function(name, test)
    # What is neither built in nor a function is a path. A bare word that names no file is more likely a misspelt
    # built-in name, so it gets the nearest one as a suggestion.
    path = Path(folder or name).expanduser()
    if folder is None and os.sep not in name and not path.exists():
        try:
            validate_choice("data set", name, ("digits", *TORCHVISION_CLASSES))
        except ValueError as error:
            raise ValueError(f"{error}; a folder or .npz file is written as a path, such as ./{name}") from None
    if path.is_dir():
        parts = {
            split: make_dataset(split, *columns) for split, columns in image_folder.read_image_folder(path).items()
        }
        names = tuple(image_folder.list_class_names(path))
        return build_published(name if folder else path.resolve().name, parts, test=test, class_names=names)
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or .npz file {str(path)!r}; check the path or use a known name")
    return _read_npz(path, name if folder else path.stem, test)


def _read_npz(path: Path, name: str, test: float | None) -> PublishedDataset:
    """Read images and labels, or train_*, test_* and perhaps validation_*, from an .npz file."""
    if not zipfile.is_zipfile(path):
        raise ValueError(f"{path} is neither a folder nor an .npz archive; save the arrays with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} does not hold plain arrays ({error}); save them with numpy.savez") from error
    # Keys without a prefix are one data set without splits; any train_* key selects the layout with splits.
    single = not any(key.startswith("train_") for key in arrays)
    has_validation = any(key.startswith("validation_") for key in arrays)
    prefixes = {"all": ""} if single else {"train": "train_", "test": "test_"}
    prefixes |= {"validation": "validation_"} if has_validation else {}
    missing = [
        key for prefix in prefixes.values() for key in (f"{prefix}images", f"{prefix}labels") if key not in arrays
    ]
    if missing or (single and has_validation):
        keys = "images and labels, or train_images, train_labels, test_images and test_labels"
        raise ValueError(
            f"{path} lacks {', '.join(missing) or 'train_images'} (it has {', '.join(arrays)}); store {keys}"
        )
    parts = {
        key: make_dataset(key, arrays[f"{prefix}images"], arrays[f"{prefix}labels"]) for key, prefix in prefixes.items()
    }
    return build_published(name, parts, test=test)


def _call_function(name: str, test: float | None) -> PublishedDataset:
    """Call the user's function and check the data set it returns."""
    module, function = name.split(":")
    try:
        load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"data set {name!r} cannot be imported ({error}); the module must be on PYTHONPATH") from error
    result = load()
    label = name.replace(":", ".")
    if isinstance(result, tuple) and len(result) == 4:
        parts = {"train": make_dataset("train", *result[:2]), "test": make_dataset("test", *result[2:])}
        return build_published(label, parts, test=test)
    if not isinstance(result, Splits):
        rule = "memscore.data.datasets.Splits or (images, labels, test images, test labels)"
        raise ValueError(f"{name} must return {rule}, got {type(result).__name__}; fix that function")
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
    )
