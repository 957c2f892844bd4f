"""Filling a bank: what is planned minus what the store holds, trained on whatever pool is handed in.

Filling an arm until its memorization is precise enough: train, measure, go on.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from cluster.pool import Failure, Pool
from memscore.data.splits import Splits
from memscore.pipeline.jobs import (
    ORIGINAL,
    BankJob,
    OriginalJob,
    Receipt,
    SharedData,
    build_model,
    compute_job_key,
    is_original_stored,
    read_recipe,
    run_job,
)
from memscore.pipeline.precision import (
    choose_next_model_count,
    compute_models_needed,
    compute_outcome_variance,
    compute_rmse_from_counts,
    count_first_models,
    find_stored_models,
    read_membership_counts,
)
from memscore.pipeline.proxy_jobs import ProxyJob, is_proxy_stored, run_proxy_job
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, compute_min_subset_size
from memscore.training.engines import STREAM_COUNTS
from memscore.training.loop import is_stackable
from memscore.training.stacked_mlp import compute_stack_size

ProgressCallback = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class TrainingSummary:
    """What came of filling arms.

    Attributes:
        shards: name of each arm -> index of every valid model -> the hash of its contents.
        trained: how many models this run trained.
        failed: model or job -> what went wrong; the next run tries them again.
        diverged: models whose numbers are not finite; never trained again, counted in every table.
        damaged: shard -> why it was set aside before it was trained again.
        differing: originals that were trained again for a proxy and came out with other weights than those on file.
        restored: models whose lost receipt was written again from their shard, without seconds and worker.
    """

    shards: dict[str, dict[int, str]] = field(default_factory=dict)
    trained: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    diverged: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    restored: list[str] = field(default_factory=list)


def build_shared_data(splits: Splits, clusters: np.ndarray | None) -> SharedData:
    """All images and labels as the jobs read them."""
    parts = (splits.train, splits.validation, splits.test)
    return SharedData(
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        clusters=clusters,
    )


def train_missing(
    store: Store,
    arms: Sequence[Arm],
    count: int,
    shared: SharedData,
    pool: Pool,
    *,
    events: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = lambda done, total, line: None,
    first: Callable[[Arm], None] = lambda arm: None,
) -> TrainingSummary:
    """Train the models of some arms that the store lacks, in one run of the pool, block after block.

    Args:
        store: open, with the arms on record.
        arms: the designs.
        count: models planned of each, indices 0 .. count - 1; more may be in the store already.
        shared: the data.
        pool: where jobs run.
        events: whether the members' learning events are wanted too.
        device: "cpu" or "cuda".
        progress: told how many models are done, of how many, and a line about the last one.
        first: told of an arm as soon as its first models are done, those of planner.first_models, if so many are
            planned; others are still in training then.

    Returns:
        What is there now.

    Raises:
        ValueError: a batch larger than the smallest subset.
    """
    filled, jobs, awaited = TrainingSummary(), [], {}
    for arm in arms:
        missing = missing_of(store, arm, count, filled, events=events)
        refuse_large_batch(store, arm, missing, shared)
        jobs += build_bank_jobs(store, arm, missing, events=events, device=device)
        if count_first_models(arm) <= count:
            awaited[arm.name] = (arm, {m for m in missing if m < count_first_models(arm)})
    blocks = {arm.name: arm.models_per_block for arm in arms}
    jobs.sort(key=lambda job: job.models[0] // blocks[job.arm])  # the same block of every arm, then the next
    for arm, left in [*awaited.values()]:
        if not left:
            del awaited[arm.name]
            first(arm)
    for job in trained(store, filled, jobs, shared, pool, progress):
        if job.arm in awaited:
            arm, left = awaited[job.arm]
            left.difference_update(job.models)
            if not left:
                del awaited[job.arm]
                first(arm)
    return counted(store, arms, filled)


def trained(
    store: Store,
    filled: TrainingSummary,
    jobs: Sequence[BankJob],
    shared: SharedData,
    pool: Pool,
    progress: ProgressCallback,
) -> Iterator[BankJob]:
    """Run jobs; note what came of each, tell it, and hand it on."""
    done, total = 0, sum(len(job.models) for job in jobs)
    for job, result in pool.run(run_job, jobs, shared):
        record_result(store, filled, [format_model_name(job.arm, m) for m in job.models], result)
        done += len(job.models)
        progress(done, total, format_result(result))
        yield job


def counted(store: Store, arms: Sequence[Arm], filled: TrainingSummary) -> TrainingSummary:
    """With the models of some arms that are on file now, and those that diverged."""
    for arm in arms:
        filled.shards[arm.name] = store.check(arm.name, verify=False).valid
        filled.diverged += list_diverged_models(store, arm.name)
    return filled


def missing_of(store: Store, arm: Arm, count: int, filled: TrainingSummary, *, events: bool) -> list[int]:
    """Models of one arm that are still to be trained; damaged shards are set aside and noted in filled."""
    found = store.check(arm.name)
    filled.damaged |= found.damaged
    for path in found.damaged:
        store.quarantine(path)
    gone = list_diverged_models(store, arm.name)
    wanted = [m for m in range(count) if format_model_name(arm.name, m) not in gone]
    return [
        m for m in wanted if m not in found.valid or (events and not store.has_events(format_model_name(arm.name, m)))
    ]


def train_missing_originals(
    store: Store,
    count: int,
    shared: SharedData,
    pool: Pool,
    *,
    evaluate: bool = False,
    proxies: Sequence[str] = (),
    device: str = "cpu",
) -> tuple[list[str], TrainingSummary]:
    """Train the originals that the store lacks, and again those that lack what only their training can give.

    Args:
        store: open.
        count: originals planned.
        shared: the data.
        pool: where jobs run.
        evaluate: whether learning events of an evaluation pass are wanted too.
        proxies: names of those that are wanted too and are taken in training.
        device: "cpu" or "cuda".

    Returns:
        The keys of those that are there, in order, and what came of the training.
    """
    planned = [
        OriginalJob(store=store.url, index=i, evaluate=evaluate, proxies=tuple(proxies), device=device)
        for i in range(count)
    ]
    keys = [compute_job_key(store, job) for job in planned]
    gone = list_diverged_models(store, ORIGINAL)
    missing = [
        job
        for job, key in zip(planned, keys, strict=True)
        if not is_original_stored(store, key, evaluate=evaluate, proxies=proxies)
        and format_model_name(ORIGINAL, job.index) not in gone
    ]
    filled = TrainingSummary()
    for job, result in pool.run(run_job, missing, shared):
        name = format_model_name(ORIGINAL, job.index)
        record_result(store, filled, [name], result)
        if not isinstance(result, Failure):
            filled.differing += [name for receipt in result if receipt["differs"]]
    filled.diverged = list_diverged_models(store, ORIGINAL)
    return [key for key in keys if is_original_stored(store, key, evaluate=evaluate)], filled  # with or without proxies


def compute_missing_proxies(store: Store, jobs: Iterable[ProxyJob], shared: SharedData, pool: Pool) -> dict[str, str]:
    """Compute the proxies that the store lacks, from originals that it has.

    Args:
        store: open.
        jobs: planned, done or not.
        shared: the data.
        pool: where jobs run.

    Returns:
        What failed -> why; the next run tries it again.
    """
    filled = TrainingSummary()
    for job, result in pool.run(run_proxy_job, [job for job in jobs if not is_proxy_stored(store, job)], shared):
        record_result(store, filled, [job.name], result)
    return filled.failed


def list_diverged_models(store: Store, family: str) -> list[str]:
    """Models of one arm, or originals, that diverged; an arm's name may begin with another's."""
    failures = sorted(store.failures().items())
    return [name for name, why in failures if why["kind"] == "diverged" and name.rpartition("-")[0] == family]


def record_result(store: Store, filled: TrainingSummary, models: list[str], result: list[Receipt] | Failure) -> None:
    """Count what a job trained, or put its failure on file."""
    if not isinstance(result, Failure):
        filled.trained += len(result)
        return
    for model in models:
        store.write_failure(model, {"kind": result.kind, "error": result.error, "traceback": result.traceback})
        filled.failed[model] = result.error


def format_result(result: list[Receipt] | Failure) -> str:
    """One line about a finished job."""
    if isinstance(result, Failure):
        return result.error
    if not result:
        return "already there"
    last = result[-1]
    if "accuracy" not in last:
        return f"{last['proxy']} of {last['original']}, {last['seconds']:.2f} s"
    return f"{last['model']}: test accuracy {last['accuracy']['test'] or 0:.3f}, {last['seconds']:.2f} s"


def choose_models_per_job(store: Store, device: str) -> int:
    """Models a job: as many as fit side by side in the cache; else one, or on a GPU as many as may run at once."""
    model = build_model(store, "size", 0, torch.device("cpu"))
    if is_stackable(model, read_recipe(store)):
        return compute_stack_size(model)
    return max(STREAM_COUNTS) if device == "cuda" else 1


def build_bank_jobs(store: Store, arm: Arm, models: list[int], *, events: bool, device: str) -> list[BankJob]:
    """Jobs that train these models of an arm, in rising order."""
    groups = split_into_groups(models, choose_models_per_job(store, device), arm.models_per_block)
    return [BankJob(store=store.url, arm=arm.name, models=g, events=events, device=device) for g in groups]


def split_into_groups(models: list[int], size: int, block: int) -> Iterator[tuple[int, ...]]:
    """Rising models, at most so many at a time, cut where a block ends or, of blocks that are smaller, whole ones.

    Models that are drawn one by one are only counted off.

    Yields:
        The models of one job.

    >>> [list(split_into_groups([0, 1, 5, 6, 7, 8, 9], 4, block)) for block in (8, 2)]
    [[(0, 1, 5, 6), (7,), (8, 9)], [(0, 1), (5, 6, 7), (8, 9)]]
    """
    span = len(models) if block == 1 else max(size // block, 1) * block
    for _, together in groupby(models, key=lambda m: 0 if block == 1 else m // span):
        part = list(together)
        yield from (tuple(part[start : start + size]) for start in range(0, len(part), size))


def refuse_large_batch(store: Store, arm: Arm, models: list[int], shared: SharedData) -> None:
    """The same rule as training's, before anything is started."""
    n_train, batch = store.manifest.split_sizes[0], read_recipe(store).batch
    if not models:
        return
    first = models[: arm.block or 1]
    smallest = compute_min_subset_size(arm, first, n_train, shared.clusters, seed=store.manifest.seed)
    if batch > smallest:
        raise ValueError(
            f"a batch of {batch} is larger than the smallest subset, {smallest} of {n_train} examples; "
            f"use --batch {smallest} or less, or a larger --keep"
        )


