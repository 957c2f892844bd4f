"""Import a bank that was trained elsewhere, from arrays of its membership masks and its models' predictions.

Masks and margins as researchers publish them (datamodels' masks and margins, Feldman & Zhang's correctness) become
shards like our own, so every score that the given numbers allow is computed from them. What is missing is left out:
without logits there is no attack, without a test set no accuracy on it. Nothing is guessed. Arrays are read without
pickles, and checked row by row.
"""

import hashlib
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from memscore.analysis.external_arrays import ExternalArrays
from memscore.data.array_files import read_archive
from memscore.data.datasets import load_dataset
from memscore.data.splits import Splits, build_examples_table
from memscore.pipeline.attacks import check_attacks
from memscore.pipeline.bank_reports import EstimateResult
from memscore.pipeline.runner import score_bank
from memscore.pipeline.train_bank import TrainingSummary
from memscore.store.manifest import IMPORTED, Manifest
from memscore.store.parquet import hash_columns
from memscore.store.shards import SHARD_COLUMNS, format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, count_whole_blocks
from memscore.units import format_count

MAX_CLASSES = 1_000_000
SIGNALS = ("logit_confidence", "gap", "top_gap")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedArrays:
    """The arrays that were read.

    Attributes:
        member: bool or numbers [M, n].
        columns: for each shard column one array, or two: [M, n] and [M, t].
        n_train: n.
        n_test: t, or 0.
    """

    member: np.ndarray
    columns: dict[str, list[np.ndarray]]
    n_train: int
    n_test: int


def read_arrays(source: ExternalArrays) -> LoadedArrays:
    """Read the arrays, memory-mapped where the file allows, and check that they are of the same models and examples."""
    member = read_array(source.member)
    if member.ndim != 2 or 0 in member.shape:
        raise ValueError(f"{source.member} must be [models, train examples], got {list(member.shape)}")
    models, n = member.shape
    # one file with train and then test columns, or two files; all arrays must end up equally wide
    columns: dict[str, list[np.ndarray]] = {}
    widths: dict[str, int] = {}
    for name in ("correct", *SIGNALS):
        files: tuple[str, ...] = getattr(source, name)
        if not files:
            continue
        if len(files) > 2:
            raise ValueError(f"--{name} takes a file for train and one for test, got {len(files)}")
        # [M, n] or [M, n + t] in one file, or [M, n] and [M, t] in two: a second file is of test examples only
        parts = [read_array(file) for file in files]
        for file, part in zip(files, parts, strict=True):
            if part.ndim != 2 or len(part) != models:
                raise ValueError(
                    f"{file} is {list(part.shape)}, but {source.member} has {format_count(models, 'model')}: all "
                    "arrays are "
                    "[models, examples] with the same models in the same order"
                )
        width = sum(part.shape[1] for part in parts)
        if width < n or (len(parts) == 2 and parts[0].shape[1] != n):
            raise ValueError(
                f"{files[0]} has values of {format_count(parts[0].shape[1], 'example')}, but {source.member} has "
                f"{format_count(n, 'train example')}"
            )
        columns[name], widths[name] = parts, width
    # correctness is given, or the sign of the gap shows it; given twice, the two might disagree
    if "correct" not in columns and "gap" not in columns:
        raise ValueError(
            "neither --correct nor --gap is given, and no other number shows whether a prediction was correct; of two "
            "classes the logit confidence is the gap: give it as --gap too"
        )
    if "correct" in columns and "gap" in columns:
        raise ValueError(
            "--correct and --gap are both given, but a prediction is correct where its gap is above 0: leave one out"
        )
    if len(set(widths.values())) > 1:
        raise ValueError(f"all arrays must be of the same examples, got {widths} of them")
    return LoadedArrays(member=member, columns=columns, n_train=n, n_test=next(iter(widths.values())) - n)


