"""Open the store of a sweep, and check its configuration before anything is trained."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from cluster.pool import Pool
from unlearn.forget_sets import find_score_name
from unlearn.meta.rsu import RsuSchedule
from unlearn.trials.config import parse_params
from unlearn.trials.measure import select_population_measures
from unlearn.trials.setup import ShowProgress, SplitsCache, TrialOptions, UnlearningContext, no_progress, open_context
from unlearn.tuning.config import SweepConfig
from unlearn.tuning.methods import CENTROID, Method, build_methods
from unlearn.tuning.results import claim_sweep_folder, resolve_sweep_folder, write_sweep
from unlearn.tuning.runner import Sweep
from unlearn.tuning.search import SELECTIONS, SearchBackend
from unlearn.tuning.state import SweepResult, SweepSettings

RSU_OPTIONS = ("rounds", "rsu_epochs", "schedule", "unit", "risk", "again")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSweep:
    """Hold a checked sweep, before anything is trained.

    Attributes:
        config: the configuration, as the user wrote it.
        context: the store and its data.
        methods: the methods to compare.
        path: the sweep's folder in the store.
    """

    config: SweepConfig
    context: UnlearningContext
    methods: list[Method]
    path: str

    def run(
        self, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress = no_progress
    ) -> SweepResult:
        """Run the sweep, and store its results."""
        claim_sweep_folder(self.context.store, self.config.folder_name, self.config.identity)
        result = Sweep(self.context, self.methods, make_settings(self.config), device, show_progress).run(pool, backend)
        write_sweep(self.context.store, self.path, result)
        return result


def prepare_sweep(config: SweepConfig, cache: SplitsCache | None = None) -> PreparedSweep:
    """Open the store and check all options that need no model.

    Args:
        config: the configuration, as the user wrote it.
        cache: the data that this command has read; None reads anew.

    Returns:
        The prepared sweep; nothing is written yet.

    Raises:
        ValueError: an unknown name, a score missing from the store, more parts than examples to forget, a budget of
            0, or the folder of another sweep.
    """
    settings = make_settings(config)
    check_options_used(config)
    options = (
        config.store,
        config.forget,
        config.size,
        "original",
        (),
        config.seeds,
        config.measures,
        config.seed,
        config.data,
    )
    for name in select_population_measures(config.measures):
        raise ValueError(f"--measures {name} compares many models of one trial; take it with python -m unlearn.trial")
    context = open_context(TrialOptions(*options, config.folder, config.scores_of), cache)
    schedule = RsuSchedule(
        n=config.rounds, epochs=config.rsu_epochs, schedule=config.schedule, unit=config.unit, again=config.again
    )
    methods = build_methods(
        config.algorithms,
        config.variants,
        config.plans,
        config.scores,
        config.parts,
        config.rule,
        schedule,
        config.tuning,
        parse_fixed_params(config.set, context.store.manifest.architecture),
        config.risk,
    )
    Sweep(context, methods, settings, "cpu").check()
    return PreparedSweep(
        config=config,
        context=context,
        methods=methods,
        path=resolve_sweep_folder(context.store, config.folder_name, config.identity),
    )


def check_options_used(config: SweepConfig) -> None:
    """Check that every option has an effect, since each changes the sweep's identity.

    Args:
        config: the configuration, as the user wrote it.

    Raises:
        ValueError: options of partitions without a partition, of rounds without RSU, of a search without a search,
            another bank's scores where none is read; rounds below 1; or --again where a score replaces the loss.
    """
    if config.rounds < 1:
        raise ValueError(f"--rounds {config.rounds}: rsu has 1 or more; 1 is the algorithm itself")
    if config.risk is not None and config.again:
        raise ValueError(f"--again recomputes the loss, and --risk {config.risk} replaces it; leave one of them out")
    kinds = {variant.removesuffix("-reversed") for variant in config.variants}
    refines = bool(kinds & {"rum", "auto"} or config.plans)
    partitions, searches = refines or "shuffle" in kinds, config.tuning != "defaults"
    selects_by_score = find_score_name(config.forget) or find_score_name(config.tune_forget)
    reads_scores = selects_by_score or config.risk is not None or (refines and set(config.scores) != {CENTROID})
    refining, partitioning = (
        "refines the forget set by a score; add --variants rum or --plans",
        "partitions the forget set; add --variants ",
    )
    rules = (
        (("scores", "rule"), refines, f"no method {refining}"),
        (("parts", "dynamics"), partitions, f"no method {partitioning}rum or shuffle, or --plans"),
        (("tuning",), partitions or not searches, f"no method {partitioning}rum or shuffle, or --plans"),
        (RSU_OPTIONS, "rsu" in kinds, "no method has rounds; add --variants rsu"),
        (("sampler",), searches, "no parameter is searched; use another --tuning"),
        (("budget",), searches or config.budget == 1, "no parameter is searched; use another --tuning"),
        (("scores_of",), reads_scores, "no score is read; name one in --forget, --scores or --risk"),
    )
    defaults = {option.name: option.default for option in fields(config)}
    for names, used, reason in rules:
        for name in names:
            value = getattr(config, name)
            if not used and value != defaults[name]:
                flag = f"--{name.replace('_', '-')}"
                shown_value = "" if value is True else f" {' '.join(value) if isinstance(value, tuple) else value}"
                raise ValueError(f"{flag}{shown_value} does nothing here: {reason}, or leave {flag} out")


def parse_fixed_params(settings: Sequence[str], architecture: str) -> dict[str, dict[str, Any]]:
    """Parse parameters with fixed values, such as finetune.epochs=5.

    Args:
        settings: one ALGORITHM.NAME=VALUE for each parameter.
        architecture: architecture of the bank.

    Returns:
        Algorithm -> name -> value.

    Raises:
        ValueError: a setting of another form, or one that parse_params rejects.
    """
    settings_by_algorithm: dict[str, list[str]] = {}
    for setting in settings:
        name, dot, rest = setting.partition(".")
        if not dot or "=" not in rest or "=" in name:
            raise ValueError(f"--set {setting!r} must be ALGORITHM.NAME=VALUE, as finetune.epochs=5")
        settings_by_algorithm.setdefault(name, []).append(rest)
    return {
        name: parse_params(name, algorithm_settings, architecture, f"{name}.")
        for name, algorithm_settings in settings_by_algorithm.items()
    }


def make_settings(config: SweepConfig) -> SweepSettings:
    """Make the settings of the sweep."""
    return SweepSettings(
        budget=config.budget,
        tune_forget=config.tune_forget,
        tune_seeds=config.tune_seeds,
        seeds=config.seeds,
        sampler=config.sampler,
        select=SELECTIONS if config.select == "both" else (config.select,),
        measures=config.measures,
        seed=config.seed,
        dynamics=config.dynamics,
    )
