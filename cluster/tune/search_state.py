"""The driver's state of one search on Ray Tune: evaluations that run, how they ended, when to warn and when to stop."""

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import ray

from cluster.faulty_workers import MAX_RAISED, MAX_REPLACED
from cluster.log_forwarding import LogCollector
from cluster.pool import RERUN_HINT, ClusterLost, Failure, FailureCounter
from cluster.ray_nodes import NO_WORKER_WARNING_S, check_waiting_time, warn_no_worker
from cluster.ray_scheduler import MAX_ATTEMPTS, POLL_S, kill_actors
from cluster.ray_worker import RemoteError, describe_worker_loss
from cluster.search import ConfigSampler, OnResult, SampledConfig

FAILURE_HEADING = "Failure # "  # of each loss of a worker, in Tune's text on an evaluation

_log = logging.getLogger(__name__)


class SearchState:
    """The driver's state of one search: evaluations that run, how they ended, when to warn and when to stop.

    Tune's searcher and callback call suggest, finish, recover, lose and update; `stop` is the exception that ended the
    search. Only update raises and calls on_result: in the others Tune would turn an exception into one of its own.
    """

    # An evaluation is in `unfinished` from suggest() to its outcome, also while it waits for a worker or is repeated,
    # and in `running` while a worker has it. Its outcome waits in `ended` for the next update().

    def __init__(
        self,
        sampler: ConfigSampler,
        on_result: OnResult,
        *,
        log_collector: LogCollector,
        count_fitting: Callable[[], int],
        setbacks: Counter[str],
        wait_s: float,
        silence_s: float,
        failure_counter: FailureCounter,
    ) -> None:
        self.failure_counter = failure_counter
        self.sampler, self.on_result, self.log_collector = sampler, on_result, log_collector
        self.setbacks, self.wait_s = setbacks, wait_s
        self.first = sampler.next()  # nothing is started where there is nothing to evaluate
        self.exhausted = False  # whether the sampler has no further configuration
        self.unfinished: dict[str, SampledConfig] = {}  # by Tune's id, those that wait for a worker too
        self.running: dict[str, float] = {}  # by Tune's id, since when
        self.ended: list[tuple[SampledConfig, dict[str, Any] | Failure]] = []
        self.n_ended = self.n_succeeded = self._n_replaced = 0
        self._n_raised: Counter[Any] = Counter()  # in a row, by worker
        self._waits_for: Any = None  # the worker that raised so often that no other evaluation begins
        self.actors: set[Any] = set()
        self.stop: BaseException | None = None
        self.signals: Sequence[int] = ()
        self._driver_node = ray.get_runtime_context().get_node_id()
        self._count_fitting, self._max_unfinished, self._counted_at = count_fitting, 0, float("-inf")
        self._ready_at = self._result_at = self._checked_at = time.monotonic()
        self._warn_after_s, self._warned_no_worker = silence_s, False

    @property
    def may_replace(self) -> bool:
        """Whether a worker may still be replaced because its evaluations raised."""
        return self._n_replaced < MAX_REPLACED

    def suggest(self, trial_id: str) -> SampledConfig | None:
        """Return the next configuration, stored under Tune's id, if a worker can be placed for one and one is left."""
        # Tune asks for max_concurrent_trials at once; here a configuration is drawn only when a worker can take it, so
        # that the sampler has learnt from all results by then
        now = time.monotonic()
        if now - self._counted_at > POLL_S:
            self._max_unfinished, self._counted_at = self._count_fitting(), now
        # Tune gives a free process the next configuration, and one that fails at once would take most of them before
        # others have one result: then all wait until one of those that run has ended.
        if len(self.unfinished) >= self._max_unfinished or (self._waits_for is not None and self.running):
            return None
        sample, self.first = self.first or self.sampler.next(), None
        if sample is None:
            self.exhausted = True
        else:
            self.unfinished[trial_id] = sample
        return sample

    def record_worker(self, worker: Any, *, raised: bool) -> None:
        """Record whether an evaluation raised, by its worker; each third one in a row makes the others wait."""
        if worker is not self._waits_for:
            self._waits_for = None
        self._n_raised[worker] = self._n_raised[worker] + 1 if raised else 0
        if raised and self._n_raised[worker] % MAX_RAISED == 0:
            self._waits_for = worker

    def finish(self, trial_id: str, outcome: Any) -> None:
        """Record the outcome that an evaluation returned."""
        sample = self.unfinished.pop(trial_id)
        self.running.pop(trial_id, None)
        if isinstance(outcome, LoadFailure):
            text = f"workers cannot load the search's function: {outcome}; install its module on all nodes"
            self.stop = self.stop or RuntimeError(text)
        elif isinstance(outcome, RemoteError) and outcome.stop is not None:
            self.stop = self.stop or outcome.stop
        elif isinstance(outcome, RemoteError):
            self.ended.append((sample, Failure(error=outcome.error, traceback=outcome.traceback)))
        else:
            self.n_succeeded += not isinstance(outcome, Failure)
            self.ended.append((sample, outcome))

    def recover(self, trial_id: str, message: str) -> None:
        """Record that an evaluation lost its process, and is repeated in another."""
        self.running.pop(trial_id, None)
        kind, error = _classify_worker_loss(message)
        self.setbacks[kind] += 1
        self._n_replaced += kind == "exception"
        sample = self.unfinished[trial_id]
        _log.warning("%s %s is evaluated again: %s", sample.search.name, sample.values, error)

    def lose(self, trial_id: str, message: str) -> None:
        """Record that an evaluation lost its process for the last time, with Tune's error message."""
        # Tune has tried MAX_ATTEMPTS times; where a process cannot be created, no other evaluation will have one either
        if "in its creation task" in message:
            text = f"workers cannot start: {' '.join(message.split())[:500]}; {RERUN_HINT}"
            self.stop = self.stop or ClusterLost(text)
        kind, error = _classify_worker_loss(message)
        self.setbacks[kind] += 1
        failure_kind: Literal["memory", "worker"] = "memory" if kind == "memory" else "worker"
        details = message.rpartition(FAILURE_HEADING)[2].strip()
        self.finish(trial_id, Failure(error=error, kind=failure_kind, attempts=MAX_ATTEMPTS, traceback=details))

    def update(self) -> None:
        """Report what has ended, and raise SearchEnded where the search must end."""
        # outcomes are reported also after a signal or an exception that stops the search: they are results to be stored
        try:
            self.log_collector.poll()
            while self.ended:
                sample, outcome = self.ended.pop(0)
                self.n_ended, self._result_at = self.n_ended + 1, time.monotonic()
                self.sampler.report(sample, outcome)
                self.on_result(sample.search, sample.values, outcome)
                self.failure_counter.record(outcome)
            if self.stop is None and not self.signals:
                self._check_progress()
        except BaseException as error:
            self.stop = self.stop or error
        # at the end Tune asks each actor to stop, and would wait for those in the middle of a step
        if self.stop is not None or self.signals:
            kill_actors(self.actors)
            raise SearchEnded

    def _check_progress(self) -> None:
        """Warn if no worker is placed or no evaluation ends, and stop if no worker can be placed any more."""
        now = time.monotonic()
        if now - self._checked_at < POLL_S:
            return
        self._checked_at = now

        # the clock of waiting runs only while evaluations wait and none runs
        if self.running or not self.unfinished:
            self._ready_at = now
        elif (waited_s := now - self._ready_at) > POLL_S:
            check_waiting_time(waited_s, self.wait_s, self._driver_node)
            if waited_s > NO_WORKER_WARNING_S and not self._warned_no_worker:
                self._warned_no_worker = True
                warn_no_worker(waited_s, self.wait_s)

        # both are long: one evaluation may be large while others end, and after a long one the next has just begun
        longest_s = max((now - since for since in self.running.values()), default=0)
        if min(longest_s, now - self._result_at) > self._warn_after_s:
            self._warn_after_s *= 2
            _log.warning(
                "no evaluation has ended for %.0f min; running: %d, one for %.0f min; ended: %d. None is killed. If "
                "this is too long, press Ctrl-C: what has ended is kept, and the same command goes on",
                (now - self._result_at) / 60,
                len(self.running),
                longest_s / 60,
                self.n_ended,
            )


