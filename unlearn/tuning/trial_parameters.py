"""Parameters of a trial that were chosen elsewhere: tuned for it, or taken from a sweep; never on what it reports."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.choices import validate_choice
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.store.json_records import read_record
from memscore.units import format_count
from unlearn.forget_sets import ForgetSet
from unlearn.oracles import build_reference_jobs
from unlearn.trials.config import Params, TrialConfig, resolve_in_store
from unlearn.trials.forecast import forecast_trials
from unlearn.trials.prepare import PreparedTrials, prepare_trials
from unlearn.trials.request import DEFAULT_ALGORITHM, DEFAULT_TUNING, TrialRequest
from unlearn.trials.setup import (
    MAX_COUNT,
    ShowProgress,
    no_progress,
    read_embeddings,
    require_reference_models,
    zero_embeddings,
)
from unlearn.tuning.added_parameters import check_added
from unlearn.tuning.config import UNTUNED, SweepConfig
from unlearn.tuning.methods import Method
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.results import SWEEPS_FOLDER
from unlearn.tuning.runner import check_matched_classes, check_methods
from unlearn.tuning.search import SEARCH_MEASURES, HyperparameterSearch, SearchBackend, run_searches, select_config
from unlearn.tuning.state import explain_no_choice
from unlearn.tuning.tuning_set import select_tuning_set, select_tuning_sets

TUNE_SEEDS = 2
"""Originals that --tune chooses on; a sweep has as many by default."""
SELECTION_NOTES = {"oracle": "for evaluation: it needs retrained models", "blind": "possible without retrained models"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TunedTrials:
    """Trials whose parameters are chosen first, if that was requested."""

    trials: PreparedTrials

    def forecast(self) -> float:
        """Forecast the seconds of one core of the search and of the trials."""
        request = self.trials.request
        tuning = forecast_trials(
            self.trials.context.bank_store, models=2 * TUNE_SEEDS, trials=request.tune * TUNE_SEEDS
        )
        return self.trials.forecast() + (tuning if request.tune else 0.0)

    def choose(
        self, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress = no_progress
    ) -> PreparedTrials:
        """Choose the parameters; the trials with them. As they are, if no search was requested."""
        return tune(self.trials, pool, backend, device, show_progress) if self.trials.request.tune else self.trials


def prepare_tuned_trials(request: TrialRequest) -> TunedTrials:
    """Fill in an algorithm that was left out, check all options, and read the choice of a sweep.

    Raises ValueError as prepare_trials, for options that exclude each other, a sweep that is not there or has no such
    choice, and a choice made on what the trial reports.
    """
    lines: list[str] = []
    if request.algorithm is None:
        tunes = not (request.tune or request.set or request.from_sweep)
        request = replace(request, algorithm=DEFAULT_ALGORITHM, tune=DEFAULT_TUNING if tunes else request.tune)
        lines.append(
            f"algorithm {DEFAULT_ALGORITHM}"
            + (f", tuned on {DEFAULT_TUNING} configurations" if tunes else "")
            + "; --algorithm names another"
        )
    check_sources(request)
    trials = prepare_trials(request)
    if request.from_sweep:
        trials = take_from_sweep(trials)
    if request.tune:
        check_tuning(trials)
    return TunedTrials(trials=replace(trials, notes=(*lines, *trials.notes)))


def check_sources(request: TrialRequest) -> None:
    """Check that parameters have one source."""
    if request.tune < 0:
        raise ValueError(f"--tune {request.tune}: a number of configurations is 0 or more; 10 are a sweep's")
    if request.tune > MAX_COUNT:
        raise ValueError(f"--tune {request.tune}: {MAX_COUNT} or fewer; more is probably a typing error")
    if request.from_sweep and request.tune:
        raise ValueError("--from-sweep takes parameters that were tuned, and --tune tunes them; leave one of them out")
    if request.from_sweep and request.set:
        raise ValueError("--from-sweep takes the parameters of a sweep, and --set gives others; leave one of them out")
    if request.from_sweep and request.steps != "scaled":
        raise ValueError(
            "--from-sweep takes the parameters and steps of a sweep, and --steps gives others; leave one out"
        )
    for flag, given in (
        ("--space paper", request.space == "paper"),
        (f"--search {' '.join(request.search)}", request.search),
    ):
        if given and not request.tune:
            raise ValueError(f"{flag} does nothing here: no parameter is searched; add --tune 10")
    if request.select != "oracle" and not (request.from_sweep or request.tune):
        raise ValueError(f"--select {request.select} does nothing here: no parameter is chosen; add --tune 10")


def make_sweep_config(trials: PreparedTrials) -> SweepConfig:
    """Configure the search of a trial as a sweep of its algorithm alone, whose originals follow the trial's."""
    request, context = trials.request, trials.context
    return SweepConfig(
        store=request.store,
        forget=context.forget,
        size=context.size,
        with_copies=request.with_copies,
        algorithms=(trials.algorithm,),
        variants=("vanilla",),
        budget=max(request.tune, 1),
        select=request.select,
        tunings=1,
        tune_seeds=TUNE_SEEDS,
        seeds=request.seeds,
        seed=request.seed,
    )


