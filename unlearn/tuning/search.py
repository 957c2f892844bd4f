"""Hyper-parameter search for one step of a plan: evaluate configurations, store them, select one.

Two selection rules, over the same configurations:

    oracle   the highest mean ToW on validation: for evaluation, since whoever has theta_r needs no unlearning
    blind    oracle-free: the highest objective of oracle_free_objective, which is on one original

                 1 - class_matched_gap_validation    if drop <= MAX_ACCURACY_DROP
                 MAX_ACCURACY_DROP - drop            otherwise: minus the excess drop, below 0
                 -1                                  if the run diverged

             drop = kept_class_accuracy_validation of theta_o minus that of theta_u. The gap is the distance of the
             forget error to the error on unseen examples of the same classes (SCRUB+R's criterion), or to 1 for a
             class that is forgotten whole. Over originals it is the mean, or the minimum if that is below 0. If no
             configuration keeps the accuracy on every original, the one with the smallest excess drop on its worst
             original is selected

A configuration that diverged on every original is never selected, one that diverged on half of them or more only where
there is no other. Oracles of the tuning set are trained for either
rule: sweeps judge by them, and the ToW of every configuration is stored; blind does not read it.

A sampler that learns from an objective must learn from the objective of the selection it serves; otherwise the
oracle-free selection would choose among configurations that the oracle pointed at. So `refine` and `tpe` search once
for each selection; `random` and `grid` use neither objective, and one search serves both. Every configuration is
stored: a search resumes where it was stopped.

`random` and `grid` do not learn, so all their configurations are known before the first is evaluated; those of `refine`
follow from the results before them. Such a search consists of exactly those, whatever else is stored: the result of a
sweep does not depend on other sweeps, and all its methods choose among equally many. `tpe` starts from everything that
is stored.

What is drawn is named by the algorithms and the tuning alone: one algorithm tries the same configurations in every
variant, level and selection, so that a comparison of two variants does not compare two draws. Only what `refine` and
`tpe` add after their first configurations differs, since it follows results.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from cluster.pool import Failure
from cluster.search_space import Search
from memscore.pipeline.train_bank import ProgressCallback
from memscore.store.json_records import encode_record, hash_record, read_records
from memscore.store.store import Store
from memscore.store.trial_files import list_trials
from memscore.store.visibility import open_visible_store
from memscore.training.precision import require_precision
from unlearn.algorithms import get_algorithm
from unlearn.oracles import TrialData
from unlearn.search_space import (
    Choice,
    Domain,
    Integer,
    LogUniform,
    SpaceName,
    build_domain_around,
    is_at_boundary,
    select_space,
)
from unlearn.trials.config import Params, Row, Step, TrialConfig, name_steps, trial_key
from unlearn.trials.runner import run_trial
from unlearn.trials.setup import UnlearningContext
from unlearn.tuning.config import Selection, SweepConfig
from unlearn.tuning.refinement import count_design, draw_design, propose

SEARCH_MEASURES = ("class-matched", "held-out-accuracy", "kept-class-accuracy", "tow")
"""Measures of a configuration; their values on validation are read, none on test."""
OBJECTIVE: dict[Selection | Literal[""], str] = {"oracle": "tow", "blind": "blind", "": "tow"}
"""Column that a selection, or the sampler that it guides, maximizes; "" is for samplers that do not learn."""
ATTEMPTS_FOLDER = "attempts"
"""Folder of a store: attempts/<search>/<values>.json."""
MAX_ACCURACY_DROP = 0.02
"""Drop of the validation accuracy on the retained classes that the oracle-free selection allows."""

Values = dict[str, Any]
ConfigResult = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class HyperparameterSearch:
    """Describe one hyper-parameter search.

    Attributes:
        trials: one for each original of the tuning; the parameters of the last step are searched.
        joint: whether those of all steps are searched at once; they are then named 1.lr, 2.lr, ...
        guide: the selection whose objective guides the sampler; "" where the sampler does not learn.
        plans: whether the sampler plans its configurations, and so takes no other stored ones.
        tuning: number of the tuning; each has draws of its own.
        tuned: whether anything is searched; otherwise the defaults are the only configuration.
        space_name: which ranges: wide, or the papers'.
        added: parameters that are searched besides, as ALGORITHM.NAME.
        numbers: the fields of each step's config, with those that follow from the data; () where none does.
    """

    trials: tuple[TrialConfig, ...]
    joint: bool = False
    guide: Selection | Literal[""] = ""
    plans: bool = True
    tuning: int = 0
    tuned: bool = True
    space_name: SpaceName = "wide"
    added: tuple[str, ...] = ()
    numbers: tuple[Values, ...] = field(default=(), compare=False)

    @property
    def space(self) -> dict[str, Domain]:
        """The search space."""
        steps = self.trials[0].steps
        if not self.tuned:
            return {}
        if not self.joint:
            return self._get_step_space(len(steps) - 1)
        return {f"{n + 1}.{name}": space for n in range(len(steps)) for name, space in self._get_step_space(n).items()}

    def _get_step_space(self, number: int) -> dict[str, Domain]:
        """Get the search space of a step, counted from 0."""
        step = self.trials[0].steps[number]
        fields_added = [name.rpartition(".")[2] for name in self.added if name.rpartition(".")[0] == step.algorithm]
        added = {name: build_domain_around(name, self.numbers[number][name]) for name in fields_added}
        # What has a domain of its own is searched there, in the named space; only the others are added.
        return get_free_space(step, self.space_name) | added

    @property
    def defaults(self) -> Values:
        """The defaults of the searched parameters, in numbers."""
        steps, values = self.trials[0].steps, {}
        for name in self.space:
            number, _, parameter = name.rpartition(".")
            index = int(number or 0) - 1
            options = fields(get_algorithm(steps[index].algorithm).config)  # type: ignore[arg-type]
            default = next(option.default for option in options if option.name == parameter)
            values[name] = self.numbers[index][parameter] if self.numbers else default
        return values

    @property
    def stream(self) -> str:
        """Name of the random stream: the searched algorithms, and the tuning."""
        steps = self.trials[0].steps if self.joint else self.trials[0].steps[-1:]
        return f"{'>'.join(step.algorithm for step in steps)}/{self.tuning}"

    def make_trials(self, values: Values) -> tuple[TrialConfig, ...]:
        """Make the trials of one configuration."""
        return tuple(set_params(trial, values, joint=self.joint) for trial in self.trials)

    def folder_key(self, store: Store) -> str:
        """The key of the folder of results, which searches that plan their configurations share among guides."""
        return (replace(self, guide="") if self.plans else self).key(store)

    def key(self, store: Store) -> str:
        """Hash everything but the values that a result depends on, and the searched parameters; 64 hex digits."""
        steps = self.trials[0].steps if self.joint else self.trials[0].steps[-1:]
        # A value fixed at its default gives the same trials as none, so the searched names tell such a search apart.
        restricted = not self.tuned or any(
            get_free_space(step, self.space_name).keys() != get_search_space(step, self.space_name).keys()
            for step in steps
        )
        return hash_record({
            "trials": [trial_key(store, trial) for trial in self.trials],
            "joint": self.joint,
            "guide": self.guide,
            **({"sought": sorted(self.space)} if restricted or self.added else {}),
            **({"space": self.space_name} if self.space_name != "wide" else {}),
        })


def get_free_space(step: Step, space_name: SpaceName = "wide") -> dict[str, Domain]:
    """Return the search space of a step without the fixed parameters."""
    space = get_search_space(step, space_name)
    return {name: domain for name, domain in space.items() if name not in dict(step.params)}


def get_search_space(step: Step, space_name: SpaceName = "wide") -> dict[str, Domain]:
    """Return the whole search space of a step's algorithm, wide or as the papers searched it."""
    # A user's own config may have none: then nothing is searched.
    space: dict[str, Domain] = getattr(get_algorithm(step.algorithm).config, "SPACE", {})
    return select_space(space, space_name)


