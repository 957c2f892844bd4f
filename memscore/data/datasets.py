"""Load data sets by name, path or function as Splits of uint8 images, in published order.

Without a publisher's test split (digits, a plain folder, one pair of arrays) the test set is a stratified draw with a
constant seed, so that no user's seed changes it. Validation is taken from train by the root seed; then the limit keeps
a stratified part of the rest, so a limit never changes the validation set; then labels are flipped. Folders of images
are decoded by image_folder.py; splits.py defines the result.
"""

import gzip
import http.client
import importlib
import os
import re
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from memscore.choices import validate_choice
from memscore.data import image_folder
from memscore.data.splits import Dataset, Splits, compute_mean_std, make_dataset, select_rows, split_stratified
from memscore.seeds import generator

TORCHVISION_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


@dataclass(frozen=True, kw_only=True, eq=False)
class PublishedDataset:
    """A data set as published, before a seed or a limit changes it."""

    name: str
    train: Dataset
    test: Dataset
    n_classes: int
    validation: Dataset | None = None
    default_validation: int | None = None  # images to hold out when the user gives no share; None is 10 % of train
    mean_std: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    label_changes: Mapping[str, object] = field(default_factory=dict)  # what changed the labels, for the manifest
    class_names: tuple[str, ...] | None = None  # in the order of the labels; None where the publisher gives none
    origin: Mapping[str, object] = field(default_factory=dict)


