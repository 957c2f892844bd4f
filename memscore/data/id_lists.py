"""Read lists of example ids from text, tables, JSON and arrays, and match them with the ids of a data set."""

import csv
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from memscore.data.array_files import read_archive
from memscore.data.parquet_files import read_columns, read_schema
from memscore.data.text_array import make_text_array
from memscore.data.text_files import read_text
from memscore.reading_limit import require_memory

ID_COLUMNS = ("id", "ids", "file", "filename", "file_name", "path", "filepath", "file_path", "image", "image_id")
"""Names of the column of a table that has the ids, the first of them that is there is taken."""

MEMBER_COLUMNS = ("member", "is_member", "members")
LISTED_BYTES = 64
"""What Python adds to a value in a list."""
FALSE_WORDS = {"false", "0", "no", "f", "n", "0.0"}
ADVICE = "write one id a line as .txt"
KINDS = ".txt, .csv, .tsv, .json, .npz or .parquet"


@dataclass(frozen=True, kw_only=True, eq=False)
class MatchedIds:
    """Ids of a list as the data set has them.

    Attributes:
        ids: str [n], in the list's order; those that the data set has not are as the list has them.
        notes: what was done to match them, a line each.
    """

    ids: np.ndarray
    notes: tuple[str, ...] = ()


def has_list_ending(path: str) -> bool:
    """Return whether a name has the ending of a file of ids."""
    return Path(path).suffix.lower() in _READERS


def read_id_list(path: str, option: str = "--members") -> np.ndarray:
    """Read ids, str [n], from a file: one a line, a column of a table, a JSON list or an array.

    Args:
        path: .txt (one per line), .csv or .tsv (a column of ID_COLUMNS, or the only one), .json (a list), .npz (one
            array, or one named ids) or .parquet (a column, as .csv).
        option: of the command line, for messages.

    Returns:
        The ids in the file's order. Of a .csv of one column without a known name the first line too, which
        match_ids takes for a header if it is no id.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: of another kind, damaged, without ids, or a table that marks some rows as no members.
    """
    file = Path(path)
    if not file.is_file():
        found = ", which is a folder" if file.is_dir() else ""
        raise FileNotFoundError(f"there is no file of ids at {path!r}{found}; give {option} a {KINDS} file")
    if not has_list_ending(path):
        raise ValueError(f"ids are read from {KINDS}, got {file.name!r}; write one id a line as .txt")
    ids = _READERS[file.suffix.lower()](file)
    if not ids or not all(isinstance(example_id, str) for example_id in ids):
        problem = (
            f"one is {next(example_id for example_id in ids if not isinstance(example_id, str))!r}"
            if ids
            else "there are none"
        )
        raise ValueError(
            f"{path} must hold ids such as 'train/00042', but {problem}; examples.parquet lists all of them"
        )
    return make_text_array(ids, f"the ids of {path}")


def match_ids(ids: np.ndarray, known: Collection[str], *, may_have_header: bool = False) -> MatchedIds:
    """Match ids with those of a data set, also where they are paths of files with other folders before them.

    Ids that are known stay. Where some are not, the same folders are taken off or put before all of the ids, if exactly
    one way of that makes all of them known; else they stay as they are.

    Args:
        ids: str [n].
        known: the data set's ids.
        may_have_header: the first id may be the header of a column.

    Returns:
        The ids, and notes on what was changed.

    >>> match_ids(np.array(["data/cat/1.jpg", "data/dog/1.jpg"]), ["cat/1.jpg", "dog/1.jpg"]).ids.tolist()
    ['cat/1.jpg', 'dog/1.jpg']
    """
    known, notes, given = set(known), [], ids.tolist()
    if any("\\" in name and name not in known for name in given):  # as Windows writes paths
        given = [name.replace("\\", "/") for name in given]
    if may_have_header and len(given) > 1 and not _find_folders(given, known) and _find_folders(given[1:], known):
        notes.append(f"the first line {given[0]!r} is no id, and was taken for a header")
        given = given[1:]
    ways = _find_folders(given, known)
    if len(ways) == 1 and ways[0] != ("", ""):
        taken_off, put_before = ways[0]
        given = [put_before + name.removeprefix(taken_off) for name in given]
        change = f"{taken_off!r} was taken off the beginning of" if taken_off else f"{put_before!r} was put before"
        notes.append(f"{change} all ids, which are then those of the data set")
    repeated = len(given) - len(set(given))
    if repeated:
        notes.append(f"{repeated} ids are named more than once and count once")
    return MatchedIds(ids=np.array(given, dtype=np.str_), notes=tuple(notes))


def read_matching_ids(path: str, known: Collection[str], option: str = "--members") -> MatchedIds:
    """Read a list of ids, as read_id_list does, and match it with a data set's ids, as match_ids does; no id alone."""
    if path in known and not Path(path).is_file():
        raise ValueError(f"{option} takes a file of ids, and {path!r} is an id; write it into a .txt file")
    may_have_header = Path(path).suffix.lower() in {".csv", ".tsv"}
    return match_ids(read_id_list(path, option), known, may_have_header=may_have_header)


