"""The pool's promise on Ray actors.

Ray only places processes; which job runs again, and when to stop, is decided here, because actors that Ray restarts
hang after a lost node. Each actor has at most one job in flight, and no job is bound to an actor that does not run yet.

    a worker died                                   again; the third time in parts (`job.split()`), else a Failure
    the host's memory ran out                       as above, with one worker less from then on
    a job passed its deadline                       its worker is killed, then as above
    it did so before three have finished            a warning, again after twice the time: large jobs look the same
    a node was lost                                 again, not counted; a Failure after ten
    the GPU's memory ran out                        worker killed, again; it counts for a job that had its GPU alone,
                                                    and where others could be in its way concurrency is halved
    `stops_the_run`                                 the run ends with that exception
    any other exception                             a Failure, with its traceback
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import ray

from cluster.log_forwarding import LogCollector
from cluster.pool import Failure, Job, Result
from cluster.ray_scheduler import JobScheduler, SchedulerConfig, kill_actors
from cluster.ray_worker import WorkerActor

_numbers = itertools.count()  # actor names must differ within a process, also between pools


class RayPool:
    """The promise on a Ray cluster: grows with it, and outlives dead workers and lost nodes.

    Args:
        workers: jobs at once; None for as many as the cluster has room for, which is looked up again all the time.
        gpus_per_worker: share of a GPU a worker is given; 0 hides all GPUs from it. Ray only counts shares, so a worker
            with a part of a GPU finds the part in the variable MEMSCORE_GPU_SHARE, and the job must keep to it.
        memory_per_worker: bytes a node must have free for a worker to be placed there; no limit if None.
        name: what the actors are called on the dashboard, before their number.
        deadline_s: no job is killed before; later when it takes 20 times the median of the finished ones. Until three
            have finished none is killed, and the user is told.
        wait_s: how long no worker at all may be placed before the run gives up.

    Attributes:
        setbacks: how often a "worker", a "node", "memory" or a "deadline" ended a job, since the pool was made.

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
    ) -> None:
        if not ray.is_initialized():
            raise RuntimeError("a RayPool needs a cluster; make it inside `with cluster.session.connect():`")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}; leave it out for one a CPU")
        require_gpu_share(gpus_per_worker, ray.nodes())
        self.name, self.deadline_s, self.wait_s = name, deadline_s, wait_s
        self.setbacks: Counter[str] = Counter()
        self._workers, self._gpus, self._memory = workers, gpus_per_worker, memory_per_worker
        self._runs: list[JobScheduler] = []
        self._ear = LogCollector(name)  # one for all runs: workers outlive a run
        self._keeps = False  # only within `with pool`, which ends their lives too
        self._kept: list[tuple[Any, tuple[bytes, Any]]] = []  # idle workers, each with the work it knows
        self._put: tuple[Any, Any] | None = None  # what was shared last, and the reference to it

    @property
    def workers(self) -> int:
        """How many jobs run at once, as things stand now."""
        fit = self._fit()
        return fit if self._workers is None else min(self._workers, max(1, fit))

    def _fit(self) -> int:
        return count_fitting_workers(ray.nodes(), self._gpus, self._memory)

    @property
    def busy(self) -> int:
        """How many jobs run now; any thread may ask."""
        return sum(state.busy() for state in list(self._runs))

    def run(
        self, fn: Callable[[Job, Any], Result], jobs: Iterable[Job], shared: Any = None
    ) -> Generator[tuple[Job, Result | Failure], None, None]:
        """Call fn(job, shared) for every job, in processes of the cluster.

        Within `with pool:` the workers outlive the run, and the next one has them: a run costs no start of processes,
        and what is shared again (the same object) is not sent again. Otherwise they end with the run.

        Args:
            fn: a function that workers can import: of an installed module, or of one in the driver's working folder or
                beside its script.
            jobs: the work, read at once. A job with `split()` is yielded as its parts if it had to be split; text
                is never split.
            shared: what every job may read; sent to the object store once, its arrays arrive read-only.

        Yields:
            The job and its result or Failure, as they finish.

        Raises:
            Exception: the one with a true `stops_the_run` that a job raised; jobs in flight are then killed.
            RuntimeError: workers cannot start, or this process's node is lost.
            TimeoutError: no worker could be placed for `wait_s`.
        """
        code, reference = ray.cloudpickle.dumps(fn), self._reference(shared)
        state = JobScheduler(
            SchedulerConfig(
                hire=lambda: self._hire(code, reference),
                wanted=self._workers,
                fit=self._fit,
                deadline_s=self.deadline_s,
                wait_s=self.wait_s,
                setbacks=self.setbacks,
                keeps=self._keeps,
                home=ray.get_runtime_context().get_node_id(),
                own_gpu=self._gpus >= 1,
            ),
            jobs,
        )
        self._runs.append(state)
        try:
            state.adopt_workers(self._reuse_workers(code, reference))
            while state.open() and state.stop is None:
                state.scale_workers()
                state.assign_jobs()
                outcomes = state.poll()
                self._ear.poll()
                state.assign_jobs()  # a slow reader of what follows must not keep workers idle
                yield from outcomes
            if state.stop is not None:
                raise state.stop
            if self._keeps:
                self._kept += [(actor, (code, reference)) for actor in state.release_idle()]
        finally:
            self._runs.remove(state)
            state.close()
            if not self._keeps and not self._runs:
                self._ear.close()

    def _reference(self, shared: Any) -> Any:
        """Where the cluster has what is shared: put there once for runs that follow each other with the same object."""
        if self._put is None or self._put[0] is not shared:
            self._put = (shared, ray.put(shared)) if self._keeps else None
        return self._put[1] if self._put else ray.put(shared)

    def _reuse_workers(self, code: bytes, reference: Any) -> dict[Any, Any]:
        """Workers of an earlier run, by the reference to their word that they know this one's work."""
        kept, self._kept = self._kept, []
        return {
            (actor.start.remote() if knows == (code, reference) else actor.turn_to.remote(code, reference)): actor
            for actor, knows in kept
        }

    def _hire(self, code: bytes, shared: Any) -> Any:
        """A new actor, perhaps not placed yet, for a pickled function and a reference to what is shared."""
        name = f"{self.name}-worker-{next(_numbers)}"
        gpu = {"MEMSCORE_GPU_SHARE": f"{self._gpus:g}"} if self._gpus % 1 else {}
        gpu |= {} if self._gpus else {"CUDA_VISIBLE_DEVICES": ""}
        return WorkerActor.options(
            name=name,
            num_cpus=1,
            num_gpus=self._gpus,
            memory=self._memory,
            runtime_env={"env_vars": {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"} | gpu},
        ).remote(name, code, shared, self._ear.box)

    def release_idle_workers(self) -> None:
        """Let workers go that wait for the next run, so that others can have their CPUs; the next run hires anew."""
        kill_actors(actor for actor, _ in self._kept)
        self._kept = []

    def __enter__(self) -> Self:
        self._keeps = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Kill the workers, also those of runs that were not read to their end."""
        for state in self._runs:
            state.close()
        if ray.is_initialized():
            self.release_idle_workers()
        self._ear.close()
        self._keeps, self._kept, self._put = False, [], None


def count_fitting_workers(nodes: Sequence[Mapping[str, Any]], gpus: float = 0, memory: int | None = None) -> int:
    """How many workers of one CPU fit on the nodes that live, none of them straddling two."""

    def on(resources: Mapping[str, float]) -> int:
        room = [resources.get("CPU", 0)]
        room += [resources.get("GPU", 0) / gpus] if gpus else []
        room += [resources.get("memory", 0) / memory] if memory else []
        return math.floor(min(room) + 1e-9)

    return sum(on(node["Resources"]) for node in nodes if node["Alive"])


def require_gpu_share(share: float, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Ray waits for ever for a GPU that is not there."""
    if share < 0:
        raise ValueError(f"gpus_per_worker must be 0 or more, got {share}")
    most = max((node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]), default=0)
    if share > most:
        raise ValueError(f"{share:g} GPU a worker, but no node has more than {most:g}; use 0 to train on CPUs")
