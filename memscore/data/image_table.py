"""List images named in a table: a .csv or .jsonl of files and labels, or metadata.csv beside the images.

Columns are found by their names; a table without a header is file, label and perhaps split. Ids are the file names as
written, rows in the order of the table.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from memscore.data.image_files import ImageEntry, ImageListing
from memscore.data.image_folder import SUFFIXES, VALIDATION_FOLDERS
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

Row = tuple[int, str, str, str]
"""Line in the table, file, label, split (empty where there is no such column)."""


def list_image_table(path: Path, split: str = "") -> ImageListing:
    """List the images of a table.

    Args:
        path: a .csv, .tsv or .jsonl file.
        split: the split of all rows; empty takes the column split, or makes one set.

    Returns:
        The images; files are relative to the table's folder.

    Raises:
        ValueError: the columns or splits cannot be told, or a file is named twice.
    """
    rows = _read_rows(path)
    entries = _build_entries(path, rows, split)
    return ImageListing(
        place=str(path), entries=entries, open_files=lambda: (_find_file(path, file) for _, file, _, _ in rows)
    )


def _find_file(table: Path, file: str) -> Path:
    """Return the path of a file as written in a table, which may be Windows' with backslashes."""
    return table.parent / file.replace("\\", "/")


def find_metadata(root: Path) -> dict[str, Path]:
    """Find the metadata.csv or metadata.jsonl of a folder or of its splits, where they name labels.

    Args:
        root: a folder.

    Returns:
        Split -> file, "" for one of the folder itself; empty where there is none.
    """
    folders = {"": root} | {split: root / name for name, split in SPLIT_NAMES.items() if (root / name).is_dir()}
    found = {
        split: path for split, folder in folders.items() for name in METADATA_NAMES if (path := folder / name).is_file()
    }
    # Captions beside class folders are no labels, and the folders are read.
    return {split: path for split, path in found.items() if _has_labels(path)}


def list_metadata_folder(root: Path, metadata: dict[str, Path]) -> ImageListing:
    """List the images of a folder with metadata files; ids are paths relative to the folder.

    Args:
        root: the folder.
        metadata: find_metadata's result.

    Returns:
        The images.

    Raises:
        ValueError: see list_image_table; or train without test and validation.
    """
    if "" in metadata:
        return list_image_table(metadata[""])
    if "test" not in metadata and "validation" in metadata:
        metadata = {("test" if split == "validation" else split): path for split, path in metadata.items()}
    if not {"train", "test"} <= set(metadata):
        raise ValueError(
            f"{root} has a metadata file for {', '.join(metadata)} only; it needs train/ and test/ (or val/), or one "
            "metadata.csv beside all images"
        )
    listings = {split: list_image_table(path, split) for split, path in metadata.items()}
    entries = [
        ImageEntry(
            split=split,
            id=f"{metadata[split].parent.name}/{entry.id}",
            class_name=entry.class_name,
            problem=entry.problem,
        )
        for split, listing in listings.items()
        for entry in listing.entries
    ]
    return ImageListing(place=str(root), entries=entries, open_files=lambda: (root / entry.id for entry in entries))


def _has_labels(path: Path) -> bool:
    try:
        names = _read_json_lines(path)[0] if path.suffix == ".jsonl" else _read_cells(path)[0][1]
    except (ValueError, IndexError):
        return True  # reading it will say what is wrong
    return any(name.strip().lower() in COLUMNS["label"] for name in names)


def _read_text(path: Path) -> str:
    """Read text with or without a byte order mark, which tools of Windows write."""
    content = path.read_bytes()
    try:
        return content.decode("utf-16" if content[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is no text in UTF-8 ({error.reason} at byte {error.start}); save it as CSV UTF-8"
        ) from None


def _read_cells(path: Path) -> list[tuple[int, list[str]]]:
    """Read the lines of a table that are not empty, with their numbers; the delimiter gives the first most columns."""
    text = _read_text(path)
    first = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=lambda character: len(next(csv.reader([first], delimiter=character), [])))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        return [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise ValueError(f"{path} line {reader.line_num} is no CSV ({error}); fix it") from error


def _read_json_lines(path: Path) -> list[dict[str, str]]:
    rows = []
    for number, line in enumerate(_read_text(path).splitlines(), start=1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path} line {number} is no JSON ({error}); write one object a line") from None
            if not isinstance(row, dict):
                raise ValueError(f"{path} line {number} must be an object such as {{'file_name': ..., 'label': ...}}")
            rows.append({str(key): "" if value is None else str(value) for key, value in row.items()})
    return rows


def _read_rows(path: Path) -> list[Row]:
    """Read file, label and split of each row."""
    if path.suffix.lower() == ".jsonl":
        objects = _read_json_lines(path)
        header = list(objects[0]) if objects else []
        lines = [(number, [row.get(key, "") for key in header]) for number, row in enumerate(objects, start=1)]
    else:
        lines = _read_cells(path)
        header = lines[0][1] if lines else []
        if _is_header(header):
            lines = lines[1:]
        elif lines and 2 <= len(header) <= 3 and header[0].lower().endswith(SUFFIXES):
            header = ["file", "label", "split"][: len(header)]
    places = {column: _find_column(path, header, column) for column in COLUMNS}
    if not lines or places["file"] is None or places["label"] is None:
        lacking = [column for column in ("file", "label") if places[column] is None]
        problem = (
            f"has no column for {' and '.join(lacking)}: its first line is {format_value(header)}"
            if lacking
            else "has no rows"
        )
        raise ValueError(f"{path} {problem}; name the columns file and label, and perhaps split (train, val, test)")
    rows = []
    for number, cells in lines:
        if len(cells) < len(header):
            raise ValueError(
                f"{path} line {number} has {format_count(len(cells), 'column')}, its first line {len(header)}; fix it"
            )
        file, label, split = ("" if (at := places[column]) is None else cells[at] for column in COLUMNS)
        rows.append((number, file, label, split))
    return rows


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
        if file in lines:
            raise ValueError(f"{path} names {file!r} in lines {lines[file]} and {number}; keep one of them")
        lines[file] = number
        if written and written.lower() not in SPLIT_NAMES:
            known = ", ".join(SPLIT_NAMES)
            raise ValueError(f"{path} line {number} has the split {written!r}; write one of {known}")
        problem = "" if label else f"no label in line {number}"
        part = split or (SPLIT_NAMES[written.lower()] if written else "all")
        entries.append(ImageEntry(split=part, id=file or f"line {number}", class_name=label, problem=problem))
    parts = {entry.split for entry in entries}
    if parts == {"train", "validation"}:  # as in a folder
        parts = {"train", "test"}
        entries = [
            ImageEntry(
                split="test" if entry.split == "validation" else "train",
                id=entry.id,
                class_name=entry.class_name,
                problem=entry.problem,
            )
            for entry in entries
        ]
    if not split and parts != {"all"} and not ({"train", "test"} <= parts and "all" not in parts):
        raise ValueError(
            f"{path} has rows of the splits {', '.join(sorted(parts)).replace('all', 'none')}; it needs train and test "
            "(or val) in every row, or no split at all"
        )
    return entries
