"""Folders of images: the layouts of CINIC-10 and Tiny-ImageNet, and plain ones; memscore/data/datasets.py opens them.

    train/CLASS/**  valid|validation|val/CLASS/**  test/CLASS/**    val may be absent; without test/ it is the test
    train/CLASS/**  val/images/*  val/val_annotations.txt           Tiny-ImageNet: val is the test, test/ has no labels
    CLASS/**                                                        one set, to be split by the reader

Classes are the sorted folder names, ids the relative paths, rows in the order of ids. Gray only if every image is gray.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GRAY, COLOUR = {"1", "L", "LA"}, {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"}  # Pillow's modes of 8 bits and less


def read_image_folder(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Every image below a folder, decoded; alpha is dropped, and gray images among coloured ones become RGB.

    Args:
        root: an existing folder in one of the layouts above.

    Returns:
        (uint8 [N, C, H, W], int64 [N], ids) for train, test and perhaps validation, or for "all" alone.

    Raises:
        ValueError: a layout, an annotation or an image that cannot be used.
        OSError: a folder or an image that cannot be read.
    """
    listing = _listing(root)
    headers = {path: _header(root / path) for labels in listing.values() for path in labels}
    first, (size, _) = next(iter(headers.items()))
    for path, (other, _) in headers.items():
        if other != size:
            sizes = f"{first} is {size[0]}x{size[1]}, {path} is {other[0]}x{other[1]}"
            raise ValueError(f"images in {root} must share one size, but {sizes}; resize them")
    mode = "L" if all(found in GRAY for _, found in headers.values()) else "RGB"
    return {split: _decode(root, labels, size, mode) for split, labels in listing.items()}


def _listing(root: Path) -> dict[str, dict[str, int]]:
    """The label of every relative path, by split."""
    if not (root / "train").is_dir():
        return {"all": _labelled(root, root, _classes(root))}
    classes = _classes(root / "train")
    folders = {"train": root / "train"}
    for name in ("valid", "validation", "val"):
        if (root / name).is_dir():
            folders["validation"] = root / name
    annotations = folders.get("validation", root) / "val_annotations.txt"
    if annotations.is_file():
        return {"train": _labelled(root, folders["train"], classes), "test": _annotated(root, annotations, classes)}
    if (root / "test").is_dir():
        folders["test"] = root / "test"
    elif "validation" in folders:
        folders["test"] = folders.pop("validation")
    else:
        raise ValueError(f"{root} has train/ but neither test/ nor val/; add one, or name {root / 'train'} to split it")
    return {split: _labelled(root, folder, classes) for split, folder in folders.items()}


def _classes(folder: Path) -> list[str]:
    """Sorted names of the class folders."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise OSError(f"folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold one folder of images for each of 2 or more classes, found {names}; add them"
        )
    return names


def _labelled(root: Path, folder: Path, classes: list[str]) -> dict[str, int]:
    """Labels by the class folder that an image lies in."""
    labels: dict[str, int] = {}
    for name in _classes(folder):
        if name not in classes:
            raise ValueError(f"{folder} has a class {name!r} that train/ has not; rename or remove it")
        found = _images_under(folder / name)
        if not found:
            raise ValueError(f"class folder {folder / name} holds no image ({' '.join(SUFFIXES)}); fill or remove it")
        labels |= {path.relative_to(root).as_posix(): classes.index(name) for path in found}
    return dict(sorted(labels.items()))


def _images_under(folder: Path) -> list[Path]:
    """Image files at any depth, hidden ones left out."""

    def refuse(error: OSError) -> None:
        raise OSError(f"folder {error.filename} cannot be read ({error.strerror}); check its permissions") from error

    return [
        Path(where) / name
        for where, _, names in os.walk(folder, onerror=refuse)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]


def _annotated(root: Path, annotations: Path, classes: list[str]) -> dict[str, int]:
    """Labels from lines "file <tab> class <tab> box" beside a folder named images."""
    labels = {}
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) < 2 or columns[1] not in classes:
            raise ValueError(f"{annotations} line {number} must be 'file<tab>class of train/', got {line!r}; mend it")
        labels[(annotations.parent / "images" / columns[0]).relative_to(root).as_posix()] = classes.index(columns[1])
    if not labels:
        raise ValueError(f"{annotations} names no image; restore it from the publisher's archive")
    return dict(sorted(labels.items()))


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """((width, height), mode) without decoding."""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except OSError as error:
        raise OSError(f"image {path} cannot be read ({error}); replace or remove it") from error
    if mode not in GRAY | COLOUR:
        raise ValueError(f"image {path} must have 8 bits a channel, got mode {mode}; convert it")
    return size, mode


def _decode(
    root: Path, labels: dict[str, int], size: tuple[int, int], mode: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Pixels, labels and ids of one split."""
    width, height = size
    pixels = np.empty((len(labels), height, width, len(mode)), np.uint8)
    for row, path in enumerate(labels):
        try:
            with Image.open(root / path) as image:
                pixels[row] = np.asarray(image.convert(mode)).reshape(pixels.shape[1:])
        except (OSError, SyntaxError) as error:
            raise OSError(f"image {root / path} cannot be decoded ({error}); replace or remove it") from error
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), np.array([*labels.values()], np.int64), list(labels)