def read_array(file: str) -> np.ndarray:
    """Read one array of a .npy file, memory-mapped, or of a .npz file; never a pickle, which could run code."""
    # file.npz:NAME; a colon elsewhere belongs to the path
    stem, _, name = file.partition(".npz:") if ".npz:" in file else (file, "", "")
    path = Path(f"{stem}.npz" if name else stem).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"there is no array at {file!r}; give a .npy file, a .npz file, or file.npz:NAME")

    def choose(names: Sequence[str]) -> Sequence[str]:
        if name not in names and (name or len(names) != 1):
            example = f": name one, as in {path.name}:{names[0]}" if names else "; save it with numpy.savez"
            raise ValueError(f"cannot read {file}: it holds {', '.join(names[:8]) or 'no array'}{example}")
        return [name or names[0]]

    if zipfile.is_zipfile(path):
        [array] = read_archive(path, choose).values()
        return array
    # NumPy raises many kinds of errors for a file that is no array, is cut off, or holds objects that need a pickle
    try:
        mapped: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"cannot read {file}: {reason}; save it with numpy.save") from None
    return mapped


def build_shard(source: ExternalArrays, arrays: LoadedArrays, m: int) -> dict[str, np.ndarray]:
    """Build the columns of one model's shard; ValueError names the file and the place of an invalid value."""
    # an imported bank has no validation examples: rows are train, then test, of which no model is a member
    rows = arrays.n_train + arrays.n_test
    member = np.zeros(rows, bool)
    member[: arrays.n_train] = to_booleans(arrays.member[m], source.member, m)
    if not member.any():
        raise ValueError(f"{source.member}: model {m} was trained on nothing; leave it out of all arrays")
    numbers = {name: np.concatenate([part[m] for part in parts]) for name, parts in arrays.columns.items()}
    signals = {name: to_finite_float32(numbers[name], getattr(source, name), m) for name in SIGNALS if name in numbers}
    has_correct = "correct" in numbers
    correct = to_booleans(numbers["correct"], source.correct[0], m) if has_correct else signals["gap"] > 0
    return {"row": np.arange(rows, dtype=np.int32), "member": member, "correct": correct, **signals}


def to_booleans(values: np.ndarray, file: str, m: int) -> np.ndarray:
    """Convert one model's row of 0 and 1, of any numeric type, to bool [n]."""
    if values.dtype.kind not in "biuf" or not ((values == 0) | (values == 1)).all():
        raise ValueError(f"{file}: model {m} has values other than 0 and 1; masks and correctness are booleans")
    return values.astype(bool)


def to_finite_float32(values: np.ndarray, files: tuple[str, ...], m: int) -> np.ndarray:
    """Convert one model's row to float32 [n]; ValueError for what is not finite, also beyond float32's range."""
    if values.dtype.kind not in "fiu":
        raise ValueError(f"{files[0]} holds {values.dtype}, not numbers")
    # a float64 beyond the range becomes infinite here, and is refused below with its value
    with np.errstate(over="ignore"):
        numbers: np.ndarray = values.astype(np.float32)
    nonfinite = np.flatnonzero(~np.isfinite(numbers))
    if len(nonfinite):
        row = nonfinite[0]
        raise ValueError(
            f"{files[0]}: model {m} has {values[row]} for example {row}; a bank holds finite float32 numbers only: "
            "leave that model out of all arrays"
        )
    return numbers


def require_one_per_example(values: np.ndarray, file: str, kinds: str, rows: int) -> np.ndarray:
    """Return the values if they are [rows] of one of the dtype kinds; else raise ValueError."""
    if values.shape != (rows,) or values.dtype.kind not in kinds:
        raise ValueError(
            f"{file} must hold one value for each of {rows} examples, train then test, got {values.dtype} "
            f"{list(values.shape)}"
        )
    return values


