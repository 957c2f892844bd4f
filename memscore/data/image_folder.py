"""Read folders of images in the layouts of CINIC-10 and Tiny-ImageNet, and plain ones.

    train/CLASS/**  valid|validation|val/CLASS/**  test/CLASS/**    val may be missing; without test/ it is the test
    train/CLASS/**  val/images/*  val/val_annotations.txt           Tiny-ImageNet: val is the test, test/ has no labels
    CLASS/**                                                        one set, to be split by the caller

Classes are the sorted folder names, ids the relative paths, rows in the order of ids. Images are gray only if every
image is gray: gray ones among coloured ones become RGB. Alpha is dropped.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
GRAY, COLOUR = {"1", "L", "LA"}, {"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"}  # Pillow's modes of 8 bits and less


def read_image_folder(root: Path) -> dict[str, tuple[np.ndarray, np.ndarray, list[str]]]:
    """Decode a folder as split -> (images uint8 [N, C, H, W], labels int64 [N], ids); "all" if it has no splits."""
    labels_by_split = _list_splits(root)
    # Headers before pixels: a wrong size or mode among many thousand files is found before any image is decoded, and
    # the number of channels, which all splits share, depends on every one of them.
    headers = {path: _read_header(root / path) for labels in labels_by_split.values() for path in labels}
    first, (size, _) = next(iter(headers.items()))
    for path, (other_size, _) in headers.items():
        if other_size != size:
            sizes = f"{first} is {size[0]}x{size[1]}, {path} is {other_size[0]}x{other_size[1]}"
            raise ValueError(f"images in {root} must share one size, but {sizes}; resize them")
    mode = "L" if all(image_mode in GRAY for _, image_mode in headers.values()) else "RGB"
    return {split: _decode_split(root, labels, size, mode) for split, labels in labels_by_split.items()}


def list_class_names(root: Path) -> list[str]:
    """List the names of the classes in the order of their labels."""
    return _list_classes(root / "train" if (root / "train").is_dir() else root)


def _list_splits(root: Path) -> dict[str, dict[str, int]]:
    """Return split -> relative path -> label."""
    if not (root / "train").is_dir():
        return {"all": _label_by_folder(root, root, _list_classes(root))}
    # The training set decides which classes there are; the other splits may hold fewer, not others.
    classes = _list_classes(root / "train")
    folders = {"train": root / "train"}
    for name in ("valid", "validation", "val"):
        if (root / name).is_dir():
            folders["validation"] = root / name
    # Tiny-ImageNet publishes no test labels, so its annotated validation images are the test set; so is val/ in any
    # layout without test/.
    annotations = folders.get("validation", root) / "val_annotations.txt"
    if annotations.is_file():
        return {
            "train": _label_by_folder(root, folders["train"], classes),
            "test": _read_annotations(root, annotations, classes),
        }
    if (root / "test").is_dir():
        folders["test"] = root / "test"
    elif "validation" in folders:
        folders["test"] = folders.pop("validation")
    else:
        raise ValueError(f"{root} has train/ but neither test/ nor val/; add one, or name {root / 'train'} to split it")
    return {split: _label_by_folder(root, folder, classes) for split, folder in folders.items()}


def _list_classes(folder: Path) -> list[str]:
    """List the sorted names of the class folders."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise OSError(f"folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    if len(names) < 2:
        raise ValueError(
            f"{folder} must hold one folder of images for each of 2 or more classes, found {names}; add them"
        )
    return names


def _label_by_folder(root: Path, folder: Path, classes: list[str]) -> dict[str, int]:
    """Label images by their class folder."""
    labels: dict[str, int] = {}
    for name in _list_classes(folder):
        if name not in classes:
            raise ValueError(f"{folder} has a class {name!r} that train/ has not; rename or remove it")
        paths = _list_images(folder / name)
        if not paths:
            raise ValueError(f"class folder {folder / name} holds no image ({' '.join(SUFFIXES)}); fill or remove it")
        labels |= {path.relative_to(root).as_posix(): classes.index(name) for path in paths}
    return dict(sorted(labels.items()))


def _list_images(folder: Path) -> list[Path]:
    """List image files at any depth, except hidden ones."""
    # os.walk skips folders that it cannot read unless onerror raises; their images would be missing without a word.

    def raise_error(error: OSError) -> None:
        raise OSError(f"folder {error.filename} cannot be read ({error.strerror}); check its permissions") from error

    return [
        Path(directory) / name
        for directory, _, names in os.walk(folder, onerror=raise_error)
        for name in names
        if name.lower().endswith(SUFFIXES) and not name.startswith(".")
    ]


def _read_annotations(root: Path, annotations: Path, classes: list[str]) -> dict[str, int]:
    """Read labels from lines "file <tab> class <tab> box" beside a folder named images."""
    labels = {}
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) < 2 or columns[1] not in classes:
            raise ValueError(f"{annotations} line {number} must be 'file<tab>class of train/', got {line!r}; fix it")
        labels[(annotations.parent / "images" / columns[0]).relative_to(root).as_posix()] = classes.index(columns[1])
    if not labels:
        raise ValueError(f"{annotations} names no image; restore it from the publisher's archive")
    return dict(sorted(labels.items()))


def _read_header(path: Path) -> tuple[tuple[int, int], str]:
    """Return ((width, height), mode) without decoding the image."""
    try:
        with Image.open(path) as image:
            size, mode = image.size, image.mode
    except OSError as error:
        raise OSError(f"image {path} cannot be read ({error}); replace or remove it") from error
    if mode not in GRAY | COLOUR:
        raise ValueError(f"image {path} must have 8 bits a channel, got mode {mode}; convert it")
    return size, mode


def _decode_split(
    root: Path, labels: dict[str, int], size: tuple[int, int], mode: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    # Mode L gives [H, W] and RGB gives [H, W, C]; the reshape adds the channel that L lacks.
    width, height = size
    pixels = np.empty((len(labels), height, width, len(mode)), np.uint8)
    for row, path in enumerate(labels):
        try:
            with Image.open(root / path) as image:
                pixels[row] = np.asarray(image.convert(mode)).reshape(pixels.shape[1:])
        # Pillow raises SyntaxError for some broken PNG files.
        except (OSError, SyntaxError) as error:
            raise OSError(f"image {root / path} cannot be decoded ({error}); replace or remove it") from error
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)), np.array([*labels.values()], np.int64), list(labels)
