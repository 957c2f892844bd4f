"""Search the parameters of several problems at once, without Ray: evaluate configurations, report each result.

    backend = SerialSearch()
    search = Search(name="sgd", space={"lr": ("log", 1e-3, 1.0)}, budget=20, job=spec)
    backend.search(evaluate, [search], images, on_result)

`evaluate(job, values, shared)` returns a dict of numbers and strings with a float "objective", which is maximized.
Searches take turns, one configuration each, so that the sampler of one learns while the others run. The caller stores
results and passes earlier ones in (`Search.evaluated`); nothing is stored here. The configurations of a sampler that
does not learn are known before any is evaluated (`enumerate_configs`). Exceptions are handled as in cluster/pool.py.
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

from cluster.device_errors import is_broken_device
from cluster.pool import Failure, FailureCounter, check_lost_gpus, format_error, make_read_only_copy, passes_pool
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

MAX_ENUMERATED = 10_000  # of a larger space the values not yet evaluated are not listed
MAX_REDRAWS = 20  # of a space that cannot be listed, before the same values are evaluated twice


class SearchBackend(Protocol):
    """Evaluates configurations, in this process or on a cluster; code that uses one does not depend on which."""

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
        """Call fn(search.job, values, shared) up to each search's budget, and on_result after each call.

        Args:
            fn: of a job, values and the shared object; returns a dict with a float "objective", which is maximized.
                Workers must be able to import it.
            searches: they take turns; none starts where nothing is left of its budget.
            shared: the object that every evaluation may read; must be picklable, its arrays arrive read-only.
            on_result: called in this process with the search, the values and the dict, or a Failure if fn raised or
                its worker was lost, as each evaluation ends. An exception that it raises ends the search.
            sampler: as in ConfigSampler.
            seed: as in ConfigSampler.

        Raises:
            BaseException: what on_result raised, or an evaluation's exception with a true `stops_the_run`.
            ValueError: as of ConfigSampler.
            RepeatedFailure: as of cluster.pool.FailureCounter.
        """

    def enumerate_configs(self, search: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """Return all values that a search will evaluate; see enumerate_configs."""


class SerialSearch:
    """A search backend in this process, one evaluation after the other: for tests, breakpoints and laptops.

    Args:
        keep_going: also where the first evaluations all fail in the same way; see cluster.pool.FailureCounter.
    """

    def __init__(self, *, keep_going: bool = False) -> None:
        self.keep_going = keep_going

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
        """Evaluate the configurations of all searches in order, one after the other; see SearchBackend.search."""
        config_sampler, shared, n_lost_gpus = ConfigSampler(searches, sampler, seed), make_read_only_copy(shared), 0
        counter = FailureCounter(lambda: 1, keep_going=self.keep_going)
        while (sample := config_sampler.next()) is not None:
            outcome: dict[str, Any] | Failure
            # one failed evaluation must not end the others
            try:
                outcome, n_lost_gpus = evaluate_config(fn, sample.search.job, sample.values, shared), 0
            except BaseException as error:
                if passes_pool(error):
                    raise
                outcome = Failure(error=format_error(error), traceback=traceback.format_exc())
                n_lost_gpus = n_lost_gpus + 1 if is_broken_device(error) else 0
            config_sampler.report(sample, outcome)
            on_result(sample.search, sample.values, outcome)
            if isinstance(outcome, Failure):
                check_lost_gpus(n_lost_gpus, outcome.error)
            counter.record(outcome)

    def enumerate_configs(self, search: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """Return all values that a search will evaluate; see the function enumerate_configs."""
        return enumerate_configs(search, sampler, seed)


def evaluate_config(fn: EvaluateFn, job: Any, values: Values, shared: Any) -> dict[str, Any]:
    """Call fn with a copy of the values; raise TypeError if the dict that it returns has no float "objective"."""
    # a copy, for fn may change its values, which on_result is given too
    result = fn(job, dict(values), shared)
    if not isinstance(result, dict) or not isinstance(result.get("objective"), float):
        raise TypeError(
            f"{fn.__name__} gave no float 'objective' but {str(result)[:200]}; a search needs one to sample"
        )
    return result


@dataclass(frozen=True, eq=False)
class SampledConfig:
    """A configuration to be evaluated.

    Attributes:
        search: that it belongs to.
        index: of the search in the call.
        values: to evaluate.
        trial: Optuna's, which receives the objective; None where no sampler learns from it.
    """

    search: Search
    index: int
    values: Values
    trial: optuna.Trial | None = field(default=None, repr=False)


class ConfigSampler:
    """Draws the next configuration: searches take turns, each with a sampler of its own.

    "tpe" is Optuna's TPESampler with its defaults (the first ten configurations are drawn at random) and constant_liar,
    so evaluations that still run keep their neighbourhood from being drawn again; "random" is its RandomSampler; "grid"
    goes through the points of cluster.search_space.choose_grid_counts, as many as the budget leaves beside `initial`. A
    sampler's seed depends on `seed` and the search's stream only. Values that were evaluated are not evaluated again
    but redrawn, so a random search that continues ends with the values of one that was not interrupted. Of a finite
    space anything that is left is evaluated; where nothing is left, the search ends before its budget. Raises
    ValueError for an unknown sampler, two searches of one name, or a grid that does not fit its budget.
    """

    def __init__(self, searches: Sequence[Search], sampler: SamplerName = "tpe", seed: int = 0) -> None:
        if sampler not in {"tpe", "random", "grid"}:
            raise ValueError(f"unknown sampler {sampler!r}; use tpe, random or grid")
        names = [search.name for search in searches]
        if len(set(names)) < len(names):
            repeated = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"several searches are called {repeated[0]!r}; give each its own name")
        self._samplers = [_SingleSampler(search, sampler, seed) for search in searches]
        self._order = deque(enumerate(self._samplers))

    def next(self) -> SampledConfig | None:
        """Return the next configuration of the search whose turn it is; None once every search has ended."""
        # a search whose turn yields nothing has ended, and is not put back into the queue
        while self._order:
            index, sampler = self._order.popleft()
            if (drawn := sampler.next()) is not None:
                self._order.append((index, sampler))
                return SampledConfig(sampler.search, index, *drawn)
        return None

    def report(self, sample: SampledConfig, outcome: Mapping[str, Any] | Failure) -> None:
        """Report an outcome to the sampler; an objective that is not finite counts as the worst."""
        # A failed trial teaches TPE nothing, but has to be ended: constant_liar takes all that run for bad ones.
        if sample.trial is None:
            return
        study = self._samplers[sample.index].study
        if isinstance(outcome, Failure):
            study.tell(sample.trial, state=TrialState.FAIL)
        else:
            state, value = _grade(outcome["objective"])
            study.tell(sample.trial, value, state)


def enumerate_configs(search: Search, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
    """Return all values that a search will evaluate with a sampler that does not learn, in this order.

    Earlier results of the search are ignored. A smaller budget evaluates the first of the values, except by grid.
    """
    # possible because such a sampler draws the same whatever the outcomes are
    config_sampler = ConfigSampler([replace(search, evaluated=())], sampler, seed)
    return [sample.values for sample in iter(config_sampler.next, None)]


class _SingleSampler:
    """Draws the configurations of one search."""

    def __init__(self, search: Search, sampler: SamplerName, seed: int) -> None:
        self.search, self._n_values = search, count_values(search.space)
        self._distributions = {name: _build_distribution(domain) for name, domain in search.space.items()}
        # from a name, not from the position: a search draws the same whatever other searches run beside it
        stream = search.stream or search.name
        number = int.from_bytes(hashlib.sha256(f"{seed}/{stream}".encode()).digest()[:4], "little")
        self._rng = random.Random(number)
        optuna.logging.set_verbosity(optuna.logging.WARNING)  # else it prints a line for each study
        self.study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.RandomSampler(number)
            if sampler == "random"
            else optuna.samplers.TPESampler(seed=number, constant_liar=True),
        )

        # Earlier results count towards the budget, are not repeated, and teach the sampler. Read from a file, a tuple
        # may be a list and a whole number a float, so types are restored before values are compared.
        evaluated = [(restore_types(search.space, values), objective) for values, objective in search.evaluated]
        self._seen = {make_values_key(values) for values, _ in evaluated}
        self._n_left = (search.budget if search.space else 1) - len(evaluated)
        for values, objective in evaluated:
            self._add_result(values, objective)

        # what is known in advance comes first; a grid has no more than that
        self._draws = sampler != "grid"
        initial = [restore_types(search.space, values) for values in search.initial]
        if sampler == "grid":
            counts = choose_grid_counts(search.name, search.space, max(1, search.budget - len(initial)))
            initial += build_grid(search.space, counts)
        self._planned = deque(initial)

    def next(self) -> tuple[Values, optuna.Trial | None] | None:
        """Return values and Optuna's trial for them; None at the end."""
        if self._n_left <= 0:
            return None
        while self._planned:
            values = self._planned.popleft()
            if make_values_key(values) not in self._seen:
                return self._take(values, self._create_trial(values))
        return self._draw() if self._draws else None

    def _draw(self) -> tuple[Values, optuna.Trial | None] | None:
        """Draw values with the sampler; of a finite space it may be anything that is left."""
        # a space that can be listed is used up exactly; where nothing is left, the search ends before its budget
        if self._n_values <= MAX_ENUMERATED:
            left = [
                values for values in enumerate_values(self.search.space) if make_values_key(values) not in self._seen
            ]
            if not left:
                return None

        # A random sampler that begins anew repeats its draws, since its seed is the same; len(_seen) redraws pass over
        # all that were evaluated, so a search that continues ends with the values of one that was not interrupted. A
        # learning sampler may draw a few values again and again; after MAX_REDRAWS more they are evaluated twice.
        redraws = len(self._seen) + MAX_REDRAWS
        while True:
            trial = self.study.ask(self._distributions)
            values = from_optuna(self.search.space, trial.params)
            if make_values_key(values) not in self._seen or not redraws:
                return self._take(values, trial)
            # a trial that is not evaluated has to end, or it would count as one that runs; failed, it teaches nothing
            self.study.tell(trial, state=TrialState.FAIL)
            if self._n_values <= MAX_ENUMERATED:
                values = self._rng.choice(left)
                return self._take(values, self._create_trial(values))
            redraws -= 1

    def _take(self, values: Values, trial: optuna.Trial | None) -> tuple[Values, optuna.Trial | None]:
        self._n_left -= 1
        self._seen.add(make_values_key(values))
        return values, trial

    def _create_trial(self, values: Values) -> optuna.Trial | None:
        """Create Optuna's trial for values that it did not draw; None if they lie outside of the space."""
        # ask() takes the enqueued values without calling the sampler, whose random stream thus does not move on
        params = to_optuna(self.search.space, values)
        if params is None:
            return None
        self.study.enqueue_trial(params)
        return self.study.ask(self._distributions)

    def _add_result(self, values: Values, objective: float) -> None:
        """Pass an earlier result to Optuna, if it lies in the space."""
        params = to_optuna(self.search.space, values)
        if params is not None:
            state, value = _grade(objective)
            self.study.add_trial(
                optuna.trial.create_trial(state=state, value=value, params=params, distributions=self._distributions)
            )


def _grade(objective: float) -> tuple[TrialState, float | None]:
    """Grade an objective for Optuna, which takes no NaN: pruned without a value is worse than any completed trial."""
    return (TrialState.COMPLETE, objective) if math.isfinite(objective) else (TrialState.PRUNED, None)


def _build_distribution(domain: Domain) -> BaseDistribution:
    """Build Optuna's distribution; a choice is the index of its value, because Optuna takes only plain values."""
    if domain[0] == "choice":
        return CategoricalDistribution(range(len(domain[1])))
    if domain[0] == "whole":
        return IntDistribution(int(domain[1]), int(domain[2]))
    return FloatDistribution(domain[1], domain[2], log=domain[0] == "log")
