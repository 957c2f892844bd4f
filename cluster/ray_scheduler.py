"""One run of jobs on Ray actors: who does what, and what a failure leads to (the table is in ray_pool.py).

What a run is given by its pool, the seats and tasks it keeps, and what it asks of Ray about the cluster.
"""

import logging
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import ray
from ray import exceptions as rays

from cluster.pool import RERUN_HINT, ClusterLost, Failure, format_error
from cluster.ray_worker import RemoteError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What a run is given by its pool."""

    hire: Callable[[], Any]  # a new actor, perhaps not placed yet
    wanted: int | None  # how many are asked for; more than fit bring nodes, where nodes come on demand; None: what fits
    fit: Callable[[], int]  # how many there is room for, as things stand now
    deadline_s: float
    wait_s: float
    setbacks: Counter[str]
    home: str = ""  # id of this process's node
    own_gpu: bool = False  # each worker has whole GPUs, so no other is in its way
    keeps: bool = False  # workers without a job stay for the next run, where there is room for them


@dataclass(eq=False)
class Task:
    """A job and how often it was ended before it was done."""

    job: Any
    attempts: int = 0
    node_losses: int = 0


@dataclass(eq=False)
class WorkerSlot:
    """An actor: starting while it has no node, busy while it has a task, else idle."""

    actor: Any
    node: str = ""
    task: Task | None = None
    since: float = 0
    beside: int = 0  # seats that were busy when its task began, itself included
    proven: bool = False  # it worked in an earlier run


def kill_actors(actors: Iterable[Any]) -> None:
    """Kill the processes; a call in flight raises at once, and nothing of it starts again."""
    for actor in actors:
        ray.kill(actor, no_restart=True)


def warn_no_worker(waited_s: float, wait_s: float) -> None:
    """Warn that no worker could be placed for so long, and of how long that will go on."""
    _log.warning(
        "no worker is ready after %.0f s: %s (what starting workers hold is not free). Machines may be busy, "
        "others may have the rest, or nodes are on their way; this run waits for %.0f s more, then it stops",
        waited_s,
        describe_resources(),
        wait_s - waited_s,
    )


def check_waiting_time(waited_s: float, wait_s: float, home: str) -> None:
    """Stop where nothing can come any more.

    Args:
        waited_s: how long nobody has worked.
        wait_s: how long to wait for a worker.
        home: id of this process's node.

    Raises:
        ClusterLost: this process's own node is dead.
        TimeoutError: the wait is over.
    """
    if home in find_dead_nodes():
        raise ClusterLost(f"the Ray node that this command runs on was lost; {RERUN_HINT}")
    if waited_s > wait_s:
        raise TimeoutError(
            f"no worker could be placed for {wait_s:g} s: {describe_resources()}; "
            f"wait for it, add nodes, or ask for less a worker; {RERUN_HINT}"
        )


def describe_resources() -> str:
    """What the cluster has and what of it is free, in one line."""
    kinds, there, free = ("CPU", "GPU", "memory"), ray.cluster_resources(), ray.available_resources()

    def line(of: Mapping[str, float]) -> str:
        gib = {kind: of.get(kind, 0) / (2**30 if kind == "memory" else 1) for kind in kinds}
        return f"{gib['CPU']:g} CPUs, {gib['GPU']:g} GPUs, {gib['memory']:.0f} GiB of memory"

    return f"the cluster has {line(there)} in all; free are {line(free)}"


def find_dead_nodes() -> set[str]:
    """Ids of the nodes that Ray has given up."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def split_job(job: Any) -> list[Any]:
    """What the job splits into; text has a split() that means something else."""
    return [] if isinstance(job, (str, bytes)) or not hasattr(job, "split") else list(job.split())


