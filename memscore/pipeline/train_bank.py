"""Train the missing models of a bank: the configured ones minus the stored ones.

An arm is trained to a number of models, or until its memorization is precise enough: train, measure, continue.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np
import torch

from cluster.pool import Failure, Pool, RepeatedFailure
from memscore.data.splits import Splits, join_images
from memscore.pipeline.jobs import (
    ORIGINAL,
    BankJob,
    OriginalJob,
    Receipt,
    SharedData,
    build_model,
    read_recipe,
    run_job,
)
from memscore.pipeline.precision import (
    MeasuredPrecision,
    choose_next_model_count,
    count_first_models,
    find_stored_models,
    measure_precision,
)
from memscore.pipeline.proxy_job import ProxyJob
from memscore.pipeline.proxy_jobs import is_proxy_stored, run_proxy_job
from memscore.store.shards import format_model_name
from memscore.store.store import Store
from memscore.subsets.designs import Arm, compute_min_subset_size
from memscore.training.engines import STREAM_COUNTS
from memscore.training.loop import is_stackable
from memscore.training.precision import require_trainable
from memscore.training.recipes import check_batch_size
from memscore.training.stacked_mlp import compute_stack_size
from memscore.training.step_flops import count_step_flops
from memscore.units import format_duration

ProgressCallback = Callable[[int, int, str], None]


@dataclass(kw_only=True)
class TrainingSummary:
    """Summary of training arms, originals and proxies.

    Attributes:
        shards: name of each arm -> index of every valid model -> the hash of its contents.
        trained: how many models of arms this run trained.
        trained_originals: how many originals.
        failed: model or job -> what went wrong; the next run tries them again.
        diverged: models whose numbers are not finite; never trained again, counted in every table.
        damaged: shard -> why it was quarantined before it was trained again.
        differing_originals: original -> its proxies and learning events that are of another training than its weights.
        restored_receipts: models whose lost receipt was written again from their shard, without seconds and worker.
    """

    shards: dict[str, dict[int, str]] = field(default_factory=dict)
    trained: int = 0
    trained_originals: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    diverged: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)
    differing_originals: dict[str, list[str]] = field(default_factory=dict)
    restored_receipts: list[str] = field(default_factory=list)


def build_shared_data(splits: Splits, clusters: np.ndarray | None) -> SharedData:
    """Concatenate all images and labels, as the jobs read them."""
    parts = (splits.train, splits.validation, splits.test)
    return SharedData(
        images=join_images(parts),
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
    originals: Sequence[OriginalJob] = (),
    events: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = lambda done, total, line: None,
    on_first_models: Callable[[Arm], None] = lambda arm: None,
) -> TrainingSummary:
    """Train the missing ones of models 0 .. count - 1 of some arms, and originals, in one run of the pool.

    Models are trained block by block. The summary has all stored models, also beyond `count`. `progress` is called with
    the number of models done, their total, originals included, and a line about the last one; `on_first_models` with an
    arm as soon as its first models (precision.count_first_models) are done, while others train. ValueError if a batch
    is larger than the smallest subset.
    """
    summary, jobs, waiting = TrainingSummary(), [], {}
    # everything is checked for all arms before the first job starts
    for arm in arms:
        missing = find_missing_models(store, arm, count, summary, events=events)
        check_smallest_subset(store, arm, missing, shared.clusters)
        jobs += build_bank_jobs(store, arm, missing, events=events, device=device)
        if count_first_models(arm) <= count:
            waiting[arm.name] = (arm, {m for m in missing if m < count_first_models(arm)})
    # the same block of every arm, then the next: an interrupted run has arms of similar size
    blocks = {arm.name: arm.models_per_block for arm in arms}
    jobs.sort(key=lambda job: job.models[0] // blocks[job.arm])
    keep = {arm.name: arm.keep for arm in arms}
    # arms whose first models were all stored before
    for arm, remaining in [*waiting.values()]:
        if not remaining:
            del waiting[arm.name]
            on_first_models(arm)
    for job in run_jobs(store, summary, add_originals(jobs, originals, keep), shared, pool, progress):
        if isinstance(job, BankJob) and job.arm in waiting:
            arm, remaining = waiting[job.arm]
            remaining.difference_update(job.models)
            if not remaining:
                del waiting[job.arm]
                on_first_models(arm)
    return count_stored(store, arms, summary)


def add_originals(
    jobs: Sequence[BankJob], originals: Sequence[OriginalJob], keep: Mapping[str, float]
) -> list[BankJob | OriginalJob]:
    """Queue the originals before the jobs of the arms, or after them if a job of an arm takes longer."""
    # Long jobs first, so that no worker waits for the last one. An original reads the whole training set in an epoch, a
    # model of an arm the share that is its arm's keep; a job has one model, or a whole stack or streams of a GPU.
    is_longer = any(len(job.models) * keep[job.arm] > 1 for job in jobs)
    return [*jobs, *originals] if is_longer else [*originals, *jobs]


def run_jobs(
    store: Store,
    summary: TrainingSummary,
    jobs: Sequence[BankJob | OriginalJob],
    shared: SharedData,
    pool: Pool,
    progress: ProgressCallback,
) -> Iterator[BankJob | OriginalJob]:
    """Run jobs; record the result of each, report it, and yield the job."""
    require_all_trainable(store, jobs)
    done, total = 0, sum(len(list_models(job)) for job in jobs)
    for job, result in pool.run(run_job, jobs, shared):
        names = list_models(job)
        trained = record_result(store, summary, names, result)
        if isinstance(job, OriginalJob):
            summary.trained_originals += trained
        else:
            summary.trained += trained
        done += len(names)
        progress(done, total, format_result(result))
        yield job


def list_models(job: BankJob | OriginalJob) -> list[str]:
    """List the names of the models that a job trains."""
    if isinstance(job, BankJob):
        return [format_model_name(job.arm, m) for m in job.models]
    return [format_model_name(ORIGINAL, job.index)]


def count_stored(store: Store, arms: Sequence[Arm], summary: TrainingSummary) -> TrainingSummary:
    """Add the stored and the diverged models of some arms to the summary."""
    for arm in arms:
        summary.shards[arm.name] = store.check(arm.name, verify=False).valid
        summary.diverged += list_diverged_models(store, arm.name)
    return summary


def find_missing_models(store: Store, arm: Arm, count: int, summary: TrainingSummary, *, events: bool) -> list[int]:
    """Find the models of one arm that are still to be trained; quarantine damaged shards."""
    check = store.check(arm.name)
    summary.damaged |= check.damaged
    for path in check.damaged:
        store.quarantine(path)
    diverged = list_diverged_models(store, arm.name)
    requested = [m for m in range(count) if format_model_name(arm.name, m) not in diverged]
    return [
        m
        for m in requested
        if m not in check.valid or (events and not store.has_events(format_model_name(arm.name, m)))
    ]


def compute_missing_proxies(store: Store, jobs: Iterable[ProxyJob], shared: SharedData, pool: Pool) -> dict[str, str]:
    """Run those jobs whose files are missing; return failed job -> reason, which the next run tries again."""
    summary, missing = TrainingSummary(), [job for job in jobs if not is_proxy_stored(store, job)]
    require_all_trainable(store, missing)
    untried = {job.name for job in missing}
    try:
        for job, result in pool.run(run_proxy_job, missing, shared):
            untried.discard(job.name)
            record_result(store, summary, [job.name], result)
    except RepeatedFailure as error:  # the scores of a bank need no proxy
        summary.failed |= dict.fromkeys(sorted(untried), str(error))
    return summary.failed


def require_all_trainable(store: Store, jobs: Iterable[BankJob | OriginalJob | ProxyJob]) -> None:
    """Raise ValueError before jobs are run if the precision of the store is not one of their device."""
    # In a worker it would be a failure of each model, on file, that the next run tries again.
    for device in {job.device for job in jobs}:
        require_trainable(store.manifest, device)


def list_diverged_models(store: Store, *arms: str) -> list[str]:
    """List the models of some arms, or of ORIGINAL or ORACLE, that diverged; the failures are read once."""
    # a whole name is compared, because an arm's name may begin with another's
    failures = sorted(store.failures().items())
    return [name for name, failure in failures if failure["kind"] == "diverged" and name.rpartition("-")[0] in arms]


def record_result(store: Store, summary: TrainingSummary, models: list[str], result: list[Receipt] | Failure) -> int:
    """Return how many models a job trained; write the failure record of one that failed."""
    if not isinstance(result, Failure):
        return len(result)
    for model in models:
        store.write_failure(model, {"kind": result.kind, "error": result.error, "traceback": result.traceback})
        summary.failed[model] = result.error
    return 0


def format_result(result: list[Receipt] | Failure) -> str:
    """Format the result of a job in one line."""
    if isinstance(result, Failure):
        return result.error
    if not result:
        return "already there"
    last = result[-1]
    if "accuracy" not in last:
        return f"{last['proxy']} of {last['original']}, {format_duration(last['seconds'])}"
    return f"{last['model']}: test accuracy {last['accuracy']['test'] or 0:.3f}, {format_duration(last['seconds'])}"


SMALL_STEP_FLOPS, MODELS_OF_LARGE_STEPS = 2e11, 4


def choose_models_per_job(store: Store, device: str) -> int:
    """Choose the models per job: a stack that suits the device, a GPU's streams, or one."""
    model, recipe = build_model(store, "size", 0, torch.device("cpu")), read_recipe(store)
    if is_stackable(model, recipe):
        return compute_stack_size(model, device)
    if device != "cuda":
        return 1
    # A small network leaves most of a GPU idle, and more of them at once fill it; for a large one a job of many models
    # would only be long.
    flops = count_step_flops(model, store.manifest.input_shape, recipe.batch)
    return max(STREAM_COUNTS) if flops < SMALL_STEP_FLOPS else MODELS_OF_LARGE_STEPS


