"""Parts of an experiment: its scale and context, the sweeps it runs, its result, and the record that is stored."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, fields, replace
from functools import partial
from typing import Any, Literal

import numpy as np

from cluster.pool import Pool
from memscore.pipeline.train_bank import ProgressCallback
from memscore.statistics.claims import Claim
from unlearn.trials.config import Row
from unlearn.trials.setup import ShowProgress, SplitsCache
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import describe_diverged
from unlearn.tuning.search import SearchBackend
from unlearn.tuning.state import SweepResult
from unlearn.tuning.tables import describe_automatic_plans

Results = dict[str, list[Row]]
"""Judged rows of each part of an experiment, by its name."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Hold the size of an experiment.

    Attributes:
        size: number of examples to forget; 0 if the experiment decides it.
        algorithms: the algorithms that take part.
        budget: configurations evaluated at each step of a plan.
        tune_seeds: number of originals for tuning.
        seeds: number of originals that methods are judged on.
    """

    size: int
    algorithms: tuple[str, ...]
    budget: int
    tune_seeds: int
    seeds: int


@dataclass(frozen=True, kw_only=True)
class ExperimentContext:
    """Hold the options of an experiment at its scale.

    Attributes:
        store: path or URL of a bank.
        score: score of the bank by which sets are selected and refined.
        proxies: scores used in place of it.
        scale: the scale.
        sampler: see SweepConfig.
        select: see SweepConfig.
        seed: of all random draws.
        data: see SweepConfig.
        folder: see SweepConfig.
        other: a second bank, of the same data with augmentation, where an experiment compares two; "" for none.
        tune_forget: see SweepConfig.
        splits_cache: the data that the experiment has read; no part of its identity.
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
    splits_cache: SplitsCache = field(default_factory=SplitsCache, repr=False, compare=False)

    @property
    def identity(self) -> dict[str, Any]:
        """All options but the store's address, which may change: what the stored record holds."""
        # tune_forget was added later: without it, the names of folders stay as they were
        excluded = {"splits_cache"} | ({"tune_forget"} if not self.tune_forget else set())
        options = {option.name: getattr(self, option.name) for option in fields(self) if option.name not in excluded}
        return options | {"store": "", "scale": asdict(self.scale)}

    @property
    def selection(self) -> Literal["oracle", "blind"]:
        """Selection that verdicts rest on: the oracle's, unless only the oracle-free one was requested."""
        return "blind" if self.select == "blind" else "oracle"

    def make_sweep_config(self, forget: str, **changes: Any) -> SweepConfig:
        """Configure a sweep at this scale on a forget set."""
        defaults: dict[str, Any] = {
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
        return SweepConfig(**defaults | changes)


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Describe an experiment: one entry of the table of experiments.

    Attributes:
        source: tables and figures of a paper.
        question: its question, in a line.
        make_sweeps: configures its sweeps, by name; trains nothing, for it is called several times.
        check_claims: judges the paper's claims by its rows.
        draw_figure: draws its figure, PNG.
        small_scale: its scale on two CPU cores.
        paper_scale: the scale of the paper, for a GPU.
        run: runs it, where it is more than its sweeps.
        columns: columns of its rows that its tables show besides the usual ones.
        compares_proxies: whether it compares proxies, and a second bank if one is given.
    """

    source: str
    question: str
    make_sweeps: Callable[[ExperimentContext], Mapping[str, SweepConfig]]
    check_claims: Callable[[Results, ExperimentContext], list[Claim]]
    draw_figure: Callable[[Results, ExperimentContext], bytes]
    small_scale: Scale
    paper_scale: Scale
    run: "Callable[[ExperimentContext, Pool, SearchBackend, str, ShowProgress], ExperimentResult] | None" = None
    columns: tuple[str, ...] = ()
    compares_proxies: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ExperimentResult:
    """Hold the results of an experiment.

    Attributes:
        results: judged rows.
        claims: claims with verdicts.
        remarks: remarks for a reader.
        cost: configurations, runs and seconds of tuning.
        incomplete: whether a trial or a method is missing.
        sweeps: the result of each sweep, by name.
    """

    results: Results
    claims: list[Claim]
    remarks: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    incomplete: bool = False
    sweeps: dict[str, SweepResult] = field(default_factory=dict)


def run_sweeps(
    context: ExperimentContext,
    configs: Mapping[str, SweepConfig],
    pool: Pool,
    backend: SearchBackend,
    device: str,
    show_progress: ShowProgress,
) -> ExperimentResult:
    """Run the sweeps of an experiment.

    Args:
        context: the context of the experiment.
        configs: the sweeps by name.
        pool: where models are trained and trials judged.
        backend: evaluates the configurations of searches.
        device: "cpu" or "cuda".
        show_progress: see Sweep.

    Returns:
        Their judged rows, and the cost of their tuning; no claims yet.
    """
    results: Results = {}
    remarks: list[str] = []
    sweeps: dict[str, SweepResult] = {}
    incomplete = False
    cost = dict.fromkeys(("attempts", "runs", "tuning_s"), 0.0)
    for name, config in configs.items():
        sweep = prepare_sweep(config, context.splits_cache)
        result = sweep.run(pool, backend, device, partial(label_progress, show_progress, name))
        results[name], sweeps[name] = result.judged_rows, result
        tuning_rows = {row["trial"]: row for row in result.tuning_rows}
        cost["runs"] += len(tuning_rows)
        cost["tuning_s"] += float(sum(row["run_wall_s"] for row in tuning_rows.values()))
        cost["attempts"] += len({
            tuple(config_result["trials"])
            for state in result.states
            for _, _, search_results in state.searches
            for config_result in search_results
        })
        remarks += [
            f"{name}: {state.method.name} {state.method.variant} ended early: {state.end_reason}"
            for state in result.states
            if state.end_reason
        ]
        remarks += [
            f"{name}: {line}"
            for line in (
                *result.failed,
                *result.notes,
                *describe_automatic_plans(result),
                *describe_diverged(result.judged_rows),
            )
        ]
        boundary_params = sorted({
            f"{state.method.name} {state.method.variant} {param}"
            for state in result.states
            for param in state.at_boundary
        })
        remarks += [f"{name}: chosen at an end of its space: {', '.join(boundary_params)}"] if boundary_params else []
        incomplete |= bool(result.failed) or any(state.end_reason for state in result.states)
    return ExperimentResult(
        results=results, claims=[], remarks=remarks, cost=cost, incomplete=incomplete, sweeps=sweeps
    )


def label_progress(show_progress: ShowProgress, name: str, label: str) -> AbstractContextManager[ProgressCallback]:
    """Show the progress of one of several sweeps, with its name before the label."""
    return show_progress(f"{name}: {label}")


def make_record(experiment: str, context: ExperimentContext, result: ExperimentResult) -> dict[str, Any]:
    """Make the JSON record of an experiment, without its rows."""
    return {
        "experiment": experiment,
        "asked": context.identity,
        "findings": [asdict(claim) for claim in result.claims],
        "remarks": result.remarks,
        "spent": result.cost,
    }


def select_by_selection(rows: Sequence[Row], selection: str = "oracle") -> list[Row]:
    """Select the rows of one selection; those of the oracle and the original belong to both."""
    return [row for row in rows if row["select"] in {selection, ""}]


def make_counting_run(
    make_sweeps: Callable[[ExperimentContext], Mapping[str, SweepConfig]],
) -> Callable[[ExperimentContext, Pool, SearchBackend, str, ShowProgress], ExperimentResult]:
    """Make a function that runs the sweeps and adds a remark on the classes of each forget set.

    Args:
        make_sweeps: of the experiment.

    Returns:
        Its Experiment.run.
    """

    def run(
        context: ExperimentContext, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress
    ) -> ExperimentResult:
        configs = make_sweeps(context)
        result = run_sweeps(context, configs, pool, backend, device, show_progress)
        counts = []
        for name, config in configs.items():
            labels = prepare_sweep(config, context.splits_cache).context.splits.train.labels
            counts.append(describe_class_counts(name, labels, result.sweeps[name].judged_set.rows))
        return replace(result, remarks=[*counts, *result.remarks])

    return run


def describe_class_counts(name: str, labels: np.ndarray, rows: tuple[int, ...]) -> str:
    """Describe how many examples of each class are forgotten (RUM Table 10).

    Args:
        name: name of the sweep.
        labels: int [n_train].
        rows: rows of the forget set.

    Returns:
        The counts in the order of the classes.
    """
    counts = np.bincount(labels[list(rows)], minlength=int(labels.max()) + 1)
    return f"{name}: of each class in turn {', '.join(map(str, counts))} examples go"
