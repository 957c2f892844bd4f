"""List folders of images in the layouts of CINIC-10 and Tiny-ImageNet, and plain ones.

    train/CLASS/**  valid|validation|val/CLASS/**  test/CLASS/**    val may be missing; without test/ it is the test
    train/CLASS/**  val/images/*  val/val_annotations.txt           Tiny-ImageNet: val is the test, test/ has no labels
    CLASS/**                                                        one set, to be split by the caller

Classes are the sorted folder names, ids the relative paths, rows in the order of ids. What is hidden (a name that
begins with a dot, or __MACOSX) is not read at any depth, nor are linked folders below a class folder, which are named.
image_files.py decodes what is listed.
"""

import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from memscore.data.data_folder import DataFolder, join_name
from memscore.data.image_files import ImageEntry, ImageListing
from memscore.data.text_files import read_text
from memscore.units import format_count, format_value

SUFFIXES = (".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SYSTEM_FILES = {"thumbs.db", "desktop.ini"}
VALIDATION_FOLDERS = ("valid", "validation", "val")


@dataclass(kw_only=True)
class LabelledFiles:
    """Images of one split.

    Attributes:
        labels: relative path -> class.
        problems: relative path -> why an image may not be read.
        empty_classes: class folders without images.
        passed_over: suffixes of other files.
        linked_folders: folders that were not entered.
    """

    labels: dict[str, str] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)
    empty_classes: list[str] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    linked_folders: list[str] = field(default_factory=list)


def list_image_folder(root: Path, *, follow_links: bool = False) -> ImageListing:
    """List the images of a folder.

    Args:
        root: a folder in one of the layouts above.
        follow_links: read what links show that lead out of the folder.

    Returns:
        The images, in the order of their ids.

    Raises:
        OSError: a folder that cannot be read.
        ValueError: a layout that is none of these, or a folder that is a link to outside.
    """
    place = DataFolder(root, follow_links=follow_links)
    folders, annotations = _find_splits(place)
    parts = {split: _label_by_folder(place, folder) for split, folder in folders.items()}
    if annotations is not None:
        parts["test"] = _read_annotations(place, annotations, _list_classes(place, folders["train"]))
    passed_over = sum((part.passed_over for part in parts.values()), Counter[str]())
    entries = [
        ImageEntry(split=split, id=path, class_name=name, problem=part.problems.get(path, ""))
        for split, part in parts.items()
        for path, name in part.labels.items()
    ]
    linked_folders = [path for part in parts.values() for path in part.linked_folders]
    return ImageListing(
        place=str(root),
        entries=entries,
        open_files=lambda: (root / entry.id for entry in entries),
        empty_classes=tuple(folder for part in parts.values() for folder in part.empty_classes),
        notes=(*_describe_passed_over(passed_over), *_describe_linked_folders(linked_folders)),
    )


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is hidden, or what a Mac adds to a zip file."""
    return name.startswith(".") or name == "__MACOSX"


def _find_splits(place: DataFolder) -> tuple[dict[str, Path], Path | None]:
    """Return split -> folder of its class folders, and the file of Tiny-ImageNet's test labels if there is one."""
    root = place.root
    if not (root / "train").is_dir():
        return {"all": root}, None
    folders = {"train": place.require_inside(root / "train")}
    for name in VALIDATION_FOLDERS:
        if (root / name).is_dir():
            folders["validation"] = place.require_inside(root / name)
    # Tiny-ImageNet publishes no test labels, so its annotated validation images are the test set; so is val/ in any
    # layout without test/.
    annotations = folders.get("validation", root) / "val_annotations.txt"
    if annotations.is_file():
        return {"train": folders["train"]}, place.require_inside(annotations)
    if (root / "test").is_dir():
        folders["test"] = place.require_inside(root / "test")
    elif "validation" in folders:
        folders["test"] = folders.pop("validation")
    else:
        raise ValueError(f"{root} has train/ but neither test/ nor val/; add one, or name {root / 'train'} to split it")
    return folders, None


