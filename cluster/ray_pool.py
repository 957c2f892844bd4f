"""A worker pool on Ray actors.

Ray only places processes; which job is tried again, and when to stop, is decided here, because actors that Ray restarts
hang after a lost node. Each actor has at most one job in flight, and no job is assigned to an actor that does not run
yet.

    a worker died                                   again, three times in all; then its parts (`job.split()`), three
                                                    times each; without parts it is a Failure
    the host's memory ran out                       as above, with one worker fewer from then on
    a job passed its deadline                       its worker is killed, then as for one that died; the deadline is
                                                    `deadline_s`, or 20 times the median of finished jobs if longer
    it did so before three have finished            a warning, again after twice the time: large jobs look the same
    a node was lost                                 again, not counted; a Failure after ten
    the GPU's memory ran out                        worker killed, again; it counts for a job that had its GPU alone,
                                                    and where other jobs used the GPU, concurrency is halved
    the worker lost its GPU (an illegal access)     replaced, then as for one that died; its job goes to another GPU if
                                                    there is one
    `worker_environment`                            worker killed, again; new workers have these variables
    `stops_the_run`                                 the run ends with that exception
    any other exception                             a Failure, with its traceback; sys.exit too
    the first jobs all fail in the same way         the run ends (FailureCounter)
    three in a row on one worker                    another worker tries the last; if it succeeds, the first is replaced
"""

import itertools
from collections import Counter
from collections.abc import Callable, Generator, Iterable
from types import TracebackType
from typing import Any, Self

import ray

from cluster.log_forwarding import LogCollector
from cluster.pool import Failure, FailureCounter, Job, Result
from cluster.ray_nodes import count_fitting_workers, require_gpu_share
from cluster.ray_scheduler import JobScheduler, SchedulerConfig, kill_actors
from cluster.ray_worker import WorkerActor, make_worker_environment

_numbers = itertools.count()  # actor names must differ within a process, also between pools


