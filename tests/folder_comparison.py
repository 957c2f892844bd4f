"""Compare two folders of stores, file by file and value by value, for tests/same_results.py."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SEAL = "metadata file_sha256"  # over all bytes of a Parquet file, so it varies where one of its columns does
CONTENT = "metadata content_sha256"  # over the values of a Parquet file
RECORD = "record_sha256"  # over a JSON record
COSTS = ("rrt_wall", "run_wall_s", "wall_s")  # of a trial, in seconds and over those of retraining
WORK = ("at", "began", "eta_s", "line", "pid", "rate_per_s", "run")  # of a record of progress; the line has seconds
VARIES: dict[str, tuple[str, ...]] = {
    "*/progress.json": (*WORK, RECORD),
    "*/receipts/*.json": ("seconds", "train_s", "worker", RECORD),
    "*/failures/*.json": ("traceback", "model", RECORD),
    "*models.parquet": ("seconds", "worker", SEAL),
    "store/reports/summary.json": (
        "seconds_an_original",
        "proxy_seconds_an_original.*",
        "event_seconds_an_original.*",
        RECORD,
    ),
    "store/reports/fidelity_k0.500.json": (
        "standings.bank_s",
        "standings.training_s",
        "standings.rows.*.seconds",
        "standings.rows.*.of_bank",
        "standings.rows.*.of_training",
        RECORD,
    ),
    "store/reports/audit-*.parquet": (SEAL,),
    "status.json": ("store", "last_s", *(f"beat.{name}" for name in WORK)),
    "*/trials/*-said.parquet": (),
    "*/trials/*-cost.parquet": ("wall_s", CONTENT, SEAL),
    "*/trials/*.parquet": (*COSTS, CONTENT, SEAL),
    "*/attempts/*.json": ("wall_s", RECORD),
    "*/sweeps/*/trials.parquet": (*COSTS, SEAL),
    "*/sweeps/*/chosen.json": ("chosen.*.tuning_s", RECORD),
    "*/experiments/*/rows.parquet": (*COSTS, "round_wall_s", SEAL),
    "*/experiments/*/findings.json": ("spent.tuning_s", RECORD),
}
"""Pattern of files -> patterns of entries whose values differ between two runs of one commit. That they are there is
compared all the same, and so are the types of columns. The first pattern that a file matches counts."""

ADDED: tuple[str, ...] = (
    "*/data.json",
    "*/run.log",
    "*/reports/audit-*.json",
    "*/duplicates.parquet",
    "*/reports/roc_*.parquet",
    "*/rebuilt/*.parquet",
    "*/reports/inversion.png",
    "*/trials/*-population.json",
    "*/trials/*-said.parquet",
    "*/trials/measures.json",
    *(f"*/scores/inversion_{name}.parquet" for name in ("psnr_fitted", "ssim_fitted", "retrieval", "percentile")),
)
"""Files that this tree writes on purpose and the earlier commits of tests/same_results.py do not. Their contents are
compared once both trees write them; the patterns go when the commits move past the one that added the file."""

AUDIT = "store/reports/audit-model-orthogonal-k0.500.parquet"
ADDED_ENTRIES = (
    ("status.json", "precision"),
    ("status.json", "total_bytes"),
    ("status.json", "engines.single"),
    ("*/reports/summary.json", "arms.*.curves"),
    (AUDIT, "metadata trusted"),
    (AUDIT, "metadata reasons"),
    *(("*/receipts/*.json", name) for name in ("events_s", "evaluation_events_s", "rebuilt")),
)
"""Entries that this tree adds on purpose to files that both trees write: pattern of the files, and the entry."""

PICTURES = "*.png"
"""Files of which only the name is compared: the words in them are prose, and may change."""


@dataclass(frozen=True)
class Difference:
    """One entry that is not the same.

    Attributes:
        file: its path.
        entry: column, key, tensor or metadata; "" for the file itself.
        earlier: value in the one folder.
        now: value in the other.
    """

    file: str
    entry: str
    earlier: str
    now: str

    def __str__(self) -> str:
        where = f"{self.file}: {self.entry}" if self.entry else self.file
        return f"{where}: {shorten(self.earlier)} became {shorten(self.now)}"


@dataclass
class Comparison:
    """What came of comparing two folders.

    Attributes:
        files: how many were compared.
        values: how many values were compared in them.
        varying: how many entries were passed over, since VARIES names them.
        differences: all that is not the same.
        used: (files, entry) of VARIES that named something.
    """

    files: int = 0
    values: int = 0
    varying: int = 0
    differences: list[Difference] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)


MISSING = "(missing)"
Entries = dict[str, Any]
"""Name of each entry of a file -> its value: a string or number, or an array of values."""


def list_files(folder: Path) -> list[str]:
    """Return the relative paths of all files in a folder, sorted."""
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in files if "__pycache__" not in path.parts)


def compare(
    earlier: Path, now: Path, paths: Iterable[str] | None = None, varies: Mapping[str, Sequence[str]] | None = None
) -> Comparison:
    """Compare two folders.

    Args:
        earlier: the one folder.
        now: the other.
        paths: relative paths of the files to compare; all files of both folders if None.
        varies: pattern of paths -> patterns of entries that are compared by name alone; VARIES if None.

    Returns:
        What differs.
    """
    found = Comparison()
    varies = VARIES if varies is None else varies
    for path in sorted({*list_files(earlier), *list_files(now)} if paths is None else set(paths)):
        here, there = earlier / path, now / path
        found.files += 1
        if there.is_file() and not here.is_file() and any(fnmatchcase(path, pattern) for pattern in ADDED):
            continue
        if not (here.is_file() and there.is_file()):
            states = ["a file" if each.is_file() else MISSING for each in (here, there)]
            found.differences.append(Difference(path, "", *states))
        elif not fnmatchcase(path, PICTURES):
            compare_files(path, here.read_bytes(), there.read_bytes(), varies, found)
    return found


def compare_files(
    path: str, earlier: bytes, now: bytes, varies: Mapping[str, Sequence[str]], found: Comparison
) -> None:
    """Compare two files, and add what differs to what was found."""
    read = next((read for pattern, read in READERS.items() if fnmatchcase(path, pattern)), read_bytes)
    try:
        entries = [read(content) for content in (earlier, now)]
    except Exception as error:  # whatever the parsers of damaged files raise
        found.differences.append(Difference(path, "", "files that can be read", f"{type(error).__name__}: {error}"))
        return
    files = next((pattern for pattern in varies if fnmatchcase(path, pattern)), "")
    passed = [(files, entry) for entry in varies.get(files, ())]
    for name in dict.fromkeys([*entries[0], *entries[1]]):
        values = [each.get(name, MISSING) for each in entries]
        if values[0] is MISSING and any(
            fnmatchcase(path, pattern) and name == added for pattern, added in ADDED_ENTRIES
        ):
            continue
        named = [pair for pair in passed if fnmatchcase(name, pair[1])]
        if named and not any(value is MISSING for value in values):
            found.used.update(named)
            found.varying += 1
            continue
        found.values += size_of(values[0])
        found.differences += [Difference(path, *each) for each in differing(name, *values)]


def differing(name: str, earlier: Any, now: Any) -> Iterator[tuple[str, str, str]]:
    """Yield name, earlier and present value of an entry that differs; of arrays the first such value."""
    if {type(earlier), type(now)} == {list, np.ndarray}:  # one of them has nulls
        earlier, now = ([*each] if isinstance(each, list) else each.tolist() for each in (earlier, now))
    if isinstance(earlier, np.ndarray) and isinstance(now, np.ndarray):
        if earlier.shape != now.shape or earlier.dtype != now.dtype:
            yield f"{name}, shape", f"{earlier.dtype}{list(earlier.shape)}", f"{now.dtype}{list(now.shape)}"
        elif earlier.tobytes() != now.tobytes():
            places = np.flatnonzero((as_bytes(earlier) != as_bytes(now)).any(1))
            at = places[0]
            where = f"{name}, value {at} ({len(places)} of {earlier.size} differ)"
            yield where, repr(earlier.reshape(-1)[at].item()), repr(now.reshape(-1)[at].item())
    elif isinstance(earlier, list) and isinstance(now, list):
        if len(earlier) != len(now):
            yield f"{name}, rows", str(len(earlier)), str(len(now))
            return
        rows = [row for row, pair in enumerate(zip(earlier, now, strict=True)) if repr(pair[0]) != repr(pair[1])]
        if rows:
            where = f"{name}, row {rows[0]} ({len(rows)} of {len(earlier)} differ)"
            yield where, repr(earlier[rows[0]]), repr(now[rows[0]])
    elif type(earlier) is not type(now) or repr(earlier) != repr(now):
        yield name, text(earlier), text(now)


def as_bytes(values: np.ndarray) -> np.ndarray:
    """Return the bytes of each value, uint8 [n, bytes], so that 0.0 is not -0.0 and NaN is NaN."""
    flat = np.ascontiguousarray(values).reshape(-1)
    return flat.view(np.uint8).reshape(len(flat), values.dtype.itemsize)


def text(value: Any) -> str:
    """Return a value as a message shows it."""
    if isinstance(value, np.ndarray) or (isinstance(value, list) and value):
        return f"{len(value)} values"
    return MISSING if value is MISSING else repr(value)


def size_of(value: Any) -> int:
    """Return how many values an entry has."""
    return value.size if isinstance(value, np.ndarray) else len(value) if isinstance(value, list) else 1


def shorten(value: str) -> str:
    """Return a value that fits on a line."""
    return value if len(value) <= 100 else f"{value[:60]}...{value[-30:]}"


def read_json(content: bytes) -> Entries:
    """Read every leaf of a JSON file by its nested key, such as arms.0.suffix."""
    entries: Entries = {}

    def collect(key: str, value: Any) -> None:
        members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        if isinstance(value, (dict, list)) and not value:
            entries[key] = value
        elif isinstance(value, (dict, list)):
            for name, member in members:
                collect(f"{key}.{name}" if key else str(name), member)
        else:
            entries[key] = value

    collect("", json.loads(content))
    return entries


def read_parquet(content: bytes) -> Entries:
    """Read type, metadata and values of each column of a Parquet file, and the metadata of the file."""
    file = pq.ParquetFile(pa.BufferReader(content))
    table = file.read(use_threads=False)
    entries: Entries = {"columns": ", ".join(table.column_names)}
    entries |= {f"metadata {key}": value for key, value in decoded(table.schema.metadata).items()}
    of_file = decoded(file.metadata.metadata)
    entries |= {f"metadata {key}": value for key, value in of_file.items() if key != "ARROW:schema"}
    for column in table.schema:
        entries[f"{column.name}, type"] = f"{column.type}{'' if column.nullable else ' not null'}"
        entries |= {f"{column.name}, metadata {key}": value for key, value in decoded(column.metadata).items()}
        entries[column.name] = column_values(table[column.name])
    return entries


def column_values(column: pa.ChunkedArray) -> Any:
    """Return an array of numbers where a column has no nulls, for speed; else a list."""
    values, kind = column.combine_chunks(), column.type
    while pa.types.is_fixed_size_list(kind) and not values.null_count:
        values, kind = values.flatten(), kind.value_type
    primitive = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    if primitive and not values.null_count:
        return values.to_numpy(zero_copy_only=False)
    return column.to_pylist()


def decoded(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Return metadata as text."""
    return {key.decode(): value.decode() for key, value in (metadata or {}).items()}


TENSOR_TYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def read_safetensors(content: bytes) -> Entries:
    """Read name, type, shape and values of each tensor, and the metadata."""
    end = 8 + int.from_bytes(content[:8], "little")
    entries: Entries = {}
    for name, header in json.loads(content[8:end]).items():
        if name == "__metadata__":
            entries |= {f"metadata {key}": value for key, value in header.items()}
            continue
        start, stop = header["data_offsets"]
        entries[f"{name}, type"] = f"{header['dtype']}{header['shape']}"
        kind = TENSOR_TYPES.get(header["dtype"], "u1")
        entries[name] = np.frombuffer(content[end + start : end + stop], dtype=kind)
    return entries


def read_bytes(content: bytes) -> Entries:
    """Read any other file as it is."""
    return {"bytes": np.frombuffer(content, dtype=np.uint8)}


READERS: dict[str, Callable[[bytes], Entries]] = {
    "*.json": read_json,
    "*.parquet": read_parquet,
    "*.safetensors": read_safetensors,
}