def has_free_params(names: Sequence[str], fixed: Callable[[str], Params], config: SweepConfig) -> bool:
    """Report whether any of these algorithms has a parameter to search, besides its fixed ones."""
    added = {parameter.rpartition(".")[0] for parameter in config.search}
    return any(
        name in added or get_free_space(Step(algorithm=name, params=fixed(name), rows=()), config.space)
        for name in names
    )


def set_params(trial: TrialConfig, values: Values, *, joint: bool) -> TrialConfig:
    """Return a trial with these parameters besides its own."""

    def merge_params(params: tuple[tuple[str, Any], ...], number: int) -> tuple[tuple[str, Any], ...]:
        step_values = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{number}.")}
        return tuple(sorted({**dict(params), **step_values}.items()))

    # A step-by-step search changes the last step alone.
    if not joint:
        return replace(trial, params=tuple(sorted({**dict(trial.params), **values}.items())))
    before: tuple[Step, ...] = tuple(
        replace(step, params=merge_params(step.params, number)) for number, step in enumerate(trial.before, start=1)
    )
    return replace(trial, params=merge_params(trial.params, len(trial.before) + 1), before=before)


def evaluate_config(search: HyperparameterSearch, values: Values, trial_data: TrialData) -> ConfigResult:
    """Run the trials of one configuration in a worker, and store what the search needs of them.

    That is `objective`, of the guide; means over the originals of `tow` and `blind`, seconds that algorithms ran here,
    examples that the whole sequences read, the number of diverged runs, and the keys of the trials. A diverged run
    counts 0 for tow and -1 for blind; blind is the minimum if that is below 0, since a good original must not
    compensate for a spoilt one.
    """
    # The oracle-free objective compares with theta_o, whose row is stored after the first configuration.
    rows = [run_trial(trial, trial_data) for trial in search.make_trials(values)]
    baseline_rows = [run_trial(make_baseline_trial(trial), trial_data) for trial in search.trials]
    objectives = [oracle_free_objective(row, baseline) for row, baseline in zip(rows, baseline_rows, strict=True)]
    result: ConfigResult = {
        "tow": float(np.mean([0.0 if row["status"] == "diverged" else row["tow_validation"] for row in rows])),
        # A negative objective is an excess drop of accuracy, which a good original must not compensate.
        "blind": float(np.min(objectives) if min(objectives) < 0 else np.mean(objectives)),
        "wall_s": float(sum(row["run_wall_s"] for row in rows)),
        "examples": int(sum(row["examples"] for row in rows)),
        "diverged": sum(row["status"] == "diverged" for row in rows),
        "trials": [row["trial"] for row in rows],
    }
    store = open_visible_store(search.trials[0].store)
    record = encode_record({"values": values, **result})
    store.folder.publish(f"{ATTEMPTS_FOLDER}/{search.folder_key(store)}/{hash_record(values)}.json", record)
    return result | {"objective": result[OBJECTIVE[search.guide]]}


