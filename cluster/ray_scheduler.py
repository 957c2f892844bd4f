"""Schedule the jobs of one run on Ray actors: assign, retry, kill overdue ones (ray_pool.py has the table of rules)."""

import logging
import math
import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import ray
from ray import exceptions as ray_exceptions

from cluster.faulty_workers import FaultyWorkers, Task, WorkerSlot
from cluster.pool import RERUN_HINT, ClusterLost, Failure, RunStopped, format_error
from cluster.ray_nodes import NO_WORKER_WARNING_S, check_waiting_time, find_dead_nodes, warn_no_worker
from cluster.ray_worker import RemoteError, WorkerInfo, describe_worker_loss

MAX_ATTEMPTS = 3  # of a job, and again of each part of it
MAX_NODE_LOSSES = 10  # a job that ran on ten nodes that were lost is itself suspect
MAX_LOST_GPUS = 12  # in a run without any result: of four jobs, each tried three times
MAX_FAILED_STARTS = 10  # in a row, a second apart, at which workers could not start
NODE_LOSS_TIMEOUT_S = 90.0  # Ray marks a killed node dead after some 13 s and a frozen one after 63 s
DEADLINE_FACTOR = 20
MIN_FINISHED = 3  # fewer finished jobs do not show how long one takes, so none is killed before
POLL_S = 1.0

InterruptionKind = Literal["worker", "memory", "deadline"]
JobOutcome = tuple[Any, Any]  # a job, and its result or Failure

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SchedulerConfig:
    """What a pool passes to the scheduler of one run."""

    start_worker: Callable[[], Any]  # creates an actor, perhaps not placed yet
    workers: int | None  # requested; more than fit add nodes, where nodes come on demand; None: as many as fit
    count_fitting: Callable[[], int]  # how many workers fit on the cluster now
    deadline_s: float
    wait_s: float
    setbacks: Counter[str]
    driver_node: str = ""  # id of this process's node
    whole_gpus: bool = False  # each worker has whole GPUs, so no other worker uses their memory
    keep_idle: bool = False  # workers without a job stay for the next run, as long as they fit
    environment: dict[str, str] = field(default_factory=dict)  # variables that start_worker gives to new workers


def kill_actors(actors: Iterable[Any]) -> None:
    """Kill actors; a call in flight raises at once, and nothing of it starts again."""
    for actor in actors:
        ray.kill(actor, no_restart=True)


def split_job(job: Any) -> list[Any]:
    """Return the parts of a job, none where it has no split(); that of text means something else."""
    return [] if isinstance(job, (str, bytes)) or not hasattr(job, "split") else list(job.split())


