"""Arrays that somebody else wrote about a bank: read without pickles, and checked row by row."""

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from memscore.cli.options import Maybe, Several

SIGNALS = ("logit_confidence", "gap", "top_gap")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where somebody else's bank is. Arrays are .npy files, .npz files with one array, or file.npz:NAME."""

    store: Annotated[str, tyro.conf.Positional]
    """folder or URL of the store that is begun or added to"""
    member: str
    """[models, train examples] of 0 and 1: who was trained on what"""
    correct: Several = ()
    """[models, train examples] of 0 and 1: who was right; as for the three below, test examples may follow as further
    columns or in a second file. May be left out with --gap, whose sign says it"""
    gap: Several = ()
    """logit of the label minus the largest other (margins)"""
    logit_confidence: Several = ()
    """logit of the label minus logsumexp of the others, that is log(p / (1 - p))"""
    top_gap: Several = ()
    """largest logit minus the second largest"""
    labels: Maybe[str] = None
    """whole numbers, one an example: train, then test"""
    ids: Maybe[str] = None
    """names, one an example (default: train/00000, ...)"""
    data: Maybe[str] = None
    """the data set by name or path, as estimate takes it, in its own order and without a validation set: gives labels,
    ids and the pictures of the report"""
    folder: Maybe[str] = None
    """where a downloadable data set lies (default: $MEMSCORE_DATA or ~/.cache/memscore/data)"""
    design: Literal["iid", "exact"] = "iid"
    """exact: in each --block of models every example is in equally many, which is checked"""
    block: Maybe[int] = None
    """of an exact design (default: 64)"""
    keep: Maybe[float] = None
    """share of the examples that a model saw (default: of the masks, to two digits)"""
    attacks: Maybe[tuple[str, ...]] = None
    """as estimate's (default: lira, or lira-gap where only gaps are given)"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays:
    """A source, read.

    Attributes:
        member: bool or numbers [M, n].
        columns: by the name of a shard column one or two arrays [M, n] and [M, t].
        n_train: n.
        n_test: t, or 0.
    """

    member: np.ndarray
    columns: dict[str, list[np.ndarray]]
    n_train: int
    n_test: int


def read_arrays(source: Source) -> Arrays:
    """The arrays of a source, memory-mapped where the file allows, with their shapes checked."""
    member = read_array(source.member)
    if member.ndim != 2 or 0 in member.shape:
        raise ValueError(f"{source.member} must be [models, train examples], got {list(member.shape)}")
    models, n = member.shape
    columns: dict[str, list[np.ndarray]] = {}
    widths: dict[str, int] = {}
    for name in ("correct", *SIGNALS):
        files: tuple[str, ...] = getattr(source, name)
        if not files:
            continue
        if len(files) > 2:
            raise ValueError(f"--{name} takes a file for train and one for test, got {len(files)}")
        parts = [read_array(file) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.ndim != 2 or len(part) != models:
                raise ValueError(
                    f"{file} is {list(part.shape)}, but {source.member} has {models} models: all arrays are "
                    "[models, examples] with the same models in the same order"
                )
        width = sum(part.shape[1] for part in parts)
        if width < n or (len(parts) == 2 and parts[0].shape[1] != n):
            raise ValueError(
                f"{files[0]} says something of {parts[0].shape[1]} examples, but {source.member} has {n} train examples"
            )
        columns[name], widths[name] = parts, width
    if "correct" not in columns and "gap" not in columns:
        raise ValueError(
            "neither --correct nor --gap is given, and no other number says whether a model was right; of two classes "
            "the logit confidence is the gap: give it as --gap too"
        )
    if "correct" in columns and "gap" in columns:
        raise ValueError("--correct and --gap are both given, but a model is right where its gap is above 0: leave one")
    if len(set(widths.values())) > 1:
        raise ValueError(f"all arrays must be of the same examples, got {widths} of them")
    return Arrays(member=member, columns=columns, n_train=n, n_test=next(iter(widths.values())) - n)


def read_array(file: str) -> np.ndarray:
    """One array; never a pickle."""
    path, _, name = file.partition(".npz:") if ".npz:" in file else (file, "", "")
    place = Path(f"{path}.npz" if name else path).expanduser()
    if not place.is_file():
        raise FileNotFoundError(f"there is no array at {file!r}; give a .npy file, a .npz file, or file.npz:NAME")
    try:
        found = np.load(place, mmap_mode="r", allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        with found as archive:
            if name not in archive.files and (name or len(archive.files) != 1):
                raise ValueError(
                    f"it holds {', '.join(archive.files)}: say which, as in {place.name}:{archive.files[0]}"
                )
            array: np.ndarray = archive[name or archive.files[0]]
            return array
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {file}: {error}") from None


def shard_of(source: Source, arrays: Arrays, m: int) -> dict[str, np.ndarray]:
    """The columns of one model's shard; ValueError names the file and the place of what cannot be."""
    rows = arrays.n_train + arrays.n_test
    member = np.zeros(rows, bool)
    member[: arrays.n_train] = zeros_and_ones(arrays.member[m], source.member, m)
    if not member.any():
        raise ValueError(f"{source.member}: model {m} was trained on nothing; leave it out of all arrays")
    numbers = {name: np.concatenate([part[m] for part in parts]) for name, parts in arrays.columns.items()}
    found = {name: finite(numbers[name], getattr(source, name), m) for name in SIGNALS if name in numbers}
    given = "correct" in numbers
    right = zeros_and_ones(numbers["correct"], source.correct[0], m) if given else found["gap"] > 0
    return {"row": np.arange(rows, dtype=np.int32), "member": member, "correct": right, **found}


def zeros_and_ones(values: np.ndarray, file: str, m: int) -> np.ndarray:
    """Bool [n] of one model's row."""
    if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{file}: model {m} has values other than 0 and 1; masks and correctness are booleans")
    return values.astype(bool)


def finite(values: np.ndarray, files: tuple[str, ...], m: int) -> np.ndarray:
    """float32 [n] of one model's row."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{files[0]} holds {values.dtype}, not numbers")
    with np.errstate(over="ignore"):
        numbers: np.ndarray = values.astype(np.float32)
    bad = np.flatnonzero(~np.isfinite(numbers))
    if len(bad):
        raise ValueError(
            f"{files[0]}: model {m} says {values[bad[0]]} of example {bad[0]}; a bank holds finite float32 numbers "
            "only: leave that model out of all arrays"
        )
    return numbers


def one_each(values: np.ndarray, file: str, kinds: str, rows: int) -> np.ndarray:
    """[rows] of some kind."""
    if values.shape != (rows,) or values.dtype.kind not in kinds:
        raise ValueError(
            f"{file} must hold one value for each of {rows} examples, train then test, got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values
