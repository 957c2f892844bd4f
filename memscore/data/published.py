"""Data sets by name: digits of scikit-learn, and those that torchvision downloads and checks."""

import http.client
import os
import re
import tarfile
import urllib.error
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from memscore.data.array_files import read_gzipped_idx
from memscore.data.named_errors import name_in_errors
from memscore.data.publisher_files import describe_faults, list_publisher_files
from memscore.data.sources import PublishedDataset, build_published
from memscore.data.splits import Dataset, make_dataset
from memscore.reading_limit import require_memory

TORCHVISION_CLASSES = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "svhn": "SVHN",
}
DIGIT_CLASSES = tuple(str(digit) for digit in range(10))
FASHION_MNIST_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""The names that the publisher's page gives to the labels; torchvision has the same."""

DOWNLOAD_ERRORS = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
READ_ERRORS = (
    *(OSError, RuntimeError, ValueError, LookupError, EOFError, AssertionError, MemoryError),
    *(tarfile.TarError, zlib.error),
)
"""What torchvision raises where a file is missing, damaged or cut."""

DEBIAN_FASHION_MNIST = "/usr/share/datasets/fashion-mnist"


def find_idx_folder(folder: str | None) -> Path | None:
    """Return the folder of Fashion-MNIST's own files, Debian's by default; None if they are not there."""
    idx = Path(folder or DEBIAN_FASHION_MNIST).expanduser()
    return idx if (idx / "train-images-idx3-ubyte.gz").exists() else None


def find_download_folder(folder: str | None) -> Path:
    """Return the folder that torchvision reads from, and downloads to."""
    return Path(folder or os.environ.get("MEMSCORE_DATA") or "~/.cache/memscore/data").expanduser()


def load_digits(test: float | None = None) -> PublishedDataset:
    """Load scikit-learn's 1,797 images of 8x8: 400 test (or a share), 197 validation, 1,200 train."""
    import sklearn.datasets

    bunch = sklearn.datasets.load_digits()
    dataset = make_dataset("all", np.round(bunch.images * 255 / 16).astype(np.uint8), bunch.target)
    published = build_published("digits", {"all": dataset}, test=test, default_test=400, class_names=DIGIT_CLASSES)
    return replace(published, default_validation=197)


def load_torchvision(name: str, folder: str | None, test: float | None = None) -> PublishedDataset:
    """Load a torchvision data set; torchvision downloads and checks it unless it exists."""
    # Debian's package has Fashion-MNIST's files without the folders in which torchvision looks for them.
    if name == "fashion-mnist" and (idx := find_idx_folder(folder)):
        files = {"train": "train", "test": "t10k"}
        parts = {split: _read_idx(split, idx, prefix) for split, prefix in files.items()}
        return build_published(name, parts, test=test, class_names=FASHION_MNIST_CLASSES)
    import torchvision

    root = find_download_folder(folder)
    factory = getattr(torchvision.datasets, TORCHVISION_CLASSES[name])
    arguments = {
        split: {"split": split} if name == "svhn" else {"train": split == "train"} for split in ("train", "test")
    }
    if root.is_file():
        raise ValueError(f"--folder {root} is a file; give the folder that it lies in")
    # torchvision unpacks an archive only where its checksum is the publisher's, and reads files as they are
    for file in list_publisher_files(factory, root):
        if file.path.is_file():
            require_memory(file.path.stat().st_size, str(file.path))
    try:
        parts = {split: factory(root, download=True, **split_arguments) for split, split_arguments in arguments.items()}
    except (*DOWNLOAD_ERRORS, *READ_ERRORS) as error:
        faults = describe_faults(list_publisher_files(factory, root), root, _describe_reason(error))
        raise OSError(f"{name} is not complete in {root}: {faults}") from error
    datasets = {split: _extract_arrays(split, part) for split, part in parts.items()}
    # SVHN has no names, and MNIST's are such as "0 - zero".
    names = DIGIT_CLASSES if name in {"mnist", "svhn"} else getattr(parts["train"], "classes", ())
    return build_published(name, datasets, test=test, class_names=tuple(map(str, names)) or None)


def _describe_reason(error: Exception) -> str:
    """Describe why torchvision failed, in one line; for MNIST that is a RuntimeError that quotes all mirrors."""
    reason = " ".join(str(error).split()) or type(error).__name__
    if quoted := re.search(r"got: (.*?)(?: Tried |$)", reason):
        reason = quoted[1]
    is_download = quoted or isinstance(error, DOWNLOAD_ERRORS)
    return f"it could not be downloaded: {reason}" if is_download else reason


def _extract_arrays(split: str, part: Any) -> Dataset:
    # SVHN calls its labels `labels`, the others `targets`.
    return make_dataset(split, part.data, part.labels if hasattr(part, "labels") else part.targets)


def _read_idx(split: str, folder: Path, prefix: str) -> Dataset:
    """Read the gzipped idx files of a split."""
    paths = (folder / f"{prefix}-images-idx3-ubyte.gz", folder / f"{prefix}-labels-idx1-ubyte.gz")
    images, labels = map(read_gzipped_idx, paths)
    with name_in_errors(paths[0]):
        return make_dataset(split, images, labels)
