"""Parts of an experiment: its entry in the table, the sweeps it runs, its result, and the record that is stored."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.pipeline.train_bank import ProgressCallback
from memscore.statistics.claims import Claim
from memscore.store.class_names import format_class
from memscore.store.store import Store
from unlearn.experiments.config import ExperimentConfig, Preset
from unlearn.trials.config import Row
from unlearn.trials.second_oracle import describe_second_oracle
from unlearn.trials.setup import ShowProgress, SplitsCache, UnlearningContext, no_progress
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import describe_diverged
from unlearn.tuning.search import SearchBackend
from unlearn.tuning.state import SweepResult
from unlearn.tuning.tables import describe_automatic_plans

CLASSES_SHOWN = 20
"""Classes of a forget set that are counted one by one."""
Results = dict[str, list[Row]]
"""Judged rows of each part of an experiment, by its name."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What an experiment without sweeps still takes.

    Attributes:
        lines: for a reader.
        seconds: of one core.
    """

    lines: list[str]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Describe an experiment: one entry of the table of experiments.

    Attributes:
        source: tables and figures of a paper.
        question: its question, in a line.
        make_sweeps: configures its sweeps, by name; trains nothing, for it is called several times.
        check_claims: judges the paper's claims by its rows.
        draw_figure: draws its figure, PNG.
        small_preset: its options on two CPU cores.
        paper_preset: those of the paper, for a GPU.
        run: runs it; None where it is its sweeps, with the counts of classes.
        columns: columns of its rows that its tables show besides the usual ones.
        compares_proxies: whether it compares proxies, and a second bank if one is given.
        ranks_by_risk: whether RSU ranks in it, by a score if one is given.
        check_size: (size, training examples) raises SizeTooLargeError where its sweeps fit and the whole does not.
        after_sweeps: what it trains after its sweeps, which a dry run does not count; "" for nothing.
        estimate_work: checks its options and estimates what is missing, where it has no sweeps.
    """

    source: str
    question: str
    make_sweeps: Callable[[ExperimentConfig], Mapping[str, SweepConfig]]
    check_claims: Callable[[Results, ExperimentConfig], list[Claim]]
    draw_figure: Callable[[Results, ExperimentConfig], bytes]
    small_preset: Preset
    paper_preset: Preset
    run: "Callable[[ExperimentConfig, SweepRunner], ExperimentResult] | None" = None
    columns: tuple[str, ...] = ()
    compares_proxies: bool = False
    ranks_by_risk: bool = False
    check_size: Callable[[int, int], None] | None = None
    after_sweeps: str = ""
    estimate_work: Callable[[ExperimentConfig, Store], Work] | None = None


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
        pictures: further figures, PNG by name, which are drawn of more than the rows.
        tables: further tables by name, which are stored beside the rows and printed in their place.
    """

    results: Results
    claims: list[Claim]
    remarks: list[str] = field(default_factory=list)
    cost: dict[str, float] = field(default_factory=dict)
    incomplete: bool = False
    sweeps: dict[str, SweepResult] = field(default_factory=dict)
    pictures: dict[str, bytes] = field(default_factory=dict)
    tables: dict[str, list[Row]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepRunner:
    """Where the sweeps of one experiment run, and the data that the experiment has read."""

    pool: Pool
    backend: SearchBackend
    device: str
    show_progress: ShowProgress = no_progress
    cache: SplitsCache = field(default_factory=SplitsCache)

    def open_context(self, config: SweepConfig) -> UnlearningContext:
        """Open the stores and the data of a sweep, as they are now."""
        return prepare_sweep(config, self.cache).context

    def run(self, configs: Mapping[str, SweepConfig]) -> ExperimentResult:
        """Run sweeps in turn: their judged rows by the sweeps' names, and the cost of tuning; no claims yet."""
        results: Results = {}
        remarks: list[str] = []
        sweeps: dict[str, SweepResult] = {}
        incomplete = False
        cost = dict.fromkeys(("attempts", "runs", "tuning_s"), 0.0)
        for name, config in configs.items():
            sweep = prepare_sweep(config, self.cache)
            result = sweep.run(self.pool, self.backend, self.device, partial(label_progress, self.show_progress, name))
            results[name], sweeps[name] = result.judged_rows, result
            # Methods share configurations: each trial and each configuration is paid for once.
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
                    *describe_second_oracle(result.judged_rows),
                    *describe_automatic_plans(result),
                    *describe_diverged(result.judged_rows),
                )
            ]
            # A chosen value at an end of its space may be beaten by one outside.
            boundary_params = sorted({
                f"{state.method.name} {state.method.variant} {param}"
                for state in result.states
                for param in state.at_boundary
            })
            remarks += (
                [f"{name}: chosen at an end of its space: {', '.join(boundary_params)}"] if boundary_params else []
            )
            incomplete |= bool(result.failed) or any(state.end_reason for state in result.states)
        return ExperimentResult(
            results=results, claims=[], remarks=remarks, cost=cost, incomplete=incomplete, sweeps=sweeps
        )

    def run_and_count_classes(self, configs: Mapping[str, SweepConfig]) -> ExperimentResult:
        """Run sweeps in turn, and add a remark on the classes of each forget set."""
        result = self.run(configs)
        counts = []
        for name, config in configs.items():
            splits, rows = self.open_context(config).splits, result.sweeps[name].judged_set.rows
            counts.append(describe_class_counts(name, splits.train.labels, rows, splits.class_names))
        return replace(result, remarks=[*counts, *result.remarks])


def label_progress(show_progress: ShowProgress, name: str, label: str) -> AbstractContextManager[ProgressCallback]:
    """Show the progress of one of several sweeps, with its name before the label."""
    return show_progress(f"{name}: {label}")


def make_record(config: ExperimentConfig, result: ExperimentResult) -> dict[str, Any]:
    """Make the JSON record of an experiment, without its rows."""
    return {
        "experiment": config.name,
        "asked": config.identity,
        "findings": [asdict(claim) for claim in result.claims],
        "remarks": result.remarks,
        "spent": result.cost,
    }


def select_by_selection(rows: Sequence[Row], selection: str = "oracle") -> list[Row]:
    """Select the rows of one selection; those of the oracle and the original belong to both."""
    return [row for row in rows if row["select"] in {selection, ""}]


def describe_class_counts(
    name: str, labels: np.ndarray, rows: tuple[int, ...], class_names: Sequence[str] | None = None
) -> str:
    """Describe how many examples of each class a forget set has (RUM Table 10), of many classes the largest numbers."""
    counts = np.bincount(labels[list(rows)], minlength=int(labels.max()) + 1)
    # the largest, in the order of the classes
    shown = np.sort(np.argsort(-counts, kind="stable")[:CLASSES_SHOWN])
    listed = [f"{format_class(number, class_names or ())} {counts[number]}" for number in shown.tolist()]
    if rest := len(counts) - len(shown):
        listed.append(f"{rest} other classes {counts.sum() - counts[shown].sum()} together")
    return f"forget set {name}, examples per class: {', '.join(listed)}"
