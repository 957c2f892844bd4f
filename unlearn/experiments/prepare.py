"""Open the bank of an experiment, and check its configuration before anything is trained."""

from dataclasses import dataclass, replace

from cluster.pool import Pool
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.experiments.base import Experiment, ExperimentContext, ExperimentResult, Scale, run_sweeps
from unlearn.experiments.config import DEFAULT_SCORES, MEMORIZATION, PROXIES, ExperimentConfig
from unlearn.experiments.registry import EXPERIMENTS, get_experiment
from unlearn.trials.setup import ShowProgress
from unlearn.tuning.prepare import prepare_sweep
from unlearn.tuning.search import SearchBackend


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedExperiment:
    """Hold a checked experiment, before anything is trained.

    Attributes:
        experiment: its entry of the table.
        context: its context.
        store: open store of the bank.
    """

    experiment: Experiment
    context: ExperimentContext
    store: Store

    def run(self, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress) -> ExperimentResult:
        """Run the experiment, and judge its claims."""
        if self.experiment.run is not None:
            result = self.experiment.run(self.context, pool, backend, device, show_progress)
        else:
            result = run_sweeps(
                self.context, self.experiment.make_sweeps(self.context), pool, backend, device, show_progress
            )
        return replace(result, claims=self.experiment.check_claims(result.results, self.context))


def prepare_experiment(config: ExperimentConfig) -> PreparedExperiment:
    """Check all options that need no model: those of the experiment, and of all its sweeps.

    Args:
        config: the configuration, as the user wrote it.

    Returns:
        The prepared experiment.

    Raises:
        ValueError: an unknown name, an option that the experiment does not read, or one that a sweep rejects.
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
    context = make_context(config, experiment)
    store = Store.open(config.store)
    if depends_on_score(experiment, context):
        context = replace(context, score=config.score or find_default_score(store))
    elif config.score:
        raise ValueError(f"--score {config.score}: {config.name} reads no score that a user names; leave it out")
    try:
        for entry in experiment.make_sweeps(context).values():
            prepare_sweep(entry, context.splits_cache)
    except ValueError as error:
        if config.size is not None or not str(error).startswith("--size"):
            raise
        raise ValueError(f"{error}; --preset {config.preset} asks for that many, and --size for others") from None
    return PreparedExperiment(experiment=experiment, context=context, store=store)


def depends_on_score(experiment: Experiment, context: ExperimentContext) -> bool:
    """Whether the score changes the experiment."""
    return experiment.make_sweeps(context) != experiment.make_sweeps(replace(context, score="another"))


def find_default_score(store: Store) -> str:
    """Find the score that is used if none is named.

    Args:
        store: open store.

    Returns:
        The first of DEFAULT_SCORES that it has, else its only memorization score; else the last of DEFAULT_SCORES,
        which raises an error when it is read, with the command that computes it.
    """
    scores = [file.removesuffix(".parquet") for file in store.folder.names("scores")]
    memorization_scores = [name for name in scores if name.startswith(MEMORIZATION)]
    return next(
        (name for name in DEFAULT_SCORES if name in memorization_scores),
        memorization_scores[0] if len(memorization_scores) == 1 else DEFAULT_SCORES[-1],
    )


def make_context(config: ExperimentConfig, experiment: Experiment) -> ExperimentContext:
    """Make the context at the scale of the preset, except for what was given."""
    scale = experiment.small_scale if config.preset == "small" else experiment.paper_scale
    chosen_scale = Scale(
        size=scale.size if config.size is None else config.size,
        algorithms=config.algorithms or scale.algorithms,
        budget=scale.budget if config.budget is None else config.budget,
        tune_seeds=scale.tune_seeds if config.tune_seeds is None else config.tune_seeds,
        seeds=scale.seeds if config.seeds is None else config.seeds,
    )
    for name in chosen_scale.algorithms:
        get_algorithm(name)
    return ExperimentContext(
        store=config.store,
        score=config.score or DEFAULT_SCORES[-1],
        proxies=config.proxies,
        scale=chosen_scale,
        sampler=config.sampler,
        select=config.select,
        seed=config.seed,
        data=config.data,
        folder=config.folder,
        other=config.other,
        tune_forget=config.tune_forget,
    )