def build_bank_jobs(store: Store, arm: Arm, models: list[int], *, events: bool, device: str) -> list[BankJob]:
    """Build the jobs that train these models of an arm, in ascending order."""
    groups = split_into_groups(models, choose_models_per_job(store, device), arm.models_per_block)
    return [BankJob(store=store.url, arm=arm.name, models=g, events=events, device=device) for g in groups]


def split_into_groups(models: list[int], size: int, block: int) -> Iterator[tuple[int, ...]]:
    """Split ascending models into groups of limited size along the borders of blocks.

    A group ends where a block ends; of blocks smaller than the limit it has whole ones. Models that are drawn one by
    one (block 1) are only counted.

    >>> [list(split_into_groups([0, 1, 5, 6, 7, 8, 9], 4, block)) for block in (8, 2)]
    [[(0, 1, 5, 6), (7,), (8, 9)], [(0, 1), (5, 6, 7), (8, 9)]]
    """
    span = len(models) if block == 1 else max(size // block, 1) * block
    for _, models_in_span in groupby(models, key=lambda m: 0 if block == 1 else m // span):
        group = list(models_in_span)
        yield from (tuple(group[start : start + size]) for start in range(0, len(group), size))


def check_smallest_subset(store: Store, arm: Arm, models: Sequence[int], clusters: np.ndarray | None) -> None:
    """Raise before training starts if a batch does not fit into the smallest subset of the first block of models."""
    n_train = store.manifest.split_sizes[0]
    if models:
        first = models[: arm.block or 1]
        smallest = compute_min_subset_size(arm, first, n_train, clusters, seed=store.manifest.seed)
        check_batch_size(read_recipe(store).batch, smallest, n_train)


def train_until_precise(
    store: Store,
    arm: Arm,
    rmse: float,
    maximum: int,
    shared: SharedData,
    pool: Pool,
    *,
    originals: Sequence[OriginalJob] = (),
    events: bool = False,
    device: str = "cpu",
    progress: ProgressCallback = lambda done, total, line: None,
    on_first_models: Callable[[Arm], None] = lambda arm: None,
) -> TrainingSummary:
    """Train whole blocks of an arm until the measured error of memorization (precision.py) is small enough.

    How many are trained depends on the models alone, not on when a run was stopped: stored models are measured as if
    they had just been trained, so the same call again trains nothing, and a smaller error continues. The error stays
    larger than requested if `maximum` (whole blocks) is reached, or if no model of a step could be trained.

    The originals are trained beside the models of the first step. `progress` is called with the models done, the total
    until the error is measured again, and a line. ValueError if a batch is larger than the smallest subset.
    """
    summary = TrainingSummary()
    missing = find_missing_models(store, arm, maximum, summary, events=events)
    check_smallest_subset(store, arm, missing, shared.clusters)
    done, stop = 0, min(count_first_models(arm), maximum)
    earlier = 0  # models of earlier steps of this run

    def report(number: int, total: int, line: str) -> None:
        progress(earlier + number, earlier + total, line)

    while True:
        # one step: train what is missing of models done .. stop - 1, then measure the error with them
        bank_jobs = build_bank_jobs(store, arm, [m for m in missing if done <= m < stop], events=events, device=device)
        jobs = add_originals(bank_jobs, () if done else originals, {arm.name: arm.keep})
        for _ in run_jobs(store, summary, jobs, shared, pool, report):
            pass
        earlier += sum(len(list_models(job)) for job in jobs)
        # the stored models of the step, whichever run trained them
        models = [m for m in find_stored_models(store, arm) if m < stop]
        if not any(m >= done for m in models):
            break
        if not done:
            on_first_models(arm)
        # at the maximum nothing depends on the error any more, which scoring measures anyway
        if stop == maximum:
            break
        # of other halves of the models after each step, so that every step reads all of them
        measured = measure_precision(store, arm, models, pool)
        if measured.rmse <= rmse:
            break
        done, stop = stop, choose_next_model_count(arm, stop, estimate_models_needed(measured, arm, rmse), maximum)
    return count_stored(store, [arm], summary)


def estimate_models_needed(measured: MeasuredPrecision, arm: Arm, rmse: float) -> int:
    """Estimate the models needed; 0 where an estimate is not possible, or would be far too high."""
    if np.isnan(measured.rmse) or (arm.models_per_block > 1 and measured.lacks_blocks):
        # one block does not show what its design cancels: with the second one the error is measured between both
        return 0
    return measured.compute_models_needed(arm, rmse)
