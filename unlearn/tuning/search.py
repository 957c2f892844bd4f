"""The search for an algorithm's parameters at one place of a plan: what is tried, what is kept of it, what is chosen.

Two selections, from the same attempts:

    oracle   the highest mean ToW on validation: an upper bound, for who has theta_r needs no unlearning
    blind    among attempts whose validation accuracy on the classes that stay is at most FLOOR below theta_o's on every
             original, the smallest mean distance of the forget error to that of unseen examples of the same classes
             (SCRUB+R's criterion), or to 1 of a class that goes whole: what a user can do

A sampler that learns from the objective must learn from the one that it is to serve, else the blind choice is made
among attempts that the oracle pointed at. So `tpe` hunts once for each selection; `random` and `grid` are blind to both
and serve both with one set of attempts. Every attempt is on file: a hunt goes on where it was stopped.

Hunts in the hands of a search: which attempts are missing, and what comes of them.

`random` and `grid` learn nothing from what they find, so that what they will try is known before anything is tried. A
hunt is then of exactly those values, whatever else lies on file: a sweep gives what it gives after any other, and its
contenders all choose among equally many. `tpe` learns, and goes on from all that is on file.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import numpy as np

from cluster.pool import Failure
from cluster.search_space import Arm
from memscore.pipeline.train_bank import ProgressCallback
from memscore.store.json_records import encode_record, hash_record, read_records
from memscore.store.store import Store
from memscore.store.visibility import open_visible_store
from unlearn.algorithms import get_algorithm
from unlearn.oracles import TrialData
from unlearn.search_space import Choice, Domain, Integer, LogUniform, is_at_boundary
from unlearn.trials.config import Row, Step, TrialConfig, trial_key
from unlearn.trials.runner import run_trial

Selection = Literal["oracle", "blind"]
SELECTIONS: tuple[Selection, ...] = ("oracle", "blind")
SEARCH_MEASURES = ("class-matched", "held-out-accuracy", "kept-class-accuracy", "tow")
"""Measures of an attempt; all of them on validation are read, none on test."""
OBJECTIVE: dict[Selection | Literal[""], str] = {"oracle": "tow", "blind": "blind", "": "tow"}
"""What a selection, or a sampler that it guides, wants high; what guides none is told of ToW, and learns nothing."""
ATTEMPTS_FOLDER = "attempts"
"""Folder of a store: attempts/<hunt>/<values>.json."""
MAX_ACCURACY_DROP = 0.02
"""Share of right answers, on validation examples of classes that stay, that the blind selection lets go."""

Values = dict[str, Any]
ConfigResult = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class HyperparameterSearch:
    """One search.

    Attributes:
        trials: one for each original that it is tuned on; what is sought are the parameters of the last step.
        joint: whether those of all steps are sought at once; they are then named 1.lr, 2.lr, ...
        guide: the selection whose objective guides the sampler; "" where it learns from none.
        tuned: whether anything is sought; else the defaults are the one attempt.
    """

    trials: tuple[TrialConfig, ...]
    joint: bool = False
    guide: Selection | Literal[""] = ""
    tuned: bool = True

    @property
    def space(self) -> dict[str, Domain]:
        """Where it looks."""
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
        """The papers' values of what is sought."""
        steps, found = self.trials[0].steps, {}
        for name in self.space:
            number, _, field = name.rpartition(".")
            known = fields(get_algorithm(steps[int(number or 0) - 1].algorithm).config)  # type: ignore[arg-type]
            found[name] = next(one.default for one in known if one.name == field)
        return found

    def filled(self, values: Values) -> tuple[TrialConfig, ...]:
        """The trials of one attempt."""
        return tuple(set_params(trial, values, joint=self.joint) for trial in self.trials)

    def name(self, store: Store) -> str:
        """64 hex digits over all that an attempt's result depends on but the values, and over what is sought."""
        steps = self.trials[0].steps if self.joint else self.trials[0].steps[-1:]
        narrowed = not self.tuned or any(get_free_space(step).keys() != get_search_space(step).keys() for step in steps)
        return hash_record({
            "trials": [trial_key(store, trial) for trial in self.trials],
            "joint": self.joint,
            "guide": self.guide,
            **({"sought": sorted(self.space)} if narrowed else {}),
        })


def get_free_space(step: Step) -> dict[str, Domain]:
    """The search space of a step, without the parameters that are given."""
    return {name: one for name, one in get_search_space(step).items() if name not in dict(step.params)}


def get_search_space(step: Step) -> dict[str, Domain]:
    """The whole search space of a step's algorithm."""
    space: dict[str, Domain] = get_algorithm(step.algorithm).config.SPACE  # type: ignore[attr-defined]
    return space


