"""Lists of example ids that a user writes: .txt, .json or .npz."""

import json
import zipfile
from pathlib import Path

import numpy as np


def read_id_list(path: str, option: str = "--members") -> np.ndarray:
    """Ids of the examples that a model was trained on.

    Args:
        path: .txt with one id a line, .json with a list, or .npz with one array (or one named ids).
        option: whose value it is, for messages.

    Returns:
        str [n].

    Raises:
        FileNotFoundError: no such file.
        ValueError: another ending, another content, or no id.
    """
    place = Path(path)
    if not place.is_file():
        raise FileNotFoundError(f"there is no file of ids at {path!r}; give {option} a .txt, .json or .npz")
    readers = {".txt": _ids_in_text, ".json": _ids_in_json, ".npz": _ids_in_npz}
    if place.suffix not in readers:
        raise ValueError(f"ids are read from .txt, .json or .npz, got {place.name!r}; write one id a line as .txt")
    ids = readers[place.suffix](place)
    if not ids or not all(isinstance(one, str) for one in ids):
        found = f"one is {next(one for one in ids if not isinstance(one, str))!r}" if ids else "there are none"
        raise ValueError(f"{path} must hold ids such as 'train/00042', but {found}; examples.parquet lists all of them")
    return np.array(ids, dtype=np.str_)


def _ids_in_text(place: Path) -> list[str]:
    """One id a line; empty lines say nothing."""
    try:
        text = place.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is no text ({error.reason} at byte {error.start}); write one id a line") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _ids_in_json(place: Path) -> list[str]:
    """A list."""
    try:
        ids = json.loads(place.read_text())
    except ValueError as error:
        raise ValueError(f"{place} is no JSON ({error}); write a list of ids") from None
    if not isinstance(ids, list):
        raise ValueError(f"{place} must hold a list of ids, got {type(ids).__name__}; write [...]")
    return ids


def _ids_in_npz(place: Path) -> list[str]:
    """The array named ids, or the only one."""
    try:
        with np.load(place, allow_pickle=False) as archive:
            names = archive.files
            name = "ids" if "ids" in names or len(names) != 1 else names[0]
            ids: list[str] = archive[name].ravel().tolist()
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{place} holds no plain array named ids ({error}); save it with numpy.savez(..., ids=...)"
        ) from None
    return ids
