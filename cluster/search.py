"""The promise of a search, without Ray: a function, arms, what they share; each attempt told as it ends.

    SerialSearch().search(judge, [Arm(name="sgd", space={"lr": ("log", 1e-3, 1.0)}, budget=20, job=spec)], images, told)

`judge(job, values, shared)` gives a dict of numbers and strings with a float "objective", which is to become large.
Arms take turns, an attempt each, so that the sampler of one learns while the others run. What was tried before is
told by whoever keeps it (`Arm.known`); nothing is kept here. What a sampler that learns nothing will try can be had
before anything is tried (`draws`). Exceptions are as in cluster/pool.py.
"""

import hashlib
import math
import random
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cluster.pool import Failure, format_error, is_fatal, make_read_only_copy
from cluster.search_space import (
    Domain,
    Search,
    Values,
    build_grid,
    choose_grid_counts,
    count_values,
    enumerate_values,
    from_optuna,
    make_values_key,
    restore_types,
    to_optuna,
)

SamplerName = Literal["tpe", "random", "grid"]
EvaluateFn = Callable[[Any, Values, Any], dict[str, Any]]
OnResult = Callable[[Search, Values, dict[str, Any] | Failure], None]

MAX_ENUMERATED = 10_000  # of a larger space the values not yet tried are not listed
MAX_REDRAWS = 20  # of a space that cannot be listed, before the same values are tried twice


