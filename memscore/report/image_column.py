"""scores.parquet with an image column, as viewers of data sets open it: a struct of bytes and path in each row."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from memscore.data.splits import Splits
from memscore.report.thumbnails import encode_png, to_pixels

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""Type of the column, that of the features Image of Hugging Face's data sets."""
ROWS = 1000
"""Rows of a row group: viewers read one at a time."""
FEATURES = {
    "int8": "int8",
    "int16": "int16",
    "int32": "int32",
    "int64": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
    "bool": "bool",
}


def plan_image_column(path: str) -> Path:
    """Check where the file is to be written: it must not exist, and its folder must."""
    target = Path(path).expanduser()
    if target.suffix.lower() != ".parquet":
        raise ValueError(f"--image-column {path} is a Parquet table; give a name that ends in .parquet")
    if target.exists() or target.is_symlink():
        raise ValueError(f"--image-column {path} exists, and would be overwritten; give another name, or remove it")
    if not target.parent.is_dir():
        raise ValueError(f"--image-column {path}: there is no folder {target.parent}; make it, or name another")
    return target


def write_image_column(target: Path, table: pa.Table, splits: Splits, class_names: Sequence[str]) -> int:
    """Write a table of scores with the images of its rows in the first column, part by part; return its rows."""
    # not the whole file in memory: a million images do not fit
    temporary = target.with_name(f".{target.name}.part")
    schema = build_schema(table.schema, class_names)
    try:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for start in range(0, table.num_rows, ROWS):
                part = table.slice(start, ROWS)
                images = encode_images(splits.train.images[start : start + ROWS], part["id"].to_pylist())
                columns = [pa.array(images, IMAGE), *(part[name].combine_chunks() for name in part.column_names)]
                writer.write_table(pa.table(columns, schema=schema), row_group_size=ROWS)
        temporary.rename(target)
    finally:
        temporary.unlink(missing_ok=True)
    return int(table.num_rows)


def encode_images(images: np.ndarray, ids: Sequence[str]) -> Iterator[dict[str, bytes | str]]:
    """Yield each image as PNG, and a name of a file for it."""
    for pixels, name in zip(to_pixels(images), ids, strict=True):
        path = str(name)
        yield {"bytes": encode_png(pixels), "path": path if path.lower().endswith(".png") else f"{path}.png"}


def build_schema(schema: pa.Schema, class_names: Sequence[str]) -> pa.Schema:
    """Build the schema with the image column, and with metadata that say which columns are images and classes."""
    # names of classes only where they tell classes apart, which readers require
    features: dict[str, object] = {"image": {"_type": "Image"}}
    for field in schema:
        features[field.name] = {"dtype": FEATURES.get(str(field.type), str(field.type)), "_type": "Value"}
        if (
            field.name in {"label", "label_true"}
            and str(field.type) == "int64"
            and len(set(class_names)) == len(class_names)
        ):
            features[field.name] = {"names": list(class_names), "_type": "ClassLabel"}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    return pa.schema([pa.field("image", IMAGE), *schema]).with_metadata(metadata)
