"""From the options of a command to rows of trials: the data, the forget set, and every model that takes part."""

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cluster.pool import Failure, Pool
from memscore.data.splits import Splits, build_examples_table
from memscore.pipeline.config import reload_splits
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.pipeline.tables import write_models_table
from memscore.pipeline.train_bank import ProgressCallback, TrainingSummary
from memscore.store.store import Store
from unlearn.algorithms import get_algorithm
from unlearn.forget_sets import ForgetSet, changes_data, inject_forget_set, select_forget_set
from unlearn.oracles import (
    TrialData,
    build_reference_jobs,
    build_trial_data,
    find_missing_models,
    find_model_names,
    train_reference_models,
)
from unlearn.trials.config import ORACLE, Row, TrialConfig, check_applicable, parse_params
from unlearn.trials.measure import (
    MIN_POPULATION,
    compute_population_measures,
    select_measures,
    select_population_measures,
)
from unlearn.trials.runner import read_stored_row, run_trial


def open_score_store(store: Store, url: str | None) -> tuple[Store, tuple[str, ...]]:
    """Open the store that scores are read from, which may be another bank of the same data.

    Args:
        store: the user's store, whose recipe trains theta_o.
        url: path or URL of another bank; None for the same.

    Returns:
        The store that has the scores, and a note if its models were trained otherwise than theta_o.

    Raises:
        ValueError: a bank of other data, whose scores are of other examples or of models trained on other examples.
    """
    if url is None:
        return store, ()
    try:
        other = Store.open(url)
    except (ValueError, OSError) as error:
        raise ValueError(f"--scores-of {url}: {error}") from None
    ours, theirs = store.manifest, other.manifest
    if ours.fingerprint != theirs.fingerprint:
        raise ValueError(
            f"--scores-of {other.folder.display_name} is a bank of other data than {store.folder.display_name} (splits "
            f"{theirs.split_sizes} and {ours.split_sizes}, fingerprints {theirs.fingerprint[:8]} and "
            f"{ours.fingerprint[:8]}); use one of the same data, --validation, --label-noise and --seed"
        )
    our_settings, their_settings = (
        {"architecture": manifest.architecture, **manifest.recipe} for manifest in (ours, theirs)
    )
    differing = [
        f"{name} {their_settings.get(name)}, theta_o's {value}"
        for name, value in our_settings.items()
        if their_settings.get(name) != value
    ]
    if not differing:
        return other, ()
    return other, (
        f"scores are those of {other.folder.display_name}, whose models were trained otherwise "
        f"({'; '.join(differing)}): what they have memorized need not be what theta_o has",
    )


MAX_COUNT = 10_000
"""Largest number of seeds (the papers use 3 to 512) or of configurations; a larger one is probably a typing error."""

SEED_LIMIT = 2**63
"""Seeds are smaller than this."""

ShowProgress = Callable[[str], AbstractContextManager[ProgressCallback]]
"""From a label to a context that gives a progress callback; memscore.tables.progress_bar.ProgressBar is one."""


@contextmanager
def no_progress(label: str) -> Generator[ProgressCallback, None, None]:
    """Show no progress."""
    yield lambda done, total, line: None


@dataclass(frozen=True)
class TrialOptions:
    """Options of a command, as the user wrote them.

    Attributes:
        store: path or URL of a bank, whose recipe trains originals and oracles.
        forget: the forget set; see forget_sets.select_forget_set and inject_forget_set.
        size: number of examples in it, where `forget` does not give it.
        algorithm: a name of ALGORITHMS.
        params: its parameters, as "lr=0.05".
        seeds: number of originals.
        measures: names of MEASURES beyond the core ones.
        seed: of the forget set's draw, and of the algorithm's random streams.
        data: as estimate's --data, where the name in the manifest is not enough.
        folder: as estimate's --folder.
        scores_of: path or URL of another bank of the same data, whose scores are read in place of the store's own.
    """

    store: str
    forget: str
    size: int
    algorithm: str
    params: Sequence[str] = ()
    seeds: int = 3
    measures: Sequence[str] = ()
    seed: int = 0
    data: str | None = None
    folder: str | None = None
    scores_of: str | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class UnlearningContext:
    """Hold checked options with the open stores and the data, before anything is trained.

    Attributes:
        options: the options, as the user wrote them.
        params: parameters of the algorithm, name -> value.
        bank_store: the user's store.
        score_store: the store that scores are read from: the user's, or another bank of the same data.
        store: the store of originals, oracles and rows; inside the user's where a forget set changes the data.
        splits: the data that models are trained on.
        trial_data: the same as trials read it.
        injected: the forget set if it changed the data, else None.
        notes: notes on these options for a reader of the results.
    """

    options: TrialOptions
    params: dict[str, Any]
    bank_store: Store
    score_store: Store
    store: Store
    splits: Splits
    trial_data: TrialData
    injected: ForgetSet | None
    notes: tuple[str, ...] = ()

    def select_forget_set(self, embeddings: Callable[[], np.ndarray]) -> ForgetSet:
        """Select the forget set; `embeddings` [n_train, E] of the original is called by entanglement alone."""
        if self.injected:
            return self.injected
        options = self.options
        return select_forget_set(
            options.forget, options.size, self.splits, self.score_store.score, embeddings, options.seed
        )


