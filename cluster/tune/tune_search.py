"""A search backend on Ray Tune: one Tuner for all searches of a call. The only module that imports ray.tune.

Tune places the evaluations, keeps a process for the next one (`reuse_actors`) and repeats an evaluation whose process
or node was lost. Which configurations are evaluated is decided in cluster/search.py, whose samples a Searcher passes to
Tune; the outcome of an evaluation comes back through a Callback.

Nothing of Tune's outlives a call, and Tuner.restore is not used: the caller stores a row of each result as it arrives,
and a search that continues receives them (`Search.evaluated`). So results are stored once, in files that anyone can
read, and no pickle of an earlier run is ever loaded. Tune's own folder is a temporary one.

    an exception of the function                    a Failure, the others go on
    the first evaluations all fail in the same way  the search ends (cluster.pool.FailureCounter)
    `stops_the_run`                                 the search ends with that exception
    the process died, its node or GPU was lost      again, three times in all, then a Failure "worker"
    memory ran out, the host's or the GPU's         the same, a Failure "memory"
    three exceptions in a row in one process while  the process ends, and another one evaluates the last again
      others' evaluations succeed
    Ctrl-C, SIGTERM                                 processes are killed, then the signal has its former effect
"""

import logging
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, Literal

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from cluster.faulty_workers import MAX_RAISED
from cluster.leftovers import create_temporary_folder
from cluster.log_forwarding import ForwardingHandler, LogCollector
from cluster.pool import RERUN_HINT, ClusterLost, FailureCounter, format_error
from cluster.ray_nodes import count_fitting_workers, require_gpu_share
from cluster.ray_scheduler import MAX_ATTEMPTS
from cluster.ray_worker import RemoteError, make_remote_error, make_worker_environment
from cluster.search import (
    ConfigSampler,
    EvaluateFn,
    OnResult,
    SamplerName,
    enumerate_configs,
    evaluate_config,
)
from cluster.search_space import Search, Values
from cluster.session import defer_signals
from cluster.tune.environment import tune_environment
from cluster.tune.search_state import LoadFailure, SearchState, UnfitWorker

MAX_CONCURRENT = 10_000  # evaluations at once, where the cluster's size is the limit
START_S = 10.0  # in which other processes start


