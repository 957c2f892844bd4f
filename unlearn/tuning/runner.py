"""Run a sweep: tune every method on some originals and forget sets, and judge it on others.

All parameters are chosen several times: each tuning has draws and originals of its own and another draw of the forget
set, and is judged on originals of its own. So it is seen where a repeated choice leads, and intervals are over tunings
(cross-fitting, as Chernozhukov et al. 2018 split data between choosing and judging).

Level by level: a level is one search for all methods together, since step i of a sequence can be tuned only when step
i - 1 is chosen (RUM tunes each step against the oracle of what is forgotten so far). Searches that several methods
share are run once. The search backend and the pool are arguments: nothing here depends on where trials run.

The checks at the top reject a sweep before any model is trained for it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import cache
from typing import Any

import numpy as np

from cluster.pool import Pool
from memscore.pipeline.jobs import OriginalJob, compute_job_key
from memscore.store.trial_files import read_trial
from unlearn.algorithms import get_algorithm
from unlearn.forget_sets import ForgetSet
from unlearn.meta.partition import Parts, align_scores, merge_parts
from unlearn.oracles import build_reference_jobs
from unlearn.trials.config import (
    ORACLE,
    ORIGINAL,
    Params,
    Row,
    Step,
    TrialConfig,
    check_applicable,
    resolve_in_store,
    trial_key,
)
from unlearn.trials.setup import (
    ShowProgress,
    UnlearningContext,
    describe_failures,
    no_progress,
    read_embeddings,
    require_reference_models,
    run_trials,
)
from unlearn.tuning.config import UNTUNED, SweepConfig
from unlearn.tuning.methods import Method
from unlearn.tuning.search import (
    OBJECTIVE,
    SEARCH_MEASURES,
    ConfigResult,
    HyperparameterSearch,
    SearchBackend,
    find_boundary_params,
    has_free_params,
    run_searches,
    select_config,
)
from unlearn.tuning.state import MethodProgress, SweepResult, explain_no_choice, identity_columns
from unlearn.tuning.tuning_set import (
    describe_copies_of_sets,
    describe_outdated_scores,
    describe_score_difference,
    describe_tunings,
    select_tuning_sets,
)


def check_methods(context: UnlearningContext, methods: Sequence[Method]) -> None:
    """Check that every algorithm can change the bank's networks, and that validation examples exist.

    Some algorithms and every selection read validation examples.
    """
    method_by_algorithm = {name: method for method in methods for name in method.plan}
    for name, method in method_by_algorithm.items():
        check_applicable(context.store, name, dict(method.fixed_params(name)))
        if get_algorithm(name).reads_validation and not len(context.trial_data.validation):
            raise ValueError(f"{name} reads validation examples, and the bank holds out none; use --validation 0.1")
    if not len(context.trial_data.selection):
        raise ValueError(
            f"parameters are chosen on validation examples, and {context.store.folder.display_name} holds out none; "
            "use a bank made with --validation 0.1"
        )


def check_rounds(
    context: UnlearningContext, method: Method, forget: ForgetSet, read_score: Callable[[str], np.ndarray]
) -> None:
    """Check that RSU would have no empty round, and can rank the examples.

    Raises ValueError for more rounds than examples, or than classes where classes are admitted whole; and for a risk
    that is not a score, or is undefined for an example to forget.
    """
    schedule = method.build_schedule(forget.rows, read_score)
    if schedule is None:
        return
    rows = np.array(forget.rows)
    available = len(rows) if schedule.unit == "example" else len(np.unique(context.trial_data.labels[rows]))
    if schedule.n > available:
        singular, plural = ("example", "examples") if schedule.unit == "example" else ("class", "classes")
        unit = singular if available == 1 else plural
        raise ValueError(
            f"--rounds {schedule.n}: {forget.name} has {available} {unit}, and each round of rsu admits at least one; "
            f"use --rounds {available} or fewer"
        )


def check_matched_classes(config: SweepConfig, context: UnlearningContext, tuning_set: ForgetSet) -> None:
    """Check that the oracle-free selection has unseen examples to compare the forget set with.

    Raises ValueError if a class of the tuning set has no example among those that the selection reads.
    """
    if "blind" not in config.selections:
        return
    trial_data = context.trial_data
    missing = np.setdiff1d(trial_data.labels[np.array(tuning_set.rows)], trial_data.labels_true[trial_data.selection])
    if len(missing):
        raise ValueError(
            f"the blind selection compares what is forgotten with unseen examples of its classes, and class "
            f"{', '.join(map(str, missing.tolist()))} of {tuning_set.name} has none among the "
            f"{len(trial_data.selection)} validation examples that selection reads; use --select "
            "oracle, or a bank with a larger --validation"
        )


def check_sweep(config: SweepConfig, context: UnlearningContext, methods: Sequence[Method]) -> None:
    """Check all options that need no trained model; embeddings are assumed to exist.

    Raises ValueError as the checks above, and for no second forget set, a score that is missing or undefined for an
    example to forget, or more parts than examples.
    """
    check_methods(context, methods)
    # Originals may not exist yet: any embeddings do, since only the number of examples in a part is checked.
    placeholder = np.random.default_rng(0).normal(size=(len(context.splits.train), 2))
    judged_set = context.select_forget_set(lambda: placeholder)
    tuning_sets = select_tuning_sets(config, context, judged_set, lambda: placeholder)
    read_score = make_score_reader(context)
    for forget in (judged_set, *tuning_sets):
        for method in methods:
            check_rounds(context, method, forget, read_score)
            partition = (
                # With random embeddings, parts of equal ranges may be empty; equally large parts are not.
                method.partition if method.partition.kind != "centroid" else replace(method.partition, rule="equal")
            )
            partition.split(forget.rows, read_score, lambda: placeholder, config.seed)
    # A set chosen by entanglement is another one once there are embeddings; run() checks it then.
    for tuning_set in tuning_sets:
        if "entanglement" not in tuning_set.name:
            check_matched_classes(config, context, tuning_set)


def is_tuned(method: Method, config: SweepConfig) -> bool:
    """Report whether anything of a method is chosen: a parameter, or an algorithm for a part."""
    has_choice = method.automatic or has_free_params(method.plan, method.fixed_params, config)
    return method.tuning != "defaults" and has_choice


def make_score_reader(context: UnlearningContext) -> Callable[[str], np.ndarray]:
    """Make a function that reads a score's value for each training row, from the store only once."""
    return cache(lambda name: align_scores(name, context.score_store.score, context.splits.train.ids))


