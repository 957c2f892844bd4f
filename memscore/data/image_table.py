"""List images named in a table: a .csv or .jsonl of files and labels, or metadata.csv beside the images.

Columns are found by their names; a table without a header is file, label and perhaps split. Ids are the file names as
written, rows in the order of the table.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from memscore.data.data_folder import DataFolder, join_name, normalize_name
from memscore.data.image_files import ImageEntry, ImageListing
from memscore.data.image_folder import SUFFIXES, VALIDATION_FOLDERS
from memscore.data.text_files import read_text
from memscore.units import format_count, format_value

COLUMNS = {
    "file": (
        "file",
        "file_name",
        "filename",
        "path",
        "file_path",
        "filepath",
        "image",
        "image_path",
        "img",
        "image_file",
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target"),
    "split": ("split", "subset", "set", "partition"),
}
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys((*VALIDATION_FOLDERS, "dev"), "validation"),
}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
DELIMITERS = ",;\t|"
ADVICE = "save it as CSV UTF-8"

Row = tuple[int, str, str, str]
"""Line in the table, file, label, split (empty where there is no such column)."""


def list_image_table(path: Path, split: str = "", *, place: DataFolder | None = None) -> ImageListing:
    """List the images of a table.

    Args:
        path: a .csv, .tsv or .jsonl file.
        split: the split of all rows; empty takes the column split, or makes one set.
        place: the folder that links may not leave; None is the table's own.

    Returns:
        The images; files are relative to the table's folder.

    Raises:
        ValueError: the columns or splits are not recognized, a file is named twice, or a name leads out of the folder.
    """
    place = place or DataFolder(path.parent)
    rows = _read_rows(path)
    files = [join_name(path.parent, file, f"{path} line {number}") for number, file, _, _ in rows]
    entries = [
        replace(entry, problem=entry.problem or place.find_link_fault(file))
        for entry, file in zip(_build_entries(path, rows, split), files, strict=True)
    ]
    return ImageListing(place=str(path), entries=entries, open_files=lambda: iter(files))


def find_metadata(place: DataFolder) -> dict[str, Path]:
    """Find the metadata.csv or metadata.jsonl of a folder or of its splits, where they name labels.

    Args:
        place: a folder.

    Returns:
        Split -> file, "" for one of the folder itself; empty where there is none.

    Raises:
        ValueError: such a file is a link that leads out of the folder, or lies behind one.
    """
    root = place.root
    folders = {"": root} | {split: root / name for name, split in SPLIT_NAMES.items() if (root / name).is_dir()}
    found = {
        split: path for split, folder in folders.items() for name in METADATA_NAMES if (path := folder / name).is_file()
    }
    for path in found.values():
        place.require_inside(path)
    # Captions beside class folders are no labels, and the folders are read.
    return {split: path for split, path in found.items() if _has_labels(path)}


def list_metadata_folder(place: DataFolder, metadata: dict[str, Path]) -> ImageListing:
    """List the images of a folder with metadata files; ids are paths relative to the folder.

    Args:
        place: the folder.
        metadata: find_metadata's result.

    Returns:
        The images.

    Raises:
        ValueError: see list_image_table; or train without test and validation.
    """
    root = place.root
    if "" in metadata:
        return list_image_table(metadata[""], place=place)
    if "test" not in metadata and "validation" in metadata:
        metadata = {("test" if split == "validation" else split): path for split, path in metadata.items()}
    if not {"train", "test"} <= set(metadata):
        raise ValueError(
            f"{root} has a metadata file for {', '.join(metadata)} only; it needs train/ and test/ (or val/), or one "
            "metadata.csv beside all images"
        )
    listings = {split: list_image_table(path, split, place=place) for split, path in metadata.items()}
    entries = [
        replace(entry, split=split, id=f"{metadata[split].parent.name}/{entry.id}")
        for split, listing in listings.items()
        for entry in listing.entries
    ]
    return ImageListing(
        place=str(root),
        entries=entries,
        open_files=lambda: chain.from_iterable(listing.open_files() for listing in listings.values()),
    )


def _has_labels(path: Path) -> bool:
    try:
        names: Iterable[str] = _read_json_lines(path)[0][1] if path.suffix == ".jsonl" else _read_cells(path)[0][1]
    except (ValueError, IndexError):
        return True  # reading it will say what is wrong
    return any(name.strip().lower() in COLUMNS["label"] for name in names)


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Read the lines of a table that are not empty, with their numbers; the delimiter gives the first most columns."""
    text = read_text(path, ADVICE)
    first = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader([first])
    try:
        delimiter = max(DELIMITERS, key=lambda character: len(next(csv.reader([first], delimiter=character), [])))
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num} is no CSV ({error}); fix it") from error


