"""A search backend on Ray Tune: one Tuner for all searches of a call. The only module that imports ray.tune.

Tune places the evaluations, keeps a process for the next one (`reuse_actors`) and repeats an evaluation whose process
or node was lost. Which configurations are evaluated is decided in cluster/search.py, whose samples a Searcher passes to
Tune; the outcome of an evaluation comes back through a Callback.

Nothing of Tune's outlives a call, and Tuner.restore is not used: the caller stores a row of each result as it arrives,
and a search that continues receives them (`Search.evaluated`). So results are stored once, in files that anyone can
read, and no pickle of an earlier run is ever loaded. Tune's own folder is a temporary one.

    an exception of the function                    a Failure, the others go on
    `stops_the_run`                                 the search ends with that exception
    the process died, its node was lost             again, three times in all, then a Failure "worker"
    memory ran out, the host's or the GPU's         the same, a Failure "memory"
    Ctrl-C, SIGTERM                                 processes are killed, then the signal has its former effect
"""

import logging
import os
import shutil
import tempfile
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

from cluster.log_forwarding import ForwardingHandler, LogCollector
from cluster.pool import RERUN_HINT, ClusterLost, Failure, format_error
from cluster.ray_pool import count_fitting_workers, require_gpu_share
from cluster.ray_scheduler import (
    MAX_ATTEMPTS,
    NO_WORKER_WARNING_S,
    POLL_S,
    check_waiting_time,
    kill_actors,
    warn_no_worker,
)
from cluster.ray_worker import RemoteError, make_remote_error
from cluster.search import (
    ConfigSampler,
    EvaluateFn,
    OnResult,
    SampledConfig,
    SamplerName,
    enumerate_configs,
    evaluate_config,
)
from cluster.search_space import Search, Values
from cluster.session import defer_signals
from cluster.tune_environment import tune_environment

MAX_CONCURRENT = 10_000  # evaluations at once, where the cluster's size is the limit
_log = logging.getLogger(__name__)


class TuneSearch:
    """A search backend on a Ray cluster.

    Args:
        workers: evaluations at once; None for as many as fit on the cluster, which is checked every second.
        gpus_per_worker: as of RayPool.
        name: prefix of the workers' names in their warnings, before their number.
        wait_s: how long no worker at all may be placed before the search gives up.
        silence_s: after how long without a result a warning is logged; then after twice the time.
        release_idle_workers: called before a search needs CPUs, for a pool whose idle workers hold them.

    Attributes:
        setbacks: how often a "worker" was lost with its evaluation, since this was made.

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
        release_idle_workers: Callable[[], None] = lambda: None,
    ) -> None:
        if not ray.is_initialized():
            raise RuntimeError("a TuneSearch needs a cluster; make it inside `with cluster.session.connect():`")
        if workers is not None and workers < 1:
            raise ValueError(f"workers must be 1 or more, got {workers}; leave it out for one a CPU")
        require_gpu_share(gpus_per_worker, ray.nodes())
        self.name, self.wait_s, self.silence_s = name, wait_s, silence_s
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
            tempfile.TemporaryDirectory(prefix=f"memscore-search-{os.getpid()}-") as folder,
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
            # -1 samples: the searcher says when it has nothing more. Tune's own names would contain all parameters.
            try:
                tune.Tuner(
                    tune.with_resources(worker, {"cpu": 1, "gpu": self._gpus}),
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
    ) -> None:
        self.sampler, self.on_result, self.log_collector = sampler, on_result, log_collector
        self.setbacks, self.wait_s = setbacks, wait_s
        self.first = sampler.next()  # nothing is started where there is nothing to evaluate
        self.exhausted = False  # whether the sampler has no further configuration
        self.unfinished: dict[str, SampledConfig] = {}  # by Tune's id, those that wait for a worker too
        self.running: dict[str, float] = {}  # by Tune's id, since when
        self.ended: list[tuple[SampledConfig, dict[str, Any] | Failure]] = []
        self.n_ended = 0
        self.actors: set[Any] = set()
        self.stop: BaseException | None = None
        self.signals: Sequence[int] = ()
        self._driver_node = ray.get_runtime_context().get_node_id()
        self._count_fitting, self._max_unfinished, self._counted_at = count_fitting, 0, float("-inf")
        self._ready_at = self._result_at = self._checked_at = time.monotonic()
        self._warn_after_s, self._warned_no_worker = silence_s, False

    def suggest(self, trial_id: str) -> SampledConfig | None:
        """Return the next configuration, stored under Tune's id, if a worker can be placed for one and one is left."""
        # Tune asks for max_concurrent_trials at once; here a configuration is drawn only when a worker can take it, so
        # that the sampler has learnt from all results by then
        now = time.monotonic()
        if now - self._counted_at > POLL_S:
            self._max_unfinished, self._counted_at = self._count_fitting(), now
        if len(self.unfinished) >= self._max_unfinished:
            return None
        sample, self.first = self.first or self.sampler.next(), None
        if sample is None:
            self.exhausted = True
        else:
            self.unfinished[trial_id] = sample
        return sample

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
            self.ended.append((sample, outcome))

    def recover(self, trial_id: str) -> None:
        """Record that an evaluation lost its process, and is repeated in another."""
        self.running.pop(trial_id, None)
        self.setbacks["worker"] += 1
        sample = self.unfinished[trial_id]
        _log.warning(
            "a worker was lost, and its configuration is evaluated again: %s %s", sample.search.name, sample.values
        )

    def lose(self, trial_id: str, message: str) -> None:
        """Record that an evaluation lost its process for the last time, with Tune's error message."""
        # Tune has tried MAX_ATTEMPTS times; where a process cannot be created, no other evaluation will have one either
        if "in its creation task" in message:
            text = f"workers cannot start: {' '.join(message.split())[:500]}; {RERUN_HINT}"
            self.stop = self.stop or ClusterLost(text)
        self.finish(trial_id, _classify_worker_loss(message))

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


