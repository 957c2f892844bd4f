"""Open the bank of an experiment, and check its configuration before anything is trained."""

from dataclasses import dataclass, fields, replace

from cluster.pool import Pool
from memscore.pipeline.network_times import ShowTiming
from memscore.statistics.claims import correct_families
from memscore.store.store import Store
from memscore.units import format_value
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import Experiment, ExperimentResult, SweepRunner
from unlearn.experiments.config import PROXIES, ExperimentConfig
from unlearn.experiments.registry import EXPERIMENTS, get_experiment
from unlearn.forget_sets import SizeTooLargeError
from unlearn.trials.default_forget_set import find_largest_size
from unlearn.trials.default_scores import find_default_score
from unlearn.trials.setup import ShowProgress, SplitsCache, open_trainable_store
from unlearn.tuning.dry_run import SweepCost, SweepCounts, estimate_sweeps
from unlearn.tuning.prepare import PreparedSweep, complete_score_name, prepare_sweep
from unlearn.tuning.search import SearchBackend


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedExperiment:
    """A checked experiment with its resolved options, before anything is trained.

    Attributes:
        experiment: its entry.
        config: its options.
        store: the user's bank.
        cache: the data that were read.
        sweeps: its sweeps, checked.
        notes: lines on what was decided for the user.
    """

    experiment: Experiment
    config: ExperimentConfig
    store: Store
    cache: SplitsCache
    sweeps: tuple[PreparedSweep, ...]
    notes: tuple[str, ...] = ()

    def forecast(self) -> float:
        """Forecast the seconds of one core that it takes."""
        if self.experiment.estimate_work is not None:
            return self.experiment.estimate_work(self.config, self.store).seconds
        return sum(sweep.forecast() for sweep in self.sweeps)

    def estimate(self, show: ShowTiming) -> SweepCost:
        """Estimate what its sweeps still take; what several of them need counts once. Nothing is written."""
        counts = SweepCounts()
        for sweep in self.sweeps:
            sweep.count(counts)
        return estimate_sweeps(counts, self.sweeps[0].context, show)

    def run(self, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress) -> ExperimentResult:
        """Run the experiment, and judge its claims."""
        runner = SweepRunner(pool=pool, backend=backend, device=device, show_progress=show_progress, cache=self.cache)
        if self.experiment.run is not None:
            result = self.experiment.run(self.config, runner)
        else:
            result = runner.run_and_count_classes(self.experiment.make_sweeps(self.config))
        return replace(
            result,
            claims=correct_families([*result.claims, *self.experiment.check_claims(result.results, self.config)]),
            remarks=[*self.notes, *result.remarks],
        )


