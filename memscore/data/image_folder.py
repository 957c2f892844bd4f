"""List folders of images in the layouts of CINIC-10 and Tiny-ImageNet, and plain ones.

    train/CLASS/**  valid|validation|val/CLASS/**  test/CLASS/**    val may be missing; without test/ it is the test
    train/CLASS/**  val/images/*  val/val_annotations.txt           Tiny-ImageNet: val is the test, test/ has no labels
    CLASS/**                                                        one set, to be split by the caller

Classes are the sorted folder names, ids the relative paths, rows in the order of ids. What is hidden (a name that
begins with a dot, or __MACOSX) is not read at any depth. image_files.py decodes what is listed.
"""

import os
from collections import Counter
from pathlib import Path

from memscore.data.image_files import ImageEntry, ImageListing
from memscore.units import format_count, format_value

SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
VALIDATION_FOLDERS = ("valid", "validation", "val")


def list_image_folder(root: Path) -> ImageListing:
    """List the images of a folder.

    Args:
        root: a folder in one of the layouts above.

    Returns:
        The images, in the order of their ids.

    Raises:
        OSError: a folder that cannot be read.
        ValueError: a layout that is none of these.
    """
    folders, annotations = _find_splits(root)
    labels = {split: _label_by_folder(root, folder) for split, folder in folders.items()}
    if annotations is not None:
        labels["test"] = (_read_annotations(root, annotations, _list_classes(folders["train"])), [], Counter())
    passed_over = sum((names for _, _, names in labels.values()), Counter[str]())
    entries = [
        ImageEntry(split=split, id=path, class_name=name)
        for split, (paths, _, _) in labels.items()
        for path, name in paths.items()
    ]
    return ImageListing(
        place=str(root),
        entries=entries,
        open_files=lambda: (root / entry.id for entry in entries),
        empty_classes=tuple(folder for _, empty, _ in labels.values() for folder in empty),
        notes=tuple(_describe_passed_over(passed_over)),
    )


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or what a Mac adds to a zip file."""
    return name.startswith(".") or name == "__MACOSX"


def _find_splits(root: Path) -> tuple[dict[str, Path], Path | None]:
    """Return split -> folder of its class folders, and the file of Tiny-ImageNet's test labels if there is one."""
    if not (root / "train").is_dir():
        return {"all": root}, None
    folders = {"train": root / "train"}
    for name in VALIDATION_FOLDERS:
        if (root / name).is_dir():
            folders["validation"] = root / name
    # Tiny-ImageNet publishes no test labels, so its annotated validation images are the test set; so is val/ in any
    # layout without test/.
    annotations = folders.get("validation", root) / "val_annotations.txt"
    if annotations.is_file():
        return {"train": folders["train"]}, annotations
    if (root / "test").is_dir():
        folders["test"] = root / "test"
    elif "validation" in folders:
        folders["test"] = folders.pop("validation")
    else:
        raise ValueError(f"{root} has train/ but neither test/ nor val/; add one, or name {root / 'train'} to split it")
    return folders, None


def _list_classes(folder: Path) -> list[str]:
    """List the sorted names of the class folders."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))
    except OSError as error:
        raise OSError(f"folder {folder} cannot be read ({error.strerror}); check its permissions") from error
    if len(names) < 2:
        tables = sorted(path.name for path in folder.glob("*.csv"))
        hint = f"give {folder / tables[0]} itself" if tables else "give a .csv file with the columns file and label"
        raise ValueError(
            f"{folder} must hold one folder of images for each of 2 or more classes, found "
            f"{format_value(names)}; add them, or {hint}"
        )
    return names


def _label_by_folder(root: Path, folder: Path) -> tuple[dict[str, str], list[str], Counter[str]]:
    """Return the class of each image by its relative path, the empty classes, and the suffixes passed over."""
    labels: dict[str, str] = {}
    empty, passed_over = [], Counter[str]()
    for name in _list_classes(folder):
        paths = []
        for path in list_files(folder / name):
            if path.name.lower().endswith(SUFFIXES):
                paths.append(path)
            elif path.name.lower() not in SYSTEM_FILES:
                passed_over[path.suffix.lower() or path.name] += 1
        labels |= {path.relative_to(root).as_posix(): name for path in paths}
        if not paths:
            empty.append((folder / name).relative_to(root).as_posix())
    return dict(sorted(labels.items())), empty, passed_over


def list_files(folder: Path) -> list[Path]:
    """List the files at any depth, except hidden ones and those in hidden folders."""
    # os.walk skips folders that it cannot read unless onerror raises; their images would be missing without a word.

    def raise_error(error: OSError) -> None:
        raise OSError(f"folder {error.filename} cannot be read ({error.strerror}); check its permissions") from error

    paths = []
    for directory, folders, names in os.walk(folder, onerror=raise_error):
        folders[:] = [name for name in folders if not is_hidden(name)]  # os.walk does not enter what is removed
        paths += [Path(directory) / name for name in names if not is_hidden(name)]
    return paths


def _describe_passed_over(suffixes: Counter[str]) -> list[str]:
    """Say which files are no images by their names; an iPhone's .heic is one of them."""
    if not suffixes:
        return []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
    kinds += ", ..." if len(suffixes) > 5 else ""
    if suffixes.total() == 1:
        return [f"1 file passed over, by its name no image: {kinds}"]
    return [f"{format_count(suffixes.total(), 'file')} passed over, by their names no images: {kinds}"]


def _read_annotations(root: Path, annotations: Path, classes: list[str]) -> dict[str, str]:
    """Read labels from lines "file <tab> class <tab> box" beside a folder named images."""
    labels = {}
    for number, line in enumerate(annotations.read_text().splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) < 2 or columns[1] not in classes:
            raise ValueError(f"{annotations} line {number} must be 'file<tab>class of train/', got {line!r}; fix it")
        labels[(annotations.parent / "images" / columns[0]).relative_to(root).as_posix()] = columns[1]
    if not labels:
        raise ValueError(f"{annotations} names no image; restore it from the publisher's archive")
    return dict(sorted(labels.items()))