def train_until_precise(
    store: Store,
    arm: Arm,
    rmse: float,
    most: int,
    shared: SharedData,
    pool: Pool,
    *,
    events: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = lambda done, total, line: None,
    first: Callable[[Arm], None] = lambda arm: None,
) -> TrainingSummary:
    """Train whole blocks of an arm until the error of memorization, measured on them, is small enough.

    How many are trained rests on the models alone, not on when a run was stopped: whatever is on file is measured
    as if it had just been trained, so the same call again trains nothing, and a smaller error goes on.

    Args:
        store: open, with the arm on record.
        arm: the design.
        rmse: wanted, above 0.
        most: models that the arm may have, whole blocks.
        shared: the data.
        pool: where jobs run; one run each time the error is measured.
        events: whether the members' learning events are wanted too.
        device: "cpu" or "cuda".
        progress: told how many models are done, of how many until the error is measured again, and a line.
        first: told of the arm once its first models are done.

    Returns:
        What is there now; less than wanted if `most` was reached, or if no model of a stretch could be trained.

    Raises:
        ValueError: a batch larger than the smallest subset.
    """
    filled = TrainingSummary()
    missing = missing_of(store, arm, most, filled, events=events)
    refuse_large_batch(store, arm, missing, shared)
    done, stop = 0, min(count_first_models(arm), most)
    tally = np.zeros((4, store.manifest.split_sizes[0]), np.int64)
    before = 0  # models of earlier stretches of this run

    def so_far(number: int, of: int, line: str) -> None:
        progress(before + number, before + of, line)

    while True:
        jobs = build_bank_jobs(store, arm, [m for m in missing if done <= m < stop], events=events, device=device)
        for _ in trained(store, filled, jobs, shared, pool, so_far):
            pass
        before += sum(len(job.models) for job in jobs)
        new = [m for m in find_stored_models(store, arm) if done <= m < stop]
        if not new:
            break
        tally += read_membership_counts(store, arm, new)
        if not done:
            first(arm)
        if compute_rmse_from_counts(tally) <= rmse or stop == most:
            break
        done, stop = stop, choose_next_model_count(arm, stop, needed(tally, arm, rmse), most)
    return counted(store, [arm], filled)


def needed(tally: np.ndarray, arm: Arm, rmse: float) -> int:
    """Models that a tally says are needed; 0 where it says nothing."""
    spread = compute_outcome_variance(*tally)
    return 0 if np.isnan(spread.out) else compute_models_needed(spread, arm, rmse)
