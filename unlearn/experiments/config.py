"""What a user asks of an experiment, in words."""

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
"""SCALE's best three, which it takes through RUM: confidence, binary accuracy, holdout retraining."""
MEMORIZATION = "memorization_k"
DEFAULT_SCORES = (f"{MEMORIZATION}0.700", f"{MEMORIZATION}0.500")
"""RUM's own, of models that keep .7; and that of estimate's default."""


@dataclass(frozen=True, kw_only=True)
class ExperimentConfig:
    """One experiment.

    Attributes:
        name: memorization, rum, ...; a wrong name lists them all.
        store: path or URL of a bank of `python -m memscore.estimate`.
        preset: small, for two CPU cores, or paper, for a GPU; sets what is left out below.
        score: by which sets are chosen and refined (default: memorization_k0.700, as RUM has it; where the store lacks
            it memorization_k0.500, else its only memorization_k*).
        proxies: that stand in for it, where an experiment compares them.
        size: examples to forget.
        algorithms: that take part.
        budget: attempts at each place of a plan.
        tune_seeds: originals that parameters are chosen on.
        seeds: originals that are reported; twice as many for algorithms that draw labels.
        sampler: random, grid or tpe.
        select: who chooses: the oracle, blind, or both.
        tune_forget: forget set that parameters are chosen on (default: another of the same kind; same: the reported).
        seed: of all that is drawn.
        data: the bank's data by name or path, where its manifest does not say enough to find it.
        folder: where it lies.
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

    def asked(self, entry: Experiment) -> ExperimentContext:
        """At the scale of the preset, but for what was said; a score that was not said is estimate's default."""
        scale = entry.small if self.preset == "small" else entry.paper
        wanted = Scale(
            size=scale.size if self.size is None else self.size,
            algorithms=self.algorithms or scale.algorithms,
            budget=scale.budget if self.budget is None else self.budget,
            tune_seeds=scale.tune_seeds if self.tune_seeds is None else self.tune_seeds,
            seeds=scale.seeds if self.seeds is None else self.seeds,
        )
        for name in wanted.algorithms:
            get_algorithm(name)
        return ExperimentContext(
            store=self.store,
            score=self.score or DEFAULT_SCORES[-1],
            proxies=self.proxies,
            scale=wanted,
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
    """An experiment whose words hold, as far as can be told before anything is trained.

    Attributes:
        entry: its line of the table.
        asked: what it was asked for.
        store: open.
    """

    entry: Experiment
    asked: ExperimentContext
    store: Store

    def run(self, pool: Pool, search: SearchBackend, device: str, phase: ShowProgress) -> ExperimentResult:
        """Carry it out, and judge what came of it."""
        if self.entry.run is not None:
            carried = self.entry.run(self.asked, pool, search, device, phase)
        else:
            carried = run_sweeps(self.asked, self.entry.plans(self.asked), pool, search, device, phase)
        return replace(carried, findings=self.entry.findings(carried.results, self.asked))


def prepare_experiment(plan: ExperimentConfig) -> PreparedExperiment:
    """Check all words that need no model: the experiment's, and those of all its sweeps.

    Args:
        plan: what the user asked for.

    Returns:
        The experiment.

    Raises:
        ValueError: a word that nothing is named, one that the experiment never reads, or one that a sweep refuses.
    """
    entry = get_experiment(plan.name)
    if plan.other and not entry.compares:
        able = ", ".join(name for name, one in EXPERIMENTS.items() if one.compares)
        raise ValueError(f"--other {plan.other}: {plan.name} reads one bank; two are compared by {able}; leave it out")
    if plan.proxies != PROXIES and not entry.compares:
        able = ", ".join(name for name, one in EXPERIMENTS.items() if one.compares)
        raise ValueError(f"--proxies {' '.join(plan.proxies)}: {plan.name} compares none, {able} does; leave it out")
    asked, store = plan.asked(entry), Store.open(plan.store)
    if depends_on_score(entry, asked):
        asked = replace(asked, score=plan.score or find_default_score(store))
    elif plan.score:
        raise ValueError(f"--score {plan.score}: {plan.name} reads no score that a user names; leave it out")
    try:
        for one in entry.plans(asked).values():
            prepare_sweep(one)
    except ValueError as error:
        if plan.size is not None or not str(error).startswith("--size"):
            raise
        raise ValueError(f"{error}; --preset {plan.preset} asks for that many, and --size for others") from None
    return PreparedExperiment(entry=entry, asked=asked, store=store)


def depends_on_score(entry: Experiment, asked: ExperimentContext) -> bool:
    """Whether the score that is asked for changes what the experiment does."""
    return entry.plans(asked) != entry.plans(replace(asked, score="another"))


def find_default_score(store: Store) -> str:
    """The score that is meant where none is named.

    Args:
        store: open.

    Returns:
        The first of USUAL that it has, else its only score of memorization; else the last of USUAL, which is refused
        where it is read, with the command that makes it.
    """
    known = [file.removesuffix(".parquet") for file in store.folder.names("scores")]
    own = [name for name in known if name.startswith(MEMORIZATION)]
    return next((name for name in DEFAULT_SCORES if name in own), own[0] if len(own) == 1 else DEFAULT_SCORES[-1])