def read_config_results(store: Store, search: HyperparameterSearch, trials: Container[str]) -> list[ConfigResult]:
    """Read the stored results of a search; null in the file is NaN.

    `trials` are the keys of stored rows: a configuration with a missing row (a quarantined one) is evaluated again.
    """
    records = read_records(store.folder, f"{ATTEMPTS_FOLDER}/{search.folder_key(store)}").values()
    results = [result for result in records if all(trial in trials for trial in result["trials"])]
    return [result | {name: float("nan") for name in ("tow", "blind") if result[name] is None} for result in results]


def make_baseline_trial(trial: TrialConfig) -> TrialConfig:
    """Return the trial of doing nothing: the predictions of theta_o."""
    return replace(trial, algorithm="original", params=(), before=(), part=(), rounds=None, save_checkpoints=False)


def oracle_free_objective(row: Row, baseline: Row) -> float:
    """Compute the objective of a trial that needs no oracle, from its row and that of theta_o.

    1 - class_matched_gap where the validation accuracy on the retained classes is at most MAX_ACCURACY_DROP below
    theta_o's, else the (negative) distance to that limit; -1 for a diverged run; NaN where a class of the forget set
    has no validation example although some of its training examples are retained.
    """
    if row["status"] == "diverged":
        return -1.0
    # How far the accuracy is below the limit; within the limit the gap alone counts.
    deficit = baseline["kept_class_accuracy_validation"] - MAX_ACCURACY_DROP - row["kept_class_accuracy_validation"]
    return -float(deficit) if deficit > 0 else 1 - float(row["class_matched_gap_validation"])


def select_config(results: Sequence[ConfigResult], select: Selection) -> ConfigResult | None:
    """Select the best result, the first of equals; None if there is none or all runs diverged.

    One that diverged on half of its originals or more is selected only where there is no other.
    """
    column = OBJECTIVE[select]
    candidates = [
        result for result in results if result["diverged"] < len(result["trials"]) and not np.isnan(result[column])
    ]
    # its mean may still be the best of all, by the originals on which it happened to end well
    stable = [result for result in candidates if 2 * result["diverged"] < len(result["trials"])]
    return max(stable or candidates, key=lambda result: float(result[column])) if candidates else None