def set_params(trial: TrialConfig, values: Values, *, joint: bool) -> TrialConfig:
    """A trial with these parameters, beside those that it has."""

    def with_(params: tuple[tuple[str, Any], ...], number: int) -> tuple[tuple[str, Any], ...]:
        own = {name.partition(".")[2]: value for name, value in values.items() if name.startswith(f"{number}.")}
        return tuple(sorted({**dict(params), **own}.items()))

    if not joint:
        return replace(trial, params=tuple(sorted({**dict(trial.params), **values}.items())))
    before: tuple[Step, ...] = tuple(
        replace(step, params=with_(step.params, number)) for number, step in enumerate(trial.before, start=1)
    )
    return replace(trial, params=with_(trial.params, len(trial.before) + 1), before=before)


def evaluate_config(hunt: HyperparameterSearch, values: Values, bench: TrialData) -> ConfigResult:
    """Run the trials of one attempt, and keep what a search needs of them; what a worker runs.

    Args:
        hunt: the search.
        values: of what is sought.
        bench: the data.

    Returns:
        `objective`, of the guide; means over the originals of `tow` and `blind`, seconds that algorithms ran here and
        examples that the whole sequences read, how many runs diverged, the names of the trials. A diverged run counts
        0 for tow and -1 for blind; blind is the least where that is below 0, for an original that is spoilt is not made
        good by another.
    """
    rows = [run_trial(trial, bench) for trial in hunt.filled(values)]
    bases = [run_trial(make_baseline_trial(trial), bench) for trial in hunt.trials]
    blinds = [oracle_free_objective(row, base) for row, base in zip(rows, bases, strict=True)]
    found: ConfigResult = {
        "tow": float(np.mean([0.0 if row["status"] == "diverged" else row["tow_validation"] for row in rows])),
        "blind": float(np.min(blinds) if min(blinds) < 0 else np.mean(blinds)),
        "wall_s": float(sum(row["run_wall_s"] for row in rows)),
        "examples": int(sum(row["examples"] for row in rows)),
        "diverged": sum(row["status"] == "diverged" for row in rows),
        "trials": [row["trial"] for row in rows],
    }
    store = open_visible_store(hunt.trials[0].store)
    record = encode_record({"values": values, **found})
    store.folder.publish(f"{ATTEMPTS_FOLDER}/{hunt.name(store)}/{hash_record(values)}.json", record)
    return found | {"objective": found[OBJECTIVE[hunt.guide]]}


def read_config_results(store: Store, hunt: HyperparameterSearch, trials: Container[str]) -> list[ConfigResult]:
    """The attempts of a hunt that were made before, by this command or another; null on file is NaN.

    Args:
        store: open.
        hunt: the search.
        trials: names of those whose rows are on file; an attempt that lacks one, which was set aside, is made again.

    Returns:
        The attempts.
    """
    every = read_records(store.folder, f"{ATTEMPTS_FOLDER}/{hunt.name(store)}").values()
    found = [one for one in every if all(trial in trials for trial in one["trials"])]
    return [one | {name: float("nan") for name in ("tow", "blind") if one[name] is None} for one in found]


def make_baseline_trial(trial: TrialConfig) -> TrialConfig:
    """The same with nothing done: what theta_o says."""
    return replace(trial, algorithm="original", params=(), before=(), part=(), rounds=None, keep_before=False)


def oracle_free_objective(row: Row, base: Row) -> float:
    """What can be told of an attempt without an oracle.

    Args:
        row: of the trial.
        base: of theta_o.

    Returns:
        1 - class_matched_gap where the validation accuracy on the classes that stay is at most FLOOR below theta_o's,
        else how far it is below that, which is negative; -1 of a diverged run; NaN where a class of the forget set has
        no validation example and some of it stay.
    """
    if row["status"] == "diverged":
        return -1.0
    short = base["kept_class_accuracy_validation"] - MAX_ACCURACY_DROP - row["kept_class_accuracy_validation"]
    return -float(short) if short > 0 else 1 - float(row["class_matched_gap_validation"])


def select_config(found: Sequence[ConfigResult], select: Selection) -> ConfigResult | None:
    """The attempt that a selection takes, the first of equals; None where there is none, or all runs diverged."""
    column = OBJECTIVE[select]
    able = [one for one in found if one["diverged"] < len(one["trials"]) and not np.isnan(one[column])]
    return max(able, key=lambda one: float(one[column])) if able else None


def deduplicate_results(found: Sequence[ConfigResult], drawn: Sequence[Mapping[str, Any]] = ()) -> list[ConfigResult]:
    """Attempts without repeats, in an order that does not depend on when each was made.

    Args:
        found: attempts.
        drawn: values in the order of their draws, of which the defaults are the first: of equals the first is chosen.

    Returns:
        Those that were drawn in that order, then others by a hash.
    """
    places = {hash_record(values): number for number, values in enumerate(drawn)}
    once = {hash_record(one["values"]): one for one in found}
    return [once[key] for key in sorted(once, key=lambda key: (places.get(key, len(places)), key))]


def find_boundary_params(hunt: HyperparameterSearch, values: Values) -> list[str]:
    """Which of the chosen values lie at an end of their space."""
    return [name for name, space in hunt.space.items() if name in values and is_at_boundary(space, values[name])]