class SplitsCache:
    """Read the data of a command's banks once; banks of the same data share the images."""

    def __init__(self) -> None:
        self._splits: dict[tuple[str, str | None, str | None], Splits] = {}

    def read(self, store: Store, data: str | None, folder: str | None) -> Splits:
        """Read the data of a store, or return what was read for a store of the same data."""
        key = (store.manifest.fingerprint, data, folder)
        if key not in self._splits:
            self._splits[key] = reload_splits(store, data, folder)
        return replace(self._splits[key], mean=store.manifest.mean, std=store.manifest.std)


def open_context(options: TrialOptions, cache: SplitsCache | None = None) -> UnlearningContext:
    """Open the store, read its data, and check all options that need no model.

    Args:
        options: the options, as the user wrote them.
        cache: the data that this command has read; None reads anew.

    Returns:
        The context.

    Raises:
        ValueError: an imported bank, data that cannot be read again, no seeds, or an unknown name.
    """
    bank_store = Store.open(options.store)
    if bank_store.manifest.imported:
        raise ValueError(
            f"{bank_store.folder.display_name} was imported without a way to train its models, so no original can be "
            "made; unlearning needs a bank of `python -m memscore.estimate`"
        )
    if options.seeds < 1:
        raise ValueError(f"--seeds {options.seeds}: at least one original is needed; 3 give an interval")
    if options.seeds > MAX_COUNT:
        raise ValueError(
            f"--seeds {options.seeds} asks for {2 * options.seeds} models, an original and an oracle a seed; at most "
            f"{MAX_COUNT} seeds are allowed, and 64 suffice for the measures of many models"
        )
    if not 0 <= options.seed < SEED_LIMIT:
        raise ValueError(f"--seed {options.seed}: a seed is 0 to {SEED_LIMIT - 1}, the range of an int64 column")
    if select_population_measures(options.measures) and options.seeds < MIN_POPULATION:
        raise ValueError(
            f"--seeds {options.seeds}: {', '.join(select_population_measures(options.measures))} compare many models; "
            f"use {MIN_POPULATION} or more, and 64 for useful values"
        )
    params = parse_params(options.algorithm, options.params, bank_store.manifest.architecture)
    check_applicable(bank_store, options.algorithm, params)
    select_measures(options.measures)
    splits = (cache or SplitsCache()).read(bank_store, options.data, options.folder)
    injected, trial_store = None, bank_store
    if changes_data(options.forget):
        splits, injected = inject_forget_set(options.forget, options.size, splits, options.seed)
        manifest = replace(bank_store.manifest, fingerprint=splits.fingerprint, label_changes=splits.label_changes)
        slug = "-".join("".join(c if c.isalnum() else " " for c in injected.name).split())
        trial_store = Store.create(
            f"{bank_store.url}/scenarios/{slug}-s{options.seed}", manifest, build_examples_table(splits)
        )
    trial_data = build_trial_data(splits, bank_store.manifest.seed)
    if get_algorithm(options.algorithm).reads_validation and not len(trial_data.validation):
        raise ValueError(
            f"{options.algorithm} reads validation examples, half of those that the bank holds out, and "
            f"{bank_store.folder.display_name} holds out {len(trial_data.selection)}; use a bank made with "
            "--validation 0.1"
        )
    score_store, notes = open_score_store(bank_store, options.scores_of)
    context = UnlearningContext(
        options=options,
        params=params,
        bank_store=bank_store,
        score_store=score_store,
        notes=notes,
        store=trial_store,
        splits=splits,
        trial_data=trial_data,
        injected=injected,
    )
    context.select_forget_set(lambda: zero_embeddings(splits))  # raises for a wrong forget set
    return context


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResults:
    """Hold the rows of all trials and the measures of many models.

    Attributes:
        rows: rows of the oracle, the algorithm and the original for every seed.
        failed: a line for each trial that has no row.
        population_values: values of the requested measures of many models.
    """

    rows: list[Row]
    failed: list[str]
    population_values: dict[str, float]