class SearchBackend(Protocol):
    """What makes the attempts, here or elsewhere; nobody who is handed one sees which."""

    def search(
        self,
        fn: EvaluateFn,
        searches: Sequence[Search],
        shared: Any,
        on_result: OnResult,
        *,
        sampler: SamplerName = "tpe",
        seed: int = 0,
    ) -> None:
        """Call fn(arm.job, values, shared) until every arm has had its attempts; told(arm, values, outcome) of each."""

    def enumerate_configs(self, arm: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """All that an arm will try."""


class SerialSearch:
    """The promise in this process, one attempt after the other: for tests, breakpoints and laptops."""

    def search(
        self,
        fn: EvaluateFn,
        searches: Sequence[Search],
        shared: Any,
        on_result: OnResult,
        *,
        sampler: SamplerName = "tpe",
        seed: int = 0,
    ) -> None:
        """Make the attempts in order.

        Args:
            fn: of a job, values and what all attempts share; gives a dict with a float "objective".
            searches: the searches.
            shared: what every attempt may read; must be picklable, its arrays arrive read-only.
            on_result: called with the arm, the values and the dict, or a Failure if fn raised, as each attempt ends.
            sampler: as in Turns.
            seed: as in Turns.

        Raises:
            Exception: the one with a true `is_fatal` that an attempt raised.
            ValueError: as of Turns.
        """
        turns, shared = ConfigSampler(searches, sampler, seed), make_read_only_copy(shared)
        while (attempt := turns.next()) is not None:
            outcome: dict[str, Any] | Failure
            try:
                outcome = evaluate_config(fn, attempt.arm.job, attempt.values, shared)
            except Exception as error:  # one bad attempt must not end the others
                if is_fatal(error):
                    raise
                outcome = Failure(error=format_error(error), traceback=traceback.format_exc())
            turns.report(attempt, outcome)
            on_result(attempt.arm, attempt.values, outcome)

    def enumerate_configs(self, arm: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """See the function of that name."""
        return enumerate_configs(arm, sampler, seed)


def evaluate_config(fn: EvaluateFn, job: Any, values: Values, shared: Any) -> dict[str, Any]:
    """What fn says of the values.

    Args:
        fn: the function.
        job: of the arm.
        values: to be tried; fn gets a dict of its own.
        shared: what all attempts share.

    Returns:
        Its dict.

    Raises:
        TypeError: it has no float "objective".
    """
    said = fn(job, dict(values), shared)
    if not isinstance(said, dict) or not isinstance(said.get("objective"), float):
        raise TypeError(f"{fn.__name__} gave no float 'objective' but {str(said)[:200]}; a search needs one to sample")
    return said


@dataclass(frozen=True, eq=False)
class SampledConfig:
    """Values to be tried for an arm.

    Attributes:
        arm: whose.
        place: of the arm in the call.
        values: what to try.
        trial: Optuna's, which is to be told; None where nothing learns from it.
    """

    arm: Search
    place: int
    values: Values
    trial: optuna.Trial | None = field(default=None, repr=False)


class ConfigSampler:
    """Which values are tried next: arms in turns, each with a sampler of its own.

    "tpe" is Optuna's TPESampler with its defaults (the first ten attempts are drawn at random) and constant_liar, so
    attempts that still run keep their neighbourhood from being tried again; "random" is its RandomSampler; "grid" goes
    through the points of cluster.search_space.choose_grid_counts, as many as the budget leaves beside `initial`. A
    sampler's seed depends on `seed` and the arm's name only. What was tried or is known is not tried again: it is
    drawn anew, so a random search that goes on ends with the values of one that was not interrupted. Of a finite
    space any that is left is taken instead, and where none is, the arm ends before its budget.

    Args:
        arms: the searches.
        sampler: "tpe", "random" or "grid".
        seed: of all samplers.

    Raises:
        ValueError: an unknown sampler, two arms of one name, or a grid that does not fit its budget.
    """

    def __init__(self, arms: Sequence[Search], sampler: SamplerName = "tpe", seed: int = 0) -> None:
        if sampler not in {"tpe", "random", "grid"}:
            raise ValueError(f"unknown sampler {sampler!r}; use tpe, random or grid")
        names = [arm.name for arm in arms]
        if len(set(names)) < len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"several arms of one search are called {twice[0]!r}; give each its own name")
        self._courses = [_SingleSampler(arm, sampler, seed) for arm in arms]
        self._order = deque(enumerate(self._courses))

    def next(self) -> SampledConfig | None:
        """The next attempt, of the arm whose turn it is; None once every arm has had its own."""
        while self._order:
            place, course = self._order.popleft()
            if (found := course.next()) is not None:
                self._order.append((place, course))
                return SampledConfig(course.arm, place, *found)
        return None

    def report(self, attempt: SampledConfig, outcome: Mapping[str, Any] | Failure) -> None:
        """Tell the sampler how an attempt ended; an objective that is not finite counts as 0."""
        if attempt.trial is None:
            return
        study = self._courses[attempt.place].study
        if isinstance(outcome, Failure):
            study.tell(attempt.trial, state=TrialState.FAIL)
        else:
            study.tell(attempt.trial, _replace_nonfinite(outcome["objective"]))


def enumerate_configs(arm: Search, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
    """All that an arm will try, for nothing that is found on the way changes it.

    Args:
        arm: the search; what it knows is left out of account.
        sampler: one that does not learn.
        seed: as in Turns.

    Returns:
        Values, in the order in which they are tried; of a smaller budget the first of them, but for a grid.

    Raises:
        ValueError: as of Turns.
    """
    turns = ConfigSampler([replace(arm, evaluated=())], sampler, seed)
    return [attempt.values for attempt in iter(turns.next, None)]


class _SingleSampler:
    """One arm on its way."""

    def __init__(self, arm: Search, sampler: SamplerName, seed: int) -> None:
        self.arm, self._size = arm, count_values(arm.space)
        self._distributions = build_distributions(arm.space)
        number = int.from_bytes(hashlib.sha256(f"{seed}/{arm.name}".encode()).digest()[:4], "little")
        self._dice = random.Random(number)
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it prints a line for each study
        self.study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(number)
            if sampler == "random"
            else optuna.samplers.TPESampler(seed=number, constant_liar=True),
        )
        known = [(restore_types(arm.space, values), objective) for values, objective in arm.evaluated]
        self._seen = {make_values_key(values) for values, _ in known}
        self._left = (arm.budget if arm.space else 1) - len(known)
        for values, objective in known:
            self._remember(values, objective)
        self._draws = sampler != "grid"
        first = [restore_types(arm.space, values) for values in arm.initial]
        if sampler == "grid":
            counts = choose_grid_counts(arm.name, arm.space, max(1, arm.budget - len(first)))
            first += build_grid(arm.space, counts)
        self._planned = deque(first)

    def next(self) -> tuple[Values, optuna.Trial | None] | None:
        """Values and Optuna's trial for them; None at the end."""
        if self._left <= 0:
            return None
        while self._planned:
            values = self._planned.popleft()
            if make_values_key(values) not in self._seen:
                return self._take(values, self._asked(values))
        return self._drawn() if self._draws else None

    def _drawn(self) -> tuple[Values, optuna.Trial | None] | None:
        """What the sampler draws, or of a finite space anything that is left."""
        if self._size <= MAX_ENUMERATED:
            left = [values for values in enumerate_values(self.arm.space) if make_values_key(values) not in self._seen]
            if not left:
                return None
        redraws = len(self._seen) + MAX_REDRAWS
        while True:
            trial = self.study.ask(self._distributions)
            values = from_optuna(self.arm.space, trial.params)
            if make_values_key(values) not in self._seen or not redraws:
                return self._take(values, trial)
            self.study.tell(trial, state=TrialState.FAIL)
            if self._size <= MAX_ENUMERATED:
                values = self._dice.choice(left)
                return self._take(values, self._asked(values))
            redraws -= 1

    def _take(self, values: Values, trial: optuna.Trial | None) -> tuple[Values, optuna.Trial | None]:
        self._left -= 1
        self._seen.add(make_values_key(values))
        return values, trial

    def _asked(self, values: Values) -> optuna.Trial | None:
        """Optuna's trial for values that it did not draw."""
        params = to_optuna(self.arm.space, values)
        if params is None:
            return None
        self.study.enqueue_trial(params)
        return self.study.ask(self._distributions)

    def _remember(self, values: Values, objective: float) -> None:
        """An attempt that is on file, if it lies in the space."""
        params = to_optuna(self.arm.space, values)
        if params is not None:
            self.study.add_trial(
                optuna.trial.create_trial(
                    params=params, distributions=self._distributions, value=_replace_nonfinite(objective)
                )
            )


def _replace_nonfinite(objective: float) -> float:
    return objective if math.isfinite(objective) else 0.0


def build_distributions(space: Mapping[str, Domain]) -> dict[str, BaseDistribution]:
    """The space in Optuna's words; a choice is the number of its value, because Optuna takes only plain ones."""
    return {name: _build_distribution(domain) for name, domain in space.items()}


def _build_distribution(domain: Domain) -> BaseDistribution:
    if domain[0] == "choice":
        return CategoricalDistribution(range(len(domain[1])))
    if domain[0] == "whole":
        return IntDistribution(int(domain[1]), int(domain[2]))
    return FloatDistribution(domain[1], domain[2], log=domain[0] == "log")