def deduplicate_results(results: Sequence[ConfigResult], order: Sequence[Mapping[str, Any]] = ()) -> list[ConfigResult]:
    """Remove repeated configurations, in an order that does not depend on when they were evaluated.

    The drawn ones in the order of their draws, then the others in the order of a hash. The defaults are drawn first,
    and the first of equals is chosen.
    """
    positions = {hash_record(values): number for number, values in enumerate(order)}
    unique = {hash_record(result["values"]): result for result in results}
    return [unique[key] for key in sorted(unique, key=lambda key: (positions.get(key, len(positions)), key))]


def find_boundary_params(search: HyperparameterSearch, values: Values) -> list[str]:
    """Find the chosen values that lie at an end of their search space."""
    return [name for name, space in search.space.items() if name in values and is_at_boundary(space, values[name])]


class SearchBackend(Protocol):
    """Protocol of what evaluates configurations; see cluster/search.py."""

    def search(
        self,
        fn: Callable[[Any, Values, Any], ConfigResult],
        searches: Sequence[Search],
        shared: Any,
        on_result: Callable[[Search, Values, Any], None],
        *,
        sampler: Literal["random", "tpe"],
        seed: int,
    ) -> None:
        """Call fn(search.job, values, shared) for values of each search's space, and on_result for each result."""

    def enumerate_configs(self, arm: Search, *, sampler: Literal["random", "grid"], seed: int) -> list[Values]:
        """List all configurations of a search, for a sampler that does not learn."""


def run_searches(
    config: SweepConfig,
    context: UnlearningContext,
    searches: Mapping[str, HyperparameterSearch],
    backend: SearchBackend,
    progress: ProgressCallback,
) -> tuple[dict[str, list[ConfigResult]], list[str]]:
    """Run hyper-parameter searches, by key, skipping configurations that were already evaluated.

    The budget counts stored configurations; it is 1 if nothing is searched, fewer if the space has fewer. Returns key
    -> results, in the order of their draws, or in one that does not depend on when each was evaluated; and a line for
    each configuration that failed.
    """
    store = context.store
    # 1. What is stored: a configuration counts only while all its rows exist. Searches that differ in their guide alone
    # share what they evaluate.
    trials, folders = set(list_trials(store)), {key: search.folder_key(store) for key, search in searches.items()}
    owners = {folder: searches[key] for key, folder in folders.items()}
    results = {
        folder: deduplicate_results(read_config_results(store, search, trials)) for folder, search in owners.items()
    }
    requests = {
        folder: build_search(search, folder, config.budget, results[folder]) for folder, search in owners.items()
    }
    folder_by_name = {request.name: folder for folder, request in requests.items()}
    done, total, failed = 0, sum(request.budget for request in requests.values()), []

    def on_result(request: Search, values: Values, result: dict[str, Any] | Failure) -> None:
        nonlocal done
        done += 1
        if isinstance(result, Failure):
            outcome = f"failed: {result.error}"
            failed.append(f"{request.name} {format_values(values)} failed: {result.error}")
        else:
            results[folder_by_name[request.name]].append({"values": values, **result})
            outcome = f"tow {result['tow']:.3f}" + f", {result['diverged']} diverged" * bool(result["diverged"])
        progress(done, max(done, total), f"{request.name} {format_values(values)}: {outcome}")

    def evaluate(requests: Sequence[Search], sampler: Literal["random", "tpe"]) -> None:
        # Each result is stored by the worker that makes it, so an interrupted search resumes here.
        nonlocal done
        done += sum(len(request.evaluated) for request in requests)
        if missing := [request for request in requests if len(request.evaluated) < request.budget]:
            require_precision(store.manifest.precision, next(iter(searches.values())).trials[0].device)
            backend.search(evaluate_config, missing, context.trial_data, on_result, sampler=sampler, seed=config.seed)

    if config.sampler == "tpe":
        evaluate(list(requests.values()), "tpe")
        return {key: deduplicate_results(results[folder]) for key, folder in folders.items()}, failed
    # 2. Other samplers plan exactly the configurations of a search, whatever else is stored: all at once, or in rounds,
    # each of which follows from the results before it.
    plans: dict[str, list[Values]] = {key: [] for key in searches}
    while True:
        batches = {
            key: plan_configs(search, requests[folders[key]], config, plans[key], results[folders[key]], backend)
            for key, search in searches.items()
        }
        # One evaluation serves all searches of a folder that plan it.
        merged: dict[str, dict[str, Values]] = {}
        for key, batch in batches.items():
            plans[key] += batch
            if batch:
                merged.setdefault(folders[key], {}).update((hash_record(values), values) for values in batch)
        if not merged:
            break
        evaluate(
            [fix_configs(requests[folder], list(batch.values()), results[folder]) for folder, batch in merged.items()],
            "random",
        )
    # 3. Put the results into an order that does not depend on which came first.
    return {key: select_planned(results[folder], plans[key]) for key, folder in folders.items()}, failed