def import_bank(source: ExternalArrays) -> EstimateResult:
    """Write a shard for each model and score the bank; stored models with the same content are not written again.

    Everything is checked before the store is created: ValueError for arrays that do not fit each other, numbers that
    are not finite, an attack that needs other numbers, or a store of another bank.
    """
    arrays = read_arrays(source)
    attacks = select_attacks(source)
    check_attacks(attacks, arrays.columns, validation=0)
    splits = None
    if source.data is not None:
        splits = load_dataset(source.data, folder=source.folder, validation=0.0, follow_links=source.follow_links)
    # Every row of every array is read twice, to check it and to write it: holding all of them would need the memory
    # that memory-mapped files save, and an invalid last model must not leave half a bank.
    examples = build_examples(source, arrays, splits)
    models = range(len(arrays.member))
    for m in models:
        build_shard(source, arrays, m)  # all of them are checked before anything is written
    arm = infer_arm(source, arrays)
    require_balanced(arrays.member, arm, source.member)
    manifest = build_manifest(arrays, examples, splits)
    store = Store.create(source.store, manifest, examples, splits.origin if splits else None)
    with store.lock():
        name = f"{IMPORTED}-{arm.name}"
        record = {"name": name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None}
        store.add_arm(record)
        for m in models:
            write_model(store, name, m, build_shard(source, arrays, m))
        training = TrainingSummary(shards={name: store.find_valid_shards(name)})
        return score_bank(store, splits, training, attacks=attacks)


def write_model(store: Store, arm: str, m: int, columns: dict[str, np.ndarray]) -> None:
    """Store one model, or raise ValueError if another one is stored in its place."""
    name = format_model_name(arm, m)
    # a receipt like a trained model's, with what is known of it; the receipt first, so that no shard is without one
    n, member, correct = store.manifest.split_sizes[0], columns["member"], columns["correct"]
    groups = {"members": correct[member], "left_out": correct[:n][~member[:n]], "test": correct[n:]}
    accuracy = {group: float(hits.mean()) if len(hits) else None for group, hits in groups.items()}
    receipt = {"model": name, "n_members": int(member.sum()), "diverged": False, "accuracy": accuracy}
    store.write_receipt(name, receipt | {"seconds": None, "worker": None, "device": None})
    if not store.write_shard(name, arm, columns) and store.read_shard_digest(arm, m) != hash_columns(columns):
        raise ValueError(
            f"model {m} is in {store.folder.display_name} with other content; models are added after the stored ones, "
            "in the same order; give another store for another bank"
        )


def infer_arm(source: ExternalArrays, arrays: LoadedArrays) -> Arm:
    """Return how the subsets were drawn, from the user's options and the masks."""
    share = float(np.mean([np.mean(row) for row in arrays.member]))
    keep = round(share, 2) if source.keep is None else source.keep
    if abs(keep - share) > 0.05:
        raise ValueError(f"{source.member} keeps {share:.3f} of the examples, not --keep {keep}; leave it out")
    arm = Arm(design=source.design, keep=keep, block=source.block)
    count_whole_blocks(len(arrays.member), arm)
    return arm


def require_balanced(member: np.ndarray, arm: Arm, file: str) -> None:
    """Raise ValueError if the masks are not as the exact design says: leave-one-out attacks would leak membership."""
    if arm.design != "exact":
        return
    block = arm.models_per_block
    for start in range(0, len(member), block):
        counts = np.asarray(member[start : start + block], bool).sum(0)
        if (counts != round(arm.keep * block)).any():
            row = int(np.flatnonzero(counts != round(arm.keep * block))[0])
            raise ValueError(
                f"{file} is not exact in blocks of {block}: models {start} to {start + block - 1} hold example {row} "
                f"{counts[row]} times, not {round(arm.keep * block)}; use --design iid"
            )


