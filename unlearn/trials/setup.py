"""Stores and data that trials, sweeps and experiments read, and rows of trials in a pool."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cluster.pool import Failure, Pool
from memscore.data.duplicates import Copies, find_copies
from memscore.data.splits import Splits, build_examples_table
from memscore.pipeline.jobs import OriginalJob
from memscore.pipeline.reload_data import reload_splits
from memscore.pipeline.start_weights import load_start_weights, require_same_network, store_start_weights
from memscore.pipeline.tables import write_models_table
from memscore.pipeline.train_bank import ProgressCallback, TrainingSummary
from memscore.store.remote import join_url
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from memscore.training.precision import require_precision
from unlearn.forget_sets import ForgetSet, changes_data, inject_forget_set, resolve_score_alias, select_forget_set
from unlearn.oracles import TrialData, build_trial_data, train_reference_models
from unlearn.trials.config import Row, TrialConfig, name_steps
from unlearn.trials.default_scores import complete_worst_case
from unlearn.trials.forgotten_copies import add_copies
from unlearn.trials.runner import read_stored_row, run_trial


def open_score_store(store: Store, url: str | None) -> tuple[Store, tuple[str, ...]]:
    """Open the store that scores are read from: the user's, or another bank of the same data.

    The notes say if its models were trained otherwise than theta_o. Raises ValueError for a bank of other data, whose
    scores are of other examples or of models trained on other examples.
    """
    if url is None:
        return store, ()
    try:
        other = Store.open(url, check_manifest=True)
    except (ValueError, OSError) as error:
        raise ValueError(f"--scores-of {url}: {error}") from None
    ours, theirs = store.manifest, other.manifest
    if ours.fingerprint != theirs.fingerprint:
        raise ValueError(
            f"--scores-of {other.folder.display_name} is a bank of other data than {store.folder.display_name} (splits "
            f"{theirs.split_sizes} and {ours.split_sizes}, fingerprints {theirs.fingerprint[:8]} and "
            f"{ours.fingerprint[:8]}); use one of the same data, --validation, --label-noise and --seed"
        )
    # Another recipe is allowed, since scores are of examples; a note tells the reader.
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


@dataclass(frozen=True, kw_only=True, eq=False)
class UnlearningContext:
    """Open stores and data of a trial command, a sweep or an experiment, before anything is trained.

    Attributes:
        forget: the forget set, as the user wrote it; see forget_sets.select_forget_set and inject_forget_set.
        size: number of examples in it, where `forget` does not give it.
        seed: of its draw.
        bank_store: the user's store.
        score_store: the store that scores are read from: the user's, or another bank of the same data.
        store: the store of originals, oracles and rows; inside the user's where a forget set changes the data.
        splits: the data that models are trained on.
        trial_data: the same as trials read it.
        injected: the forget set if it changed the data, else None.
        notes: notes on these options for a reader of the results.
        with_copies: whether forget sets are completed with the exact copies of their examples.
    """

    forget: str
    size: int
    seed: int
    bank_store: Store
    score_store: Store
    store: Store
    splits: Splits
    trial_data: TrialData
    injected: ForgetSet | None
    notes: tuple[str, ...] = ()
    with_copies: bool = False

    @cached_property
    def copies(self) -> Copies:
        """The exact copies among the images that models are trained and judged on."""
        return find_copies(self.splits)

    def select_forget_set(self, embeddings: Callable[[], np.ndarray]) -> ForgetSet:
        """Select the forget set; `embeddings` [n_train, E] of the original is called by entanglement alone."""
        return self.complete(
            self.injected
            or select_forget_set(self.forget, self.size, self.splits, self.score_store.score, embeddings, self.seed)
        )

    def complete(self, forget_set: ForgetSet) -> ForgetSet:
        """Add the exact copies of a forget set's examples, if that was requested."""
        return add_copies(self.copies, forget_set) if self.with_copies else forget_set

    def check_forget_set(self) -> None:
        """Raise ValueError if the forget set cannot be selected; zeros stand for embeddings, which may not exist."""
        self.select_forget_set(lambda: zero_embeddings(self.splits))


class SplitsCache:
    """Read the data of a command's banks once; banks of the same data share the images."""

    def __init__(self) -> None:
        self._splits: dict[tuple[str, str | None, str | None], Splits] = {}

    def read(self, store: Store, data: str | None, folder: str | None) -> Splits:
        """Read the data of a store, or return what was read for a store of the same data."""
        # The fingerprint covers the images; mean and std are each bank's own.
        key = (store.manifest.fingerprint, data, folder)
        if key not in self._splits:
            self._splits[key] = reload_splits(store, data, folder)
        return replace(self._splits[key], mean=store.manifest.mean, std=store.manifest.std)


def open_trainable_store(url: str) -> Store:
    """Open a bank whose models can be trained; an imported one is an error."""
    store = Store.open(url, check_manifest=True)
    if store.manifest.imported:
        raise ValueError(
            f"{store.folder.display_name} was imported without a way to train its models, so no original can be "
            "made; unlearning needs a bank of `python -m memscore.estimate`"
        )
    return store


