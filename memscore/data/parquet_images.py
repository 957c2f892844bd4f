"""List images inside Parquet files, as Hugging Face's datasets has them: a column of bytes and a column of labels.

Files whose names begin with train, test, validation or valid are those splits; other names make one set. Ids are a
column of that name, else split and position, such as train/00042.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from memscore.data.data_folder import DataFolder, join_name
from memscore.data.image_files import ImageEntry, ImageListing
from memscore.data.image_table import COLUMNS, SPLIT_NAMES
from memscore.data.parquet_files import iterate_columns, read_columns, read_schema

IMAGE_COLUMNS = ("image", "img", "images", "image_bytes", "bytes", "picture", "jpg", "png")
LABEL_COLUMNS = (*COLUMNS["label"], "fine_label", "cls")
BATCH_ROWS = 64  # a Parquet file's images are in memory only so many at a time
ADVICE = "write it again"


def list_parquet_images(place: Path, files: Sequence[Path], folder: DataFolder) -> ImageListing:
    """List the images of Parquet files.

    Args:
        place: the file or folder, for messages.
        files: at least one.
        folder: that they are in; a row may name a file in it instead of holding its bytes.

    Returns:
        The images.

    Raises:
        ValueError: a file cannot be read, has no column of images or labels, or the splits cannot be recognized.
    """
    splits = _find_splits(place, files)
    ordered = [(split, file) for split, names in splits.items() for file in names]
    columns = {file: _find_columns(file) for _, file in ordered}
    names = next((names for _, _, names in columns.values() if names), None)
    entries: list[ImageEntry] = []
    for split, split_files in splits.items():
        for file in split_files:
            # default ids count on over the files of a split, as they would in one file
            start = sum(entry.split == split for entry in entries)
            entries += _list_entries(file, split, start, columns[file][1], names)
    if len({entry.id for entry in entries}) < len(entries):
        raise ValueError(f"{place} has a column id with a value that occurs twice; make them unique or drop the column")
    return ImageListing(
        place=str(place),
        entries=entries,
        open_files=lambda: (image for _, file in ordered for image in _read_images(file, columns[file][0], folder)),
        class_order=names,
    )


def _find_splits(place: Path, files: Sequence[Path]) -> dict[str, list[Path]]:
    """Group files by the split that their names, or those of their folders, begin with."""
    splits: dict[str, list[Path]] = {}
    for file in files:
        names = [file.stem, *([file.parent.name] if file.parent != place else [])]
        # train-00000-of-00002.parquet, or train/0000.parquet
        words = [re.split(r"[^a-z]", name.lower())[0] for name in names]
        split = next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), "all")
        splits.setdefault(split, []).append(file)
    if len(files) == 1:
        return {"all": list(files)}
    if set(splits) == {"train", "validation"}:  # as in a folder
        splits["test"] = splits.pop("validation")
    if set(splits) in ({"train"}, {"test"}):
        return {"all": list(files)}
    if set(splits) != {"all"} and not ({"train", "test"} <= set(splits) and "all" not in splits):
        shown = ", ".join(file.name for file in files[:6])
        raise ValueError(
            f"{place} has Parquet files of which the splits are unclear: {shown}; name them train-*, test-* and "
            "perhaps validation-*, or give one configuration's folder"
        )
    return splits


def _find_columns(file: Path) -> tuple[str, str, tuple[str, ...] | None]:
    """Return the columns of images and labels, and the class names that Hugging Face keeps in the file's metadata."""
    schema = read_schema(file, ADVICE)
    images = [name for name in IMAGE_COLUMNS if name in schema.names]
    labels = [name for name in LABEL_COLUMNS if name in schema.names]
    # a text column could be taken for the path of a file anywhere
    usable = [name for name in images if _holds_bytes(schema.field(name).type)]
    if not usable or not labels:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in schema)
        raise ValueError(
            f"{file} needs a column image with the bytes of image files and a column label, it has {kinds[:300]}; "
            "rename its columns, or write a function that returns images and labels and give module:function"
        )
    return usable[0], labels[0], _read_class_names(file, schema, labels[0])


def _read_class_names(file: Path, schema: pa.Schema, column: str) -> tuple[str, ...] | None:
    """Read the names that Hugging Face's datasets write into the metadata; a ClassLabel has those of its numbers."""
    try:
        value: Any = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} has metadata of Hugging Face that are no JSON ({error}); {ADVICE}") from None
    for key in ("info", "features", column, "names"):
        value = value.get(key) if isinstance(value, Mapping) else None
    if value and not (isinstance(value, list) and all(isinstance(name, str) for name in value)):
        raise ValueError(f"{file} must name its classes by a list of texts, got {str(value)[:100]}; {ADVICE}")
    return tuple(value) if value else None


def _holds_bytes(kind: pa.DataType) -> bool:
    """Tell whether a column holds image files: bytes, or Hugging Face's struct of bytes and path."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _holds_bytes(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _list_entries(
    file: Path, split: str, start: int, label_column: str, names: tuple[str, ...] | None
) -> list[ImageEntry]:
    """List one file's rows; a label below 0 marks an image without one."""
    schema = read_schema(file, ADVICE)
    id_column = next((name for name in ("id", "image_id") if name in schema.names), None)
    columns = read_columns(file, [label_column, *([id_column] if id_column else [])], ADVICE)
    labels = columns[label_column]
    ids = columns[id_column] if id_column else [f"{split}/{start + row:05d}" for row in range(len(labels))]
    entries = []
    for row_id, label in zip(ids, labels, strict=True):
        is_missing = label is None or label == "" or (isinstance(label, int) and label < 0)
        if names and isinstance(label, int) and label >= len(names):
            raise ValueError(f"{file} has the label {label}, and its metadata name {len(names)} classes; fix one")
        class_name = names[label] if names and isinstance(label, int) and not is_missing else str(label)
        problem = f"no label ({label})" if is_missing else ""
        entries.append(ImageEntry(split=split, id=str(row_id), class_name=class_name, problem=problem))
    return entries


def _read_images(file: Path, column: str, folder: DataFolder) -> Iterator[Path | bytes]:
    """Read the bytes of one file's images, a few rows at a time; a row may name a file instead."""
    row = 0
    for batch in iterate_columns(file, [column], ADVICE, BATCH_ROWS):
        for value in batch.column(0):  # one by one, since a small page may unpack to many large values
            row += 1
            content = value.as_py()
            if isinstance(content, dict):
                path, content = content.get("path"), content.get("bytes")
                if content is None and path:
                    yield _find_named_file(file, str(path), f"{file} row {row}", folder)
                    continue
            yield content or b""


def _find_named_file(file: Path, name: str, place: str, folder: DataFolder) -> Path:
    """Find the file that a row names, beside the Parquet file."""
    return folder.require_inside(join_name(file.parent, name, place))
