"""Originals and oracles: models trained without a forget set, which may be empty. Each model is trained once.

theta_r has the seed of the theta_o that it is paired with. So two equal forget sets share one oracle, and the oracle of
an empty forget set is the original, bit for bit.
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
    require_all_trainable,
)
from memscore.store.example_ids import read_example_ids
from memscore.store.manifest import compute_original_key
from memscore.store.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialData(SharedData):
    """Data that every trial reads and none changes; rows = train, validation, test.

    Attributes:
        labels_true: int64 [N], as published.
        validation: int64, the validation rows that algorithms may read.
        selection: int64, the validation rows that selection reads, disjoint from those.
        test: int64.
    """

    labels_true: np.ndarray
    validation: np.ndarray
    selection: np.ndarray
    test: np.ndarray


def build_trial_data(splits: Splits, seed: int) -> TrialData:
    """Build the data of trials; the seed halves validation, for algorithms that read it and for selection."""
    shared, n_train, held_out = build_shared_data(splits, None), len(splits.train), splits.validation
    # One example cannot be halved: selection gets it.
    in_first_half = (
        np.isin(held_out.ids, split_halves(held_out, seed)[0].ids)
        if len(held_out) > 1
        else np.zeros(len(held_out), bool)
    )
    return TrialData(
        images=shared.images,
        labels=shared.labels,
        labels_true=np.concatenate([part.labels_true for part in (splits.train, held_out, splits.test)]),
        # Rows of the whole data set: validation follows train, and test follows both.
        validation=n_train + np.flatnonzero(in_first_half),
        selection=n_train + np.flatnonzero(~in_first_half),
        test=np.arange(len(splits.test)) + n_train + len(held_out),
    )


def build_reference_jobs(
    store: Store, forget_sets: Sequence[tuple[int, ...]], indices: Sequence[int], device: str
) -> list[OriginalJob]:
    """Build the jobs of each original and of its oracle for each forget set; an index is the seed of both."""
    # An original is the oracle of the empty set. dict.fromkeys: equal forget sets share an oracle, in the given order.
    removed = [(), *dict.fromkeys(forget_sets)]
    return [OriginalJob(store=store.url, index=i, removed=rows, device=device) for i in indices for rows in removed]


def train_reference_models(
    store: Store,
    jobs: Sequence[OriginalJob],
    trial_data: TrialData,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
) -> TrainingSummary:
    """Train the missing models; return those trained and failed now, and those that diverged now or before."""
    summary, names = TrainingSummary(), find_model_names(store, jobs)
    missing = find_missing_models(store, names)
    require_all_trainable(store, missing)
    for done, (job, result) in enumerate(pool.run(run_job, missing, trial_data), start=1):
        summary.trained += record_result(store, summary, [names[job][0]], result)
        progress(done, len(missing), format_result(result))
    # Read after the run, so that models which diverged in it are included.
    diverged = find_diverged_models(store)
    summary.diverged = [name for name, _ in names.values() if name in diverged]
    return summary


def find_model_names(store: Store, jobs: Sequence[OriginalJob]) -> dict[OriginalJob, tuple[str, str]]:
    """Find for each job the name of the model's receipt and the key of its other files."""
    # The key of an oracle hashes the ids of the removed examples, not their rows.
    ids, names = read_example_ids(store), {}
    for job in jobs:
        removed = ids.take(np.asarray(job.removed, dtype=np.int64)).to_pylist()
        key = compute_original_key(store.manifest, removed=removed, index=job.index)
        names[job] = format_original_name(job, key), key
    return names


def find_missing_models(store: Store, names: Mapping[OriginalJob, tuple[str, str]]) -> list[OriginalJob]:
    """Find the models to train: neither stored nor diverged."""
    diverged = find_diverged_models(store)
    return [
        job
        for job, (name, key) in names.items()
        if name not in diverged and not is_original_stored(store, key, evaluate=False)
    ]


def find_diverged_models(store: Store) -> set[str]:
    """Find the names of originals and oracles whose training diverged; they are not trained again."""
    return {*list_diverged_models(store, ORIGINAL, ORACLE)}
