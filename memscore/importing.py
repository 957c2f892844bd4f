"""A bank that somebody else trained, from arrays of who was in which model and what the models said.

Masks and margins as researchers publish them (datamodels' masks and margins, Feldman & Zhang's correctness) become
shards like our own, so every score that the given numbers allow is made from them. What they lack stays out: without
logits there is no attack, without a test set no accuracy on it. Nothing is guessed.
"""

import hashlib
import json

import numpy as np
import pyarrow as pa

from memscore.data.datasets import load
from memscore.data.splits import Splits, examples_table
from memscore.foreign import Arrays, Source, one_each, read_array, read_arrays, shard_of
from memscore.pipeline.attacks import refuse_attacks
from memscore.pipeline.runner import Outcome, finish
from memscore.pipeline.train_bank import Filled
from memscore.store.manifest import IMPORTED, Manifest
from memscore.store.parquet import content_sha256
from memscore.store.shards import SHARD_COLUMNS, model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, whole_blocks


def import_bank(source: Source) -> Outcome:
    """Write a shard for each model and score the bank; models on file with the same content are left alone.

    Args:
        source: the arrays.

    Returns:
        What the bank says; everything in it is in the store too.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: arrays that do not fit each other, numbers that are not finite, an attack that needs other numbers
            or validation examples, or a store of something else.
    """
    arrays = read_arrays(source)
    attacks = attacks_for(source)
    refuse_attacks(attacks, arrays.columns, validation=0)
    splits = None if source.data is None else load(source.data, folder=source.folder, validation=0.0)
    examples = examples_of(source, arrays, splits)
    models = range(len(arrays.member))
    for m in models:
        shard_of(source, arrays, m)  # all of them are looked at before anything is written
    arm = arm_of(source, arrays)
    refuse_unbalanced(arrays.member, arm, source.member)
    store = Store.create(source.store, manifest_of(arrays, examples, splits), examples)
    with store.lock():
        name = f"{IMPORTED}-{arm.name}"
        record = {"name": name, "design": arm.design, "keep": arm.keep, "block": arm.block, "clusters": None}
        store.add_arm(record)
        for m in models:
            write_model(store, name, m, shard_of(source, arrays, m))
        filled = Filled(shards={name: store.finished(name)})
        return finish(store, splits, filled, attacks=attacks)


def write_model(store: Store, arm: str, m: int, columns: dict[str, np.ndarray]) -> None:
    """Publish one model, or see that the one on file is the same."""
    name = model_name(arm, m)
    n, inside, right = store.manifest.split_sizes[0], columns["member"], columns["correct"]
    groups = {"members": right[inside], "left_out": right[:n][~inside[:n]], "test": right[n:]}
    accuracy = {group: float(hits.mean()) if len(hits) else None for group, hits in groups.items()}
    receipt = {"model": name, "n_members": int(inside.sum()), "diverged": False, "accuracy": accuracy}
    store.write_receipt(name, receipt | {"seconds": None, "worker": None, "device": None})
    if not store.write_shard(name, arm, columns) and store.shard_digest(arm, m) != content_sha256(columns):
        raise ValueError(
            f"model {m} is in {store.folder.shown} with other content; models are added behind those that are there, "
            "in the same order; give another store for another bank"
        )


def arm_of(source: Source, arrays: Arrays) -> Arm:
    """How the subsets were drawn, as far as the user says and the masks show."""
    share = float(np.mean([np.mean(row) for row in arrays.member]))
    keep = round(share, 2) if source.keep is None else source.keep
    if abs(keep - share) > 0.05:
        raise ValueError(f"{source.member} keeps {share:.3f} of the examples, not --keep {keep}; leave it out")
    arm = Arm(design=source.design, keep=keep, block=source.block)
    whole_blocks(len(arrays.member), arm)
    return arm


def refuse_unbalanced(member: np.ndarray, arm: Arm, file: str) -> None:
    """An exact design must be what it says, or leave-one-out attacks would leak membership."""
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


def examples_of(source: Source, arrays: Arrays, splits: Splits | None) -> pa.Table:
    """One row an example, from the data if it is named, else from labels and ids where they are given."""
    n, t = arrays.n_train, arrays.n_test
    if splits is not None:
        if source.labels or source.ids:
            raise ValueError("--data gives labels and ids; leave out --labels and --ids")
        if len(splits.train) != n or t not in {0, len(splits.test)}:
            raise ValueError(
                f"{source.data} has {len(splits.train)} train and {len(splits.test)} test examples, the arrays {n} and "
                f"{t}; leave out --data if they are of other examples"
            )
        return examples_table(splits).slice(0, n + t)
    labels = None if source.labels is None else one_each(read_array(source.labels), source.labels, "iu", n + t)
    if labels is not None and (labels < 0).any():
        row = int(np.flatnonzero(labels < 0)[0])
        raise ValueError(f"{source.labels} has the label {labels[row]} in row {row}; labels are 0 .. K-1")
    names = [f"train/{i:05d}" for i in range(n)] + [f"test/{i:05d}" for i in range(t)]
    if source.ids is not None:
        names = [str(name) for name in one_each(read_array(source.ids), source.ids, "iuU", n + t)]
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


def manifest_of(arrays: Arrays, examples: pa.Table, splits: Splits | None) -> Manifest:
    """The identity of an imported bank: its data as far as it is known, and which numbers were given."""
    given = [name for name in SHARD_COLUMNS if name in arrays.columns or name in {"member", "correct"}]
    labels = [label for label in examples["label"].to_pylist() if label is not None]
    known = [examples["id"].to_pylist(), examples["label"].to_pylist()]
    own = hashlib.sha256(json.dumps(known).encode()).hexdigest()
    return Manifest(
        fingerprint=splits.fingerprint if splits else own,
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


def attacks_for(source: Source) -> tuple[str, ...]:
    """The attacks asked for, or the one that the given numbers allow."""
    if source.attacks is not None:
        return source.attacks
    return ("lira",) if source.logit_confidence else ("lira-gap",) if source.gap else ()