def prepare_experiment(config: ExperimentConfig, *, dry_run: bool = False) -> PreparedExperiment:
    """Check all options that need no model: those of the experiment, and of all its sweeps.

    A dry run creates no store of changed data.
    Raises ValueError for an unknown name, an option that the experiment does not read, or one that a sweep rejects.
    """
    experiment = get_experiment(config.name)
    if config.other and not experiment.compares_proxies:
        comparing = ", ".join(name for name, entry in EXPERIMENTS.items() if entry.compares_proxies)
        raise ValueError(
            f"--other {config.other}: {config.name} reads one bank; two are compared by {comparing}; leave it out"
        )
    if config.proxies != PROXIES and not experiment.compares_proxies:
        comparing = ", ".join(name for name, entry in EXPERIMENTS.items() if entry.compares_proxies)
        raise ValueError(
            f"--proxies {' '.join(config.proxies)}: {config.name} compares none, {comparing} does; leave it out"
        )
    if config.risk is not None and not experiment.ranks_by_risk:
        ranking = ", ".join(name for name, entry in EXPERIMENTS.items() if entry.ranks_by_risk)
        raise ValueError(f"--risk {config.risk}: {config.name} has no rounds by risk, {ranking} has; leave it out")
    # 1. Options that need no store. The score is a placeholder until the store is open.
    resolved = config.resolve(experiment.small_preset if config.preset == "small" else experiment.paper_preset)
    for name in resolved.algorithms:
        get_algorithm(name)
    store, cache = Store.open(config.store, check_manifest=True), SplitsCache()
    if experiment.estimate_work is not None:
        check_no_sweep_options(config)
        check_no_score(config)
        open_trainable_store(config.store)
        resolved = replace(resolved, rates=resolved.rates or ("paper" if config.preset == "paper" else "chosen"))
        experiment.estimate_work(resolved, store)
        return PreparedExperiment(experiment=experiment, config=resolved, store=store, cache=cache, sweeps=())
    if config.rates is not None:
        raise ValueError(f"--rates {config.rates}: {config.name} searches its learning rates; leave it out")
    # 2. The score: a user's, else the store's. Experiments that read none keep the placeholder in their identity.
    if depends_on_score(experiment, resolved):
        resolved = replace(
            resolved, score=store.find_score_name(config.score) if config.score else find_default_score(store)
        )
    else:
        check_no_score(config)
    if config.risk is not None:
        resolved = replace(resolved, risk=complete_score_name(store, config.risk))
    # 3. Every sweep is checked before the first one trains. Their data are read once, by the cache.
    notes = []
    try:
        sweeps = prepare_sweeps(experiment, resolved, store, cache, dry_run=dry_run)
    except SizeTooLargeError as error:
        # A size that the preset brought is not the user's: the bank decides how much of it is possible.
        if config.size is not None:
            raise
        asked = resolved.size
        resolved, sweeps = reduce_size(experiment, resolved, store, cache, error, dry_run=dry_run)
        notes.append(
            f"--size {resolved.size}: the bank has no disjoint forget sets of the {asked} that --preset "
            f"{config.preset} asks for; with more memorized examples, as of a larger data set, there are larger ones"
        )
    return PreparedExperiment(
        experiment=experiment,
        config=resolved,
        store=store,
        cache=cache,
        sweeps=tuple(sweeps),
        notes=tuple(notes),
    )


SWEEP_OPTIONS = (*("tunings", "budget", "tune_seeds", "sampler", "select", "steps", "space", "search", "tune_forget"),)
"""Options of sweeps, which an experiment without one does not read."""


def check_no_score(config: ExperimentConfig) -> None:
    """Raise ValueError if a score is named, where the experiment reads none that a user names."""
    if config.score:
        raise ValueError(f"--score {config.score}: {config.name} reads no score that a user names; leave it out")


def check_no_sweep_options(config: ExperimentConfig) -> None:
    """Raise ValueError for an option that only sweeps read."""
    defaults = {option.name: option.default for option in fields(ExperimentConfig)}
    for name in SWEEP_OPTIONS:
        if getattr(config, name) != defaults[name]:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(
                f"{option} {format_value(getattr(config, name))}: {config.name} has no sweep; leave it out"
            )


def prepare_sweeps(
    experiment: Experiment, config: ExperimentConfig, store: Store, cache: SplitsCache, *, dry_run: bool
) -> list[PreparedSweep]:
    """Check the size and every sweep of an experiment, whose options are resolved."""
    if experiment.check_size and config.size is not None:
        experiment.check_size(config.size, store.manifest.split_sizes[0])
    sweeps = experiment.make_sweeps(config).values()
    return [prepare_sweep(sweep_config, cache, dry_run=dry_run) for sweep_config in sweeps]


def reduce_size(
    experiment: Experiment,
    config: ExperimentConfig,
    store: Store,
    cache: SplitsCache,
    error: SizeTooLargeError,
    *,
    dry_run: bool,
) -> tuple[ExperimentConfig, list[PreparedSweep]]:
    """Find the largest size below the preset's for which all sweeps of an experiment have their forget sets.

    Returns the options with it, and the sweeps. Raises the error of the preset's size where there is none.
    """

    def prepare(size: int) -> list[PreparedSweep]:
        return prepare_sweeps(experiment, replace(config, size=size), store, cache, dry_run=dry_run)

    size = find_largest_size(config.size or 0, prepare)
    if not size:
        raise error
    return replace(config, size=size), prepare(size)


def depends_on_score(experiment: Experiment, config: ExperimentConfig) -> bool:
    """Return whether the score changes the sweeps of an experiment, whose options are resolved."""
    return experiment.make_sweeps(config) != experiment.make_sweeps(replace(config, score="another"))