MAX_ATTEMPTS = 3
MAX_NODE_LOSSES = 10  # a job under which ten nodes were lost is itself suspect
NO_WORKER_WARNING_S = 60.0
MAX_FAILED_STARTS = 10  # moments in a row, a second apart, at which workers could not start
NODE_LOSS_TIMEOUT_S = 90.0  # Ray marks a killed node dead after some 13 s and a frozen one after 63 s
DEADLINE_FACTOR = 20
MIN_FINISHED = 3  # fewer finished jobs do not say how long one takes, so none is killed before
POLL_S = 1.0

InterruptionKind = Literal["worker", "memory", "deadline"]
JobOutcome = tuple[Any, Any]  # a job, and its result or Failure


class JobScheduler:
    """The state of one run; its pool calls staff, hand_out and collect in turn while it is open, and close at the end.

    Attributes:
        stop: the exception of a job that ended the run.
    """

    def __init__(self, terms: SchedulerConfig, jobs: Iterable[Any]) -> None:
        self.terms = terms
        self.stop: Exception | None = None
        self._todo = deque(Task(job) for job in jobs)
        self._waited: dict[Any, WorkerSlot] = {}  # starting and busy seats, by the reference that is to come
        self._idle: list[WorkerSlot] = []
        self._unresponsive: list[
            tuple[float, str, Task]
        ] = []  # since when, on which node: a dead worker or a lost node?
        self._wall_s: deque[float] = deque(maxlen=1000)
        self._patience_s = terms.deadline_s
        self._share = 1.0  # of the workers wanted and of those that fit: with more, memory ran out
        self._hired = self._most = math.inf  # workers to have and to keep busy, as of the last look
        self._false_starts, self._false_start_at = 0, -math.inf
        self._staffed_at = -math.inf
        self._alive_at = time.monotonic()
        self._told_full = False

    def open(self) -> bool:
        """Whether any job has no outcome yet."""
        return bool(self._todo or self._unresponsive or self.busy())

    def adopt_workers(self, actors: Mapping[Any, Any]) -> None:
        """Begin with workers of an earlier run, each by the reference that says it is ready."""
        self._waited |= {ref: WorkerSlot(actor, proven=True) for ref, actor in actors.items()}

    def release_idle(self) -> list[Any]:
        """The workers without a job, for the next run."""
        idle, self._idle = self._idle, []
        return [seat.actor for seat in idle]

    def busy(self) -> int:
        """How many jobs run now; any thread may ask."""
        return sum(seat.task is not None for seat in list(self._waited.values()))

    def scale_workers(self) -> None:
        """Hire up to what the cluster and the jobs ask for, and dismiss idle workers beyond it.

        Raises:
            ClusterLost: nobody works, and this process's own node is dead.
            TimeoutError: no worker could be placed for the time that the terms allow.
        """
        now = time.monotonic()
        if now - self._staffed_at < POLL_S:
            return
        self._staffed_at = now
        self._look()
        want = min(self._hired, len(self._todo) + len(self._unresponsive) + self.busy())
        most = self._hired if self.terms.keeps else want
        while len(self._waited) + len(self._idle) < want:
            actor = self.terms.hire()
            self._waited[actor.start.remote()] = WorkerSlot(actor)
        while self._idle and len(self._waited) + len(self._idle) > most:
            kill_actors([self._idle.pop().actor])
        if self._idle or self.busy() or not self._todo:
            self._alive_at = now
        else:
            waited_s = now - self._alive_at
            check_waiting_time(waited_s, self.terms.wait_s, self.terms.home)
            if waited_s > NO_WORKER_WARNING_S and not self._told_full:
                self._told_full = True
                warn_no_worker(waited_s, self.terms.wait_s)

    def _look(self) -> int:
        """How many workers to have and to keep busy, as the cluster stands now; gives how many it has room for."""
        fit = max(1, self.terms.fit())
        wanted = fit if self.terms.wanted is None else self.terms.wanted
        fit = min(fit, wanted)
        self._hired, self._most = (max(1, math.floor(most * self._share + 1e-9)) for most in (wanted, fit))
        return fit

    def _shrink(self, workers: int) -> None:
        """From now on only so many, and the same share of what the cluster grows to."""
        self._share = min(self._share, workers / max(self._look(), workers))
        self._look()

    def assign_jobs(self) -> None:
        """One job to each idle worker, within what memory allows."""
        while self._todo and self._idle and self.stop is None and (busy := self.busy()) < self._most:
            seat, task = self._idle.pop(), self._todo.popleft()
            seat.task, seat.since, seat.beside = task, time.monotonic(), busy + 1
            self._waited[seat.actor.run_job.remote(task.job)] = seat

    def poll(self) -> list[JobOutcome]:
        """Wait for news, a tick at most, and see to all there is."""
        refs = list(self._waited)
        if not refs:
            time.sleep(POLL_S)
        elif ray.wait(refs, timeout=POLL_S)[0]:
            refs = ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        else:
            refs = []
        arrived = [outcome for ref in refs for outcome in self._arrive(ref, self._waited.pop(ref))]
        return [*arrived, *self._overdue(), *self._verdicts()]

    def close(self) -> None:
        """Kill all workers of this run."""
        seats = [*self._idle, *self._waited.values()]
        self._idle, self._waited = [], {}
        if ray.is_initialized():
            kill_actors(seat.actor for seat in seats)

    def _arrive(self, ref: Any, seat: WorkerSlot) -> list[JobOutcome]:
        """Take what a reference has brought: a started worker, or the end of a job."""
        task, seat.task = seat.task, None
        if task is None:
            self._start(ref, seat)
            return []
        alone = self.terms.own_gpu or max(seat.beside, 1 + self.busy()) == 1
        try:
            outcome = ray.get(ref)
        except rays.OutOfMemoryError as error:
            self._lose(seat)
            self._shrink(max(1, seat.beside - 1))
            return self._again(task, "memory", "its node ran low on memory and Ray killed the worker", str(error))
        except (rays.RayActorError, rays.NodeDiedError, rays.ObjectLostError) as error:
            self._lose(seat)
            if not isinstance(error, rays.RayActorError) or seat.node in find_dead_nodes():
                return self._node_lost(task)
            if isinstance(error, rays.ActorUnavailableError):
                self._unresponsive.append((time.monotonic(), seat.node, task))
                return []
            return self._again(task, "worker", "its worker process died", str(error))
        except rays.RayError as error:  # the result could not be sent or read
            outcome = RemoteError(format_error(error), str(error), gpu_memory=False, stop=None)
        if isinstance(outcome, RemoteError) and outcome.gpu_memory and outcome.stop is None:
            self._lose(seat)
            return self._gpu_memory(task, outcome, seat.beside, alone=alone)
        self._idle.append(seat)
        return self._done(task, outcome, time.monotonic() - seat.since)

    def _start(self, ref: Any, seat: WorkerSlot) -> None:
        """A worker is there, or could not start; that is no job's fault."""
        try:
            node = ray.get(ref)
        except rays.RayError as error:
            self._lose(seat)
            if not seat.proven and time.monotonic() - self._false_start_at >= POLL_S:  # many may fail at one moment
                self._false_starts, self._false_start_at = self._false_starts + 1, time.monotonic()
            self._staffed_at = time.monotonic()  # no haste: what could not start may not start again at once
            if getattr(error, "actor_init_failed", False) or self._false_starts >= MAX_FAILED_STARTS:
                raise ClusterLost(f"workers cannot start: {format_error(error)[:500]}; {RERUN_HINT}") from error
            return
        if isinstance(node, RemoteError):
            raise RuntimeError(f"workers cannot load the job's function: {node.error}; install its module on all nodes")
        seat.node, self._false_starts = node, 0
        self._idle.append(seat)

    def _done(self, task: Task, outcome: Any, wall_s: float) -> list[JobOutcome]:
        """A job ran through, to a result or an exception."""
        if isinstance(outcome, RemoteError):
            self.stop = self.stop or outcome.stop
            failure = Failure(error=outcome.error, attempts=task.attempts + 1, traceback=outcome.traceback)
            return [] if outcome.stop else [(task.job, failure)]
        self._wall_s.append(wall_s)
        return [(task.job, outcome)]

    def _again(self, task: Task, kind: InterruptionKind, error: str, details: str = "") -> list[JobOutcome]:
        """Try again at the end of the queue; the third time in parts, or no more."""
        self.terms.setbacks[kind] += 1
        task.attempts += 1
        if task.attempts < MAX_ATTEMPTS:
            self._todo.append(task)
        elif len(parts := split_job(task.job)) > 1:
            self._todo.extend(Task(part) for part in parts)
        else:
            return [(task.job, Failure(error=error, kind=kind, attempts=task.attempts, traceback=details))]
        return []

    def _gpu_memory(self, task: Task, raised: RemoteError, beside: int, *, alone: bool) -> list[JobOutcome]:
        """The job is to blame if it had its GPU for itself; else half as many workers."""
        if alone:
            return self._again(task, "memory", raised.error, raised.traceback)
        self._shrink(max(1, beside // 2))  # of what ran when it began: jobs that began together fail together
        self.terms.setbacks["memory"] += 1
        self._todo.append(task)
        return []

    def _node_lost(self, task: Task) -> list[JobOutcome]:
        """Not the job's fault, unless it happens again and again."""
        self.terms.setbacks["node"] += 1
        task.node_losses += 1
        if task.node_losses < MAX_NODE_LOSSES:
            self._todo.append(task)
            return []
        error = f"{task.node_losses} nodes were lost while this job ran on them"
        return [(task.job, Failure(error=error, kind="node", attempts=task.attempts + task.node_losses))]

    def _overdue(self) -> list[JobOutcome]:
        """Kill the workers of jobs that take far longer than others; while there are no others, say so instead."""
        now, outcomes = time.monotonic(), []
        if len(self._wall_s) < MIN_FINISHED:
            self._wonder([now - seat.since for seat in self._waited.values() if seat.task is not None])
            return []
        limit_s = max(self.terms.deadline_s, DEADLINE_FACTOR * statistics.median(self._wall_s))
        for ref, seat in list(self._waited.items()):
            if seat.task is not None and now - seat.since > limit_s:
                self._lose(self._waited.pop(ref))
                outcomes += self._again(seat.task, "deadline", f"not done after {now - seat.since:.0f} s, killed")
        return outcomes

    def _wonder(self, ages_s: list[float]) -> None:
        """Nobody knows yet whether a job hangs or is large: tell the user after the deadline, then after twice that."""
        longest_s = max(ages_s, default=0)
        if longest_s <= self._patience_s:
            return
        self._patience_s = 2 * longest_s
        _log.warning(
            "jobs running: %d, one for %s; finished: %d. Large jobs may take that long, so none is killed before %d "
            "have finished, and then only after %d times their median. If this is too long, press Ctrl-C: what is "
            "finished is kept, and the same command goes on",
            len(ages_s),
            f"{longest_s / 60:.0f} min" if longest_s >= 60 else f"{longest_s:.1f} s",
            len(self._wall_s),
            MIN_FINISHED,
            DEADLINE_FACTOR,
        )

    def _verdicts(self) -> list[JobOutcome]:
        """Settle which workers went silent with their node, and which died on a node that lives on."""
        dead, now, limbo = find_dead_nodes() if self._unresponsive else set(), time.monotonic(), self._unresponsive
        self._unresponsive = [x for x in limbo if x[1] not in dead and now - x[0] <= NODE_LOSS_TIMEOUT_S]
        outcomes = []
        for _, node, task in [x for x in limbo if x not in self._unresponsive]:
            silent = "the worker stopped answering, its node did not"
            outcomes += self._node_lost(task) if node in dead else self._again(task, "worker", silent)
        return outcomes

    def _lose(self, seat: WorkerSlot) -> None:
        """A worker is of no more use; its successor is hired at once."""
        kill_actors([seat.actor])
        self._staffed_at = -math.inf