def _classify_worker_loss(message: str) -> Failure:
    """Return the Failure of an evaluation whose worker was lost the last time, from Tune's error message."""
    # at each loss Tune appends text headed "Failure # 1 (occurred at ...)"; the exceptions themselves are gone
    last = message.rpartition("Failure # ")[2].strip()
    if "low on memory" in last:
        error = "its node ran low on memory and Ray killed the worker"
        return Failure(error=error, kind="memory", attempts=MAX_ATTEMPTS, traceback=last)
    if "OutOfMemoryError" in last:
        return Failure(error=last.splitlines()[-1].strip(), kind="memory", attempts=MAX_ATTEMPTS, traceback=last)
    return Failure(error="its worker process died", kind="worker", attempts=MAX_ATTEMPTS, traceback=last)


class SearchWorker(tune.Trainable):  # type: ignore[misc]
    """A process that makes one evaluation after the other; one step is one evaluation."""

    def setup(self, config: Any, code: bytes, jobs: Any, shared: Any, log_buffer: Any, name: str, gpus: float) -> None:
        """Load the function and the shared object; if that fails, the first step reports it."""
        # Tune gives its actors no runtime environment, so the variables are set here, before fn's module imports torch.
        # Ray 2.60 leaves CUDA_VISIBLE_DEVICES unset without a GPU, and then all GPUs can be seen.
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        elif gpus % 1:
            os.environ["MEMSCORE_GPU_SHARE"] = f"{gpus:g}"
        self.jobs, self.load_error = jobs, None
        # most often a module is not installed on this node; an exception here would be, for Tune, an actor that died in
        # its creation, to be tried again
        try:
            self.fn = ray.cloudpickle.loads(code)
            self.shared = ray.get(shared[0])
        except Exception as error:
            self.load_error = make_remote_error(error)
            return
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(ForwardingHandler(log_buffer, f"{name}-search-{os.getpid()}"))

    def step(self) -> dict[str, Any]:
        """Evaluate one configuration; a full GPU ends the process, so that Tune repeats it in a fresh one."""
        index, values = self.config["sample"]
        outcome: Any
        if self.load_error is not None:
            outcome = LoadFailure(self.load_error.error)
        else:
            try:
                outcome = evaluate_config(self.fn, self.jobs[index], values, self.shared)
            except Exception as error:
                # Returned as data: Tune would take it for a lost process, and repeat the evaluation in a new one. A
                # full GPU needs that, for only the end of the process frees its memory.
                outcome = make_remote_error(error)
                if outcome.gpu_memory and outcome.stop is None:
                    raise
        # Tune makes a folder on this node for each evaluation
        with suppress(OSError):
            Path(self.logdir).rmdir()
        # in a tuple, because Tune flattens a dict and keeps statistics of each number in it
        return {"outcome": (outcome,), "done": True}

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
        return {"sample": (sample.index, sample.values)}

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
        self.outcomes: dict[str, Any] = {}
        self.left_folders: set[Path] = set()  # of Tune, in Ray's session folder on this node

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record that an evaluation has a worker."""
        self.state.running[trial.trial_id] = time.monotonic()
        self.state.actors.add(trial.temporary_state.ray_actor)
        self.left_folders.add(Path(trial.local_path).parents[1])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """Store the outcome that an evaluation returned."""
        self.outcomes[trial.trial_id] = result["outcome"][0]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record the outcome, which came with the last result, once the worker is free."""
        self.state.finish(trial.trial_id, self.outcomes.pop(trial.trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a lost worker whose evaluation waits for another."""
        self.state.recover(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Record a lost worker whose evaluation is not repeated."""
        # trial.get_error() reads a copy of this file, which may come a moment later
        self.state.setbacks["worker"] += 1
        error_file = trial.error_file
        message = Path(error_file).read_text() if error_file and Path(error_file).exists() else ""
        self.state.lose(trial.trial_id, message)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Update the state, some ten times a second."""
        self.state.update()

    def __getstate__(self) -> dict[str, Any]:
        return {}