class JobScheduler:
    """The state of one run.

    The pool calls scale_workers, assign_jobs and poll in turn while the run is open, and close at the end.

    Attributes:
        stop: the exception of a job that ended the run.
    """

    # A task is in exactly one place: in _queue, in a slot of _waiting, or in _unresponsive. A slot is in _waiting while
    # a call of its actor is in flight, start() (no task) or run_job() (a task), else in _idle, or in _faulty where it
    # may have no job; discarded, in none of them.

    def __init__(self, config: SchedulerConfig, jobs: Iterable[Any]) -> None:
        self.config = config
        self.stop: BaseException | None = None
        self._queue = deque(Task(job) for job in jobs)
        self._waiting: dict[Any, WorkerSlot] = {}  # starting and busy slots, by the reference that they will resolve
        self._idle: list[WorkerSlot] = []
        self._faulty = FaultyWorkers()
        self._unresponsive: list[tuple[float, str, Task]] = []  # since when, node: a dead worker or a lost node?
        self._wall_s: deque[float] = deque(maxlen=1000)
        self._warn_after_s = config.deadline_s
        self._share = 1.0  # of the requested and of the fitting workers: with more, memory ran out
        self._target = self._max_busy = math.inf  # workers to have and to keep busy, as of the last look
        self._failed_starts, self._failed_start_at = 0, -math.inf
        self._scaled_at = -math.inf
        self._ready_at = time.monotonic()
        self._warned_no_worker = False
        self._n_lost_gpus = 0

    def is_open(self) -> bool:
        """Return whether any job has no outcome yet."""
        return bool(self._queue or self._unresponsive or self.count_busy())

    def adopt_workers(self, actors: Mapping[Any, Any]) -> None:
        """Begin with workers of an earlier run, each by the reference that says it is ready."""
        self._waiting |= {ref: WorkerSlot(actor, reused=True) for ref, actor in actors.items()}

    def release_idle(self) -> list[Any]:
        """Return the workers without a job, for the next run."""
        idle, self._idle = self._idle, []
        return [slot.actor for slot in idle]

    def count_busy(self) -> int:
        """Return how many jobs run now; any thread may call it."""
        # list() copies in one step, while a loop would fail where the run's thread changes the dictionary
        return sum(slot.task is not None for slot in list(self._waiting.values()))

    def scale_workers(self) -> None:
        """Start workers up to what cluster and jobs allow, and kill idle ones beyond it.

        Raises ClusterLost or TimeoutError as check_waiting_time does, while no worker is ready.
        """
        # each look at the cluster is a request to Ray's head node: once a second, however often the pool loops
        now = time.monotonic()
        if now - self._scaled_at < POLL_S:
            return
        self._scaled_at = now
        self._update_targets()

        # a job of an unresponsive worker counts like a queued one, for it may come back
        needed = min(self._target, len(self._queue) + len(self._unresponsive) + self.count_busy())
        allowed = self._target if self.config.keep_idle else needed

        # Ray accepts an actor that does not fit yet (an autoscaler adds nodes for it), and its start() resolves once it
        # is placed. Only idle workers are killed.
        while len(self._waiting) + len(self._idle) + len(self._faulty.suspected) < needed:
            actor = self.config.start_worker()
            self._waiting[actor.start.remote()] = WorkerSlot(actor)
        while self._idle and len(self._waiting) + len(self._idle) > allowed:
            kill_actors([self._idle.pop().actor])

        # the clock of waiting runs only while jobs wait and no worker at all is ready
        if self._idle or self.count_busy() or not self._queue:
            self._ready_at = now
        else:
            waited_s = now - self._ready_at
            check_waiting_time(waited_s, self.config.wait_s, self.config.driver_node)
            if waited_s > NO_WORKER_WARNING_S and not self._warned_no_worker:
                self._warned_no_worker = True
                warn_no_worker(waited_s, self.config.wait_s)

    def _update_targets(self) -> int:
        """Set how many workers to have and to keep busy for the cluster's present size; return how many fit."""
        # More than fit may be requested, so that nodes are added; how many are busy follows from those that fit. At
        # least one, also where none fits now: the run waits for it.
        fitting = max(1, self.config.count_fitting())
        requested = fitting if self.config.workers is None else self.config.workers
        fitting = min(fitting, requested)
        self._keep_retired()
        requested -= len(self._faulty.retired)
        self._target, self._max_busy = (
            max(1, math.floor(count * self._share + 1e-9)) for count in (requested, fitting)
        )
        return fitting

    def _keep_retired(self) -> None:
        """Forget retired workers whose nodes were lost; where no others are left, kill them and use their places."""
        if not self._faulty.retired:
            return
        dead = find_dead_nodes()
        self._faulty.retired = [slot for slot in self._faulty.retired if slot.node not in dead]
        if not self._list_started() and not self._faulty.suspected:
            kill_actors(slot.actor for slot in self._faulty.retired)
            self._faulty.retired = []

    def _list_started(self) -> list[WorkerSlot]:
        """Return the workers that have a job or could be given one."""
        return [*self._idle, *(slot for slot in self._waiting.values() if slot.task is not None)]

    def _is_starting(self) -> bool:
        """Return whether workers are starting that fit on the cluster as it is."""
        busy, faulty = self.count_busy(), self._faulty
        placed = len(self._idle) + busy + len(faulty.suspected) + len(faulty.retired)
        return len(self._waiting) > busy and placed < self._max_busy

    def _reduce_share(self, workers: int) -> None:
        """Limit the run to so many workers, and to the same share of what the cluster grows to."""
        # a share of the workers that fit, not of those requested: only the former have used memory
        self._share = min(self._share, workers / max(self._update_targets(), workers))
        self._update_targets()

    def assign_jobs(self) -> None:
        """Assign one job to each idle worker, within what memory allows."""
        # where no other worker is left to try a job, the suspected one goes on
        for untestable in self._faulty.find_untestable(self._queue, self._list_started(), self._is_starting()):
            self._end_suspicion(untestable)
        # none to a worker that is not placed yet: Ray would accept the call, and the job would wait for that worker
        started = self._list_started()
        for slot in reversed(list(self._idle)):
            if not self._queue or self.stop is not None or self.count_busy() >= self._max_busy:
                break
            task = next((task for task in self._queue if self._faulty.may_take(slot, task, started)), None)
            if task is not None:
                self._idle.remove(slot)
                self._queue.remove(task)
                slot.task, slot.started_at, slot.concurrent = task, time.monotonic(), 0
                self._waiting[slot.actor.run_job.remote(task.job)] = slot
        # also of the jobs that run already: all of them use memory together from now on
        busy = self.count_busy()
        for slot in self._waiting.values():
            slot.concurrent = max(slot.concurrent, busy)

    def poll(self) -> list[JobOutcome]:
        """Wait at most POLL_S for a reference, then handle all that have resolved."""
        # ray.wait returns once one reference has resolved, so a second call that does not wait collects the others;
        # without references it would not wait at all
        refs = list(self._waiting)
        if not refs:
            time.sleep(POLL_S)
        elif ray.wait(refs, timeout=POLL_S)[0]:
            refs = ray.wait(refs, num_returns=len(refs), timeout=0)[0]
        else:
            refs = []
        # deadlines come last, when what has ended has left _waiting
        finished = [outcome for ref in refs for outcome in self._handle(ref, self._waiting.pop(ref))]
        return [*finished, *self._kill_overdue(), *self._resolve_unresponsive()]

    def close(self) -> None:
        """Kill all workers of this run."""
        slots = [*self._idle, *self._waiting.values(), *self._faulty.suspected, *self._faulty.retired]
        self._idle, self._waiting, self._faulty = [], {}, FaultyWorkers()
        if ray.is_initialized():
            kill_actors(slot.actor for slot in slots)

    def _handle(self, ref: Any, slot: WorkerSlot) -> list[JobOutcome]:
        """Handle a resolved reference: a worker has started, or its job has ended."""
        task, slot.task = slot.task, None
        if task is None:
            self._handle_start(ref, slot)
            return []

        try:
            outcome = ray.get(ref)
        except ray_exceptions.OutOfMemoryError as error:
            # one fewer than ran beside it, not than run now: jobs that run together are killed together
            self._discard(slot)
            self._reduce_share(max(1, slot.concurrent - 1))
            return self._retry(task, "memory", "its node ran low on memory and Ray killed the worker", str(error))
        except (ray_exceptions.RayActorError, ray_exceptions.NodeDiedError, ray_exceptions.ObjectLostError) as error:
            # a lost node, which is not counted, may appear as a dead or unavailable actor or as a lost object
            self._discard(slot)
            if not isinstance(error, ray_exceptions.RayActorError) or slot.node in find_dead_nodes():
                return self._retry_after_node_loss(task)
            # The connection broke, and Ray knows only up to a minute later whether the node is dead. The job waits for
            # that; counted as a death of its worker, lost nodes would use up its attempts.
            if isinstance(error, ray_exceptions.ActorUnavailableError):
                self._unresponsive.append((time.monotonic(), slot.node, task))
                return []
            return self._retry(task, "worker", describe_worker_loss(str(error)), str(error))
        except ray_exceptions.RayError as error:
            # exceptions of the job arrive as data, so the result could not be sent or read; the worker is sound
            outcome = RemoteError(format_error(error), str(error), gpu_memory=False, stop=None)
        if isinstance(outcome, RemoteError) and outcome.stop is None:
            return self._handle_error(slot, task, outcome)
        self._idle.append(slot)
        return self._finish(slot, task, outcome)

    def _handle_start(self, ref: Any, slot: WorkerSlot) -> None:
        """Make a started worker idle; one that could not start is no job's failure."""
        try:
            info: WorkerInfo | RemoteError = ray.get(ref)
        except ray_exceptions.RayError as error:
            # Many may fail at one moment, for one cause: that is one failed start. A reused worker has died between two
            # runs, which says nothing about starting.
            self._discard(slot)
            if not slot.reused and time.monotonic() - self._failed_start_at >= POLL_S:
                self._failed_starts, self._failed_start_at = self._failed_starts + 1, time.monotonic()
            # wait a tick, which _discard does not: a successor that starts at once may fail in the same way
            self._scaled_at = time.monotonic()
            # an error of the actor's __init__, most often an argument that cannot be read, would repeat itself
            if getattr(error, "actor_init_failed", False) or self._failed_starts >= MAX_FAILED_STARTS:
                raise ClusterLost(f"workers cannot start: {format_error(error)[:500]}; {RERUN_HINT}") from error
            return
        if isinstance(info, RemoteError):
            raise RuntimeError(f"workers cannot load the job's function: {info.error}; install its module on all nodes")
        slot.node, slot.gpus, slot.label, self._failed_starts = info.node, info.gpus, info.label, 0
        self._idle.append(slot)

    def _handle_error(self, slot: WorkerSlot, task: Task, error: RemoteError) -> list[JobOutcome]:
        """Handle an exception of a job, which may show that its worker can run no other either."""
        if error.worker_environment:
            self._discard(slot)
            return self._retry_with_environment(task, error)
        # only the end of the process frees all that it has allocated on the GPU
        if error.gpu_memory:
            self._discard(slot)
            return self._retry_after_gpu_memory(task, error, slot.concurrent)
        # nor can the process use its GPU again: each later job of it would fail at once
        if error.broken_gpu:
            task.lost_gpus.add(slot.place)
            self._check_lost_gpus(error)
            self._replace(slot, f"lost its GPU ({error.error})")
            return self._retry(
                task, "worker", f"its worker lost its GPU: {error.error}", error.traceback, counter="gpu"
            )
        task.attempts += 1
        self._end_suspicion(task)
        if self._faulty.record_error(slot, task, error.error, self._list_started(), self._is_starting()):
            self.config.setbacks["exception"] += 1
            self._queue.appendleft(task)
            return []
        self._idle.append(slot)
        return [(task.job, Failure(error=error.error, attempts=task.attempts, traceback=error.traceback))]

    def _finish(self, slot: WorkerSlot, task: Task, outcome: Any) -> list[JobOutcome]:
        """Return the outcome of a job that ended with a result, or with an exception that stops the run."""
        # such a job has no outcome: RayPool.run raises its exception after this round
        if isinstance(outcome, RemoteError):
            self.stop = self.stop or outcome.stop
            return []
        # results only: jobs that raise at once would shorten the median, and with it the deadline of the others
        self._wall_s.append(time.monotonic() - slot.started_at)
        faulty = self._faulty.record_success(slot, task)
        if faulty is not None:
            self._replace(
                faulty,
                f"raised in its last {faulty.raised} jobs, the last of which another worker has done ({task.error})",
            )
        return [(task.job, outcome)]

    def _check_lost_gpus(self, error: RemoteError) -> None:
        """Stop the run if all its jobs have lost their GPUs: a fault of every job or GPU would last as long as it."""
        self._n_lost_gpus += 1
        if not self._wall_s and self._n_lost_gpus >= MAX_LOST_GPUS:
            self.stop = self.stop or RunStopped(
                f"workers lost their GPU {self._n_lost_gpus} times, and no job has ended ({error.error}); check the "
                f"GPUs and the network's code; {RERUN_HINT}"
            )

    def _replace(self, slot: WorkerSlot, reason: str) -> None:
        """Discard a worker that can do no more jobs; where those before it failed too, its place stays empty."""
        retired = self._faulty.must_retire(slot, self._list_started())
        remedy = (
            "so did workers before it, and nothing runs there until the run ends; check it"
            if retired
            else "it is replaced"
        )
        _log.warning("%s %s; %s", slot.label, reason, remedy)
        if retired:
            self._faulty.retired.append(slot)
        else:
            self._discard(slot)

    def _end_suspicion(self, task: Task) -> None:
        """Let a worker go on that waited for another one to try this task's job."""
        suspect = self._faulty.end_suspicion(task)
        self._idle += [suspect] if suspect is not None else []

    def _retry(
        self, task: Task, kind: InterruptionKind, error: str, details: str = "", counter: str = ""
    ) -> list[JobOutcome]:
        """Queue a job again; after MAX_ATTEMPTS its parts as new jobs, or return its Failure if it has none."""
        # The parts begin with no attempts, so that sound ones are not charged for a faulty one. A job that is its own
        # only part would be split for ever.
        self._end_suspicion(task)
        self.config.setbacks[counter or kind] += 1
        task.attempts += 1
        # where a GPU was lost, another one shows soonest whether the job or that GPU was at fault
        if task.attempts < MAX_ATTEMPTS and counter == "gpu":
            self._queue.appendleft(task)
        elif task.attempts < MAX_ATTEMPTS:
            self._queue.append(task)
        elif len(parts := split_job(task.job)) > 1:
            self._queue.extend(Task(part) for part in parts)
        else:
            return [(task.job, Failure(error=error, kind=kind, attempts=task.attempts, traceback=details))]
        return []

    def _retry_with_environment(self, task: Task, error: RemoteError) -> list[JobOutcome]:
        """Queue a job again for workers with variables that its own lacked; counted if they are not new to the run."""
        if error.worker_environment.items() <= self.config.environment.items():
            return self._retry(task, "worker", error.error, error.traceback)
        self._end_suspicion(task)
        self.config.environment.update(error.worker_environment)
        self.config.setbacks["worker"] += 1
        self._queue.append(task)
        return []

    def _retry_after_gpu_memory(self, task: Task, error: RemoteError, concurrent: int) -> list[JobOutcome]:
        """Count the attempt of a job that had its GPU alone; otherwise run half as many workers."""
        if self.config.whole_gpus or concurrent == 1:
            return self._retry(task, "memory", error.error, error.traceback)
        self._end_suspicion(task)
        # half of those that ran beside it: jobs that run together fail together, and each would halve again
        self._reduce_share(max(1, concurrent // 2))
        self.config.setbacks["memory"] += 1
        self._queue.append(task)
        return []

    def _retry_after_node_loss(self, task: Task) -> list[JobOutcome]:
        """Queue a job again without counting the attempt, until it has lost MAX_NODE_LOSSES nodes."""
        self._end_suspicion(task)
        self.config.setbacks["node"] += 1
        task.node_losses += 1
        if task.node_losses < MAX_NODE_LOSSES:
            self._queue.append(task)
            return []
        error = f"{task.node_losses} nodes were lost while this job ran on them"
        return [(task.job, Failure(error=error, kind="node", attempts=task.attempts + task.node_losses))]

    def _kill_overdue(self) -> list[JobOutcome]:
        """Kill the workers of jobs that take far longer than others; before there are others, warn instead."""
        now, outcomes = time.monotonic(), []
        if len(self._wall_s) < MIN_FINISHED:
            self._warn_long_jobs([now - slot.started_at for slot in self._waiting.values() if slot.task is not None])
            return []
        # the reference of the killed call leaves _waiting with its slot, so that its error is not handled as well
        limit_s = max(self.config.deadline_s, DEADLINE_FACTOR * statistics.median(self._wall_s))
        for ref, slot in list(self._waiting.items()):
            if slot.task is not None and now - slot.started_at > limit_s:
                self._discard(self._waiting.pop(ref))
                outcomes += self._retry(slot.task, "deadline", f"not done after {now - slot.started_at:.0f} s, killed")
        return outcomes

    def _warn_long_jobs(self, ages_s: list[float]) -> None:
        """Warn after the deadline, then after twice that: a job may hang or be large, which nothing shows yet."""
        longest_s = max(ages_s, default=0)
        if longest_s <= self._warn_after_s:
            return
        self._warn_after_s = 2 * longest_s
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

    def _resolve_unresponsive(self) -> list[JobOutcome]:
        """Retry the jobs of workers that stopped answering, once it is known whether their node was lost."""
        # a node that Ray still has after NODE_LOSS_TIMEOUT_S is alive, so it was the worker; until then the job stays
        dead, now = find_dead_nodes() if self._unresponsive else set(), time.monotonic()
        before = self._unresponsive
        self._unresponsive = [x for x in before if x[1] not in dead and now - x[0] <= NODE_LOSS_TIMEOUT_S]
        outcomes = []
        for _, node, task in [x for x in before if x not in self._unresponsive]:
            error = "the worker stopped answering, its node did not"
            outcomes += self._retry_after_node_loss(task) if node in dead else self._retry(task, "worker", error)
        return outcomes

    def _discard(self, slot: WorkerSlot) -> None:
        """Kill a worker and let its successor start at once."""
        kill_actors([slot.actor])
        self._scaled_at = -math.inf