class Sweep:
    """Run one sweep over the store of a context, whose forget set is the one to judge on.

    `show_progress` is called with a label for originals, oracles, searches and trials in turn.
    """

    def __init__(
        self,
        config: SweepConfig,
        context: UnlearningContext,
        methods: Sequence[Method],
        device: str,
        show_progress: ShowProgress = no_progress,
        read_embeddings: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.config, self.context, self.methods = config, context, methods
        self.device, self.show_progress = device, show_progress
        self.store = context.store
        self.judged_indices = config.get_judged_originals(draws_labels=any(method.draws_labels for method in methods))
        self.failed: list[str] = []
        self.read_score = make_score_reader(context)
        self.read_embeddings = read_embeddings or self.read_stored_embeddings

    def run(self, pool: Pool, backend: SearchBackend) -> SweepResult:
        """Train what is missing, tune every method, and judge it.

        Raises RuntimeError if a model that trials need could not be trained. Raises ValueError for what cannot be
        checked before there are originals: empty parts by the distance to a centroid, or classes of an entangled forget
        set without a validation example.
        """
        # 1. Originals first: entanglement and centroids read their embeddings.
        indices = [*self.config.tuning_originals, *self.judged_indices]
        require_reference_models(
            self.context,
            build_reference_jobs(self.store, [], indices, self.device),
            pool,
            self.show_progress,
            "originals",
        )
        # 2. All forget sets, by the first original's embeddings, and all oracles in one run of the pool.
        judged_set = self.context.select_forget_set(lambda: self.read_embeddings(0))
        tuning_sets = select_tuning_sets(self.config, self.context, judged_set, lambda: self.read_embeddings(0))
        for tuning_set in tuning_sets:
            check_matched_classes(self.config, self.context, tuning_set)
        oracle_jobs = self.list_oracle_jobs(tuning_sets, judged_set)
        require_reference_models(self.context, oracle_jobs, pool, self.show_progress, "oracles")
        # 3. Tune level by level: a step can be searched only when the step before it is chosen.
        states = self.plan_states()
        for level in range(max(method.levels for method in self.methods)):
            if active := [state for state in states if state.method.levels > level and not state.end_reason]:
                self._tune_next_step(active, tuning_sets, backend)
        # 4. Judge what was chosen, on originals and a forget set that had no part in the choice.
        judged_rows, failed = self._run_judged_trials(states, judged_set, pool)
        notes = (
            describe_score_difference(self.context.forget, tuning_sets, judged_set, self.read_score),
            describe_tunings(tuning_sets) if any(is_tuned(method, self.config) for method in self.methods) else "",
            describe_outdated_scores(self.context.injected, self.methods),
            *describe_copies_of_sets(self.context, judged_set, *tuning_sets),
        )
        return SweepResult(
            states=states,
            tuning_rows=self._tuning_rows(states),
            judged_rows=judged_rows,
            failed=[*self.failed, *failed],
            tuning_sets=tuning_sets,
            judged_set=judged_set,
            notes=tuple(filter(None, (*self.context.notes, *notes))),
        )

    def plan_states(self) -> list[MethodProgress]:
        """Plan the choices: each method under each selection in each tuning; once where it has nothing to choose."""
        return [
            MethodProgress(method=method, select=select, tuning=tuning)
            for method in self.methods
            for tuning in (range(self.config.tunings) if is_tuned(method, self.config) else (UNTUNED,))
            for select in self.config.selections
        ]

    def read_stored_embeddings(self, index: int) -> np.ndarray:
        """Read what the last layer of an original reads of each training example."""
        key = compute_job_key(self.store, OriginalJob(store=self.store.url, index=index))
        return read_embeddings(self.store, key)

    def split(self, method: Method, forget: ForgetSet, index: int) -> Parts:
        """Split a forget set into the parts of a method, in their order."""
        partition = method.partition
        return partition.split(
            forget.rows, self.read_score, lambda: self.read_embeddings(index), self.config.seed, index
        )

    def list_oracle_jobs(self, tuning_sets: Sequence[ForgetSet], judged_set: ForgetSet) -> list[OriginalJob]:
        """List the jobs of all oracles of searches and judged trials, and of their originals."""
        jobs: dict[OriginalJob, None] = {}
        groups = [
            *((forget, self.config.get_tuning_originals(number), True) for number, forget in enumerate(tuning_sets)),
            (judged_set, self.judged_indices, False),
        ]
        for forget, indices, tuning in groups:
            for index in indices:
                sets = [forget.rows]
                for method in self.methods:
                    parts = self.split(method, forget, index)
                    # A step is compared with the oracle of the parts forgotten so far, so every prefix needs one.
                    stepwise = method.tuning == "steps" if tuning else self.config.dynamics
                    if stepwise:
                        sets += [merge_parts(parts[:number]) for number in range(1, len(parts))]
                jobs |= dict.fromkeys(build_reference_jobs(self.store, sets, [index], self.device))
        return list(jobs)

    def make_trial(self, method: Method, steps: Sequence[tuple[str, Params]], parts: Parts, **more: Any) -> TrialConfig:
        """Make the trial that ends a sequence of steps over the first parts."""
        rows = parts[: len(steps)]
        before = tuple(
            Step(algorithm=name, params=params, rows=part)
            for (name, params), part in zip(steps[:-1], rows[:-1], strict=True)
        )
        return TrialConfig(
            store=self.store.url,
            algorithm=steps[-1][0],
            params=steps[-1][1],
            forget=merge_parts(rows),
            # Alone, a step forgets the whole set, and the trial has the key of a plain one.
            part=rows[-1] if before else (),
            before=before,
            rounds=method.build_schedule(rows[-1], self.read_score),
            times=method.times,
            seed=self.config.seed,
            device=self.device,
            variant=method.variant,
            **more,
        )

    def list_searches(
        self, state: MethodProgress, tuning_sets: Sequence[ForgetSet]
    ) -> Iterator[tuple[str, HyperparameterSearch]]:
        """Yield the searches of a method's next level, with the algorithm of each."""
        method = state.method
        # What has nothing to choose is evaluated in the first tuning.
        tuning = max(state.tuning, 0)
        forget, originals = tuning_sets[tuning], self.config.get_tuning_originals(tuning)
        parts_by_original = [self.split(method, forget, index) for index in originals]
        shared: dict[str, Any] = {
            # A sampler that learns has an objective, so each selection has its own search; others share one.
            "guide": state.select if self.config.learns else "",
            "plans": self.config.sampler != "tpe",
            "tuning": tuning,
        }
        common: dict[str, Any] = {
            "forget_set": forget.name,
            "by_class": forget.by_class,
            "measures": SEARCH_MEASURES,
            "core": False,
        }
        level = len(state.steps)
        # Jointly, or not at all: one search over the whole sequence, against the last oracle.
        if method.tuning != "steps":
            names = [method.list_candidates(number)[0] for number in range(method.partition.k)]
            steps = [(name, method.fixed_params(name)) for name in names]
            trials = [
                self.make_trial(method, steps, parts, index=i, **common)
                for i, parts in zip(originals, parts_by_original, strict=True)
            ]
            yield (
                method.name,
                HyperparameterSearch(
                    trials=tuple(trials),
                    joint=len(names) > 1,
                    tuned=method.tuning != "defaults",
                    **shared,
                    **self._describe_space(trials[0]),
                ),
            )
            return
        # Step by step: one search per candidate, after the steps that were chosen before.
        for name in method.list_candidates(level):
            steps = [*state.steps, (name, method.fixed_params(name))]
            trials = [
                # All configurations of a later step resume from the same stored model after the earlier steps.
                self.make_trial(method, steps, parts, index=i, save_checkpoints=level > 0, **common)
                for i, parts in zip(originals, parts_by_original, strict=True)
            ]
            yield name, HyperparameterSearch(trials=tuple(trials), **shared, **self._describe_space(trials[0]))

    def _describe_space(self, trial: TrialConfig) -> dict[str, Any]:
        """Describe what is searched, and the numbers of a trial's steps that follow from the data."""
        numbers = tuple(asdict(config) for config in resolve_in_store(self.store, trial))
        return {"space_name": self.config.space, "added": self.config.search, "numbers": numbers}

    def _tune_next_step(
        self, states: Sequence[MethodProgress], tuning_sets: Sequence[ForgetSet], backend: SearchBackend
    ) -> None:
        """Run the searches of the next level of these methods, and choose."""
        requested = [
            (state, name, search, search.key(self.store))
            for state in states
            for name, search in self.list_searches(state, tuning_sets)
        ]
        # Methods and selections that need the same search share its key: it is run once.
        searches = {key: search for _, _, search, key in requested}
        with self.show_progress(f"configurations at step {len(states[0].steps) + 1}") as progress:
            results, failed = run_searches(self.config, self.context, searches, backend, progress)
        self.failed += failed
        for state in states:
            best: tuple[ConfigResult, HyperparameterSearch, list[ConfigResult]] | None = None
            # Among several candidate algorithms, automatic RUM takes the one whose best configuration is best.
            for name, search, key in ((name, search, key) for owner, name, search, key in requested if owner is state):
                state.searches.append((len(state.steps), name, results[key]))
                result, column = select_config(results[key], state.select), OBJECTIVE[state.select]
                if result and (best is None or result[column] > best[0][column]):
                    best = result, search, results[key]
            if best is None:
                state.end_reason = explain_no_choice(
                    len(state.steps) + 1, [results[key] for owner, _, _, key in requested if owner is state]
                )
            else:
                self.advance(state, *best)

    def advance(
        self, state: MethodProgress, result: ConfigResult, search: HyperparameterSearch, results: Sequence[ConfigResult]
    ) -> None:
        """Add the chosen configuration to the state; boundaries are not noted if all results are equal."""
        # Where all results are equal, the first was chosen and lies at a boundary only by chance of the order.
        all_equal = len(results) > 1 and len({other[OBJECTIVE[state.select]] for other in results}) == 1
        trial = search.make_trials(result["values"])[0]
        chosen_steps = trial.steps if state.method.tuning != "steps" else trial.steps[-1:]
        n_before = len(state.steps)
        state.steps += [(step.algorithm, step.params) for step in chosen_steps]
        state.chosen.append(result)
        for value in () if all_equal else find_boundary_params(search, result["values"]):
            # A joint search names its parameters 1.lr, 2.lr, ...; a search of one step names them lr.
            number, _, param = value.rpartition(".")
            step = int(number) if number else n_before + 1
            prefix = f"{step}." * (state.method.partition.k > 1)
            state.at_boundary.append(f"{prefix}{state.steps[step - 1][0]}.{param}")

    def _tuning_rows(self, states: Sequence[MethodProgress]) -> list[Row]:
        """List a row for each original of each configuration that a method chose among."""
        rows: dict[tuple[Any, ...], Row] = {}
        # Methods share configurations: each row is read once.
        read_row = cache(self._read_row)
        for state in states:
            for level, name, results in state.searches:
                for number, result in enumerate(results):
                    # A configuration that both selections chose is one row, with "oracle blind".
                    was_chosen = level < len(state.chosen) and result is state.chosen[level]
                    for trial in result["trials"]:
                        identity = (state.method.name, state.method.variant, state.tuning, level, name, trial)
                        if identity not in rows:
                            rows[identity] = read_row(trial) | identity_columns(
                                state.method, len(state.steps), "", level + 1, number, state.tuning
                            )
                        row = rows[identity]
                        row["select"] = (
                            " ".join([*row["select"].split(), state.select]) if was_chosen else row["select"]
                        )
        return list(rows.values())

    def _read_row(self, trial: str) -> Row:
        """Read the row of a tuning trial, which its configuration result says is stored."""
        row = read_trial(self.store, trial)
        if row is None:
            raise FileNotFoundError(f"trial {trial} was removed while the sweep ran; the same command makes it again")
        return row

    def plan_judged_trials(self, states: Sequence[MethodProgress], forget: ForgetSet) -> list[tuple[TrialConfig, Row]]:
        """Plan the chosen configurations on other originals and another forget set: trials, columns of their rows."""
        common: dict[str, Any] = {
            "forget_set": forget.name,
            "by_class": forget.by_class,
            "measures": tuple(sorted(self.config.measures)),
        }
        planned: list[tuple[TrialConfig, Row]] = []
        # The rows that every table compares with: the oracle, and doing nothing.
        for index in self.judged_indices:
            for name in (ORACLE, ORIGINAL):
                reference = Method(plan=(name,), variant="")
                trial = self.make_trial(reference, [(name, ())], (forget.rows,), index=index, **common)
                planned.append((trial, identity_columns(reference, 0, "", 0, 0)))
        for state in (state for state in states if not state.end_reason):
            draws_labels = state.method.draws_labels
            for index in self.config.get_originals_of_tuning(state.tuning, draws_labels=draws_labels):
                parts = self.split(state.method, forget, index)
                whole = self.make_trial(
                    state.method, state.steps, parts, index=index, save_model=self.config.dynamics, **common
                )
                # With --dynamics each prefix of a sequence is a row, else the whole sequence alone.
                first = 1 if self.config.dynamics else len(state.steps)
                for number in range(first, len(state.steps) + 1):
                    columns = identity_columns(state.method, len(state.steps), state.select, number, 0, state.tuning)
                    planned.append((whole.truncate(number), columns))
        return planned

    def _run_judged_trials(
        self, states: Sequence[MethodProgress], forget: ForgetSet, pool: Pool
    ) -> tuple[list[Row], list[str]]:
        """Run the chosen configurations on originals and a forget set that were not used for tuning."""
        planned = self.plan_judged_trials(states, forget)
        # Selections may choose the same configuration: one trial, a row for each.
        trials = list(dict.fromkeys(trial for trial, _ in planned))
        with self.show_progress("judged trials") as progress:
            rows, failed = run_trials(trials, self.context.trial_data, pool, progress)
        row_by_key = {row["trial"]: row for row in rows}
        pairs = [(row_by_key.get(trial_key(self.store, trial)), columns) for trial, columns in planned]
        return [row | columns for row, columns in pairs if row], describe_failures(failed)
