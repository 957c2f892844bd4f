"""Load data sets by name, path or function as Splits of uint8 images, in published order.

Without a publisher's test split (digits, a plain folder, one pair of arrays) the test set is a stratified draw with a
constant seed, so that no user's seed changes it. Validation is taken from train by the root seed; then the limit keeps
a stratified part of the rest, so a limit never changes the validation set; then labels are flipped, then single
examples are left out. published.py, path_sources.py and function_source.py read what is split here; splits.py defines
the result.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from memscore.choices import find_nearest, validate_choice
from memscore.data.function_source import call_function
from memscore.data.image_size import Size, parse_image_size, resize_images
from memscore.data.left_out import leave_out
from memscore.data.path_sources import read_path
from memscore.data.published import (
    TORCHVISION_CLASSES,
    find_download_folder,
    find_idx_folder,
    load_digits,
    load_torchvision,
)
from memscore.data.published_folders import PUBLISHED_FOLDERS, find_published_folder, load_published_folder
from memscore.data.sources import PublishedDataset, require_every_class
from memscore.data.splits import Dataset, Splits, compute_mean_std, select_rows, split_stratified
from memscore.seeds import generator
from memscore.units import format_count

NAMED_DATASETS = ("digits", *TORCHVISION_CLASSES)
"""Data sets of arrays that are read by name. Every name but these and PUBLISHED_FOLDERS is a path or a function."""


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
    follow_links: bool = False,
    without: Sequence[str] = (),
) -> Splits:
    """Load a data set by name, path or function, split and ready to train on.

    Args:
        name: digits, a key of TORCHVISION_CLASSES or PUBLISHED_FOLDERS, a path (a folder of images, .npz), or
            "module:function". A built-in name wins over a folder of that name: write ./name.
        validation: share of train to hold out, in [0, 1); None keeps the publisher's split, or takes 10 %
            (digits: 197 images).
        test: share of a data set without a test split that becomes the test set, in (0, 1); None takes 20 % (digits:
            400 images).
        train_limit: how many training images to keep after that, stratified, in data-set order.
        label_noise: share of training labels to flip to another class, in [0, 1); exactly round(share * n).
        seed: root seed of the validation set, the limit and the flips.
        folder: for a key of TORCHVISION_CLASSES the folder of its files, existing or to be downloaded (default
            $MEMSCORE_DATA or ~/.cache/memscore/data), for a key of PUBLISHED_FOLDERS that of its images; with any
            other name the path that is read under this name.
        resize: "SIDE" or "HEIGHTxWIDTH" in pixels, to which every image is scaled and cropped; None keeps their size.
        skip_bad: leave out image files that cannot be used, instead of raising; origin["left_out"] lists them.
        follow_links: read image files that links in the data's folder show and that lie outside of it.
        without: ids of training images to leave out, or a file of ids; nothing else changes but the normalization.

    Returns:
        The splits; the test set does not depend on the seed.

    Raises:
        ValueError: a name, share, limit or content that breaks one of these rules.
    """
    for option, share in (("validation", validation or 0.0), ("label_noise", label_noise)):
        if not 0 <= share < 1:
            raise ValueError(f"{option} is a share and must lie in [0, 1), got {share}; 0.1 is one in ten, 0 is none")
    source = read_published(name, folder, test=test, resize=resize, skip_bad=skip_bad, follow_links=follow_links)
    splits = split_published(
        source,
        validation=validation,
        train_limit=train_limit,
        label_noise=label_noise,
        seed=seed,
        in_place=source.is_owned,  # the source is not used again
        without=without,
    )
    return replace(splits, origin=splits.origin | {"validation": validation, "train_limit": train_limit})


def split_published(
    source: PublishedDataset,
    *,
    validation: float | None = None,
    train_limit: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    in_place: bool = False,
    without: Sequence[str] = (),
) -> Splits:
    """Split a data set that is in memory.

    Args:
        source: the data set.
        validation: as load_dataset's.
        train_limit: as load_dataset's.
        label_noise: as load_dataset's.
        seed: as load_dataset's.
        in_place: use the memory of the source's images, which are then in another order.
        without: as load_dataset's.

    Returns:
        The splits.

    Raises:
        ValueError: a share or limit that cannot be met.
    """
    # Validation first: banks of one seed with different limits then share their validation set.
    train, held_out = _take_validation(source, validation, seed, in_place=in_place)
    if train_limit is not None:
        train = _limit_train(train, train_limit, source.n_classes, seed)
    # A user's Splits bring their normalization; else it is that of the images left to train on. Flips come last, so
    # that split and limit are stratified by the published labels, and the share is one of the images that remain.
    changes = dict(source.label_changes)
    if label_noise:
        train, changes = (
            _flip_labels(train, label_noise, source.n_classes, seed),
            changes | {"label_noise": label_noise},
        )
    # After the flips, so that the remaining examples keep the labels that they have beside the others.
    remainder = leave_out(train, without)
    train = remainder.train
    if remainder.ids:
        cause, hint = f"--without {format_count(len(remainder.ids), 'example')}", "leave out fewer"
        require_every_class(train, source.n_classes, cause, hint, source.class_names)
    mean, std = source.mean_std or compute_mean_std(train.images)
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
        origin=dict(source.origin) | ({"without": list(remainder.ids)} if remainder.ids else {}),
    )


def _take_validation(
    source: PublishedDataset, share: float | None, seed: int, *, in_place: bool
) -> tuple[Dataset, Dataset]:
    """Return (train, validation) by the user's share, the publisher's split or the default."""
    train = source.train
    if source.validation is not None:
        if share:
            reason = f"{source.name} has its own validation split ({format_count(len(source.validation), 'image')})"
            raise ValueError(
                f"{reason}, so validation cannot be {share}; leave it out to use that split, or give 0 for none"
            )
        return train, select_rows(source.validation, np.arange(0)) if share == 0 else source.validation
    # Without a share the size is the data set's own default, else 10 %. A share that rounds to no image is a mistake.
    default = max(1, round(len(train) / 10)) if source.default_validation is None else source.default_validation
    size = default if share is None else round(share * len(train))
    if share and not size:
        raise ValueError(f"validation {share} of {len(train)} training images is none of them; use a larger share or 0")
    held_out, rest = split_stratified(train, size, generator(seed, "validation"), in_place=in_place)
    require_every_class(
        rest,
        source.n_classes,
        f"a validation set of {format_count(size, 'image')} from {len(train)}",
        "use --validation 0, or a smaller --test",
        source.class_names,
    )
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
    follow_links: bool = False,
) -> PublishedDataset:
    """Read a data set as published, by the reader for its name, and note where and how it was read.

    Args:
        name: as load_dataset's.
        folder: as load_dataset's.
        test: as load_dataset's.
        resize: as load_dataset's.
        skip_bad: as load_dataset's.
        follow_links: as load_dataset's.

    Returns:
        The data set; its origin has the keys name, folder, path, class_names, image_size ([height, width]), test,
        resize, skip_bad, follow_links and left_out.

    Raises:
        ValueError: a name, share, size or content that cannot be read.
    """
    if test is not None and not 0 < test < 1:
        raise ValueError(
            f"test is a share and must lie in (0, 1), got {test}; 0.2 is one in five, and accuracy on test images is "
            "part of every result"
        )
    size = None if resize is None else parse_image_size(resize)
    source = _read_by_name(name, folder, test=test, size=size, skip_bad=skip_bad, follow_links=follow_links)
    if size is not None:  # image files have it already, arrays of names and functions do not
        validation = None if source.validation is None else _resize_dataset(source.validation, size)
        train, test_part = _resize_dataset(source.train, size), _resize_dataset(source.test, size)
        source = replace(source, train=train, validation=validation, test=test_part)
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
            "follow_links": follow_links,
            "left_out": [dict(entry) for entry in source.left_out],
        },
    )


def _find_place(name: str, folder: str | None) -> Path | None:
    """Find the folder or file that a data set is read from; None for digits and a function."""
    if name in TORCHVISION_CLASSES:
        if name == "fashion-mnist" and (idx := find_idx_folder(folder)):
            return idx
        return find_download_folder(folder)
    if name in PUBLISHED_FOLDERS:
        return find_published_folder(name, folder)
    path = Path(folder or name).expanduser()
    return path if name != "digits" and path.exists() else None


def _resize_dataset(part: Dataset, size: Size) -> Dataset:
    """Bring the images of one split to a size."""
    return replace(part, images=resize_images(part.images, size))


def describe_missing_path(path: Path) -> str:
    """Return a message on a folder or file that does not exist, with what is there: the nearest name, or how far."""
    # the deepest folder that exists: what follows it is where the path went wrong
    known = next(folder for folder in path.absolute().parents if folder.is_dir())
    kind = "file" if path.suffix else "folder or file"
    if known != path.absolute().parent:
        return f"there is no {kind} {path}: {known} has no folder {path.absolute().relative_to(known).parts[0]}"
    near = find_nearest(path.name, [each.name for each in known.iterdir()])
    return f"there is no {kind} {path.name} in {known}; " + (f"did you mean {near}?" if near else "check the path")


def _read_by_name(
    name: str, folder: str | None, *, test: float | None, size: Size | None, skip_bad: bool, follow_links: bool
) -> PublishedDataset:
    """Read a data set by the reader for its name."""
    is_function = re.fullmatch(r"[\w.]+:\w+", name) is not None
    if folder is not None and (is_function or name == "digits"):
        raise ValueError(f"{name} is not read from a folder, got folder {folder!r}; leave folder out")
    if skip_bad and (is_function or name in NAMED_DATASETS):
        raise ValueError(f"--skip-bad leaves out image files, and {name} gives arrays; leave the option out")
    if name == "digits":
        return load_digits(test)
    if name in TORCHVISION_CLASSES:
        return load_torchvision(name, folder, test)
    if name in PUBLISHED_FOLDERS:
        return load_published_folder(name, folder, test=test, size=size, skip_bad=skip_bad, follow_links=follow_links)
    if is_function:
        return call_function(name, test, size)
    # What is neither built in nor a function is a path. A bare word without a suffix that names no file is more likely
    # a misspelt built-in name, so it gets the nearest one as a suggestion.
    path = Path(folder or name).expanduser()
    if folder is None and os.sep not in name and not path.suffix and not path.exists():
        try:
            validate_choice("data set", name, (*NAMED_DATASETS, *PUBLISHED_FOLDERS))
        except ValueError as error:
            raise ValueError(f"{error}; there is no folder {name} in {Path.cwd()} either") from None
    if not path.exists():
        raise FileNotFoundError(describe_missing_path(path))
    label = name if folder else None
    return read_path(path, label, test=test, size=size, skip_bad=skip_bad, follow_links=follow_links)
