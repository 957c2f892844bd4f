"""Check a request for trials before anything is trained, and run it: one algorithm on one forget set."""

from dataclasses import dataclass
from typing import Any

from cluster.pool import Pool
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.units import format_count
from unlearn.algorithms import get_algorithm
from unlearn.forget_sets import ForgetSet
from unlearn.oracles import build_reference_jobs, find_missing_models, find_model_names
from unlearn.trials.batch_norm import describe_first_climb
from unlearn.trials.config import (
    ORACLE,
    ORIGINAL,
    Row,
    TrialConfig,
    check_applicable,
    get_paper_params,
    parse_params,
)
from unlearn.trials.default_forget_set import choose_default_forget, choose_default_size
from unlearn.trials.default_scores import DEFAULT_SIZE
from unlearn.trials.forecast import forecast_trials
from unlearn.trials.forgotten_copies import RetainedCopies, describe_held_out_copies, find_retained_copies
from unlearn.trials.measure import (
    MIN_POPULATION,
    select_measures,
    select_population_measures,
)
from unlearn.trials.populations import measure_population
from unlearn.trials.request import DEFAULT_ALGORITHM, TrialRequest
from unlearn.trials.runner import read_stored_row
from unlearn.trials.setup import (
    MAX_COUNT,
    ShowProgress,
    UnlearningContext,
    check_seed,
    describe_failures,
    no_progress,
    open_context,
    open_trainable_store,
    read_embeddings,
    require_reference_models,
    run_trials,
    zero_embeddings,
)

