"""Filling an arm until its memorization is precise enough: train, measure, go on."""

from collections.abc import Callable

import numpy as np

from memscore.filling import (
    Filled,
    Pool,
    Progress,
    counted,
    jobs_for,
    missing_of,
    refuse_large_batch,
    trained,
)
from memscore.jobs import Shared
from memscore.outlook import on_file, rmse_of, tally_of
from memscore.planner import first_models, models_for, next_look, spread_of
from memscore.store.store import Store
from memscore.subsets.designs import Arm


def fill_until(
    store: Store,
    arm: Arm,
    rmse: float,
    most: int,
    shared: Shared,
    pool: Pool,
    *,
    events: bool = False,
    device: str = "cpu",
    progress: Progress = lambda done, total, line: None,
    first: Callable[[Arm], None] = lambda arm: None,
) -> Filled:
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
    filled = Filled()
    missing = missing_of(store, arm, most, filled, events=events)
    refuse_large_batch(store, arm, missing, shared)
    done, stop = 0, min(first_models(arm), most)
    tally = np.zeros((4, store.manifest.split_sizes[0]), np.int64)
    before = 0  # models of earlier stretches of this run

    def so_far(number: int, of: int, line: str) -> None:
        progress(before + number, before + of, line)

    while True:
        jobs = jobs_for(store, arm, [m for m in missing if done <= m < stop], events=events, device=device)
        for _ in trained(store, filled, jobs, shared, pool, so_far):
            pass
        before += sum(len(job.models) for job in jobs)
        new = [m for m in on_file(store, arm) if done <= m < stop]
        if not new:
            break
        tally += tally_of(store, arm, new)
        if not done:
            first(arm)
        if rmse_of(tally) <= rmse or stop == most:
            break
        done, stop = stop, next_look(arm, stop, needed(tally, arm, rmse), most)
    return counted(store, [arm], filled)


def needed(tally: np.ndarray, arm: Arm, rmse: float) -> int:
    """Models that a tally says are needed; 0 where it says nothing."""
    spread = spread_of(*tally)
    return 0 if np.isnan(spread.out) else models_for(spread, arm, rmse)