def _list_classes(place: DataFolder, folder: Path) -> list[str]:
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
    for name in names:
        place.require_inside(folder / name)
    return names


def _label_by_folder(place: DataFolder, folder: Path) -> LabelledFiles:
    """Label the images below each class folder with its name."""
    part = LabelledFiles()
    for name in _list_classes(place, folder):
        n_before = len(part.labels)
        files, linked_folders = list_files(folder / name)
        part.linked_folders += [path.relative_to(place.root).as_posix() for path in linked_folders]
        for path in files:
            if path.name.lower().endswith(SUFFIXES):
                image_id = path.relative_to(place.root).as_posix()
                part.labels[image_id] = name
                if fault := place.find_link_fault(path):
                    part.problems[image_id] = fault
            elif path.name.lower() not in SYSTEM_FILES:
                part.passed_over[path.suffix.lower() or path.name] += 1
        if len(part.labels) == n_before:
            part.empty_classes.append((folder / name).relative_to(place.root).as_posix())
    part.labels = dict(sorted(part.labels.items()))
    return part


def list_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files at any depth, except hidden ones and those in hidden folders.

    Args:
        folder: where to begin; it may be a link.

    Returns:
        The files, and the linked folders, which are not entered: they may lead anywhere, also back.

    Raises:
        OSError: a folder cannot be read; its images would be missing without a word.
    """
    files, linked_folders, folders = list[Path](), list[Path](), [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        continue
                    # scandir knows the kind of most entries without another look at each
                    if not entry.is_dir():
                        files.append(Path(entry.path))
                    else:
                        (linked_folders if entry.is_symlink() else folders).append(Path(entry.path))
        except OSError as error:
            raise OSError(
                f"folder {error.filename} cannot be read ({error.strerror}); check its permissions"
            ) from error
    return files, linked_folders


def _describe_linked_folders(folders: list[str]) -> list[str]:
    """Say which folders were not entered."""
    if not folders:
        return []
    shown = ", ".join(folders[:3]) + (", ..." if len(folders) > 3 else "")
    return [f"{format_count(len(folders), 'linked folder')} below class folders passed over: {shown}"]


def _describe_passed_over(suffixes: Counter[str]) -> list[str]:
    """Say which files are no images by their names; an iPhone's .heic is one of them."""
    if not suffixes:
        return []
    kinds = ", ".join(f"{count} {suffix}" for suffix, count in suffixes.most_common(5))
    kinds += ", ..." if len(suffixes) > 5 else ""
    if suffixes.total() == 1:
        return [f"1 file passed over, by its name no image: {kinds}"]
    return [f"{format_count(suffixes.total(), 'file')} passed over, by their names no images: {kinds}"]


def _read_annotations(place: DataFolder, annotations: Path, classes: list[str]) -> LabelledFiles:
    """Read labels from lines "file <tab> class <tab> box" beside a folder named images."""
    part, known = LabelledFiles(), set(classes)
    images = place.require_inside(annotations.parent / "images")
    text = read_text(annotations, "restore it from the publisher's archive")
    for number, line in enumerate(text.splitlines(), start=1):
        columns = line.split("\t")
        if len(columns) < 2 or columns[1] not in known:
            raise ValueError(
                f"{annotations} line {number} must be 'file<tab>class of train/', got {line[:200]!r}; fix it"
            )
        path = join_name(images, columns[0], f"{annotations} line {number}", is_plain=True)
        image_id = path.relative_to(place.root).as_posix()
        if image_id in part.labels:
            raise ValueError(f"{annotations} line {number} names {columns[0]!r} again; keep one of the lines")
        part.labels[image_id] = columns[1]
        if fault := place.find_link_fault(path):
            part.problems[image_id] = fault
    if not part.labels:
        raise ValueError(f"{annotations} names no image; restore it from the publisher's archive")
    part.labels = dict(sorted(part.labels.items()))
    return part
