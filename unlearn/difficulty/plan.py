"""Which examples of which originals are unlearned alone: draws, jobs, and their rows as arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cluster.pool import Failure, Pool
from memscore.seeds import generator
from memscore.store.store import Store
from memscore.units import format_count
from unlearn.difficulty.job import DifficultyJob, is_job_stored, run_difficulty_job
from unlearn.oracles import TrialData

CHUNK = 25
"""Examples of a job: seconds to minutes of work, which is what a kill may lose."""
N_CALIBRATION = 20
"""Examples that learning rates are chosen on."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Which examples are unlearned alone.

    Attributes:
        rows: the reported ones, in the order they were drawn.
        calibration: those that learning rates are chosen on; none of them is reported.
        wrong: how many were drawn and left out because an original answers them wrongly.
    """

    rows: tuple[int, ...]
    calibration: tuple[int, ...]
    wrong: int


def draw_instances(correct: np.ndarray, size: int, seed: int) -> Drawn:
    """Draw the examples to unlearn alone.

    Args:
        correct: bool [O, N], whether each original answers each training example rightly.
        size: how many to report.
        seed: of the draw; a larger size continues a smaller one.

    Returns:
        The reported examples, and those that learning rates are chosen on.

    Raises:
        ValueError: all originals answer too few of them rightly.
    """
    order = generator(seed, "difficulty-sample", "instances").permutation(correct.shape[1])
    # A decision that is wrong before unlearning cannot flip away from the label.
    usable = np.asarray(correct.all(axis=0))[order]
    rows = order[usable]
    if len(rows) < size + N_CALIBRATION:
        raise ValueError(
            f"--size {size}: the originals answer only {format_count(len(rows), 'training example')} rightly, and "
            f"{N_CALIBRATION} more choose learning rates; use {max(0, len(rows) - N_CALIBRATION)} or less"
        )
    # Calibration takes the end of the order, so that a larger size does not report what it was chosen on.
    last = int(np.flatnonzero(usable)[size - 1])
    return Drawn(
        rows=tuple(rows[:size].tolist()),
        calibration=tuple(rows[-N_CALIBRATION:].tolist()),
        wrong=int((~usable[: last + 1]).sum()),
    )


def list_chunks(rows: Sequence[int]) -> list[tuple[int, ...]]:
    """Divide rows into jobs; the first ones are the same for every number of rows."""
    return [tuple(rows[start : start + CHUNK]) for start in range(0, len(rows), CHUNK)]


def run_jobs(
    store: Store,
    jobs: Sequence[DifficultyJob],
    trial_data: TrialData,
    pool: Pool,
    progress: Callable[[int, int, str], object],
) -> list[str]:
    """Run the jobs whose files are missing; return a line for each kind of failure."""
    # the file of a job is written at its end, so that a killed run repeats no finished one
    missing = [job for job in jobs if not is_job_stored(store, job)]
    failed: dict[str, list[DifficultyJob]] = {}
    for done, (job, result) in enumerate(pool.run(run_difficulty_job, missing, trial_data), start=1):
        if isinstance(result, Failure):
            failed.setdefault(result.error, []).append(job)
        progress(done, len(missing), f"{job.algorithm} on original {job.index}")
    return [
        f"{format_count(len(group), 'job')} of {', '.join(sorted({job.algorithm for job in group}))} failed: {error}"
        for error, group in failed.items()
    ]


def to_array(
    rows: Iterable[Mapping[str, Any]], column: str, originals: Sequence[int], examples: Sequence[int]
) -> np.ndarray:
    """Arrange a column of the rows of one algorithm as [O, n]; NaN where a row or the column is missing."""
    position = {row: number for number, row in enumerate(examples)}
    number_of = {original: number for number, original in enumerate(originals)}
    values = np.full((len(originals), len(examples)), np.nan)
    for row in rows:
        if row["row"] in position:
            values[number_of[int(row["original"])], position[int(row["row"])]] = row.get(column, np.nan)
    return values