def check_seed(seed: int) -> None:
    """Check that a seed fits into an int64 column."""
    if not 0 <= seed < SEED_LIMIT:
        raise ValueError(f"--seed {seed}: a seed is 0 to {SEED_LIMIT - 1}, the range of an int64 column")


def open_context(
    bank_store: Store,
    *,
    forget: str,
    size: int,
    seed: int,
    data: str | None,
    folder: str | None,
    scores_of: str | None = None,
    with_copies: bool = False,
    cache: SplitsCache | None = None,
    dry_run: bool = False,
) -> UnlearningContext:
    """Read the data of a bank, with the changes that a forget set makes to them.

    Raises ValueError for data that cannot be read again, or scores of other data; the caller checks the forget set.
    Without a cache the data are read anew. A dry run creates no store of changed data.
    """
    require_same_network(bank_store)
    splits = (cache or SplitsCache()).read(bank_store, data, folder)
    score_store, notes = open_score_store(bank_store, scores_of)
    forget = resolve_score_alias(complete_worst_case(forget, score_store), score_store.find_score_name)
    injected, trial_store = None, bank_store
    if changes_data(forget):
        # Changed data train other models: they get a store of their own, named by what decides the change.
        splits, injected = inject_forget_set(forget, size, splits, seed)
        manifest = replace(bank_store.manifest, fingerprint=splits.fingerprint, label_changes=splits.label_changes)
        slug = "-".join("".join(c if c.isalnum() else " " for c in injected.name).split())
        url = join_url(bank_store.url, f"scenarios/{slug}-s{seed}")
        if dry_run:
            trial_store = Store.open_or_plan(url, manifest)
        else:
            trial_store = Store.create(url, manifest, build_examples_table(splits))
            load_start_weights(bank_store)
            store_start_weights(trial_store)
    return UnlearningContext(
        forget=forget,
        size=size,
        seed=seed,
        bank_store=bank_store,
        score_store=score_store,
        notes=notes,
        store=trial_store,
        splits=splits,
        trial_data=build_trial_data(splits, bank_store.manifest.seed),
        injected=injected,
        with_copies=with_copies,
    )


def read_embeddings(store: Store, key: str) -> np.ndarray:
    """Read what the head of an original reads of each training example, [n_train, E]."""
    return store.read_outputs(key)[1][: store.manifest.split_sizes[0]]


def zero_embeddings(splits: Splits) -> np.ndarray:
    """Return zeros in place of embeddings, before there is an original."""
    return np.zeros((len(splits.train), 1), dtype=np.float32)


def run_trials(
    trials: Sequence[TrialConfig],
    trial_data: TrialData,
    pool: Pool,
    progress: ProgressCallback = lambda done, total, line: None,
) -> tuple[list[Row], dict[TrialConfig, str]]:
    """Run the trials whose rows are missing, and read the others; their originals and oracles are stored.

    Returns the rows in the order of the trials, and the errors of those that failed.
    """
    # Equal trials, which several methods may need, are one entry and run once.
    stores = {url: open_visible_store(url) for url in {trial.store for trial in trials}}
    rows = {trial: row for trial in trials if (row := read_stored_row(stores[trial.store], trial))}
    missing, failed = [trial for trial in trials if trial not in rows], dict[TrialConfig, str]()
    for url, device in {(trial.store, trial.device) for trial in missing}:
        require_precision(stores[url].manifest.precision, device)
    for done, (trial, result) in enumerate(pool.run(run_trial, missing, trial_data), start=1):
        if isinstance(result, Failure):
            failed[trial] = result.error
        else:
            rows[trial] = result
        progress(done, len(missing), name_steps(trial))
    return [rows[trial] for trial in trials if trial in rows], failed


def describe_failures(failed: Mapping[TrialConfig, str]) -> list[str]:
    """Describe trials that failed: a line for each algorithm and error, with all originals that it failed on."""
    originals: dict[tuple[str, str], list[int]] = {}
    for trial, error in failed.items():
        originals.setdefault((name_steps(trial), error), []).append(trial.index)
    return [
        f"{name} on original{'s' * (len(indices) > 1)} {', '.join(map(str, indices))} failed: {error}"
        for (name, error), indices in originals.items()
    ]


def require_reference_models(
    context: UnlearningContext, jobs: Sequence[OriginalJob], pool: Pool, show_progress: ShowProgress, label: str
) -> None:
    """Train originals and oracles; raise if one fails or diverges, since trials could not be compared with it."""
    with show_progress(label) as progress:
        summary: TrainingSummary = train_reference_models(context.store, jobs, context.trial_data, pool, progress)
    if summary.trained and context.store.folder.exists("models.parquet"):
        # The table lists originals.
        write_models_table(context.store)
    for name, error in summary.failed.items():
        raise RuntimeError(f"{name} could not be trained: {error}; the next command tries it again")
    if summary.diverged:
        raise RuntimeError(
            f"{summary.diverged[0]} diverged under the recipe of {context.store.folder.display_name}, so trials have "
            "nothing to be compared with; use a bank with a smaller --lr"
        )