def describe_missing_models(context: UnlearningContext) -> str:
    """Describe in a line how many models must be trained first; empty if none is missing."""
    store, seeds = context.store, range(context.options.seeds)
    first = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if store.has_outputs(first):
        forget = context.select_forget_set(lambda: read_embeddings(store, first))
    else:
        forget = context.select_forget_set(lambda: zero_embeddings(context.splits))  # its oracles are not stored either
    names = find_model_names(store, build_reference_jobs(store, [forget.rows], seeds, "cpu"))
    missing = find_missing_models(store, names)
    oracles = sum(bool(job.removed) for job in missing)
    stored = len(names) - len(missing)
    if not missing:
        return ""
    return f"to train first: originals {len(missing) - oracles}, oracles {oracles} (stored: {stored})\n"


def read_embeddings(store: Store, key: str) -> np.ndarray:
    """Read what the head of an original reads of each training example, [n_train, E]."""
    return store.read_outputs(key)[1][: store.manifest.split_sizes[0]]


def zero_embeddings(splits: Splits) -> np.ndarray:
    """Return zeros in place of embeddings, before there is an original."""
    return np.zeros((len(splits.train), 1), dtype=np.float32)


def run_all_seeds(
    context: UnlearningContext, pool: Pool, device: str, show_progress: ShowProgress = no_progress
) -> TrialResults:
    """Train the missing originals and oracles, then run the missing trials of all seeds.

    Args:
        context: the context.
        pool: where models are trained and trials run.
        device: "cpu" or "cuda".
        show_progress: called with "originals", "oracles" and "trials" in turn; gives the progress callback of each.

    Returns:
        The results.

    Raises:
        RuntimeError: a model that trials need could not be trained, or diverged.
    """
    options, store, indices = context.options, context.store, range(context.options.seeds)
    require_reference_models(
        context, build_reference_jobs(store, [], indices, device), pool, show_progress, "originals"
    )
    first = compute_job_key(store, OriginalJob(store=store.url, index=0))
    forget = context.select_forget_set(lambda: read_embeddings(store, first))
    require_reference_models(
        context, build_reference_jobs(store, [forget.rows], indices, device), pool, show_progress, "oracles"
    )
    trials = [
        TrialConfig(
            store=store.url,
            algorithm=name,
            params=tuple(sorted(context.params.items())) if name == options.algorithm else (),
            forget_set=forget.name,
            forget=forget.rows,
            by_class=forget.by_class,
            index=index,
            seed=options.seed,
            measures=tuple(sorted(options.measures)),
            device=device,
        )
        for index in indices
        for name in dict.fromkeys((ORACLE, options.algorithm, "original"))
    ]
    with show_progress("trials") as progress:
        rows, failed = run_trials(trials, context.trial_data, pool, progress)
    unlearned, oracles = ([t for t in trials if t.algorithm == name] for name in (options.algorithm, ORACLE))
    values = compute_population_measures(store, unlearned, oracles, context.trial_data, options.measures)
    return TrialResults(rows=rows, failed=failed, population_values=values)


def run_trials(
    trials: Sequence[TrialConfig],
    trial_data: TrialData,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
) -> tuple[list[Row], list[str]]:
    """Run the trials whose rows are missing, and read the others.

    Args:
        trials: trials whose originals and oracles are stored.
        trial_data: the data.
        pool: where they run.
        progress: called after each trial that is run now.

    Returns:
        The rows in the order of the trials, and a line for each trial that failed.
    """
    rows = {trial: row for trial in trials if (row := read_stored_row(trial))}
    missing, failed = [trial for trial in trials if trial not in rows], []
    for done, (trial, result) in enumerate(pool.run(run_trial, missing, trial_data), start=1):
        if isinstance(result, Failure):
            failed.append(f"{trial.algorithm} on original {trial.index} failed: {result.error}")
        else:
            rows[trial] = result
        progress(done, len(missing), trial.algorithm)
    return [rows[trial] for trial in trials if trial in rows], failed


def require_reference_models(
    context: UnlearningContext, jobs: Sequence[OriginalJob], pool: Pool, show_progress: ShowProgress, label: str
) -> None:
    """Train originals and oracles; raise if one fails or diverges, since trials could not be compared with it."""
    with show_progress(label) as progress:
        summary: TrainingSummary = train_reference_models(context.store, jobs, context.trial_data, pool, progress)
    if summary.trained and context.store.folder.exists("models.parquet"):
        write_models_table(context.store)  # it lists originals
    for name, error in summary.failed.items():
        raise RuntimeError(f"{name} could not be trained: {error}; the next command tries it again")
    if summary.diverged:
        raise RuntimeError(
            f"{summary.diverged[0]} diverged under the recipe of {context.store.folder.display_name}, so trials have "
            "nothing to be compared with; use a bank with a smaller --lr"
        )
