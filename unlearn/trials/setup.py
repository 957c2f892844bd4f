"""From what a user asks for to rows: which data, what is to be forgotten, and every model that takes part.

Scores of another bank than the one whose recipe trains theta_o.
"""

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
    """Where scores are read, and what a reader of results must know of that.

    Args:
        store: the user's, whose recipe trains theta_o.
        url: path or URL of another bank; None for the same.

    Returns:
        The store that has the scores, and a line if its models were trained otherwise than theta_o.

    Raises:
        ValueError: a bank of other data: its scores are of other examples, or of models that saw others.
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
    own, its = ({"architecture": one.architecture, **one.recipe} for one in (ours, theirs))
    differing = [f"{name} {its.get(name)}, theta_o's {value}" for name, value in own.items() if its.get(name) != value]
    if not differing:
        return other, ()
    return other, (
        f"scores are those of {other.folder.display_name}, whose models were trained otherwise "
        f"({'; '.join(differing)}): what "
        "they have memorized need not be what theta_o has",
    )


MAX_COUNT = 10_000
"""Seeds (the papers use 3 to 512), or attempts at a place, beyond which a number is rather mistyped than meant."""

SEED_LIMIT = 2**63
"""A seed is below it."""

ShowProgress = Callable[[str], AbstractContextManager[ProgressCallback]]
"""From what is counted to who is told how far it is; report.progress.Meter is one."""


@contextmanager
def no_progress(what: str) -> Generator[ProgressCallback, None, None]:
    """Nobody is told."""
    yield lambda done, total, line: None


@dataclass(frozen=True)
class TrialOptions:
    """What a command was asked for, in the user's words.

    Attributes:
        store: path or URL of a bank, whose recipe trains originals and oracles.
        forget: the forget set; see scenarios.choose and plant.
        size: examples in it, where the words do not say it.
        algorithm: a name of ALGORITHMS.
        params: its parameters, as "lr=0.05".
        seeds: how many originals.
        measures: names of MEASURES beyond the core ones.
        seed: of what is drawn for the forget set, and of the algorithm's chance.
        data: as estimate's --data, where the bank's name for it is not enough.
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
    """A wish that holds, as far as can be told before anything is trained.

    Attributes:
        options: in the user's words.
        params: of the algorithm, name -> value.
        bank_store: the user's store.
        scores: where scores are read: there, or in another bank of the same data.
        store: where originals, oracles and rows are kept; within the user's where a forget set changes the data.
        splits: the data that models are trained on.
        trial_data: the same as trials read it.
        planted: the forget set if it changed the data, else None.
        notes: what a reader of results must know of these words.
    """

    options: TrialOptions
    params: dict[str, Any]
    bank_store: Store
    scores: Store
    store: Store
    splits: Splits
    trial_data: TrialData
    planted: ForgetSet | None
    notes: tuple[str, ...] = ()

    def forget_set(self, embeddings: Callable[[], np.ndarray]) -> ForgetSet:
        """What is to be forgotten; embeddings [n_train, E] of the original are asked for by entanglement alone."""
        if self.planted:
            return self.planted
        wish = self.options
        return select_forget_set(wish.forget, wish.size, self.splits, self.scores.score, embeddings, wish.seed)


def open_context(wish: TrialOptions) -> UnlearningContext:
    """Open the store, read its data, and check all words that need no model.

    Args:
        wish: what the user asked for.

    Returns:
        The request.

    Raises:
        ValueError: an imported bank, data that cannot be read again, no seeds, or a word that nothing is named.
    """
    scored = Store.open(wish.store)
    if scored.manifest.imported:
        raise ValueError(
            f"{scored.folder.display_name} was imported without a way to train its models, so no original can be made; "
            "unlearning needs a bank of `python -m memscore.estimate`"
        )
    if wish.seeds < 1:
        raise ValueError(f"--seeds {wish.seeds}: at least one original is needed; 3 give an interval")
    if wish.seeds > MAX_COUNT:
        raise ValueError(
            f"--seeds {wish.seeds} asks for {2 * wish.seeds} models, an original and an oracle a seed; at most "
            f"{MAX_COUNT} "
            "seeds are taken, and 64 suffice for the measures of many models"
        )
    if not 0 <= wish.seed < SEED_LIMIT:
        raise ValueError(f"--seed {wish.seed}: a seed is 0 to {SEED_LIMIT - 1}, what a column of rows holds")
    if select_population_measures(wish.measures) and wish.seeds < MIN_POPULATION:
        raise ValueError(
            f"--seeds {wish.seeds}: {', '.join(select_population_measures(wish.measures))} compare many models; use "
            f"{MIN_POPULATION} or more, and "
            "64 for them to say much"
        )
    params = parse_params(wish.algorithm, wish.params, scored.manifest.architecture)
    check_applicable(scored, wish.algorithm, params)
    select_measures(wish.measures)
    splits, planted, home = reload_splits(scored, wish.data, wish.folder), None, scored
    if changes_data(wish.forget):
        splits, planted = inject_forget_set(wish.forget, wish.size, splits, wish.seed)
        manifest = replace(scored.manifest, fingerprint=splits.fingerprint, label_changes=splits.label_changes)
        slug = "-".join("".join(c if c.isalnum() else " " for c in planted.name).split())
        home = Store.create(f"{scored.url}/scenarios/{slug}-s{wish.seed}", manifest, build_examples_table(splits))
    bench = build_trial_data(splits, scored.manifest.seed)
    if get_algorithm(wish.algorithm).reads_validation and not len(bench.validation):
        raise ValueError(
            f"{wish.algorithm} reads validation examples, half of those that the bank holds out, and "
            f"{scored.folder.display_name} holds out {len(bench.selection)}; use a bank made with --validation 0.1"
        )
    scores, notes = open_score_store(scored, wish.scores_of)
    made = UnlearningContext(
        options=wish,
        params=params,
        bank_store=scored,
        scores=scores,
        notes=notes,
        store=home,
        splits=splits,
        trial_data=bench,
        planted=planted,
    )
    made.forget_set(lambda: zero_embeddings(splits))  # wrong words end it here
    return made


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResults:
    """What came of a request.

    Attributes:
        rows: of the oracle, the algorithm and the original for every seed.
        failed: a line for each trial that has no row.
        many: values of the measures of many models that were asked for.
    """

    rows: list[Row]
    failed: list[str]
    many: dict[str, float]


