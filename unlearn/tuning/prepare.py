"""Open the store of a sweep, and check its configuration before anything is trained."""

from dataclasses import dataclass, fields, replace

from cluster.pool import Pool
from memscore.store.store import Store
from memscore.units import format_count
from unlearn.forget_sets import find_score_name, resolve_score_alias
from unlearn.trials.batch_norm import describe_first_climb
from unlearn.trials.default_forget_set import choose_default_forget, choose_default_size
from unlearn.trials.default_scores import complete_worst_case, find_default_score
from unlearn.trials.forecast import STORED_TRIAL_S, forecast_trials
from unlearn.trials.measure import MIN_POPULATION, select_measures, select_population_measures
from unlearn.trials.second_oracle import add_second_oracle
from unlearn.trials.setup import (
    MAX_COUNT,
    ShowProgress,
    SplitsCache,
    UnlearningContext,
    check_seed,
    no_progress,
    open_context,
    open_score_store,
    open_trainable_store,
    zero_embeddings,
)
from unlearn.tuning.config import DEFAULT_VARIANTS, SweepConfig
from unlearn.tuning.dry_run import SweepCounts, count_sweep
from unlearn.tuning.gains import add_gains
from unlearn.tuning.methods import CENTROID, LONG, Method, build_methods, has_epochs
from unlearn.tuning.populations import measure_populations
from unlearn.tuning.results import claim_sweep_folder, resolve_sweep_folder, write_sweep
from unlearn.tuning.runner import Sweep, check_sweep
from unlearn.tuning.search import SearchBackend
from unlearn.tuning.state import SweepResult

RSU_OPTIONS = ("rounds", "rsu_epochs", "schedule", "unit", "risk", "again")


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedSweep:
    """A checked sweep, before anything is trained; `path` is its folder in the store."""

    config: SweepConfig
    context: UnlearningContext
    methods: list[Method]
    path: str

    def count(self, counts: SweepCounts | None = None) -> SweepCounts:
        """Count what the sweep would train and run, added to what other sweeps need."""
        return count_sweep(self.config, self.context, self.methods, counts)

    def forecast(self) -> float:
        """Forecast the seconds of one core that the sweep takes, of what is not stored."""
        counts = self.count()
        missing, store = counts.planned - counts.stored, self.context.bank_store
        return counts.stored * STORED_TRIAL_S + forecast_trials(store, models=len(counts.models), trials=missing)

    def run(
        self, pool: Pool, backend: SearchBackend, device: str, show_progress: ShowProgress = no_progress
    ) -> SweepResult:
        """Run the sweep, and store its results."""
        claim_sweep_folder(self.context.store, self.config.folder_name, self.config.identity)
        sweep = Sweep(self.config, self.context, self.methods, device, show_progress)
        result = sweep.run(pool, backend)
        # the same trials as were run: the plan depends on what was chosen alone
        planned = sweep.plan_judged_trials(result.states, result.judged_set)
        populations, too_few = measure_populations(self.context, self.config.measures, planned, result.judged_rows)
        n_train = self.context.bank_store.manifest.split_sizes[0]
        result = replace(
            result,
            judged_rows=add_gains(add_second_oracle(result.judged_rows), n_train),
            populations=populations,
            failed=[*result.failed, *too_few],
        )
        write_sweep(self.context.store, self.path, result)
        return result


def prepare_sweep(config: SweepConfig, cache: SplitsCache | None = None, *, dry_run: bool = False) -> PreparedSweep:
    """Open the store and check all options that need no model; nothing is written yet.

    Without a cache the data are read anew. A dry run creates no store of changed data. Raises ValueError for an unknown
    name, a score missing from the store, more parts than examples to forget, a budget of 0, or the folder of another
    sweep.
    """
    # The order is from cheap to costly: options alone, the manifest, the data set, scores.
    check_counts(config)
    check_options_used(config)
    check_population_size(config)
    bank_store = open_trainable_store(config.store)
    check_seed(config.seed)
    select_measures(config.measures)
    forget = config.forget
    if forget is None:
        forget = choose_default_forget(open_score_store(bank_store, config.scores_of)[0])
    context = open_context(
        bank_store,
        forget=forget,
        size=config.n_forget,
        seed=config.seed,
        data=config.data,
        folder=config.folder,
        scores_of=config.scores_of,
        with_copies=config.with_copies,
        cache=cache,
        dry_run=dry_run,
    )
    notes = []
    if config.forget is None:
        context, note = choose_default_size(context, config.size)
        config, notes = replace(config, forget=forget, size=context.size), [note]
    context.check_forget_set()
    # full names are part of the sweep's identity, so that all ways of writing them are one sweep
    find_name = context.score_store.find_score_name
    config = replace(
        config,
        forget=context.forget,
        tune_forget=resolve_score_alias(complete_worst_case(config.tune_forget, context.score_store), find_name),
        scores=tuple(map(find_name, config.scores)),
    )
    config, reduced = resolve_methods(config, context)
    notes += describe_without_epochs(config)
    context = replace(context, notes=(*notes, *filter(None, [reduced]), *context.notes))
    if config.risk is not None:
        config = replace(config, risk=complete_score_name(context.score_store, config.risk))
    methods = build_methods(config, context.store.manifest.architecture)
    check_sweep(config, context, methods)
    climbing = {name: dict(method.fixed_params(name)) for method in methods for name in method.plan}
    lost = describe_first_climb(bank_store, climbing, "ALGORITHM.start=descent")
    context = replace(context, notes=(*context.notes, *lost))
    return PreparedSweep(
        config=config,
        context=context,
        methods=methods,
        path=resolve_sweep_folder(context.store, config.folder_name, config.identity),
    )


