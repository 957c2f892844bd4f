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
oracle-free selection would choose among configurations that the oracle pointed at. So `tpe` searches once for each
selection; `random` and `grid` use neither objective, and one search serves both. Every configuration is stored: a
search resumes where it was stopped.

`random` and `grid` do not learn, so all their configurations are known before the first is evaluated. Such a search
consists of exactly those, whatever else is stored: the result of a sweep does not depend on other sweeps, and all its
methods choose among equally many. `tpe` learns, and starts from everything that is stored.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from unlearn.search_space import Choice, Domain, Integer, LogUniform, is_at_boundary
from unlearn.trials.config import Row, Step, TrialConfig, trial_key
from unlearn.trials.runner import run_trial
from unlearn.trials.setup import UnlearningContext
from unlearn.tuning.config import Sampler, Selection, SweepConfig

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
        tuned: whether anything is searched; otherwise the defaults are the only configuration.
    """

    trials: tuple[TrialConfig, ...]
    joint: bool = False
    guide: Selection | Literal[""] = ""
    tuned: bool = True

    @property
    def space(self) -> dict[str, Domain]:
        """The search space."""
        steps = self.trials[0].steps
        if not self.tuned:
            return {}
        if not self.joint:
            return get_free_space(steps[-1])
        return {
            f"{n}.{field}": space
            for n, step in enumerate(steps, start=1)
            for field, space in get_free_space(step).items()
        }

    @property
    def defaults(self) -> Values:
        """The papers' values of the searched parameters."""
        steps, values = self.trials[0].steps, {}
        for name in self.space:
            number, _, field = name.rpartition(".")
            options = fields(get_algorithm(steps[int(number or 0) - 1].algorithm).config)  # type: ignore[arg-type]
            values[name] = next(option.default for option in options if option.name == field)
        return values

    def make_trials(self, values: Values) -> tuple[TrialConfig, ...]:
        """Make the trials of one configuration."""
        return tuple(set_params(trial, values, joint=self.joint) for trial in self.trials)

    def key(self, store: Store) -> str:
        """Hash everything but the values that a result depends on, and the searched parameters; 64 hex digits."""
        steps = self.trials[0].steps if self.joint else self.trials[0].steps[-1:]
        # A value fixed at its default gives the same trials as none, so the searched names tell such a search apart.
        restricted = not self.tuned or any(
            get_free_space(step).keys() != get_search_space(step).keys() for step in steps
        )
        return hash_record({
            "trials": [trial_key(store, trial) for trial in self.trials],
            "joint": self.joint,
            "guide": self.guide,
            **({"sought": sorted(self.space)} if restricted else {}),
        })


def get_free_space(step: Step) -> dict[str, Domain]:
    """Return the search space of a step without the fixed parameters."""
    return {name: domain for name, domain in get_search_space(step).items() if name not in dict(step.params)}


def get_search_space(step: Step) -> dict[str, Domain]:
    """Return the whole search space of a step's algorithm."""
    # A user's own config may have none: then nothing is searched.
    space: dict[str, Domain] = getattr(get_algorithm(step.algorithm).config, "SPACE", {})
    return space


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
    store.folder.publish(f"{ATTEMPTS_FOLDER}/{search.key(store)}/{hash_record(values)}.json", record)
    return result | {"objective": result[OBJECTIVE[search.guide]]}


def read_config_results(store: Store, search: HyperparameterSearch, trials: Container[str]) -> list[ConfigResult]:
    """Read the stored results of a search; null in the file is NaN.

    `trials` are the keys of stored rows: a configuration with a missing row (a quarantined one) is evaluated again.
    """
    records = read_records(store.folder, f"{ATTEMPTS_FOLDER}/{search.key(store)}").values()
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
        sampler: Sampler,
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
    store, sampler = context.store, config.sampler
    # 1. What is stored: a configuration counts only while all its rows exist.
    trials = set(list_trials(store))
    results = {
        name: deduplicate_results(read_config_results(store, search, trials)) for name, search in searches.items()
    }
    requests = [build_search(search, name, config.budget, results[name]) for name, search in searches.items()]
    # The backend knows a search by its name, the caller by its key.
    keys = {request.name: key for request, key in zip(requests, searches, strict=True)}
    order: dict[str, Sequence[Mapping[str, Any]]] = {}
    # 2. Without learning all configurations are known: keep exactly those, whatever else is stored.
    if sampler != "tpe":
        requests = [
            fix_configs(request, backend.enumerate_configs(request, sampler=sampler, seed=config.seed))
            for request in requests
        ]
        planned = {keys[request.name]: {hash_record(values) for values, _ in request.evaluated} for request in requests}
        results = {
            name: [result for result in search_results if hash_record(result["values"]) in planned[name]]
            for name, search_results in results.items()
        }
        order = {keys[request.name]: request.initial for request in requests}
        # The points of a grid are all in `initial`, so nothing is drawn.
        sampler = "random"
    # 3. Evaluate what is missing; each result is stored by the worker, so an interrupted search resumes here.
    requests = [request for request in requests if len(request.evaluated) < request.budget]
    total, done, failed = sum(request.budget - len(request.evaluated) for request in requests), 0, []

    def on_result(request: Search, values: Values, result: dict[str, Any] | Failure) -> None:
        nonlocal done
        done += 1
        if isinstance(result, Failure):
            outcome = f"failed: {result.error}"
            failed.append(f"{request.name} {format_values(values)} failed: {result.error}")
        else:
            results[keys[request.name]].append({"values": values, **result})
            outcome = f"tow {result['tow']:.3f}" + f", {result['diverged']} diverged" * bool(result["diverged"])
        progress(done, total, f"{request.name} {format_values(values)}: {outcome}")

    if requests:
        require_precision(store.manifest.precision, next(iter(searches.values())).trials[0].device)
        backend.search(evaluate_config, requests, context.trial_data, on_result, sampler=sampler, seed=config.seed)
    # 4. Put the results into an order that does not depend on which came first.
    return {
        name: deduplicate_results(search_results, order.get(name, ())) for name, search_results in results.items()
    }, failed


def build_search(search: HyperparameterSearch, key: str, budget: int, stored: Sequence[ConfigResult]) -> Search:
    """Build the request of a search to a search backend."""
    first_trial, space = search.trials[0], search.space
    return Search(
        # The backend seeds the draws with this name.
        name=f"{'>'.join(step.algorithm for step in first_trial.steps)} {key[:6]}",
        space=to_domains(space),
        budget=budget if space else 1,
        job=search,
        initial=[search.defaults],
        evaluated=[(result["values"], result[OBJECTIVE[search.guide]]) for result in stored],
    )


def fix_configs(request: Search, values: Sequence[Values]) -> Search:
    """Fix the configurations of a request, so that none is left to draw; stored others are left out."""
    planned = {hash_record(config) for config in values}
    stored = [(config, objective) for config, objective in request.evaluated if hash_record(config) in planned]
    return replace(request, initial=values, evaluated=stored, budget=len(values))


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