class TuneSearch:
    """A search backend on a Ray cluster.

    Args:
        workers: evaluations at once; None for as many as fit on the cluster, which is checked every second.
        gpus_per_worker: as of RayPool.
        name: prefix of the workers' names in their warnings, before their number.
        wait_s: how long no worker at all may be placed before the search gives up.
        silence_s: after how long without a result a warning is logged; then after twice the time.
        keep_going: as of SerialSearch.
        release_idle_workers: called before a search needs CPUs, for a pool whose idle workers hold them.

    Attributes:
        setbacks: how often a "worker" was lost with its evaluation, since this was made; or ended because it lost its
            "gpu", for "memory", or because it could do none of its last evaluations ("exception").

    Raises:
        RuntimeError: this process is in no cluster.
        ValueError: fewer than one worker, or a share of a GPU that no node has.
    """

    def __init__(
        self,
        *,
        workers: int | None,
        gpus_per_worker: float = 0,
        name: str = "memscore",
        wait_s: float = 300,
        silence_s: float = 600,
        keep_going: bool = False,
        release_idle_workers: Callable[[], None] = lambda: None,
    ) -> None:
        if not ray.is_initialized():
            raise RuntimeError("a TuneSearch needs a cluster; make it inside `with cluster.session.connect():`")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}; leave it out for one a CPU")
        require_gpu_share(gpus_per_worker, ray.nodes())
        self.name, self.wait_s, self.silence_s, self.keep_going = name, wait_s, silence_s, keep_going
        self.setbacks: Counter[str] = Counter()
        self._workers, self._gpus, self._release_idle_workers = workers, gpus_per_worker, release_idle_workers
        self._put: tuple[Any, Any] | None = None  # the object shared last, and the reference to it

    @property
    def workers(self) -> int:
        """How many evaluations run at once; the number follows the cluster's size."""
        fitting = max(1, count_fitting_workers(ray.nodes(), self._gpus))
        return fitting if self._workers is None else min(self._workers, fitting)

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
        """Evaluate the configurations of all searches, in processes of the cluster; see SearchBackend.search.

        Searches run side by side where the cluster allows it. The shared object is sent to the object store once, also
        for calls that follow with the same object; Ray holds it until this process leaves the cluster. Also raises
        ClusterLost where workers cannot start, Tune fails or this process's node is lost, RuntimeError where workers
        cannot load fn, and TimeoutError where no worker could be placed for `wait_s`.
        """
        # All state is here, in this process: Tune only asks for values (_SuggestNext) and reports (_ResultCallback).
        state = SearchState(
            ConfigSampler(searches, sampler, seed),
            on_result,
            log_collector=LogCollector(f"{self.name}-search"),
            # of a requested number more than fit may wait: they add nodes, where nodes come on demand
            count_fitting=lambda: self._workers or self.workers,
            setbacks=self.setbacks,
            wait_s=self.wait_s,
            silence_s=self.silence_s,
            failure_counter=FailureCounter(lambda: self.workers, keep_going=self.keep_going),
        )
        if state.first is None:
            return
        self._release_idle_workers()
        callback = _ResultCallback(state)

        # Entered in this order, so left in the opposite one: Tune's settings are taken back, its folder is removed, the
        # log buffer is killed, and only then a deferred Ctrl-C has its effect, which ends the program.
        with (
            defer_signals() as state.signals,
            closing(state.log_collector),
            create_temporary_folder("search") as folder,
            tune_environment(),
        ):
            # The shared object's reference is inside a list, so that Tune does not resolve it: SearchWorker.setup does,
            # and reports an object that cannot be loaded. Tune keeps these arguments until the process ends.
            worker = tune.with_parameters(
                SearchWorker,
                code=ray.cloudpickle.dumps(fn),
                jobs=[search.job for search in searches],
                shared=[self._reference(shared)],
                log_buffer=state.log_collector.buffer,
                name=self.name,
                gpus=self._gpus,
            )
            worker = tune.with_resources(worker, {"cpu": 1, "gpu": self._gpus})
            # Ray shows an actor by its class's __qualname__, which is Tune's own wrapper's otherwise
            worker.__qualname__ = SearchWorker.__qualname__
            # -1 samples: the searcher says when it has nothing more. Tune's own names would contain all parameters.
            try:
                tune.Tuner(
                    worker,
                    tune_config=tune.TuneConfig(
                        search_alg=_SuggestNext(state),
                        scheduler=_KeepWorkerScheduler(),
                        num_samples=-1,
                        max_concurrent_trials=self._workers or MAX_CONCURRENT,
                        reuse_actors=True,
                        trial_name_creator=lambda trial: str(trial.trial_id),
                        trial_dirname_creator=lambda trial: str(trial.trial_id),
                    ),
                    run_config=tune.RunConfig(
                        name=Path(folder).name,
                        storage_path=folder,
                        verbose=0,
                        callbacks=[callback],
                        failure_config=tune.FailureConfig(max_failures=MAX_ATTEMPTS - 1),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    ),
                ).fit()
            except Exception as error:
                # SearchEnded, perhaps wrapped, only ended Tune's loop; else it is a failure of Tune's own
                if state.stop is None and not state.signals:
                    raise ClusterLost(f"Ray Tune failed ({format_error(error)[:500]}); {RERUN_HINT}") from error
            finally:
                # Tune's working folders are not in `folder` but in Ray's session folder, and it leaves them
                for left_folder in callback.left_folders:
                    shutil.rmtree(left_folder, ignore_errors=True)
        # a deferred signal has had its effect by now; Tune can also end early without an exception, as on SIGUSR1
        if state.stop is not None:
            raise state.stop
        if state.unfinished or not state.exhausted:
            raise ClusterLost(f"Ray Tune ended with {len(state.unfinished)} evaluations unfinished; {RERUN_HINT}")

    def enumerate_configs(self, search: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """Return all values that a search will evaluate; see cluster.search.enumerate_configs."""
        return enumerate_configs(search, sampler, seed)

    def _reference(self, shared: Any) -> Any:
        """Return a reference to the shared object, which is put into the object store once."""
        if self._put is None or self._put[0] is not shared:
            self._put = (shared, ray.put(shared))
        return self._put[1]


class SearchWorker(tune.Trainable):  # type: ignore[misc]
    """A process that makes one evaluation after the other; one step is one evaluation."""

    name = "search worker"  # until setup has run

    def __repr__(self) -> str:
        return self.name  # Ray's dashboard and logs show it, as they show the name of a pool's worker

    def setup(self, config: Any, code: bytes, jobs: Any, shared: Any, log_buffer: Any, name: str, gpus: float) -> None:
        """Load the function and the shared object; if that fails, the first step reports it."""
        # Tune gives its actors no runtime environment, so the variables are set here, before fn's module imports torch
        os.environ |= make_worker_environment(gpus)
        self.name = f"{name}-search-{os.getpid()}"
        self.jobs, self.load_error = jobs, None
        self.n_raised, self.n_succeeded_before, self.has_succeeded = 0, 0, False
        # most often a module is not installed on this node; an exception here would be, for Tune, an actor that died in
        # its creation, to be tried again
        try:
            self.fn = ray.cloudpickle.loads(code)
            self.shared = ray.get(shared[0])
        except BaseException as error:
            self.load_error = make_remote_error(error)
            return
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(ForwardingHandler(log_buffer, self.name))

    def step(self) -> dict[str, Any]:
        """Evaluate one configuration; a process that can do no more ends, so that Tune repeats it in a fresh one."""
        index, values, n_succeeded, may_end = self.config["sample"]
        outcome: Any
        if self.load_error is not None:
            outcome = LoadFailure(self.load_error.error)
        else:
            try:
                outcome = evaluate_config(self.fn, self.jobs[index], values, self.shared)
                self.n_raised, self.has_succeeded = 0, True
            except BaseException as error:  # as in Worker.run_job
                # returned as data: Tune would take it for a lost process, and repeat the evaluation in a new one
                outcome = make_remote_error(error)
                if outcome.stop is None:
                    self._end_if_unfit(outcome, error, n_succeeded, may_end)
        # Tune makes a folder on this node for each evaluation
        with suppress(OSError):
            Path(self.logdir).rmdir()
        # in a tuple, because Tune flattens a dict and keeps statistics of each number in it
        return {"outcome": (outcome,), "done": True}

    def _end_if_unfit(self, outcome: RemoteError, error: BaseException, n_succeeded: int, may_end: bool) -> None:
        """Raise UnfitWorker if this process can evaluate nothing more, or others succeed while all fails here.

        `n_succeeded` evaluations of all processes had succeeded when this one was sampled.
        """
        # only the end of the process frees its memory on a GPU, or gives it a GPU that works
        if outcome.gpu_memory or outcome.broken_gpu:
            raise UnfitWorker("memory" if outcome.gpu_memory else "gpu", outcome.error) from error
        # as in faulty_workers.py, another process shows whether the configuration or this process was at fault
        if not self.n_raised:
            self.n_succeeded_before = n_succeeded
        self.n_raised += 1
        others_succeed = n_succeeded > self.n_succeeded_before
        if self.n_raised >= MAX_RAISED and others_succeed and (may_end or not self.has_succeeded):
            raise UnfitWorker("exception", outcome.error) from error
        # nothing has succeeded anywhere: others may be starting, and would find little left
        if self.n_raised == MAX_RAISED and n_succeeded == 0:
            time.sleep(START_S)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Accept the next configuration; nothing is left of the one before."""
        return True


class _KeepWorkerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Lets an evaluation keep the process that starts for it."""

    # Ray 2.60's FIFOScheduler names the evaluation that waits longest, and Tune gives it the process that has become
    # free, ending the one that was starting for it: evaluations shorter than a start would never run side by side.
    # Where none is named, a new evaluation takes the free process.

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Choose none, so that Tune starts waiting evaluations in order."""


class _SuggestNext(Searcher):  # type: ignore[misc]
    """Passes the next configuration to Tune."""

    def __init__(self, state: SearchState) -> None:
        super().__init__()
        self.state = state

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return Tune's config of a trial; None if there is none at the moment."""
        sample = self.state.suggest(trial_id)
        if sample is None:
            return str(Searcher.FINISHED) if self.state.exhausted else None
        # the workers have the jobs of all searches
        return {"sample": (sample.index, sample.values, self.state.n_succeeded, self.state.may_replace)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Do nothing: _ResultCallback records the outcome with its reason."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: Tuner.restore is not used."""

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles the searcher, and the callback below, for a restoration that never happens
        return {}


class _ResultCallback(tune.Callback):  # type: ignore[misc]
    """Records Tune's events in the SearchState; only on_step_end may raise."""

    # on_step_end is called from Tune's loop itself, the others while it handles an actor's answer, where it replaces
    # each exception by a TuneError with a traceback as text

    def __init__(self, state: SearchState) -> None:
        self.state = state
        self.outcomes: dict[str, tuple[Any, Any]] = {}  # with the worker
        self.left_folders: set[Path] = set()  # of Tune, in Ray's session folder on this node

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that an evaluation has a worker."""
        self.state.running[trial.trial_id] = time.monotonic()
        self.state.actors.add(trial.temporary_state.ray_actor)
        self.left_folders.add(Path(trial.local_path).parents[1])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Store the outcome that an evaluation returned."""
        self.outcomes[trial.trial_id] = result["outcome"][0], trial.temporary_state.ray_actor

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the outcome, which came with the last result, once the worker is free."""
        outcome, worker = self.outcomes.pop(trial.trial_id)
        self.state.record_worker(worker, raised=isinstance(outcome, RemoteError))
        self.state.finish(trial.trial_id, outcome)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a lost worker whose evaluation waits for another."""
        self.state.recover(trial.trial_id, _read_error(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a lost worker whose evaluation is not repeated."""
        self.state.lose(trial.trial_id, _read_error(trial))

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Update the state, some ten times a second."""
        self.state.update()

    def __getstate__(self) -> dict[str, Any]:
        return {}


def _read_error(trial: Any) -> str:
    """Return what Tune has written of an evaluation's lost workers."""
    # trial.get_error() reads a copy of this file, which may come a moment later
    error_file = trial.error_file
    return Path(error_file).read_text() if error_file and Path(error_file).exists() else ""
