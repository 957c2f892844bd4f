"""What experiments are made of: the words they are asked for in, what they find, and how that is kept.

How many examples of each class go: RUM Table 10.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from cluster.pool import Pool
from memscore.pipeline.train_bank import Progress
from memscore.statistics.claims import Finding
from unlearn.trials.config import Row
from unlearn.trials.setup import Phase
from unlearn.tuning.config import SweepPlan, sweep_request
from unlearn.tuning.results import without_numbers
from unlearn.tuning.search import Search
from unlearn.tuning.state import Swept
from unlearn.tuning.tables import of_plans

Results = dict[str, list[Row]]
"""Judged rows of each part of an experiment, by its name."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How large an experiment is.

    Attributes:
        size: examples to forget; 0 where the experiment knows how many.
        algorithms: that take part.
        budget: attempts at each place of a plan.
        tune_seeds: originals that parameters are chosen on.
        seeds: originals that are reported.
    """

    size: int
    algorithms: tuple[str, ...]
    budget: int
    tune_seeds: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What an experiment was asked for.

    Attributes:
        store: path or URL of a bank.
        score: of it, by which sets are chosen and refined.
        proxies: scores that stand in for it.
        scale: how large.
        sampler: see SweepPlan.
        select: see SweepPlan.
        seed: of all that is drawn.
        data: see SweepPlan.
        folder: see SweepPlan.
        other: a second bank, of the same data with augmentation, where an experiment compares two; "" for none.
        tune_forget: see SweepPlan.
    """

    store: str
    score: str
    proxies: tuple[str, ...]
    scale: Scale
    sampler: Literal["random", "grid", "tpe"] = "random"
    select: Literal["both", "oracle", "blind"] = "both"
    seed: int = 0
    data: str | None = None
    folder: str | None = None
    other: str = ""
    tune_forget: str = ""

    @property
    def judge(self) -> Literal["oracle", "blind"]:
        """The selection that verdicts rest on: the oracle's, unless blind alone was asked for."""
        return "blind" if self.select == "blind" else "oracle"

    def plan(self, forget: str, **more: Any) -> SweepPlan:
        """A sweep at this scale on a forget set."""
        usual: dict[str, Any] = {
            "store": self.store,
            "forget": forget,
            "size": self.scale.size,
            "algorithms": self.scale.algorithms,
            "budget": self.scale.budget,
            "tune_seeds": self.scale.tune_seeds,
            "seeds": self.scale.seeds,
            "sampler": self.sampler,
            "select": self.select,
            "tune_forget": self.tune_forget,
            "seed": self.seed,
            "data": self.data,
            "folder": self.folder,
        }
        return SweepPlan(**usual | more)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One line of the table of experiments.

    Attributes:
        source: tables and figures of a paper.
        says: what it asks, in a line.
        plans: the sweeps that it is made of, by name.
        findings: what its rows say to the paper's claims.
        figure: its picture, PNG.
        small: its scale on two CPU cores.
        paper: the paper's, for a GPU.
        run: how it is carried out, where it is more than its sweeps.
        columns: of its rows, that its tables show beside the usual ones.
        compares: whether it compares proxies, and a second bank where one is given.
    """

    source: str
    says: str
    plans: Callable[[Asked], Mapping[str, SweepPlan]]
    findings: Callable[[Results, Asked], list[Finding]]
    figure: Callable[[Results, Asked], bytes]
    small: Scale
    paper: Scale
    run: "Callable[[Asked, Pool, Search, str, Phase], Carried] | None" = None
    columns: tuple[str, ...] = ()
    compares: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Carried:
    """What came of an experiment.

    Attributes:
        results: judged rows.
        findings: verdicts.
        remarks: what a reader must know besides.
        spent: attempts, runs and seconds of tuning.
        incomplete: whether a trial or a contender is missing.
        sweeps: what came of each sweep, by its name.
    """

    results: Results
    findings: list[Finding]
    remarks: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    incomplete: bool = False
    sweeps: dict[str, Swept] = field(default_factory=dict)


def swept(
    asked: Asked, plans: Mapping[str, SweepPlan], pool: Pool, search: Search, device: str, phase: Phase
) -> Carried:
    """Run the sweeps of an experiment.

    Args:
        asked: what it was asked for.
        plans: the sweeps by name.
        pool: where models are trained and trials judged.
        search: what looks for parameters.
        device: "cpu" or "cuda".
        phase: as a sweep has it.

    Returns:
        Their judged rows, and what their tuning took; no findings yet.
    """
    results: Results = {}
    remarks: list[str] = []
    sweeps: dict[str, Swept] = {}
    incomplete = False
    spent = dict.fromkeys(("attempts", "runs", "tuning_s"), 0.0)
    for name, plan in plans.items():
        request = sweep_request(plan)
        found = request.run(pool, search, device, partial(within, phase, name))
        results[name], sweeps[name] = found.judged, found
        tried = {row["trial"]: row for row in found.tried}
        spent["runs"] += len(tried)
        spent["tuning_s"] += float(sum(row["run_wall_s"] for row in tried.values()))
        spent["attempts"] += len({
            tuple(one["trials"]) for path in found.paths for _, _, own in path.hunts for one in own
        })
        remarks += [
            f"{name}: {path.contender.name} {path.contender.variant} ended early: {path.over}"
            for path in found.paths
            if path.over
        ]
        remarks += [
            f"{name}: {line}"
            for line in (*found.failed, *found.notes, *of_plans(found), *without_numbers(found.judged))
        ]
        ends = sorted({
            f"{path.contender.name} {path.contender.variant} {end}" for path in found.paths for end in path.boundary
        })
        remarks += [f"{name}: chosen at an end of its space: {', '.join(ends)}"] if ends else []
        incomplete |= bool(found.failed) or any(path.over for path in found.paths)
    return Carried(results=results, findings=[], remarks=remarks, spent=spent, incomplete=incomplete, sweeps=sweeps)


def within(phase: Phase, name: str, what: str) -> AbstractContextManager[Progress]:
    """A phase of one of several sweeps."""
    return phase(f"{name}: {what}")


def record_of(experiment: str, asked: Asked, carried: Carried) -> dict[str, Any]:
    """What is kept of an experiment as JSON, but the rows."""
    words = asdict(asked) | {"store": ""}
    if not asked.tune_forget:  # an experiment that says nothing of it keeps the name it had before this word
        del words["tune_forget"]
    return {
        "experiment": experiment,
        "asked": words,
        "findings": [asdict(one) for one in carried.findings],
        "remarks": carried.remarks,
        "spent": carried.spent,
    }


def chosen_by(rows: Sequence[Row], select: str = "oracle") -> list[Row]:
    """Rows of one selection; those of the oracle and the original belong to both."""
    return [row for row in rows if row["select"] in {select, ""}]


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