class RayPool:
    """A pool on a Ray cluster: grows with it, and survives dead workers and lost nodes.

    Args:
        workers: jobs at once; None for as many as fit on the cluster, which is checked every second.
        gpus_per_worker: share of a GPU a worker is given; 0 hides all GPUs from it. Ray only counts shares, so a worker
            with a part of a GPU finds the part in the variable MEMSCORE_GPU_SHARE, and the job must keep to it.
        memory_per_worker: bytes a node must have free for a worker to be placed there; no limit if None.
        name: prefix of the actors' names on the dashboard, before their number.
        deadline_s: no job is killed before; after it, a job that takes 20 times the median of the finished ones. Until
            three have finished none is killed, and a warning is logged.
        wait_s: how long no worker at all may be placed before the run gives up.
        keep_going: also where the first jobs all fail in the same way; see FailureCounter.

    Attributes:
        setbacks: how often a job ended without an outcome, since the pool was made, because a "worker" or a "node" was
            lost, because of a lost "gpu", "memory" or a "deadline", or for an "exception" that another worker was to
            confirm.

    Raises:
        RuntimeError: this process is in no cluster.
        ValueError: fewer than one worker, or a share of a GPU that no node has.
    """

    def __init__(
        self,
        workers: int | None = None,
        *,
        gpus_per_worker: float = 0,
        memory_per_worker: int | None = None,
        name: str = "memscore",
        deadline_s: float = 600,
        wait_s: float = 300,
        keep_going: bool = False,
    ) -> None:
        if not ray.is_initialized():
            raise RuntimeError("a RayPool needs a cluster; make it inside `with cluster.session.connect():`")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}; leave it out for one a CPU")
        require_gpu_share(gpus_per_worker, ray.nodes())
        self.name, self.deadline_s, self.wait_s, self.keep_going = name, deadline_s, wait_s, keep_going
        self.setbacks: Counter[str] = Counter()
        self._workers, self._gpus, self._memory = workers, gpus_per_worker, memory_per_worker
        self._runs: list[JobScheduler] = []
        self._log_collector = LogCollector(name)  # one for all runs: workers outlive a run
        self._environment: dict[str, str] = {}  # what new workers are told that earlier ones found out
        self._keep_idle = False  # only within `with pool`, whose end kills them
        self._idle_workers: list[tuple[Any, tuple[bytes, Any]]] = []  # each with the function and object it has loaded
        self._put: tuple[Any, Any] | None = None  # the object shared last, and the reference to it

    @property
    def workers(self) -> int:
        """How many jobs run at once; the number follows the cluster's size."""
        fitting = self._count_fitting()
        return fitting if self._workers is None else min(self._workers, max(1, fitting))

    def _count_fitting(self) -> int:
        return count_fitting_workers(ray.nodes(), self._gpus, self._memory)

    @property
    def busy(self) -> int:
        """How many jobs run now; any thread may ask."""
        return sum(scheduler.count_busy() for scheduler in list(self._runs))

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for every job, in processes of the cluster; see Pool.run.

        Within `with pool:` the workers outlive the run, and the next run uses them: it starts no processes, and the
        same shared object is not sent again. Otherwise they end with the run. Raises RuntimeError where workers cannot
        start or this process's node is lost, TimeoutError where no worker could be placed for `wait_s`. Jobs in flight
        are killed when the run ends early, by an exception or because the caller stops reading.
        """
        # Pickled here, not by Ray: where a node lacks the function's module, Worker.start reports that, while an
        # argument that cannot be read would fail in the actor's creation.
        code, reference = ray.cloudpickle.dumps(fn), self._reference(shared)
        scheduler = JobScheduler(
            SchedulerConfig(
                start_worker=lambda: self._start_worker(code, reference),
                workers=self._workers,
                count_fitting=self._count_fitting,
                deadline_s=self.deadline_s,
                wait_s=self.wait_s,
                setbacks=self.setbacks,
                keep_idle=self._keep_idle,
                environment=self._environment,
                driver_node=ray.get_runtime_context().get_node_id(),
                whole_gpus=self._gpus >= 1,
            ),
            jobs,
        )
        self._runs.append(scheduler)
        counter = FailureCounter(lambda: self.workers, keep_going=self.keep_going)
        try:
            scheduler.adopt_workers(self._reuse_workers(code, reference))
            # one round lasts a second at most (poll): so often are the cluster, deadlines and warnings looked at
            while scheduler.is_open() and scheduler.stop is None:
                scheduler.scale_workers()
                scheduler.assign_jobs()
                outcomes = scheduler.poll()
                self._log_collector.poll()
                # again before yielding, where the generator stands still: a caller that takes seconds to store an
                # outcome must not keep idle the workers that have just finished
                scheduler.assign_jobs()
                for job, outcome in outcomes:
                    yield job, outcome
                    counter.record(outcome)
            if scheduler.stop is not None:
                raise scheduler.stop
            # close() kills what is the scheduler's: all workers after an exception, those not released otherwise
            if self._keep_idle:
                self._idle_workers += [(actor, (code, reference)) for actor in scheduler.release_idle()]
        finally:
            self._runs.remove(scheduler)
            scheduler.close()
            if not self._keep_idle and not self._runs:
                self._log_collector.close()

    def _reference(self, shared: Any) -> Any:
        """Return a reference to the shared object; consecutive runs with the same object put it into the store once."""
        # by identity; self._put holds the object itself too, so that no other object can have its identity meanwhile
        if self._put is None or self._put[0] is not shared:
            self._put = (shared, ray.put(shared)) if self._keep_idle else None
        return self._put[1] if self._put else ray.put(shared)

    def _reuse_workers(self, code: bytes, reference: Any) -> dict[Any, Any]:
        """Prepare an earlier run's idle workers for this one; return them by the reference that resolves when ready."""
        # start() also where nothing has changed: its answer shows that the worker is still alive
        idle, self._idle_workers = self._idle_workers, []
        return {
            (actor.start.remote() if loaded == (code, reference) else actor.switch_run.remote(code, reference)): actor
            for actor, loaded in idle
        }

    def _start_worker(self, code: bytes, shared: Any) -> Any:
        """Create an actor, perhaps not placed yet, for a pickled function and a reference to the shared object."""
        name = f"{self.name}-worker-{next(_numbers)}"
        # By MEMSCORE_WORKER a job knows that an exception with `worker_environment` gives its process a successor.
        # OpenMP and MKL read their variables when they are loaded, perhaps before the worker's first line
        return WorkerActor.options(
            name=name,
            num_cpus=1,
            num_gpus=self._gpus,
            memory=self._memory,
            runtime_env={
                "env_vars": make_worker_environment(self._gpus) | {"MEMSCORE_WORKER": "1"} | self._environment
            },
        ).remote(name, code, shared, self._log_collector.buffer)

    def release_idle_workers(self) -> None:
        """Kill the workers that wait for the next run, to free their CPUs; the next run starts new ones."""
        kill_actors(actor for actor, _ in self._idle_workers)
        self._idle_workers = []

    def __enter__(self) -> Self:
        self._keep_idle = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers, also those of runs that were not read to their end."""
        # such a run is a suspended generator, whose `finally` runs only once it is collected
        for scheduler in self._runs:
            scheduler.close()
        if ray.is_initialized():
            self.release_idle_workers()
        self._log_collector.close()
        self._keep_idle, self._idle_workers, self._put = False, [], None