def load_dataset(
    name: str,
    *,
    validation: float | None = None,
    train_limit: int | None = None,
    label_noise: float = 0.0,
    seed: int = 0,
    folder: str | None = None,
) -> Splits:
    """Load a data set by name, path or function, split and ready to train on.

    Args:
        name: digits, a key of TORCHVISION_CLASSES, a folder of images, an .npz file, or "module:function" that returns
            Splits or (images, labels, test images, test labels). A built-in name wins over a folder of that name: write
            ./name.
        validation: share of train to hold out, in [0, 1); None keeps the publisher's split, or takes 10 %
            (digits: 197 images).
        train_limit: how many training images to keep after that, stratified, in data-set order.
        label_noise: share of training labels to flip to another class, in [0, 1); exactly round(share * n).
        seed: root seed of the validation set, the limit and the flips.
        folder: for a key of TORCHVISION_CLASSES the folder of its files, existing or to be downloaded (default
            $MEMSCORE_DATA or ~/.cache/memscore/data); with any other name the image folder or .npz file of this name.

    Returns:
        The splits; the test set does not depend on the seed.

    Raises:
        ValueError: a name, share, limit or content that breaks one of these rules.
    """
    for option, share in (("validation", validation or 0.0), ("label_noise", label_noise)):
        if not 0 <= share < 1:
            raise ValueError(f"{option} is a share and must lie in [0, 1), got {share}; 0.1 is one in ten, 0 is none")
    splits = split_published(
        read_published(name, folder),
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
    _require_every_class(rest, source.n_classes, f"a validation set of {size} images", "lower validation")
    return rest, held_out


def _limit_train(train: Dataset, limit: int, n_classes: int, seed: int) -> Dataset:
    """Select a stratified part of train, in data-set order."""
    if not 2 * n_classes <= limit <= len(train):
        rule = f"from {2 * n_classes} (two a class) to {len(train)} (all that validation leaves)"
        raise ValueError(f"train_limit must lie {rule}, got {limit}; leave it out to train on everything")
    selected, _ = split_stratified(train, limit, generator(seed, "validation", "train-limit"))
    _require_every_class(selected, n_classes, f"a train_limit of {limit}", "raise train_limit")
    return selected


def _require_every_class(train: Dataset, n_classes: int, cause: str, hint: str) -> None:
    """Raise if a split left the training set without a class."""
    for missing in np.setdiff1d(np.arange(n_classes), train.labels)[:1]:
        raise ValueError(f"{cause} leaves no training image of class {missing}; {hint} or drop that class")


def _flip_labels(train: Dataset, share: float, n_classes: int, seed: int) -> Dataset:
    """Change exactly round(share * n) labels to a random other class; labels_true stays."""
    rng = generator(seed, "label-noise")
    rows = rng.permutation(len(train))[: round(share * len(train))]
    labels = train.labels.copy()
    # Adding 1 to K - 1 modulo K reaches every class but the present one, each equally likely.
    labels[rows] = (labels[rows] + rng.integers(1, n_classes, len(rows))) % n_classes
    return Dataset(images=train.images, labels=labels, labels_true=train.labels_true, ids=train.ids)


def read_published(name: str, folder: str | None = None) -> PublishedDataset:
    """Read a data set as published, by the reader for its name, and note where it was read."""
    source = _read_by_name(name, folder)
    path = _find_place(name, folder)
    return replace(
        source,
        origin={
            "name": name,
            "folder": folder,
            "path": None if path is None else str(path.resolve()),
            "class_names": None if source.class_names is None else list(source.class_names),
            "image_size": list(source.train.images.shape[2:]),
        },
    )


def _find_place(name: str, folder: str | None) -> Path | None:
    """Find the folder or file that a data set is read from; None for digits and a function."""
    if name in TORCHVISION_CLASSES:
        if name == "fashion-mnist" and (idx := _find_idx_folder(folder)):
            return idx
        return _find_download_folder(folder)
    path = Path(folder or name).expanduser()
    return path if name != "digits" and path.exists() else None


def _find_idx_folder(folder: str | None) -> Path | None:
    """Return the folder of Fashion-MNIST's own files, Debian's by default; None if they are not there."""
    idx = Path(folder or DEBIAN_FASHION_MNIST).expanduser()
    return idx if (idx / "train-images-idx3-ubyte.gz").exists() else None


def _find_download_folder(folder: str | None) -> Path:
    """Return the folder that torchvision reads from, and downloads to."""
    return Path(folder or os.environ.get("MEMSCORE_DATA") or "~/.cache/memscore/data").expanduser()


def _read_by_name(name: str, folder: str | None) -> PublishedDataset:
    """Read a data set by the reader for its name."""
    is_function = re.fullmatch(r"[\w.]+:\w+", name) is not None
    if folder is not None and (is_function or name == "digits"):
        raise ValueError(f"{name} is not read from a folder, got folder {folder!r}; leave folder out")
    if name == "digits":
        return _load_digits()
    if name in TORCHVISION_CLASSES:
        return _load_torchvision(name, folder)
    if is_function:
        return _call_function(name)
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
        published = _build_published(name if folder else path.resolve().name, parts)
        return replace(published, class_names=tuple(image_folder.list_class_names(path)))
    if not path.exists():
        raise FileNotFoundError(f"there is no folder or .npz file {str(path)!r}; check the path or use a known name")
    return _read_npz(path, name if folder else path.stem)


def _build_published(name: str, parts: Mapping[str, Dataset]) -> PublishedDataset:
    """Build a published data set from its splits; a single split "all" gives 20 % as test set."""
    train = parts["all"] if "all" in parts else parts["train"]
    classes = np.unique(train.labels)
    n_classes = len(classes)
    if n_classes < 2:
        raise ValueError(f"the training set of {name} must have at least 2 classes, got {n_classes}; add another")
    if classes[0] != 0 or classes[-1] != n_classes - 1:
        labels = f"{n_classes} different ones from {classes[0]} to {classes[-1]}"
        raise ValueError(f"training labels of {name} must be 0..K-1 without gaps, got {labels}; renumber them")
    # Published splits stay as they are. A test set drawn from a single split is drawn with seed 0, so it is the same
    # for every seed of a user.
    if "all" not in parts:
        validation = parts.get("validation")
        return PublishedDataset(name=name, train=train, test=parts["test"], validation=validation, n_classes=n_classes)
    test, rest = split_stratified(train, max(1, round(len(train) / 5)), generator(0, "validation", "fixed-test"))
    _require_every_class(rest, n_classes, f"the fixed test set of {name}", "bring a test split")
    return PublishedDataset(name=name, train=rest, test=test, n_classes=n_classes)


def _load_digits() -> PublishedDataset:
    """Load scikit-learn's 1,797 images of 8x8: 400 test, 197 validation, 1,200 train."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    dataset = make_dataset("all", np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target)
    test, rest = split_stratified(dataset, 400, generator(0, "validation", "fixed-test"))
    return PublishedDataset(name="digits", train=rest, test=test, n_classes=10, default_validation=197)


def _load_torchvision(name: str, folder: str | None) -> PublishedDataset:
    """Load a torchvision data set; torchvision downloads and checks it unless it exists."""
    # Debian's package has Fashion-MNIST's files without the folders in which torchvision looks for them.
    if name == "fashion-mnist" and (idx := _find_idx_folder(folder)):
        files = {"train": "train", "test": "t10k"}
        return _build_published(name, {split: _read_idx(split, idx, prefix) for split, prefix in files.items()})
    import torchvision

    root = _find_download_folder(folder)
    factory = getattr(torchvision.datasets, TORCHVISION_CLASSES[name])
    arguments = {
        split: {"split": split} if name == "svhn" else {"train": split == "train"} for split in ("train", "test")
    }
    try:
        parts = {split: factory(root, download=True, **split_arguments) for split, split_arguments in arguments.items()}
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        reason = " ".join(str(error).split())
        hint = "put the publisher's files there, or name a folder that has them (folder, or $MEMSCORE_DATA)"
        raise OSError(f"{name} is not complete in {root} and could not be downloaded ({reason}); {hint}") from error
    published = _build_published(name, {split: _extract_arrays(split, part) for split, part in parts.items()})
    names = getattr(parts["train"], "classes", None)  # SVHN has none
    return replace(published, class_names=tuple(map(str, names)) if names else None)


def _extract_arrays(split: str, part: Any) -> Dataset:
    # SVHN calls its labels `labels`, the others `targets`.
    return make_dataset(split, part.data, part.labels if hasattr(part, "labels") else part.targets)


def _read_idx(split: str, folder: Path, prefix: str) -> Dataset:
    """Read gzipped idx files: two 0 bytes, 8 for uint8, number of axes, their lengths, values."""
    arrays = []
    for path in (folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz"):
        try:
            raw = gzip.decompress(path.read_bytes())
            # The lengths of the axes are big-endian; the header has 4 bytes and 4 more for each of raw[3] axes.
            shape = np.frombuffer(raw, ">u4", raw[3], 4)
            arrays.append(np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape).copy())
        except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
            raise OSError(f"{path} is not a readable gzipped idx file ({error}); install it again") from error
    images, labels = arrays
    return make_dataset(split, images, labels)


def _read_npz(path: Path, name: str) -> PublishedDataset:
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
    return _build_published(name, parts)


def _call_function(name: str) -> PublishedDataset:
    """Call the user's function and check the data set it returns."""
    module, function = name.split(":")
    try:
        load = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"data set {name!r} cannot be imported ({error}); the module must be on PYTHONPATH") from error
    result = load()
    label = name.replace(":", ".")
    if isinstance(result, tuple) and len(result) == 4:
        return _build_published(
            label, {"train": make_dataset("train", *result[:2]), "test": make_dataset("test", *result[2:])}
        )
    if not isinstance(result, Splits):
        rule = "memscore.data.datasets.Splits or (images, labels, test images, test labels)"
        raise ValueError(f"{name} must return {rule}, got {type(result).__name__}; fix that function")
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
    )