def build_examples(source: ExternalArrays, arrays: LoadedArrays, splits: Splits | None) -> pa.Table:
    """Build the examples table, from the data set if it is named, else from labels and ids where they are given."""
    # from the data set, which knows labels and ids itself; slice, since arrays may have no test examples
    n, t = arrays.n_train, arrays.n_test
    if splits is not None:
        if len(splits.train) != n or t not in {0, len(splits.test)}:
            raise ValueError(
                f"{source.data} has {len(splits.train)} train and {len(splits.test)} test examples, the arrays {n} and "
                f"{t}; leave out --data if they are of other examples"
            )
        examples = build_examples_table(splits).slice(0, n + t)
        require_same_order(source, examples)
        return examples
    # else each as far as it is given: null labels, and names that are made from the position
    labels = (
        None
        if source.labels is None
        else require_one_per_example(read_array(source.labels), source.labels, "iu", n + t)
    )
    # there are as many classes as the largest label says, whether or not examples have them
    if labels is not None and (is_outside := (labels < 0) | (labels >= MAX_CLASSES)).any():
        row = int(np.flatnonzero(is_outside)[0])
        raise ValueError(
            f"{source.labels} has the label {labels[row]} in row {row}; labels are 0 .. K-1, below {MAX_CLASSES:,}: "
            "number them so"
        )
    names = [f"train/{i:05d}" for i in range(n)] + [f"test/{i:05d}" for i in range(t)]
    if source.ids is not None:
        names = [str(name) for name in require_one_per_example(read_array(source.ids), source.ids, "iuU", n + t)]
        if len(set(names)) < len(names):
            raise ValueError(f"{source.ids} names an example twice; ids are unique over train and test")
    label = pa.nulls(n + t, pa.int64()) if labels is None else pa.array(labels.astype(np.int64))
    return pa.table({
        "row": pa.array(np.arange(n + t, dtype=np.int32)),
        "id": pa.array(names, pa.string()),
        "split": pa.array(["train"] * n + ["test"] * t, pa.string()),
        "label": label,
        "label_true": label,
        "cluster": pa.nulls(n + t, pa.int32()),
    })


def require_same_order(source: ExternalArrays, examples: pa.Table) -> None:
    """Raise ValueError if labels or ids that are given beside a data set are not its own, row by row."""
    for option, file, kinds, column in (("--labels", source.labels, "iu", "label"), ("--ids", source.ids, "iuU", "id")):
        if file is None:
            continue
        given = require_one_per_example(read_array(file), file, kinds, len(examples)).tolist()
        own = examples[column].to_pylist()
        rows = [row for row, pair in enumerate(zip(given, own, strict=True)) if type(pair[1])(pair[0]) != pair[1]]
        if rows:
            row = rows[0]
            raise ValueError(
                f"{option} and --data {source.data} differ in {len(rows)} of {len(own)} rows: row {row} is "
                f"{given[row]!r} in {file} and {own[row]!r} in the data; the arrays are of other examples or in "
                "another order: put the columns of all arrays in the data's order, or leave out --data"
            )


def describe_order(source: ExternalArrays) -> str:
    """Say how far it is known that arrays and data are in one order; empty without data."""
    if source.data is None:
        return ""
    checked = [option for option, file in (("--labels", source.labels), ("--ids", source.ids)) if file is not None]
    if checked:
        return f"order: every row of {' and '.join(checked)} is that of --data {source.data}"
    return (
        f"order: taken on trust, column i of the arrays as example i of --data {source.data}: ids, labels and pictures "
        "are those of other examples if it is not; --labels or --ids of the arrays would be compared"
    )


def build_manifest(arrays: LoadedArrays, examples: pa.Table, splits: Splits | None) -> Manifest:
    """Build the manifest of an imported bank: its data as far as given, and the names of the given columns."""
    # Correctness is always stored, if need be from the gap. Without a data set, the hash of ids and labels identifies
    # the examples, so that another import into the same store must be of the same ones.
    given = [name for name in SHARD_COLUMNS if name in arrays.columns or name in {"member", "correct"}]
    labels = [label for label in examples["label"].to_pylist() if label is not None]
    ids_and_labels = [examples["id"].to_pylist(), examples["label"].to_pylist()]
    digest = hashlib.sha256(json.dumps(ids_and_labels).encode()).hexdigest()
    return Manifest(
        fingerprint=splits.fingerprint if splits else digest,
        data=splits.name if splits else IMPORTED,
        split_sizes=(arrays.n_train, 0, arrays.n_test),
        n_classes=splits.n_classes if splits else max(labels, default=-1) + 1,
        input_shape=splits.input_shape if splits else (0, 0, 0),
        mean=splits.mean if splits else (),
        std=splits.std if splits else (),
        label_changes=dict(splits.label_changes) if splits else {},
        architecture=IMPORTED,
        recipe={"columns": given},
        precision="float32",
        seed=0,
    )


def select_attacks(source: ExternalArrays) -> tuple[str, ...]:
    """Return the requested attacks, or LiRA on the best of the given numbers."""
    if source.attacks is not None:
        return source.attacks
    return ("lira",) if source.logit_confidence else ("lira-gap",) if source.gap else ()