def _find_folders(given: Sequence[str], known: Collection[str]) -> list[tuple[str, str]]:
    """List the ways (folders to take off, to put before) that make all ids known; one way, empty, if they are known."""
    if all(name in known for name in given):
        return [("", "")]
    parts = given[0].split("/")
    shorter = ["".join(f"{part}/" for part in parts[:count]) for count in range(1, len(parts))]
    longer = [name.removesuffix(given[0]) for name in known if name.endswith(f"/{given[0]}")]
    ways = [(folders, "") for folders in shorter if all(name.startswith(folders) for name in given)]
    ways += [("", folders) for folders in longer]
    return [(off, before) for off, before in ways if all(before + name.removeprefix(off) in known for name in given)]


def _read_text(file: Path) -> list[str]:
    """Read one id a line; quotes around all of them are no part of the ids."""
    lines = [line.strip() for line in read_text(file, ADVICE).splitlines() if line.strip()]
    quoted = all(len(line) > 1 and line[0] == line[-1] and line[0] in "\"'" for line in lines)
    return [line[1:-1] for line in lines] if quoted else lines


def _read_csv(file: Path) -> list[str]:
    """Read the column of ids of a table with commas, semicolons or tabs; with or without a header."""
    text = read_text(file, ADVICE)
    first = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text), delimiter=delimiter)
    try:
        rows = [[cell.strip() for cell in row] for row in reader if any(row)]
    except csv.Error as error:
        raise ValueError(f"{file} line {reader.line_num} is no CSV ({error}); fix it, or {ADVICE}") from error
    if not rows:
        return []
    header, width = [cell.lower() for cell in rows[0]], max(map(len, rows))
    if not set(header) & set(ID_COLUMNS):
        if width == 1:
            return [row[0] for row in rows]
        raise ValueError(f"{file} {_format_columns(rows[0])}")
    places = {name: k for k, name in enumerate(header) if name in (*ID_COLUMNS, *MEMBER_COLUMNS)}
    columns = {name: [row[k] if k < len(row) else "" for row in rows[1:]] for name, k in places.items()}
    return [cell for cell in _take_ids(file, columns) if cell]


def _read_parquet(file: Path) -> list[str]:
    """Read the column of ids of a Parquet table."""
    names = read_schema(file, ADVICE).names
    if len(names) == 1:
        return read_columns(file, names, ADVICE)[names[0]]
    needed = [name for name in names if name.lower() in (*ID_COLUMNS, *MEMBER_COLUMNS)]
    if not {name.lower() for name in needed} & set(ID_COLUMNS):
        raise ValueError(f"{file} {_format_columns(names)}")
    columns = read_columns(file, needed, ADVICE)
    return _take_ids(file, {name.lower(): values for name, values in columns.items()})


def _take_ids(file: Path, columns: Mapping[str, list[Any]]) -> list[Any]:
    """Take the column of ids; raise ValueError where another column says that some rows are no members."""
    for name in (name for name in MEMBER_COLUMNS if name in columns):
        if n_false := sum(str(value).lower() in FALSE_WORDS for value in columns[name]):
            raise ValueError(
                f"{file} has a column {name!r} that is false for {n_false} rows; write the ids of the others only"
            )
    return columns[next(name for name in ID_COLUMNS if name in columns)]


def _format_columns(names: Sequence[str]) -> str:
    listed = ", ".join(repr(name[:40]) for name in names[:8])
    return f"has the columns {listed}, and none that is called id, file, filename or path; name that of the ids id"


def _read_json(file: Path) -> list[str]:
    text = read_text(file, ADVICE)
    try:
        ids = json.loads(text)
    except (ValueError, RecursionError) as error:  # lists may be nested without end
        raise ValueError(f"{file} is no JSON ({error}); write a list of ids") from None
    if not isinstance(ids, list):
        raise ValueError(f"{file} must hold a list of ids, got {type(ids).__name__}; write [...]")
    return ids


def _read_npz(file: Path) -> list[str]:
    """Read the array named ids, or the only one."""

    def choose(names: Sequence[str]) -> Sequence[str]:
        if "ids" not in names and len(names) != 1:
            listed = ", ".join(repr(name[:40]) for name in names[:8]) or "no array"
            raise ValueError(f"{file} holds {listed}, and none named ids; save it with numpy.savez(..., ids=...)")
        return ["ids"] if "ids" in names else names

    [ids] = read_archive(file, choose).values()
    # Python adds to each value what a list takes
    require_memory(LISTED_BYTES * ids.size + ids.nbytes, f"the ids of {file}")
    listed: list[str] = ids.ravel().tolist()
    return listed


_READERS: dict[str, Callable[[Path], list[str]]] = {
    **dict.fromkeys((".csv", ".tsv"), _read_csv),
    **dict.fromkeys((".parquet", ".pq"), _read_parquet),
    **{".txt": _read_text, ".json": _read_json, ".npz": _read_npz},
}
