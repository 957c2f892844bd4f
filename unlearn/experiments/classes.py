"""How many examples of each class go: RUM Table 10."""

from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np

from memscore.pipeline.train_bank import Pool
from unlearn.experiments.parts import Asked, Carried, swept
from unlearn.trials.setup import Phase
from unlearn.tuning.config import SweepPlan, sweep_request
from unlearn.tuning.search import Search


def run_and_count(
    plans: Callable[[Asked], Mapping[str, SweepPlan]],
) -> Callable[[Asked, Pool, Search, str, Phase], Carried]:
    """An experiment that is its sweeps, and a remark for each of them on the classes of what goes.

    Args:
        plans: of the experiment.

    Returns:
        Its Experiment.run.
    """

    def run(asked: Asked, pool: Pool, search: Search, device: str, phase: Phase) -> Carried:
        made = plans(asked)
        carried = swept(asked, made, pool, search, device, phase)
        counts = [
            of_classes(name, sweep_request(plan).asked.splits.train.labels, carried.sweeps[name].judged_on.rows)
            for name, plan in made.items()
        ]
        return replace(carried, remarks=[*counts, *carried.remarks])

    return run


def of_classes(name: str, labels: np.ndarray, rows: tuple[int, ...]) -> str:
    """One line of the table.

    Args:
        name: of the sweep.
        labels: int [n_train].
        rows: of the forget set.

    Returns:
        The counts in the order of the classes.
    """
    counts = np.bincount(labels[list(rows)], minlength=int(labels.max()) + 1)
    return f"{name}: of each class in turn {', '.join(map(str, counts))} examples go"