def select_planned(results: Sequence[ConfigResult], plan: Sequence[Values]) -> list[ConfigResult]:
    """Select the results of the planned configurations, in their order; without those that failed."""
    by_values = {hash_record(result["values"]): result for result in results}
    return [by_values[key] for key in map(hash_record, plan) if key in by_values]


def plan_configs(
    search: HyperparameterSearch,
    request: Search,
    config: SweepConfig,
    planned: Sequence[Values],
    results: Sequence[ConfigResult],
    backend: SearchBackend,
) -> list[Values]:
    """Plan the configurations that follow those already planned; none where the budget is used up."""
    if config.sampler != "refine":
        # Without learning all are known at once.
        return (
            [] if planned else backend.enumerate_configs(request, sampler=config.sampler, seed=config.seed)  # type: ignore[arg-type]
        )
    return plan_refinement(search, request.budget, config.seed, planned, results)


def plan_refinement(
    search: HyperparameterSearch,
    budget: int,
    seed: int,
    planned: Sequence[Values],
    results: Sequence[ConfigResult],
) -> list[Values]:
    """Plan the next round of a search that refines: its design, then one configuration after the other.

    A configuration that failed, and so has no result, counts as the worst.
    """
    if not planned:
        n_design = min(budget, count_design(len(search.space)))
        drawn = draw_design(search.space, n_design - 1, seed, search.stream)
        # Of a space with few values the design may draw one twice.
        return list({hash_record(values): values for values in (search.defaults, *drawn)}.values())
    if not search.space or len(planned) >= budget:
        return []
    # Only the search's own plan, not what others evaluated in the same folder: the plan must not depend on them.
    objectives = {hash_record(result["values"]): result[OBJECTIVE[search.guide]] for result in results}
    history = [(values, objectives.get(hash_record(values), float("nan"))) for values in planned]
    proposal = propose(search.space, history, seed, search.stream)
    return [] if proposal is None else [proposal]


def replay_refinement(
    search: HyperparameterSearch, budget: int, seed: int, results: Sequence[ConfigResult]
) -> tuple[list[ConfigResult], bool]:
    """Replay a search that refines, as far as its results are stored.

    Returns the results of its own configurations, in their order, and whether the search has ended.
    """
    plan: list[Values] = []
    stored = {hash_record(result["values"]) for result in results}
    while batch := plan_refinement(search, budget, seed, plan, results):
        plan += batch
        # What follows depends on a result that is missing.
        if any(hash_record(values) not in stored for values in batch):
            return select_planned(results, plan), False
    return select_planned(results, plan), True


def build_search(search: HyperparameterSearch, key: str, budget: int, stored: Sequence[ConfigResult]) -> Search:
    """Build the request of a search to a search backend."""
    first_trial, space = search.trials[0], search.space
    return Search(
        name=f"{name_steps(first_trial)} {key[:6]}",
        stream=search.stream,
        space=to_domains(space),
        budget=budget if space else 1,
        job=search,
        initial=[search.defaults],
        evaluated=[(result["values"], result[OBJECTIVE[search.guide]]) for result in stored],
    )


def fix_configs(request: Search, values: Sequence[Values], results: Sequence[ConfigResult]) -> Search:
    """Fix the configurations of a request, so that none is left to draw; those with a result are evaluated already."""
    stored = {hash_record(result["values"]) for result in results}
    # The objective of a fixed configuration is not read.
    evaluated = [(config, 0.0) for config in values if hash_record(config) in stored]
    return replace(request, initial=values, evaluated=evaluated, budget=len(values))


def to_domains(space: dict[str, Domain]) -> dict[str, tuple[Any, ...]]:
    """Convert a search space to the domains of cluster/search_space.py."""
    domains: dict[str, tuple[Any, ...]] = {}
    for name, domain in space.items():
        if isinstance(domain, Choice):
            domains[name] = ("choice", domain.values)
        else:
            kind = "log" if isinstance(domain, LogUniform) else "whole" if isinstance(domain, Integer) else "uniform"
            domains[name] = (kind, domain.low, domain.high)
    return domains


def format_values(values: Values) -> str:
    """Format values in a line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