def check_tuning(trials: PreparedTrials) -> None:
    """Check what can be checked before there is a model: a space to search, and a second forget set."""
    context = trials.context
    names = [f"{trials.algorithm}.{name}" for name in trials.request.search]
    check_added(names, {trials.algorithm: trials.params}, [trials.algorithm])
    judged = context.select_forget_set(lambda: zero_embeddings(context.splits))
    if not make_search(trials, judged, "cpu").space:
        raise ValueError(
            f"--tune {trials.request.tune}: {trials.algorithm} has no parameter to search"
            + (" that --set leaves free" if trials.params else "")
            + "; leave --tune out"
        )
    check_methods(context, [Method(plan=(trials.algorithm,), variant="vanilla", fixed=fix_params(trials))])
    select_other_set(trials, judged, lambda: zero_embeddings(context.splits))


def select_other_set(trials: PreparedTrials, judged: ForgetSet, embeddings: Callable[[], np.ndarray]) -> ForgetSet:
    """Select the forget set that parameters are chosen on; ValueError if it has a reported example."""
    config, context = make_sweep_config(trials), trials.context
    other = select_tuning_set(config, context, judged, embeddings)
    if shared := len(set(other.rows) & set(judged.rows)):
        raise ValueError(
            f"--tune would choose parameters on {shared} of the {len(judged.rows)} examples that it reports, since "
            f"{judged.name} has no second set of its kind; use a sweep with --tune-forget, and --from-sweep"
        )
    if not other.name.startswith("entanglement"):
        check_matched_classes(config, context, other)
    return other


def fix_params(trials: PreparedTrials) -> tuple[tuple[str, Params], ...]:
    """Return the parameters of --set as a method has them."""
    return ((trials.algorithm, tuple(sorted(trials.params.items()))),)


def make_search(trials: PreparedTrials, forget: ForgetSet, device: str) -> HyperparameterSearch:
    """Make the search of the trial's algorithm on a forget set."""
    request = trials.request
    configs = tuple(
        TrialConfig(
            store=trials.context.store.url,
            algorithm=trials.algorithm,
            params=tuple(sorted(trials.params.items())),
            forget_set=forget.name,
            forget=forget.rows,
            by_class=forget.by_class,
            index=index,
            seed=request.seed,
            measures=SEARCH_MEASURES,
            core=False,
            device=device,
        )
        for index in list_tuning_originals(trials)
    )
    return HyperparameterSearch(
        trials=configs,
        space_name=request.space,
        added=tuple(f"{trials.algorithm}.{name}" for name in request.search),
        numbers=tuple(asdict(config) for config in resolve_in_store(trials.context.store, configs[0])),
        guide=request.select,
    )


def list_tuning_originals(trials: PreparedTrials) -> range:
    """List the originals that --tune chooses on: those after the reported ones."""
    return range(trials.indices.stop, trials.indices.stop + TUNE_SEEDS)


def tune(
    trials: PreparedTrials, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress
) -> PreparedTrials:
    """Evaluate configurations on other originals and another forget set; return the trials with the best one.

    Raises RuntimeError if none can be chosen, or a model that is needed could not be trained.
    """
    request, context, store = trials.request, trials.context, trials.context.store
    originals = list_tuning_originals(trials)
    # 1. Originals, whose embeddings forget sets by entanglement need; then the oracles of the other set.
    first = OriginalJob(store=store.url, index=0)
    jobs = build_reference_jobs(store, [], [0, *originals], device)
    require_reference_models(context, jobs, pool, show_progress, "originals for tuning")

    def read_first() -> np.ndarray:
        return read_embeddings(store, compute_job_key(store, first))

    other = select_other_set(trials, context.select_forget_set(read_first), read_first)
    oracles = build_reference_jobs(store, [other.rows], originals, device)
    require_reference_models(context, oracles, pool, show_progress, "oracles for tuning")
    # 2. One search without parts or rounds, so one level. Its results are stored, and a second command reads them.
    search = make_search(trials, other, device)
    with show_progress("configurations") as progress:
        results, failed = run_searches(make_sweep_config(trials), context, {"": search}, backend, progress)
    best = select_config(results[""], request.select)
    if best is None:
        reasons = "; ".join((explain_no_choice(1, [results[""]]), *failed))
        raise RuntimeError(f"--tune {request.tune}: {reasons}; a larger --tune tries others")
    params = trials.params | best["values"]
    return replace(
        trials,
        params=params,
        notes=(
            *trials.notes,
            *failed,
            f"parameters chosen by {request.select} ({SELECTION_NOTES[request.select]}) among {len(results[''])} "
            f"configurations, on {other.name} and originals {originals.start} to {originals.stop - 1}, none of which "
            f"is reported: {format_params(params)}",
        ),
    )