CLASS_MEASURES = ("kept-class-accuracy",)
"""Measures of trials that forget whole classes, on which a model should be wrong."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialResults:
    """Rows of all trials, and the measures of many models.

    Attributes:
        rows: rows of the oracle, the algorithm and the original for every seed.
        failed: lines on the trials that have no row.
        population_values: column -> value of the requested measures of many models.
        retained: the forgotten examples with an exact copy in the retain set.
        notes: lines on the request and the data for a reader of the results.
    """

    rows: list[Row]
    failed: list[str]
    population_values: dict[str, float]
    retained: RetainedCopies | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedTrials:
    """A checked request with its stores and data, before anything is trained.

    Attributes:
        request: the request.
        context: stores and data.
        algorithm: that of the request, or the default one.
        params: of the algorithm, name -> value.
        indices: the originals that are reported.
        notes: lines on what was decided for the user.
    """

    request: TrialRequest
    context: UnlearningContext
    algorithm: str
    params: dict[str, Any]
    indices: range
    notes: tuple[str, ...] = ()

    def describe_missing_models(self) -> str:
        """Describe in a line how many models must be trained first; empty if none is missing."""
        _, missing, stored = self._find_missing_models()
        oracles = sum(bool(job.removed) for job in missing)
        if not missing:
            return ""
        return f"to train first: originals {len(missing) - oracles}, oracles {oracles} (stored: {stored})\n"

    def forecast(self) -> float:
        """Forecast the seconds that all missing models and trials take on one core."""
        forget, missing, _ = self._find_missing_models()
        trials = self._build_trials(forget, "cpu")
        # a trial of a model that is missing is missing too
        count = len(trials) if missing else sum(read_stored_row(self.context.store, trial) is None for trial in trials)
        return forecast_trials(self.context.bank_store, models=len(missing), trials=count)

    def _find_missing_models(self) -> tuple[ForgetSet, list[OriginalJob], int]:
        """Return the forget set, the originals and oracles to train first, and how many are stored."""
        context, store = self.context, self.context.store
        first = compute_job_key(store, OriginalJob(store=store.url, index=0))
        if store.has_outputs(first):
            forget = context.select_forget_set(lambda: read_embeddings(store, first))
        else:
            # Without an original no oracle is stored either, so any forget set of this size gives the right count.
            forget = context.select_forget_set(lambda: zero_embeddings(context.splits))
        names = find_model_names(store, build_reference_jobs(store, [forget.rows], self.indices, "cpu"))
        missing = find_missing_models(store, names)
        return forget, missing, len(names) - len(missing)

    def _build_trials(self, forget: ForgetSet, device: str) -> list[TrialConfig]:
        """Build the trials of the oracle, the algorithm and the original for every seed."""
        request = self.request
        return [
            TrialConfig(
                store=self.context.store.url,
                algorithm=name,
                params=tuple(sorted(self.params.items())) if name == self.algorithm else (),
                forget_set=forget.name,
                forget=forget.rows,
                by_class=forget.by_class,
                index=index,
                seed=request.seed,
                measures=tuple(sorted({*request.measures, *(CLASS_MEASURES if forget.by_class else ())})),
                device=device,
                # what oracles and originals predict is stored beside their weights
                save_predictions=name not in {ORACLE, ORIGINAL},
            )
            for index in self.indices
            for name in dict.fromkeys((ORACLE, self.algorithm, "original"))
        ]

    def run(self, pool: Pool, device: str, show_progress: ShowProgress = no_progress) -> TrialResults:
        """Train the missing originals and oracles, then run the missing trials of all seeds.

        Raises RuntimeError if a model that trials need could not be trained, or diverged. `show_progress` is called
        with "originals", "oracles" and "trials" in turn.
        """
        request, context, store = self.request, self.context, self.context.store
        indices = self.indices
        # Entanglement selects by the embeddings of original 0, whichever are reported.
        originals = build_reference_jobs(store, [], sorted({0, *indices}), device)
        require_reference_models(context, originals, pool, show_progress, "originals")
        # So oracles are known only now.
        first = compute_job_key(store, OriginalJob(store=store.url, index=0))
        forget = context.select_forget_set(lambda: read_embeddings(store, first))
        oracles = build_reference_jobs(store, [forget.rows], indices, device)
        require_reference_models(context, oracles, pool, show_progress, "oracles")
        trials = self._build_trials(forget, device)
        with show_progress("trials") as progress:
            rows, failed = run_trials(trials, context.trial_data, pool, progress)
        by_algorithm = {name: [t for t in trials if t.algorithm == name] for name in (self.algorithm, ORACLE)}
        values = measure_population(
            store, by_algorithm[self.algorithm], by_algorithm[ORACLE], context.trial_data, request.measures
        )
        return TrialResults(
            rows=rows,
            failed=describe_failures(failed),
            population_values=values,
            retained=find_retained_copies(context.copies, forget.rows),
            notes=(*self.notes, *describe_held_out_copies(context.copies)),
        )


def prepare_trials(request: TrialRequest) -> PreparedTrials:
    """Open the store, read its data, and check all options that need no model.

    Raises ValueError for an imported bank, data that cannot be read again, no seeds, or an unknown name.
    """
    # The cheap checks come before the data set is read, which takes up to a minute.
    bank_store = open_trainable_store(request.store)
    check_counts(request)
    algorithm, notes = request.algorithm or DEFAULT_ALGORITHM, []
    params = parse_params(algorithm, request.set, bank_store.manifest.architecture)
    if request.steps == "paper":
        params = get_paper_params(algorithm, tuned=bool(request.tune)) | params
    check_applicable(bank_store, algorithm, params)
    select_measures(request.measures)
    context = open_context(
        bank_store,
        forget=choose_default_forget(bank_store) if request.forget is None else request.forget,
        size=DEFAULT_SIZE if request.size is None else request.size,
        with_copies=request.with_copies,
        seed=request.seed,
        data=request.data,
        folder=request.folder,
    )
    notes += describe_first_climb(bank_store, {algorithm: params})
    if request.forget is None:
        context, note = choose_default_size(context, request.size)
        notes.append(note)
    if get_algorithm(algorithm).reads_validation and not len(context.trial_data.validation):
        raise ValueError(
            f"{algorithm} reads validation examples, half of those that the bank holds out, and "
            f"{bank_store.folder.display_name} holds out {len(context.trial_data.selection)}; use a bank made with "
            "--validation 0.1"
        )
    context.check_forget_set()
    return PreparedTrials(
        request=request,
        context=context,
        algorithm=algorithm,
        params=params,
        indices=range(request.seeds),
        notes=tuple(notes),
    )


def check_counts(request: TrialRequest) -> None:
    """Check the number of originals, of which measures of many models need more, and the seed."""
    if request.seeds < 1:
        raise ValueError(f"--seeds {request.seeds}: at least one original is needed; 3 give an interval")
    if request.seeds > MAX_COUNT:
        raise ValueError(
            f"--seeds {request.seeds} asks for {format_count(2 * request.seeds, 'model')}, an original and an oracle "
            "a seed; at most "
            f"{format_count(MAX_COUNT)} seeds are allowed, and 64 suffice for the measures of many models"
        )
    check_seed(request.seed)
    if select_population_measures(request.measures) and request.seeds < MIN_POPULATION:
        raise ValueError(
            f"--seeds {request.seeds}: {', '.join(select_population_measures(request.measures))} compare many models; "
            f"use {MIN_POPULATION} or more, and 64 for useful values"
        )
