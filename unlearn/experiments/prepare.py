"""Open the bank of an experiment, and check its configuration before anything is trained."""

from dataclasses import dataclass, replace

from cluster.pool import Pool
from memscore.pipeline.network_times import ShowTiming
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import Experiment, ExperimentResult, SweepRunner
from unlearn.experiments.config import DEFAULT_SCORES, MEMORIZATION, PROXIES, ExperimentConfig
from unlearn.experiments.registry import EXPERIMENTS, get_experiment
from unlearn.trials.setup import ShowProgress, SplitsCache
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
    """

    experiment: Experiment
    config: ExperimentConfig
    store: Store
    cache: SplitsCache
    sweeps: tuple[PreparedSweep, ...]

    def forecast(self) -> float:
        """Forecast the seconds of one core that its sweeps take."""
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
        return replace(result, claims=self.experiment.check_claims(result.results, self.config))


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
    # 2. The score: a user's, else the store's. Experiments that read none keep the placeholder in their identity.
    if depends_on_score(experiment, resolved):
        resolved = replace(resolved, score=config.score or find_default_score(store))
    elif config.score:
        raise ValueError(f"--score {config.score}: {config.name} reads no score that a user names; leave it out")
    if config.risk is not None:
        resolved = replace(resolved, risk=complete_score_name(store, config.risk))
    # 3. Every sweep is checked before the first one trains. Their data are read once, by the cache.
    try:
        sweeps = tuple(
            prepare_sweep(sweep_config, cache, dry_run=dry_run)
            for sweep_config in experiment.make_sweeps(resolved).values()
        )
    except ValueError as error:
        # A size that the preset brought is not the user's, so the message says where it comes from.
        if config.size is not None or not str(error).startswith("--size"):
            raise
        raise ValueError(f"{error}; --preset {config.preset} asks for that many, and --size for others") from None
    return PreparedExperiment(experiment=experiment, config=resolved, store=store, cache=cache, sweeps=sweeps)


def depends_on_score(experiment: Experiment, config: ExperimentConfig) -> bool:
    """Return whether the score changes the sweeps of an experiment, whose options are resolved."""
    return experiment.make_sweeps(config) != experiment.make_sweeps(replace(config, score="another"))


def find_default_score(store: Store) -> str:
    """Find the score that is used if none is named.

    The first of DEFAULT_SCORES that the store has, else its only memorization score; else the last of DEFAULT_SCORES,
    which raises an error when it is read, with the command that computes it.
    """
    scores = [file.removesuffix(".parquet") for file in store.folder.names("scores")]
    memorization_scores = [name for name in scores if name.startswith(MEMORIZATION)]
    return next(
        (name for name in DEFAULT_SCORES if name in memorization_scores),
        memorization_scores[0] if len(memorization_scores) == 1 else DEFAULT_SCORES[-1],
    )