class SearchEnded(Exception):
    """Ends Tune's loop; the reason is in the SearchState."""


class LoadFailure(str):
    """Why a worker cannot load the function."""


class UnfitWorker(Exception):
    """Ends a process that can evaluate nothing more; its message has a setback's kind and the exception of the job."""

    def __init__(self, kind: str, error: str) -> None:
        super().__init__(kind, error)

    def __str__(self) -> str:
        return f"{self.args[0]}: {self.args[1]}"


def _classify_worker_loss(message: str) -> tuple[str, str]:
    """Return the kind of setback and one line, from Tune's error message on an evaluation that lost its worker."""
    # at each loss Tune appends text with a heading; the exceptions themselves are gone
    last = message.rpartition(FAILURE_HEADING)[2].strip()
    if "low on memory" in last:
        return "memory", "its node ran low on memory and Ray killed the worker"
    unfit = re.search(rf"{UnfitWorker.__name__}: (memory|gpu|exception): (.*)", last)
    if unfit is None:
        return "worker", describe_worker_loss(last)
    kind, error = unfit.groups()
    reasons = {
        "memory": error,
        "gpu": f"its worker lost its GPU: {error}",
        "exception": f"its worker raised in each of its last evaluations, while others succeeded: {error}",
    }
    return kind, reasons[kind]