def resolve_methods(config: SweepConfig, context: UnlearningContext) -> tuple[SweepConfig, str]:
    """Resolve the scores that a user left out, and the default variants where a forget set or a bank allows fewer.

    The line names the default variants that are left out, which variants that the user chose never are.
    """
    line = ""
    if config.variants == DEFAULT_VARIANTS:
        score, store = find_default_score(context.score_store), context.score_store
        n_forget = len(context.select_forget_set(lambda: zero_embeddings(context.splits)).rows)
        reasons = {
            "rum": f"the bank has no {score}"
            if not config.scores and f"{score}.parquet" not in store.folder.names("scores")
            else f"{format_count(n_forget, 'example')} cannot make {format_count(config.parts, 'part')}"
            * (n_forget < config.parts),
            "rsu": f"{format_count(n_forget, 'example')} cannot make {format_count(config.rounds, 'round')}"
            * (n_forget < config.rounds),
        }
        kept = tuple(variant for variant in DEFAULT_VARIANTS if not reasons.get(variant))
        left_out = [f"{variant}, since {reason}" for variant, reason in reasons.items() if reason]
        line = f"left out of the default --variants: {'; '.join(left_out)}" if left_out else ""
        config = replace(config, variants=kept)
    refines = config.plans or config.order or any(variant.startswith(("rum", "auto")) for variant in config.variants)
    if refines and not config.scores:
        config = replace(config, scores=(find_default_score(context.score_store),))
    return config, line


def describe_without_epochs(config: SweepConfig) -> list[str]:
    """Describe the algorithms that have no variant with more epochs."""
    names = [name for name in config.algorithms if not has_epochs(name)] if LONG in config.variants else []
    return [f"{', '.join(names)}: no {LONG}, since there are no epochs to multiply"] if names else []


def complete_score_name(store: Store, name: str) -> str:
    """Complete the name of a score with the only keep fraction that it is stored for: attack_success_k0.500.

    A stored score, and a name that no stored score begins with, stay as they are. ValueError if there are several.
    """
    name = store.find_score_name(name)
    stored = [file.removesuffix(".parquet") for file in store.folder.names("scores")]
    candidates = sorted(score for score in stored if name and score.startswith(f"{name}_k"))
    if name in stored or not candidates:
        return name
    if len(candidates) > 1:
        raise ValueError(f"--risk {name} is stored for {len(candidates)} arms; name one of {', '.join(candidates)}")
    return candidates[0]


def check_counts(config: SweepConfig) -> None:
    """Check the numbers of configurations and originals."""
    rules = (
        ("--tunings", config.tunings),
        ("--budget", config.budget),
        ("--tune-seeds", config.tune_seeds),
        ("--seeds", config.seeds),
    )
    for flag, value in rules:
        if value < 1:
            raise ValueError(f"{flag} {value}: a sweep needs 1 or more")
        if value > MAX_COUNT:
            raise ValueError(
                f"{flag} {value}: a sweep takes {MAX_COUNT} or fewer; a larger number is probably a typing error"
            )
    if config.seeds < config.tunings:
        raise ValueError(
            f"--seeds {config.seeds}: each of {config.tunings} tunings is judged on originals of its own; give "
            f"{config.tunings} or more, or fewer --tunings"
        )


def check_population_size(config: SweepConfig) -> None:
    """Check that every method is judged on enough originals for the requested measures of many models."""
    names, n = select_population_measures(config.measures), config.seeds
    if names and n < MIN_POPULATION:
        raise ValueError(
            f"--seeds {n}: {', '.join(names)} compare many models; use {MIN_POPULATION} or more, and 64 "
            "for useful values"
        )


def check_options_used(config: SweepConfig) -> None:
    """Check that every option has an effect, since each changes the sweep's identity.

    Raises ValueError for options of partitions without a partition, of rounds without RSU, of a search without a
    search, another bank's scores where none is read; rounds below 1; or --again where a score replaces the loss.
    """
    if config.rounds < 1:
        raise ValueError(f"--rounds {config.rounds}: rsu has 1 or more; 1 is the algorithm itself")
    if config.risk is not None and config.again:
        raise ValueError(f"--again recomputes the loss, and --risk {config.risk} replaces it; leave one of them out")
    # An option without effect would give the same results another identity and folder.
    kinds = {variant.removesuffix("-reversed") for variant in config.variants}
    refines = bool(kinds & {"rum", "auto"} or config.plans or config.order)
    partitions, searches = refines or "shuffle" in kinds, config.tuning != "defaults"
    has_parts = partitions or LONG in kinds
    selects_by_score = config.forget is None or find_score_name(config.forget) or find_score_name(config.tune_forget)
    reads_scores = selects_by_score or config.risk is not None or (refines and set(config.scores) != {CENTROID})
    refining, partitioning = (
        "refines the forget set by a score; add --variants rum or --plans",
        "partitions the forget set; add --variants ",
    )
    # (options, whether they have an effect, why not).
    rules = (
        (("scores", "rule"), refines, f"no method {refining}"),
        (("parts",), has_parts, f"no method {partitioning}rum or shuffle, or --plans"),
        (("dynamics",), partitions, f"no method {partitioning}rum or shuffle, or --plans"),
        (("tuning",), partitions or not searches, f"no method {partitioning}rum or shuffle, or --plans"),
        (RSU_OPTIONS, "rsu" in kinds, "no method has rounds; add --variants rsu"),
        (("sampler",), searches, "no parameter is searched; use another --tuning"),
        (("tunings",), searches or config.tunings == 1, "no parameter is searched; use another --tuning"),
        (("space", "search"), searches, "no parameter is searched; use another --tuning"),
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
