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
from memscore.pipeline.train_bank import ProgressCallback
from memscore.statistics.claims import Claim
from unlearn.trials.config import Row
from unlearn.trials.setup import ShowProgress
from unlearn.tuning.config import SweepConfig, prepare_sweep
from unlearn.tuning.results import describe_diverged
from unlearn.tuning.search import SearchBackend
from unlearn.tuning.state import SweepResult
from unlearn.tuning.tables import describe_automatic_plans

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
class ExperimentContext:
    """What an experiment was asked for.

    Attributes:
        store: path or URL of a bank.
        score: of it, by which sets are chosen and refined.
        proxies: scores that stand in for it.
        scale: how large.
        sampler: see SweepConfig.
        select: see SweepConfig.
        seed: of all that is drawn.
        data: see SweepConfig.
        folder: see SweepConfig.
        other: a second bank, of the same data with augmentation, where an experiment compares two; "" for none.
        tune_forget: see SweepConfig.
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

    def plan(self, forget: str, **more: Any) -> SweepConfig:
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
        return SweepConfig(**usual | more)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One line of the table of experiments.

    Attributes:
        source: tables and figures of a paper.
        question: what it asks, in a line.
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
    question: str
    plans: Callable[[ExperimentContext], Mapping[str, SweepConfig]]
    findings: Callable[[Results, ExperimentContext], list[Claim]]
    figure: Callable[[Results, ExperimentContext], bytes]
    small: Scale
    paper: Scale
    run: "Callable[[ExperimentContext, Pool, SearchBackend, str, ShowProgress], ExperimentResult] | None" = None
    columns: tuple[str, ...] = ()
    compares: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ExperimentResult:
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
    findings: list[Claim]
    remarks: list[str] = field(default_factory=list)
    spent: dict[str, float] = field(default_factory=dict)
    incomplete: bool = False
    sweeps: dict[str, SweepResult] = field(default_factory=dict)


def run_sweeps(
    asked: ExperimentContext,
    plans: Mapping[str, SweepConfig],
    pool: Pool,
    search: SearchBackend,
    device: str,
    phase: ShowProgress,
) -> ExperimentResult:
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
    sweeps: dict[str, SweepResult] = {}
    incomplete = False
    spent = dict.fromkeys(("attempts", "runs", "tuning_s"), 0.0)
    for name, plan in plans.items():
        request = prepare_sweep(plan)
        found = request.run(pool, search, device, partial(label_progress, phase, name))
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
            for line in (
                *found.failed,
                *found.notes,
                *describe_automatic_plans(found),
                *describe_diverged(found.judged),
            )
        ]
        ends = sorted({
            f"{path.contender.name} {path.contender.variant} {end}" for path in found.paths for end in path.boundary
        })
        remarks += [f"{name}: chosen at an end of its space: {', '.join(ends)}"] if ends else []
        incomplete |= bool(found.failed) or any(path.over for path in found.paths)
    return ExperimentResult(
        results=results, findings=[], remarks=remarks, spent=spent, incomplete=incomplete, sweeps=sweeps
    )


def label_progress(phase: ShowProgress, name: str, what: str) -> AbstractContextManager[ProgressCallback]:
    """A phase of one of several sweeps."""
    return phase(f"{name}: {what}")


def make_record(experiment: str, asked: ExperimentContext, carried: ExperimentResult) -> dict[str, Any]:
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


def select_by_selection(rows: Sequence[Row], select: str = "oracle") -> list[Row]:
    """Rows of one selection; those of the oracle and the original belong to both."""
    return [row for row in rows if row["select"] in {select, ""}]


def make_counting_run(
    plans: Callable[[ExperimentContext], Mapping[str, SweepConfig]],
) -> Callable[[ExperimentContext, Pool, SearchBackend, str, ShowProgress], ExperimentResult]:
    """An experiment that is its sweeps, and a remark for each of them on the classes of what goes.

    Args:
        plans: of the experiment.

    Returns:
        Its Experiment.run.
    """

    def run(
        asked: ExperimentContext, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress
    ) -> ExperimentResult:
        made = plans(asked)
        carried = run_sweeps(asked, made, pool, search, device, phase)
        counts = [
            describe_class_counts(
                name, prepare_sweep(plan).asked.splits.train.labels, carried.sweeps[name].judged_on.rows
            )
            for name, plan in made.items()
        ]
        return replace(carried, remarks=[*counts, *carried.remarks])

    return run


def describe_class_counts(name: str, labels: np.ndarray, rows: tuple[int, ...]) -> str:
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
