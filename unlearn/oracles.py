"""Originals and oracles: models trained on everything but a forget set, which may be empty; each is trained once.

theta_r of a forget set has the seed of the theta_o that it is paired with, so that two equal forget sets have one
oracle, and the oracle of an empty one is the original bit for bit.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.pool import Pool
from memscore.data.splits import Splits, split_halves
from memscore.pipeline.jobs import (
    ORACLE,
    ORIGINAL,
    OriginalJob,
    SharedData,
    format_original_name,
    is_original_stored,
    run_job,
)
from memscore.pipeline.train_bank import (
    ProgressCallback,
    TrainingSummary,
    build_shared_data,
    format_result,
    list_diverged_models,
    record_result,
)
from memscore.store.manifest import compute_original_key
from memscore.store.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialData(SharedData):
    """What every trial reads and none changes; rows = train, validation, test.

    Attributes:
        labels_true: int64 [N], as published.
        validation: int64, the rows of validation that algorithms may read.
        selection: int64, the rows of validation that selection reads, disjoint from those.
        test: int64.
    """

    labels_true: np.ndarray
    validation: np.ndarray
    selection: np.ndarray
    test: np.ndarray


def build_trial_data(splits: Splits, seed: int) -> TrialData:
    """A data set as trials read it; validation is halved by the root seed."""
    shared, n_train, held_out = build_shared_data(splits, None), len(splits.train), splits.validation
    first = (
        np.isin(held_out.ids, split_halves(held_out, seed)[0].ids)
        if len(held_out) > 1
        else np.zeros(len(held_out), bool)
    )
    return TrialData(
        images=shared.images,
        labels=shared.labels,
        labels_true=np.concatenate([part.labels_true for part in (splits.train, held_out, splits.test)]),
        validation=n_train + np.flatnonzero(first),
        selection=n_train + np.flatnonzero(~first),
        test=np.arange(len(splits.test)) + n_train + len(held_out),
    )


def build_reference_jobs(
    store: Store, forget_sets: Sequence[tuple[int, ...]], indices: Sequence[int], device: str
) -> list[OriginalJob]:
    """The jobs of all models that trials on these forget sets are measured against.

    Args:
        store: open.
        forget_sets: rows of the training set each.
        indices: of the originals, which are the seeds.
        device: "cpu" or "cuda".

    Returns:
        For each index the original, then the oracle of each forget set.
    """
    removed = [(), *dict.fromkeys(forget_sets)]
    return [OriginalJob(store=store.url, index=i, removed=rows, device=device) for i in indices for rows in removed]


def train_reference_models(
    store: Store,
    jobs: Sequence[OriginalJob],
    trial_data: TrialData,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
) -> TrainingSummary:
    """Train those of these models that the store lacks.

    Args:
        store: open.
        jobs: of `needed`.
        trial_data: the data.
        pool: where jobs run.
        progress: told how many models are done, of how many, and a line about the last one.

    Returns:
        What was trained, what failed and what diverged, now or before.
    """
    filled, names = TrainingSummary(), find_model_names(store, jobs)
    missing = find_missing_models(store, names)
    for done, (job, result) in enumerate(pool.run(run_job, missing, trial_data), start=1):
        record_result(store, filled, [names[job][0]], result)
        progress(done, len(missing), format_result(result))
    gone = find_diverged_models(store)
    filled.diverged = [name for name, _ in names.values() if name in gone]
    return filled


def find_model_names(store: Store, jobs: Sequence[OriginalJob]) -> dict[OriginalJob, tuple[str, str]]:
    """What the receipt of each model is called, and the key that the rest is kept under."""
    ids, found = store.examples()["id"], {}
    for job in jobs:
        removed = ids.take(np.asarray(job.removed, dtype=np.int64)).to_pylist()
        key = compute_original_key(store.manifest, removed=removed, index=job.index)
        found[job] = format_original_name(job, key), key
    return found


def find_missing_models(store: Store, names: Mapping[OriginalJob, tuple[str, str]]) -> list[OriginalJob]:
    """Those of these models that are to be trained: neither on file nor diverged."""
    gone = find_diverged_models(store)
    return [
        job
        for job, (name, key) in names.items()
        if name not in gone and not is_original_stored(store, key, evaluate=False)
    ]


def find_diverged_models(store: Store) -> set[str]:
    """Names of the originals and oracles whose training gave no numbers; none is trained again."""
    return {*list_diverged_models(store, ORIGINAL), *list_diverged_models(store, ORACLE)}