def format_params(params: dict[str, Any]) -> str:
    """Format parameters as --set takes them."""
    return " ".join(f"{name}={value}" for name, value in sorted(params.items())) or "the defaults"


def take_from_sweep(trials: PreparedTrials) -> PreparedTrials:
    """Return the trials with the parameters that a sweep chose, on the originals that it judged on.

    Raises ValueError if the sweep is missing, chose nothing for the algorithm alone, or chose it on reported examples.
    """
    request, context, store = trials.request, trials.context, trials.context.store
    stored = sorted(store.folder.folders(SWEEPS_FOLDER))
    if request.from_sweep not in stored:
        known = ", ".join(stored) or "none; make one with python -m unlearn.sweep"
        raise ValueError(
            f"--from-sweep {request.from_sweep}: no such sweep in {store.folder.display_name}; stored: {known}"
        )
    # chosen.json is the last file that a sweep writes before its table
    path = f"{SWEEPS_FOLDER}/{request.from_sweep}"
    if not store.folder.exists(f"{path}/chosen.json"):
        raise ValueError(f"--from-sweep {request.from_sweep}: that sweep has not ended; run it again to continue it")
    record, options = read_record(store.folder, f"{path}/chosen.json"), read_record(store.folder, f"{path}/sweep.json")
    if "tunings" not in record or "steps" not in options:
        raise ValueError(
            f"--from-sweep {request.from_sweep}: an earlier version made that sweep, whose draws and steps are not "
            "used any more; run it again with another --name"
        )
    # 1. The choice of the first tuning: each chooses on a set of its own, so none of them can be called the best. With
    # parts or rounds it is of several steps, which one trial does not have.
    choices = {
        entry["contender"]: entry
        for entry in record["chosen"]
        if entry["variant"] == "vanilla"
        and entry["select"] == request.select
        and entry["tuning"] in {UNTUNED, 0}
        and entry["steps"]
    }
    if not choices:
        raise ValueError(
            f"--from-sweep {request.from_sweep}: that sweep chose nothing by {request.select} for an algorithm without "
            "parts and rounds; run one with --variants vanilla"
        )
    if trials.algorithm not in choices:
        validate_choice(f"choice by {request.select} of {path} without parts and rounds", trials.algorithm, choices)
    [step] = choices[trials.algorithm]["steps"]
    values = restore_tuples(step["params"])
    config = SweepConfig(
        store=request.store,
        name=request.from_sweep,
        data=request.data,
        folder=request.folder,
        **restore_tuples(options),
    )
    # 2. What it was made on. The stored sweep names its set, and the same options draw the same rows again.
    other, name = select_tuned_rows(config), record["tunings"][0]["forget_set"]
    judged = context.select_forget_set(lambda: zero_embeddings(context.splits))
    if shared := len(set(other) & set(judged.rows)):
        raise ValueError(
            f"--from-sweep {request.from_sweep}: its parameters were chosen on {name}, which has {shared} of the "
            f"{format_count(len(judged.rows), 'example')} of {judged.name}; name a forget set without them"
        )
    # 3. Originals that the sweep did not tune on.
    start = config.tuning_originals.stop
    return replace(
        trials,
        params=values,
        indices=range(start, start + request.seeds),
        notes=(
            *trials.notes,
            f"parameters of the sweep {request.from_sweep}, chosen by {request.select} "
            f"({SELECTION_NOTES[request.select]}) in its first tuning, on {name} and originals 0 to "
            f"{config.tune_seeds - 1}, none of which is reported: "
            f"{format_params(values)}",
        ),
    )


def restore_tuples(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record as it was before JSON, which has no tuples."""
    return {name: tuple(value) if isinstance(value, list) else value for name, value in record.items()}


def select_tuned_rows(config: SweepConfig) -> tuple[int, ...]:
    """Select the rows that a stored sweep chose parameters on."""
    context = prepare_sweep(config).context
    store = context.store

    def read_first() -> np.ndarray:
        key = compute_job_key(store, OriginalJob(store=store.url, index=0))
        return read_embeddings(store, key) if store.has_outputs(key) else zero_embeddings(context.splits)

    return select_tuning_sets(config, context, context.select_forget_set(read_first), read_first)[0].rows
