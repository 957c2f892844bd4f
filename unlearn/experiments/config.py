"""Configuration of an experiment as a user writes it, checked before anything is trained."""

from dataclasses import dataclass, replace
from typing import Annotated, Literal

import tyro

from cluster.pool import Pool
from memscore.cli.options import Maybe, Several
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.experiments import EXPERIMENTS, get_experiment
from unlearn.experiments.base import Experiment, ExperimentContext, ExperimentResult, Scale, run_sweeps
from unlearn.trials.setup import ShowProgress
from unlearn.tuning.config import prepare_sweep
from unlearn.tuning.search import SearchBackend

PROXIES = ("events_confidence", "events_accuracy", "holdout")
"""SCALE's best three, which it refines by: confidence, binary accuracy, holdout retraining."""
MEMORIZATION = "memorization_k"
DEFAULT_SCORES = (f"{MEMORIZATION}0.700", f"{MEMORIZATION}0.500")
"""RUM's own score, of models with keep fraction .7, and the score of estimate's default."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """Configure an experiment.

    Attributes:
        name: memorization, rum, ...; an unknown name lists them all.
        store: path or URL of a bank of `python -m memscore.estimate`.
        preset: small, for two CPU cores, or paper, for a GPU; sets the options left out below.
        score: score by which sets are selected and refined (default: memorization_k0.700, as in RUM; if it is missing
            memorization_k0.500, else the only memorization_k*).
        proxies: scores used in place of it, where an experiment compares them.
        size: number of examples to forget.
        algorithms: the algorithms that take part.
        budget: configurations evaluated at each step of a plan.
        tune_seeds: number of originals for tuning.
        seeds: number of originals that methods are judged on; twice as many for algorithms that draw labels.
        sampler: random, grid or tpe.
        select: which selection: oracle, blind (oracle-free), or both.
        tune_forget: forget set for tuning (default: another of the same kind; same: the judged one).
        seed: of all random draws.
        data: the bank's data set by name or path, if its manifest is not enough to find it.
        folder: folder of the data set.
        other: a second bank with augmentation, for proxies.
    """

    name: tyro.conf.Positional[str]
    store: tyro.conf.Positional[str]
    preset: Literal["small", "paper"] = "small"
    score: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    proxies: Several = PROXIES
    size: Maybe[int] = None
    algorithms: Several = ()
    budget: Maybe[int] = None
    tune_seeds: Maybe[int] = None
    seeds: Maybe[int] = None
    sampler: Literal["random", "grid", "tpe"] = "random"
    select: Literal["both", "oracle", "blind"] = "both"
    tune_forget: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""
    seed: int = 0
    data: Maybe[str] = None
    folder: Maybe[str] = None
    other: Annotated[str, tyro.conf.arg(help_behavior_hint="")] = ""

    def make_context(self, experiment: Experiment) -> ExperimentContext:
        """Make the context at the scale of the preset, except for what was given."""
        scale = experiment.small_scale if self.preset == "small" else experiment.paper_scale
        chosen_scale = Scale(
            size=scale.size if self.size is None else self.size,
            algorithms=self.algorithms or scale.algorithms,
            budget=scale.budget if self.budget is None else self.budget,
            tune_seeds=scale.tune_seeds if self.tune_seeds is None else self.tune_seeds,
            seeds=scale.seeds if self.seeds is None else self.seeds,
        )
        for name in chosen_scale.algorithms:
            get_algorithm(name)
        return ExperimentContext(
            store=self.store,
            score=self.score or DEFAULT_SCORES[-1],
            proxies=self.proxies,
            scale=chosen_scale,
            sampler=self.sampler,
            select=self.select,
            seed=self.seed,
            data=self.data,
            folder=self.folder,
            other=self.other,
            tune_forget=self.tune_forget,
        )


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
    context = config.make_context(experiment)
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
