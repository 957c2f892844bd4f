"""Count what sweeps would still train and run, and estimate what that takes; nothing is trained or written.

What a step of a plan chooses is known once its search is stored. Before that, its defaults stand for the choice, and
the next step has a search for each selection, of which nothing is stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from cluster.search_space import count_values
from memscore.pipeline.dry_run import PROCESS_BYTES, choose_gpu_precision, estimate_memory
from memscore.pipeline.jobs import OriginalJob, compute_job_key, read_recipe
from memscore.pipeline.network_times import NetworkTimes, ShowTiming, time_network
from memscore.pipeline.work import NO_WORK, Work, sum_work
from memscore.store.trial_files import list_trials
from memscore.training.recipes import count_steps
from memscore.units import format_count
from unlearn.forget_sets import ForgetSet
from unlearn.oracles import build_reference_jobs, find_missing_models, find_model_names
from unlearn.trials.algorithm_work import Sizes, count_algorithm
from unlearn.trials.config import ORACLE, ORIGINAL, TrialConfig, name_steps, resolve_in_store
from unlearn.trials.forecast import TRIAL_S
from unlearn.trials.runner import read_stored_row
from unlearn.trials.setup import UnlearningContext, read_embeddings
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import Method
from unlearn.tuning.refinement import count_design
from unlearn.tuning.runner import Sweep
from unlearn.tuning.search import (
    OBJECTIVE,
    HyperparameterSearch,
    deduplicate_results,
    read_config_results,
    replay_refinement,
    select_config,
    to_domains,
)
from unlearn.tuning.state import MethodProgress
from unlearn.tuning.tuning_set import select_tuning_sets

TRIAL_BYTES = 30e3  # a trial's row, and the result of its configuration


@dataclass(frozen=True, kw_only=True)
class PlannedRuns:
    """Some trials of one kind.

    Attributes:
        label: the algorithms, and what they are run for.
        planned: how many trials.
        stored: how many of them are stored.
        trial: the trial that stands for them.
        resumes: whether all but the first find the model after the earlier steps.
    """

    label: str
    planned: int
    stored: int
    trial: TrialConfig
    resumes: bool = False


@dataclass(eq=False)
class SweepCounts:
    """What sweeps need, each thing once however many of them need it.

    Attributes:
        models: originals and oracles that are missing, by store and name.
        known_models: how many originals and oracles are needed, stored ones included.
        runs: trials, by what decides them.
        assumed: whether a choice is not known yet.
    """

    models: dict[tuple[str, str], OriginalJob] = field(default_factory=dict)
    known_models: set[tuple[str, str]] = field(default_factory=set)
    runs: dict[tuple[Any, ...], PlannedRuns] = field(default_factory=dict)
    assumed: bool = False

    @property
    def originals(self) -> int:
        """How many originals are missing."""
        return sum(not job.removed for job in self.models.values())

    @property
    def oracles(self) -> int:
        """How many oracles are missing."""
        return len(self.models) - self.originals

    @property
    def planned(self) -> int:
        """How many trials there are, stored ones included."""
        return sum(runs.planned for runs in self.runs.values())

    @property
    def stored(self) -> int:
        """How many trials are stored."""
        return sum(runs.stored for runs in self.runs.values())


@dataclass(frozen=True, kw_only=True)
class SweepCost:
    """What sweeps would take.

    Attributes:
        counts: what is missing.
        model: work of an original or an oracle.
        models: work of all that are missing.
        trials: work of all missing trials.
        by_algorithm: (label, trials, work of one) of the missing ones, the costliest first.
        precision: in which a GPU would train.
        bytes: of what would be stored.
        worker_bytes: memory of a worker on a CPU.
        gpu_bytes: memory on a GPU.
    """

    counts: SweepCounts
    model: Work
    models: Work
    trials: Work
    by_algorithm: list[tuple[str, int, Work]]
    precision: str
    bytes: float
    worker_bytes: float = PROCESS_BYTES
    gpu_bytes: float = 0.0

    @property
    def total(self) -> Work:
        """Work of all that is missing."""
        return self.models + self.trials


def count_sweep(
    config: SweepConfig, context: UnlearningContext, methods: Sequence[Method], counts: SweepCounts | None = None
) -> SweepCounts:
    """Count what a checked sweep would train and run, with what other sweeps need in `counts`."""
    counts, store = counts or SweepCounts(), context.store
    placeholder = np.random.default_rng(0).normal(size=(len(context.splits.train), 2))

    def read_or_replace(index: int) -> np.ndarray:
        # sizes of sets and parts do not depend on the embeddings
        key = compute_job_key(store, OriginalJob(store=store.url, index=index)) if store.is_created else ""
        return read_embeddings(store, key) if key and store.has_outputs(key) else placeholder

    sweep = Sweep(config, context, methods, "cpu", read_embeddings=read_or_replace)
    judged_set = context.select_forget_set(lambda: read_or_replace(0))
    tuning_sets = select_tuning_sets(config, context, judged_set, lambda: read_or_replace(0))
    # 1. Originals and oracles.
    indices = [*config.tuning_originals, *sweep.judged_indices]
    jobs = [*build_reference_jobs(store, [], indices, "cpu"), *sweep.list_oracle_jobs(tuning_sets, judged_set)]
    add_models(counts, context, list(dict.fromkeys(jobs)))
    # 2. Searches, level by level.
    stored_trials = set(list_trials(store)) if store.is_created else set()
    states = sweep.plan_states()
    assumed: dict[int, bool] = dict.fromkeys(range(len(states)), False)
    for level in range(max(method.levels for method in methods)):
        for number, state in enumerate(states):
            if state.method.levels > level and not state.end_reason:
                is_exact = count_level(counts, sweep, config, state, level, tuning_sets, stored_trials, assumed[number])
                assumed[number] = assumed[number] or not is_exact
    # 3. Judged trials.
    counts.assumed |= any(assumed.values())
    for trial, columns in sweep.plan_judged_trials(states, judged_set):
        select = str(columns["select"]) if any(assumed.values()) else ""
        is_stored = store.is_created and read_stored_row(store, trial) is not None
        label = "references" if trial.algorithm in {ORACLE, ORIGINAL} and not trial.before else describe_steps(trial)
        key = (store.url, replace(trial, measures=()), trial.measures, select if label != "references" else "")
        counts.runs[key] = PlannedRuns(
            label=f"{label}, judged", planned=1, stored=int(is_stored), trial=trial, resumes=config.dynamics
        )
    return counts


def add_models(counts: SweepCounts, context: UnlearningContext, jobs: Sequence[OriginalJob]) -> None:
    """Add the originals and oracles that are missing."""
    store = context.store
    if not store.is_created:
        missing = {(store.url, str(hash(job))): job for job in jobs}
        counts.models |= missing
        counts.known_models |= missing.keys()
        return
    names = find_model_names(store, jobs)
    counts.known_models |= {(store.url, name) for name, _ in names.values()}
    counts.models |= {(store.url, names[job][0]): job for job in find_missing_models(store, names)}


def count_level(
    counts: SweepCounts,
    sweep: Sweep,
    config: SweepConfig,
    state: MethodProgress,
    level: int,
    tuning_sets: Sequence[ForgetSet],
    stored_trials: set[str],
    is_assumed: bool,
) -> bool:
    """Count one level of a method, and advance it; return whether its choice is known."""
    store, best = sweep.store, None
    is_exact, searches = True, list(sweep.list_searches(state, tuning_sets))
    for _, search in searches:
        stored = [] if is_assumed else read_results(sweep, search, stored_trials)
        budget = int(min(config.budget if search.space else 1, count_values(to_domains(search.space))))
        n_shared, ended = budget, len(stored) >= budget
        if config.sampler == "refine":
            stored, ended = replay_refinement(search, budget, config.seed, stored)
            n_shared = min(budget, count_design(len(search.space)))
        is_exact &= ended
        # Selections share the design, and each refines on its own.
        parts = (search.folder_key(store), 0, n_shared), (search.key(store), n_shared, budget)
        for key, first, stop in (part for part in parts if part[1] < part[2]):
            counts.runs[store.url, key, first, state.select if is_assumed else ""] = PlannedRuns(
                label=f"{describe_steps(search.trials[0])}, step {level + 1}"
                if level
                else describe_steps(search.trials[0]),
                planned=(stop - first) * len(search.trials),
                stored=len(stored[first:stop]) * len(search.trials),
                trial=search.trials[0],
                resumes=level > 0,
            )
        chosen, column = select_config(stored, state.select), OBJECTIVE[state.select]
        if chosen and (best is None or chosen[column] > best[0][column]):
            best = chosen, search, stored
    if is_exact and best is not None:
        sweep.advance(state, *best)
        return True
    # the defaults stand for what is not chosen yet: of several candidates the first that does something
    search = next((each for name, each in searches if name != ORIGINAL), searches[0][1])
    steps = search.trials[0].steps if state.method.tuning != "steps" else search.trials[0].steps[-1:]
    state.steps += [(step.algorithm, step.params) for step in steps]
    return False


def read_results(sweep: Sweep, search: HyperparameterSearch, stored_trials: set[str]) -> list[dict[str, Any]]:
    """Read the stored results of a search; none where there is no store yet."""
    if not sweep.store.is_created:
        return []
    # of equal results the first is chosen, and the defaults are drawn first; the order of other draws is unknown here
    return deduplicate_results(read_config_results(sweep.store, search, stored_trials), [search.defaults])


def describe_steps(trial: TrialConfig) -> str:
    """Describe the algorithms of a trial, and its rounds."""
    names = name_steps(trial)
    return f"{names} in {format_count(trial.rounds.n, 'round')}" if trial.rounds else names


def estimate_sweeps(
    counts: SweepCounts,
    context: UnlearningContext,
    show: ShowTiming = lambda line: None,
    times: NetworkTimes | None = None,
) -> SweepCost:
    """Estimate what is missing, from a few images that are timed; `context` is that of one of the sweeps."""
    store = context.store
    times = times or time_network(store, context.splits, show)
    manifest, recipe = store.manifest, read_recipe(store)
    model = times.original_step * count_steps(recipe, 1.0, manifest.split_sizes[0]) + times.predicted_image * (
        3 * manifest.n_rows
    )
    by_label: dict[str, tuple[int, Work]] = {}
    n_saved = 0
    for runs in counts.runs.values():
        missing = runs.planned - runs.stored
        if not missing:
            continue
        whole = estimate_trial(runs.trial, context, times)
        last = estimate_trial(runs.trial, context, times, only_last=True) if runs.resumes else whole
        n_saved += runs.resumes
        work = whole + last * (missing - 1)
        number, earlier = by_label.get(runs.label, (0, NO_WORK))
        by_label[runs.label] = number + missing, earlier + work
    lines = [(label, number, work * (1 / number)) for label, (number, work) in by_label.items()]
    outputs = 4.0 * manifest.n_rows * (manifest.n_classes + times.embedding)
    weights = 4.0 * times.parameters
    return SweepCost(
        counts=counts,
        model=model,
        models=model * len(counts.models),
        trials=sum_work(work for _, work in by_label.values()),
        by_algorithm=sorted(lines, key=lambda line: -line[1] * line[2].core_s),
        precision=choose_gpu_precision(manifest, is_free=False),
        bytes=len(counts.models) * (outputs + weights)
        + (counts.planned - counts.stored) * TRIAL_BYTES
        + n_saved * weights,
        **estimate_memory(manifest, recipe, times),
    )


def estimate_trial(
    trial: TrialConfig, context: UnlearningContext, times: NetworkTimes, *, only_last: bool = False
) -> Work:
    """Estimate one trial: its algorithms, or only the last of a sequence, the predictions of theta_u, and measures."""
    store, n_train = context.store, context.store.manifest.split_sizes[0]
    recipe, validation = read_recipe(store), len(context.trial_data.validation)
    work = Work(core_s=TRIAL_S)
    if trial.algorithm == ORACLE:
        return work
    forgotten: set[int] = set()
    configs = resolve_in_store(store, trial, split=True)
    for number, (step, config) in enumerate(zip(trial.steps, configs, strict=True), start=1):
        forgotten |= set(step.rows)
        is_last = number == len(trial.steps)
        if only_last and not is_last:
            continue
        for size in list_round_sizes(trial, len(step.rows)) if is_last else [len(step.rows)]:
            sizes = Sizes(retain=n_train - len(forgotten), forget=size, validation=validation)
            work += count_algorithm(step.algorithm, config, sizes, recipe).compute_work(times)
    return work + times.predicted_image * store.manifest.n_rows


def list_round_sizes(trial: TrialConfig, size: int) -> list[int]:
    """List how many examples each round forgets: of a nested schedule all so far, of a partition the new ones."""
    if trial.rounds is None:
        return [size]
    n = trial.rounds.n
    return [max(1, size * (number if trial.rounds.schedule == "nested" else 1) // n) for number in range(1, n + 1)]