Sampler = Literal["tpe", "random", "grid"]


class SearchBackend(Protocol):
    """What looks for parameters; see cluster/search.py."""

    def search(
        self,
        fn: Callable[[Any, Values, Any], ConfigResult],
        arms: Sequence[Arm],
        shared: Any,
        told: Callable[[Arm, Values, Any], None],
        *,
        sampler: Sampler,
        seed: int,
    ) -> None:
        """Call fn(arm.job, values, shared) for values of each arm's space, and tell of each result."""

    def draws(self, arm: Arm, *, sampler: Literal["random", "grid"], seed: int) -> list[Values]:
        """All values that will be tried, of a sampler that does not learn."""


def run_searches(
    store: Store,
    hunts: Mapping[str, HyperparameterSearch],
    budget: int,
    search: SearchBackend,
    bench: TrialData,
    sampler: Sampler,
    seed: int,
    progress: ProgressCallback,
) -> tuple[dict[str, list[ConfigResult]], list[str]]:
    """The attempts of each hunt, those on file and those that are made now.

    Args:
        store: open.
        hunts: by their name.
        budget: attempts at each, those on file included; one where nothing is sought, fewer where a space has fewer.
        search: makes them.
        bench: the data.
        sampler: how values are drawn.
        seed: of the draws.
        progress: told of each.

    Returns:
        Hunt's name -> attempts, in the order of their draws, or in one that does not depend on when each was made; and
        a line for each attempt that failed.
    """
    trials = set(store.trials())
    found = {name: deduplicate_results(read_config_results(store, hunt, trials)) for name, hunt in hunts.items()}
    errands = [build_search(hunt, name, budget, found[name]) for name, hunt in hunts.items()]
    keys = {one.name: key for one, key in zip(errands, hunts, strict=True)}
    drawn: dict[str, Sequence[Mapping[str, Any]]] = {}
    if sampler != "tpe":
        errands = [fix_configs(one, search.draws(one, sampler=sampler, seed=seed)) for one in errands]
        known = {keys[one.name]: {hash_record(values) for values, _ in one.known} for one in errands}
        found = {name: [one for one in own if hash_record(one["values"]) in known[name]] for name, own in found.items()}
        drawn = {keys[one.name]: one.first for one in errands}
        sampler = "random"  # a grid's points are all in `first`
    errands = [one for one in errands if len(one.known) < one.budget]
    total, done, failed = sum(one.budget - len(one.known) for one in errands), 0, []

    def told(one: Arm, values: Values, result: dict[str, Any] | Failure) -> None:
        nonlocal done
        done += 1
        if isinstance(result, Failure):
            said = f"failed: {result.error}"
            failed.append(f"{one.name} {format_values(values)} failed: {result.error}")
        else:
            found[keys[one.name]].append({"values": values, **result})
            said = f"tow {result['tow']:.3f}" + f", {result['diverged']} diverged" * bool(result["diverged"])
        progress(done, total, f"{one.name} {format_values(values)}: {said}")

    if errands:
        search.search(evaluate_config, errands, bench, told, sampler=sampler, seed=seed)
    return {name: deduplicate_results(attempts, drawn.get(name, ())) for name, attempts in found.items()}, failed


def build_search(hunt: HyperparameterSearch, key: str, budget: int, known: Sequence[ConfigResult]) -> Arm:
    """A hunt as a search is told of it."""
    first, space = hunt.trials[0], hunt.space
    return Arm(
        name=f"{'>'.join(step.algorithm for step in first.steps)} {key[:6]}",  # draws depend on it
        space=to_domains(space),
        budget=budget if space else 1,
        job=hunt,
        first=[hunt.defaults],
        known=[(one["values"], one[OBJECTIVE[hunt.guide]]) for one in known],
    )


def fix_configs(one: Arm, values: Sequence[Values]) -> Arm:
    """The same with nothing left to draw.

    Args:
        one: the errand.
        values: all that is to be tried.

    Returns:
        It, with these first, as many as its budget, and only those of them known that are on file.
    """
    wanted = {hash_record(own) for own in values}
    known = [(own, objective) for own, objective in one.known if hash_record(own) in wanted]
    return replace(one, first=values, known=known, budget=len(values))


def to_domains(space: dict[str, Domain]) -> dict[str, tuple[Any, ...]]:
    """A space in words that a search library's wrapper reads."""
    found: dict[str, tuple[Any, ...]] = {}
    for name, one in space.items():
        if isinstance(one, Choice):
            found[name] = ("choice", one.values)
        else:
            kind = "log" if isinstance(one, LogUniform) else "whole" if isinstance(one, Integer) else "uniform"
            found[name] = (kind, one.low, one.high)
    return found


def format_values(values: Values) -> str:
    """Values in a line."""
    return " ".join(
        f"{name}={value:.3g}" if isinstance(value, float) else f"{name}={value}" for name, value in values.items()
    )
