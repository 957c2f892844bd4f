"""Read lists of example ids from .txt, .json and .npz files."""

import codecs
import json
import zipfile
from pathlib import Path

import numpy as np


def read_id_list(path: str, option: str = "--members") -> np.ndarray:
    """Read ids, str [n], from .txt (one per line), .json (a list) or .npz (one array, or one named ids)."""
    file = Path(path)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of ids at {path!r}; give {option} a .txt, .json or .npz")
    readers = {".txt": _read_text, ".json": _read_json, ".npz": _read_npz}
    if file.suffix not in readers:
        raise ValueError(f"ids are read from .txt, .json or .npz, got {file.name!r}; write one id a line as .txt")
    ids = readers[file.suffix](file)
    if not ids or not all(isinstance(example_id, str) for example_id in ids):
        problem = (
            f"one is {next(example_id for example_id in ids if not isinstance(example_id, str))!r}"
            if ids
            else "there are none"
        )
        raise ValueError(
            f"{path} must hold ids such as 'train/00042', but {problem}; examples.parquet lists all of them"
        )
    return np.array(ids, dtype=np.str_)


def _decode_text(file: Path) -> str:
    """Read text with or without a byte order mark, which tools of Windows write; UTF-16 only with one."""
    content = file.read_bytes()
    return content.decode("utf-16" if content[:2] in {codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE} else "utf-8-sig")


def _read_text(file: Path) -> list[str]:
    try:
        text = _decode_text(file)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no text ({error.reason} at byte {error.start}); write one id a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_json(file: Path) -> list[str]:
    try:
        ids = json.loads(_decode_text(file))
    except ValueError as error:
        raise ValueError(f"{file} is no JSON ({error}); write a list of ids") from None
    if not isinstance(ids, list):
        raise ValueError(f"{file} must hold a list of ids, got {type(ids).__name__}; write [...]")
    return ids


def _read_npz(file: Path) -> list[str]:
    """Read the array named ids, or the only one."""
    try:
        with np.load(file, allow_pickle=False) as archive:
            names = archive.files
            # Several arrays without one named ids raise the KeyError that becomes the message below.
            name = "ids" if "ids" in names or len(names) != 1 else names[0]
            ids: list[str] = archive[name].ravel().tolist()
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{file} holds no plain array named ids ({error}); save it with numpy.savez(..., ids=...)"
        ) from None
    return ids