def describe_missing_models(asked_for: UnlearningContext) -> str:
    """How many models the store lacks, as a line for those who will wait for them; empty if it has all."""
    store, seeds = asked_for.store, range(asked_for.options.seeds)
    first = compute_job_key(store, OriginalJob(store=store.url, index=0))
    if store.has_outputs(first):
        forget = asked_for.forget_set(lambda: read_embeddings(store, first))
    else:
        forget = asked_for.forget_set(lambda: zero_embeddings(asked_for.splits))  # its oracles are not there either
    names = find_model_names(store, build_reference_jobs(store, [forget.rows], seeds, "cpu"))
    missing = find_missing_models(store, names)
    oracles = sum(bool(job.removed) for job in missing)
    on_file = len(names) - len(missing)
    if not missing:
        return ""
    return f"to train first: originals {len(missing) - oracles}, oracles {oracles} (on file: {on_file})\n"


def read_embeddings(store: Store, key: str) -> np.ndarray:
    """What the head of an original reads of each training example, [n_train, E]."""
    return store.read_outputs(key)[1][: store.manifest.split_sizes[0]]


def zero_embeddings(splits: Splits) -> np.ndarray:
    """Zeros in their place, before there is an original."""
    return np.zeros((len(splits.train), 1), dtype=np.float32)


def run_all_seeds(
    asked_for: UnlearningContext, pool: Pool, device: str, phase: ShowProgress = no_progress
) -> TrialResults:
    """Train the originals and oracles that the store lacks, then run the trials whose rows it lacks.

    Args:
        asked_for: the request.
        pool: where models are trained and trials run.
        device: "cpu" or "cuda".
        phase: given originals, oracles and trials, one after the other, hands out who is told of each.

    Returns:
        What came of it.

    Raises:
        RuntimeError: a model that trials need could not be trained, or diverged.
    """
    wish, store, indices = asked_for.options, asked_for.store, range(asked_for.options.seeds)
    require_reference_models(asked_for, build_reference_jobs(store, [], indices, device), pool, phase, "originals")
    first = compute_job_key(store, OriginalJob(store=store.url, index=0))
    forget = asked_for.forget_set(lambda: read_embeddings(store, first))
    require_reference_models(
        asked_for, build_reference_jobs(store, [forget.rows], indices, device), pool, phase, "oracles"
    )
    planned = [
        TrialConfig(
            store=store.url,
            algorithm=name,
            params=tuple(sorted(asked_for.params.items())) if name == wish.algorithm else (),
            forget_set=forget.name,
            forget=forget.rows,
            by_class=forget.by_class,
            index=index,
            seed=wish.seed,
            measures=tuple(sorted(wish.measures)),
            device=device,
        )
        for index in indices
        for name in dict.fromkeys((ORACLE, wish.algorithm, "original"))
    ]
    with phase("trials") as progress:
        rows, failed = run_trials(planned, asked_for.trial_data, pool, progress)
    unlearned, oracles = ([t for t in planned if t.algorithm == name] for name in (wish.algorithm, ORACLE))
    many = compute_population_measures(store, unlearned, oracles, asked_for.trial_data, wish.measures)
    return TrialResults(rows=rows, failed=failed, many=many)


def run_trials(
    planned: Sequence[TrialConfig],
    bench: TrialData,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
) -> tuple[list[Row], list[str]]:
    """Run trials, or read those that are on file.

    Args:
        planned: trials whose originals and oracles are there.
        bench: the data.
        pool: where they run.
        progress: told of each that is run now.

    Returns:
        The rows in the order of the trials, and a line for each trial that failed.
    """
    found = {trial: row for trial in planned if (row := read_stored_row(trial))}
    missing, failed = [trial for trial in planned if trial not in found], []
    for done, (trial, result) in enumerate(pool.run(run_trial, missing, bench), start=1):
        if isinstance(result, Failure):
            failed.append(f"{trial.algorithm} on original {trial.index} failed: {result.error}")
        else:
            found[trial] = result
        progress(done, len(missing), trial.algorithm)
    return [found[trial] for trial in planned if trial in found], failed


def require_reference_models(
    asked_for: UnlearningContext, jobs: Sequence[OriginalJob], pool: Pool, phase: ShowProgress, what: str
) -> None:
    """Train originals and oracles; stop where trials would have nothing to be compared with."""
    with phase(what) as progress:
        filled: TrainingSummary = train_reference_models(asked_for.store, jobs, asked_for.trial_data, pool, progress)
    if filled.trained and asked_for.store.folder.exists("models.parquet"):
        write_models_table(asked_for.store)  # it lists originals
    for name, why in filled.failed.items():
        raise RuntimeError(f"{name} could not be trained: {why}; the next command tries it again")
    if filled.diverged:
        raise RuntimeError(
            f"{filled.diverged[0]} diverged under the recipe of {asked_for.store.folder.display_name}, so trials have "
            "nothing "
            "to be compared with; use a bank with a smaller --lr"
        )