def _read_json_lines(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Read the objects of a .jsonl file with the numbers of their lines."""
    rows = []
    for number, line in enumerate(read_text(path, ADVICE).splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:  # objects may be nested without end
                raise ValueError(f"{path} line {number} is no JSON ({error}); write one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} must be an object such as {{'file_name': ..., 'label': ...}}")
            rows.append((number, {str(key): "" if value is None else str(value) for key, value in row.items()}))
    return rows


def _read_rows(path: Path) -> list[Row]:
    """Read file, label and split of each row."""
    if path.suffix.lower() == ".jsonl":
        objects = _read_json_lines(path)
        header = list(objects[0][1]) if objects else []
        places = {column: _find_column(path, header, column) for column in COLUMNS}
        _require_columns(path, header, places, len(objects))
        # by key and not by place: objects may lack some, and a list of all keys for each row could be of any size
        keys = ["" if (at := places[column]) is None else header[at] for column in COLUMNS]
        texts = ([row.get(key, "") if key else "" for key in keys] for _, row in objects)
        return [(number, file, label, split) for (number, _), (file, label, split) in zip(objects, texts, strict=True)]
    lines = _read_cells(path)
    header = lines[0][1] if lines else []
    if _is_header(header):
        lines = lines[1:]
    elif lines and 2 <= len(header) <= 3 and header[0].lower().endswith(SUFFIXES):
        header = ["file", "label", "split"][: len(header)]
    places = {column: _find_column(path, header, column) for column in COLUMNS}
    _require_columns(path, header, places, len(lines))
    rows = []
    for number, cells in lines:
        if len(cells) < len(header):
            raise ValueError(
                f"{path} line {number} has {format_count(len(cells), 'column')}, its first line {len(header)}; fix it"
            )
        file, label, split = ("" if (at := places[column]) is None else cells[at] for column in COLUMNS)
        rows.append((number, file, label, split))
    return rows


def _require_columns(path: Path, header: Sequence[str], places: Mapping[str, int | None], n_rows: int) -> None:
    """Raise ValueError for a table without a column of files or labels, or without rows."""
    if not n_rows or places["file"] is None or places["label"] is None:
        lacking = [column for column in ("file", "label") if places[column] is None]
        first = format_value([cell[:40] for cell in header[:20]]) + (
            "" if len(header) <= 20 else f" and {len(header) - 20} more"
        )
        problem = f"has no column for {' and '.join(lacking)}: its first line is {first}" if lacking else "has no rows"
        raise ValueError(f"{path} {problem}; name the columns file and label, and perhaps split (train, val, test)")


def _is_header(cells: Sequence[str]) -> bool:
    names = {cell.lower() for cell in cells}
    return bool(names & set(COLUMNS["file"]) or names & set(COLUMNS["label"]))


def _find_column(path: Path, header: Sequence[str], column: str) -> int | None:
    """Find the only column of a kind by its name; "file" before "path" where a table has both."""
    names = [name.lower() for name in header]
    places = [names.index(name) for name in COLUMNS[column] if name in names]
    if len(places) > 1 and column != "file":
        raise ValueError(
            f"{path} has several columns for {column}: {', '.join(header[place] for place in places)}; keep one"
        )
    return places[0] if places else None


def _build_entries(path: Path, rows: Iterable[Row], split: str) -> list[ImageEntry]:
    """Make the entries, and refuse what makes the table unclear; a single missing label is one image's problem."""
    entries, lines = [], dict[str, int]()
    for number, file, label, written in rows:
        key = normalize_name(file)
        if key in lines:
            raise ValueError(f"{path} names {file!r} in lines {lines[key]} and {number}; keep one of them")
        lines[key] = number
        if written and written.lower() not in SPLIT_NAMES:
            known = ", ".join(SPLIT_NAMES)
            raise ValueError(f"{path} line {number} has the split {written!r}; write one of {known}")
        problem = "" if label else f"no label in line {number}"
        part = split or (SPLIT_NAMES[written.lower()] if written else "all")
        entries.append(ImageEntry(split=part, id=file or f"line {number}", class_name=label, problem=problem))
    parts = {entry.split for entry in entries}
    if parts == {"train", "validation"}:  # as in a folder
        parts = {"train", "test"}
        entries = [replace(entry, split="test" if entry.split == "validation" else "train") for entry in entries]
    if not split and parts != {"all"} and not ({"train", "test"} <= parts and "all" not in parts):
        raise ValueError(
            f"{path} has rows of the splits {', '.join(sorted(parts)).replace('all', 'none')}; it needs train and test "
            "(or val) in every row, or no split at all"
        )
    return entries
