"""A search backend beside an AutoPool: in this process, and on Ray Tune once the pool has workers."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from cluster.auto_pool import AutoPool, format_left
from cluster.pool import Failure
from cluster.search import EvaluateFn, OnResult, SamplerName, SearchBackend, SerialSearch, enumerate_configs
from cluster.search_space import Search, Values

EVALUATION = "evaluation"  # the kind of the pool's jobs whose seconds these are


class AutoSearch:
    """Evaluates in this process; a search that begins when evaluations proved slow, or once there are workers, in them.

    A search does not move to workers in its middle: what its sampler draws next depends on what it has drawn.

    Args:
        pool: decides, and opens the workers.
        open_tune: makes the backend that uses their cluster.
        keep_going: as of SerialSearch.
    """

    def __init__(self, pool: AutoPool, open_tune: Callable[[], SearchBackend], *, keep_going: bool = False) -> None:
        self._pool, self._open_tune = pool, open_tune
        self._serial = SerialSearch(keep_going=keep_going)
        self._tune: SearchBackend | None = None

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
        """Evaluate the configurations of all searches; see SearchBackend.search."""
        left = sum(max(0, search.budget - len(search.evaluated)) for search in searches)
        if self._pool.open_if_slow({EVALUATION: left}):
            self._tune = self._tune or self._open_tune()
            self._tune.search(fn, searches, shared, on_result, sampler=sampler, seed=seed)
            return
        done, told = 0, False

        def evaluate_timed(job: Any, values: Values, shared: Any) -> dict[str, Any]:
            started = time.monotonic()
            try:
                return fn(job, values, shared)
            finally:
                self._pool.add_time(EVALUATION, time.monotonic() - started)

        def count_result(search: Search, values: Values, outcome: Mapping[str, Any] | Failure) -> None:
            nonlocal done, told
            done += 1
            on_result(search, values, outcome)  # type: ignore[arg-type]
            rest = {EVALUATION: left - done}
            if not told and self._pool.takes_too_long(rest):
                told = True
                self._pool.tell(
                    f"{format_left(left - done, 'configuration')} about {self._pool.forecast(rest):.0f} s, longer "
                    "than forecast; this search ends in this process. For Ray workers stop it and use --pool ray: what "
                    "is finished is kept"
                )

        self._serial.search(evaluate_timed, searches, shared, count_result, sampler=sampler, seed=seed)

    def enumerate_configs(self, search: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """Return all values that a search will evaluate; see cluster.search.enumerate_configs."""
        return enumerate_configs(search, sampler, seed)
