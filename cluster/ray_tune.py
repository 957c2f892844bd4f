"""The promise of a search on Ray Tune: one Tuner for all arms of a call. The only place of ray.tune.

Tune places the attempts, keeps a process for the next one (`reuse_actors`) and makes an attempt again whose process or
node was lost. What is tried is decided in cluster/search.py, whose answers a Searcher hands to Tune; how an attempt
ended comes back through a Callback.

Nothing of Tune's outlives a call, and there is no Tuner.restore: the caller keeps a row of each attempt as it is told,
and a search that goes on is told of them (`Arm.known`). So what was tried has one owner, in files that anyone can read,
and no pickle of an earlier run is ever loaded. Tune's own folder is a scratch one.

    an exception of the function                    a Failure, the others go on
    `stops_the_run`                                 the search ends with that exception
    the process died, its node was lost             again, three times in all, then a Failure "worker"
    memory ran out, the host's or the GPU's         the same, a Failure "memory"
    Ctrl-C, SIGTERM                                 processes are killed, then what the signal did before

What surrounds Ray Tune while it runs: its settings, and signals that wait until it has tidied up.

What the driver knows of one search on Ray Tune: attempts under way, how they end, when to warn and when to leave.
"""

import logging
import os
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager, suppress
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

TUNE_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Tune's own ends after half a minute, and only on a second Ctrl-C at once
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # else three files an attempt
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",  # they are told as Failures
    "RAY_AIR_NEW_OUTPUT": "0",  # the new one prints tables even at verbose=0
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a relative path means the same as in a pool
}


@contextmanager
def tune_environment() -> Generator[None, None, None]:
    """Tune's settings, for as long as it runs."""
    before = {name: os.environ.get(name) for name in TUNE_SETTINGS}
    logger = logging.getLogger("ray.tune")
    level = logger.level
    os.environ |= TUNE_SETTINGS
    logger.setLevel(logging.CRITICAL)  # its warnings and errors are said here, in words that name a way out
    try:
        yield
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.__setitem__(name, value)


@contextmanager
def defer_signals() -> Generator[list[int], None, None]:
    """Ctrl-C and SIGTERM wait until the block has ended, and then do what they did before; a second one does not wait.

    Yields:
        The first that came, as a list that is empty until then.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None:
                signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        came.append(number)
        if len(came) > 1:
            restore()
            signal.raise_signal(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if before[number] not in {None, signal.SIG_IGN}:
            signal.signal(number, note)
    try:
        yield came
    finally:
        restore()  # of SIGUSR1 too, which Tune takes
        if came:
            signal.raise_signal(came[0])


_log = logging.getLogger(__name__)


class LoadFailure(str):
    """Why a worker cannot load the function."""


class SearchState:
    """The state of one search; what talks to Tune calls ask, end, lose and look.

    Args:
        turns: what is tried next.
        told: as of the search.
        ear: where the workers' warnings come in.
        room: how many attempts may be under way, as things stand now.
        setbacks: counts what ended an attempt's process.
        wait_s: how long no worker at all may be placed.
        silence_s: after how long without an end the user is told.

    Attributes:
        stop: the exception that ended the search.
    """

    def __init__(
        self,
        turns: ConfigSampler,
        told: OnResult,
        *,
        ear: LogCollector,
        room: Callable[[], int],
        setbacks: Counter[str],
        wait_s: float,
        silence_s: float,
    ) -> None:
        self.turns, self.told, self.ear, self.setbacks, self.wait_s = turns, told, ear, setbacks, wait_s
        self.first = turns.next()  # nothing is begun where there is nothing to try
        self.drawn = False  # whether there is nothing more to try
        self.under_way: dict[str, SampledConfig] = {}  # by Tune's id, those that wait for a worker too
        self.running: dict[str, float] = {}  # by Tune's id, since when
        self.ended: list[tuple[SampledConfig, dict[str, Any] | Failure]] = []
        self.finished = 0
        self.actors: set[Any] = set()
        self.stop: BaseException | None = None
        self.signals: Sequence[int] = ()
        self._home = ray.get_runtime_context().get_node_id()
        self._look_up, self._room, self._room_at = room, 0, float("-inf")
        self._alive_at = self._heard_at = self._looked_at = time.monotonic()
        self._patience_s, self._told_full = silence_s, False

    def ask(self, number: str) -> SampledConfig | None:
        """The next attempt, under Tune's id, if there is room for one and one is left."""
        now = time.monotonic()
        if now - self._room_at > POLL_S:
            self._room, self._room_at = self._look_up(), now
        if len(self.under_way) >= self._room:
            return None
        attempt, self.first = self.first or self.turns.next(), None
        if attempt is None:
            self.drawn = True
        else:
            self.under_way[number] = attempt
        return attempt

    def end(self, number: str, outcome: Any) -> None:
        """An attempt ended, as it says itself."""
        attempt = self.under_way.pop(number)
        self.running.pop(number, None)
        if isinstance(outcome, LoadFailure):
            text = f"workers cannot load the search's function: {outcome}; install its module on all nodes"
            self.stop = self.stop or RuntimeError(text)
        elif isinstance(outcome, RemoteError) and outcome.stop is not None:
            self.stop = self.stop or outcome.stop
        elif isinstance(outcome, RemoteError):
            self.ended.append((attempt, Failure(error=outcome.error, traceback=outcome.traceback)))
        else:
            self.ended.append((attempt, outcome))

    def recover(self, number: str) -> None:
        """An attempt has lost its process, and will be made again in another."""
        self.running.pop(number, None)
        self.setbacks["worker"] += 1
        attempt = self.under_way[number]
        _log.warning(
            "a worker was lost, and the attempt that it was at is made again: %s %s", attempt.arm.name, attempt.values
        )

    def lose(self, number: str, said: str) -> None:
        """An attempt ended with its process, for the last time."""
        if "in its creation task" in said:
            self.stop = self.stop or ClusterLost(f"workers cannot start: {' '.join(said.split())[:500]}; {RERUN_HINT}")
        self.end(number, _classify_worker_loss(said))

    def look(self) -> None:
        """Tell what has ended, and leave Tune where the search must end."""
        try:
            self.ear.poll()
            while self.ended:
                attempt, outcome = self.ended.pop(0)
                self.finished, self._heard_at = self.finished + 1, time.monotonic()
                self.turns.report(attempt, outcome)
                self.told(attempt.arm, attempt.values, outcome)
            if self.stop is None and not self.signals:
                self._wait()
        except BaseException as error:
            self.stop = self.stop or error
        if self.stop is not None or self.signals:
            kill_actors(self.actors)  # Tune would wait for them
            raise SearchEnded

    def _wait(self) -> None:
        """Say it where nothing goes on, and give up where nothing can."""
        now = time.monotonic()
        if now - self._looked_at < POLL_S:
            return
        self._looked_at = now
        if self.running or not self.under_way:
            self._alive_at = now
        elif (waited_s := now - self._alive_at) > POLL_S:
            check_waiting_time(waited_s, self.wait_s, self._home)
            if waited_s > NO_WORKER_WARNING_S and not self._told_full:
                self._told_full = True
                warn_no_worker(waited_s, self.wait_s)
        longest_s = max((now - since for since in self.running.values()), default=0)
        if min(longest_s, now - self._heard_at) > self._patience_s:
            self._patience_s *= 2
            _log.warning(
                "no attempt has ended for %.0f min; running: %d, one for %.0f min; ended: %d. None is killed. If this "
                "is too long, press Ctrl-C: what has ended is kept, and the same command goes on",
                (now - self._heard_at) / 60,
                len(self.running),
                longest_s / 60,
                self.finished,
            )


class SearchEnded(Exception):
    """The search ends here, for a reason that the desk has."""


def _classify_worker_loss(said: str) -> Failure:
    """Why the worker of an attempt was lost the last time; from Tune's account, which has text only."""
    last = said.rpartition("Failure # ")[2].strip()
    if "low on memory" in last:
        error = "its node ran low on memory and Ray killed the worker"
        return Failure(error=error, kind="memory", attempts=MAX_ATTEMPTS, traceback=last)
    if "OutOfMemoryError" in last:
        return Failure(error=last.splitlines()[-1].strip(), kind="memory", attempts=MAX_ATTEMPTS, traceback=last)
    return Failure(error="its worker process died", kind="worker", attempts=MAX_ATTEMPTS, traceback=last)


MAX_CONCURRENT = 10_000  # attempts at once, where the cluster's room is the limit


class TuneSearch:
    """The promise on a Ray cluster.

    Args:
        workers: attempts at once; None for as many as the cluster has room for, which is looked up again all the time.
        gpus_per_worker: as of RayPool.
        name: what workers are called in their warnings, before their number.
        wait_s: how long no worker at all may be placed before the search gives up.
        silence_s: after how long without an end of any attempt the user is told; then after twice the time.
        rest: called before a search asks for CPUs, for a pool whose idle workers hold them.

    Attributes:
        setbacks: how often a "worker" was lost with its attempt, since this was made.

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
        self._workers, self._gpus, self._rest = workers, gpus_per_worker, release_idle_workers
        self._put: tuple[Any, Any] | None = None  # what was shared last, and the reference to it

    @property
    def workers(self) -> int:
        """How many attempts run at once, as things stand now."""
        fit = max(1, count_fitting_workers(ray.nodes(), self._gpus))
        return fit if self._workers is None else min(self._workers, fit)

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
        """Make the attempts, in processes of the cluster.

        Args:
            fn: of a job, values and what all attempts share; gives a dict with a float "objective". Workers must be
                able to import it.
            searches: the searches; each has its turn, and all run side by side where there is room.
            shared: what every attempt may read; sent to the object store once, also for calls that follow with the same
                object. Ray holds it until this process leaves the cluster. Its arrays arrive read-only.
            on_result: called here with the search, the values and the dict, or a Failure, as each attempt ends. What
                it raises ends the search.
            sampler: as in cluster.search.ConfigSampler.
            seed: as in cluster.search.ConfigSampler.

        Raises:
            BaseException: what told raised, or an attempt's exception with a true `stops_the_run`.
            ClusterLost: workers cannot start, Tune failed, or this process's node was lost.
            RuntimeError: workers cannot load fn.
            TimeoutError: no worker could be placed for `wait_s`.
            ValueError: as of Turns.
        """
        desk = SearchState(
            ConfigSampler(searches, sampler, seed),
            on_result,
            ear=LogCollector(f"{self.name}-search"),
            room=lambda: self._workers or self.workers,  # more than fit bring nodes, where nodes come on demand
            setbacks=self.setbacks,
            wait_s=self.wait_s,
            silence_s=self.silence_s,
        )
        if desk.first is None:
            return
        self._rest()
        listener = _ResultCallback(desk)
        with (
            defer_signals() as desk.signals,
            closing(desk.ear),
            tempfile.TemporaryDirectory(prefix=f"memscore-search-{os.getpid()}-") as folder,
            tune_environment(),
        ):
            worker = tune.with_parameters(
                SearchWorker,
                code=ray.cloudpickle.dumps(fn),
                jobs=[arm.job for arm in searches],
                shared=[self._reference(shared)],  # in a list, for Ray would send the object again
                box=desk.ear.box,
                name=self.name,
                gpus=self._gpus,
            )
            try:
                tune.Tuner(
                    tune.with_resources(worker, {"cpu": 1, "gpu": self._gpus}),
                    tune_config=tune.TuneConfig(
                        search_alg=_SuggestNext(desk),
                        scheduler=_KeepWorkerScheduler(),
                        num_samples=-1,  # the searcher says when it has nothing more
                        max_concurrent_trials=self._workers or MAX_CONCURRENT,
                        reuse_actors=True,
                        trial_name_creator=lambda trial: str(trial.trial_id),
                        trial_dirname_creator=lambda trial: str(trial.trial_id),
                    ),
                    run_config=tune.RunConfig(
                        name=Path(folder).name,
                        storage_path=folder,
                        verbose=0,
                        callbacks=[listener],
                        failure_config=tune.FailureConfig(max_failures=MAX_ATTEMPTS - 1),
                        checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    ),
                ).fit()
            except Exception as error:
                if desk.stop is None and not desk.signals:
                    raise ClusterLost(f"Ray Tune failed ({format_error(error)[:500]}); {RERUN_HINT}") from error
            finally:
                for left in listener.left:
                    shutil.rmtree(left, ignore_errors=True)
        if desk.stop is not None:
            raise desk.stop
        if desk.under_way or not desk.drawn:
            raise ClusterLost(f"Ray Tune ended with {len(desk.under_way)} attempts under way; {RERUN_HINT}")

    def enumerate_configs(self, arm: Search, *, sampler: Literal["random", "grid"], seed: int = 0) -> list[Values]:
        """See cluster.search.enumerate_configs."""
        return enumerate_configs(arm, sampler, seed)

    def _reference(self, shared: Any) -> Any:
        """Where the cluster has what is shared."""
        if self._put is None or self._put[0] is not shared:
            self._put = (shared, ray.put(shared))
        return self._put[1]


class SearchWorker(tune.Trainable):  # type: ignore[misc]
    """A process that makes one attempt after the other; a step is an attempt."""

    def setup(
        self, config: dict[str, Any], code: bytes, jobs: list[Any], shared: list[Any], box: Any, name: str, gpus: float
    ) -> None:
        """Take up the work; where the function cannot be had, the first step says so."""
        os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}  # before the function brings torch along
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray 2.60 leaves it unset, and then all GPUs can be seen
        elif gpus % 1:
            os.environ["MEMSCORE_GPU_SHARE"] = f"{gpus:g}"
        self.jobs, self.unfit = jobs, None
        try:
            self.fn = ray.cloudpickle.loads(code)
            self.shared = ray.get(shared[0])
        except Exception as error:  # most often a module that is not installed there
            self.unfit = make_remote_error(error)
            return
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(ForwardingHandler(box, f"{name}-search-{os.getpid()}"))

    def step(self) -> dict[str, Any]:
        """Make the attempt; a GPU that is full ends the process, so that the attempt is made again in a fresh one."""
        place, values = self.config["attempt"]
        outcome: Any
        if self.unfit is not None:
            outcome = LoadFailure(self.unfit.error)
        else:
            try:
                outcome = evaluate_config(self.fn, self.jobs[place], values, self.shared)
            except Exception as error:  # told as data: it may not survive the way, or be mistaken for one of Ray's
                outcome = make_remote_error(error)
                if outcome.gpu_memory and outcome.stop is None:
                    raise
        with suppress(OSError):
            Path(self.logdir).rmdir()  # Tune makes one on this node for each attempt
        return {"outcome": (outcome,), "done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Be ready for the next attempt; nothing is left of the one before."""
        return True


class _KeepWorkerScheduler(FIFOScheduler):  # type: ignore[misc]
    """Lets an attempt keep the process that starts for it.

    Ray 2.60's own gives a process that has become free to the attempt that waits longest, and Tune then ends the one
    that was starting for it: attempts shorter than a start would never run side by side. A new attempt takes it.
    """

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None in particular; Tune starts what waits in order."""


class _SuggestNext(Searcher):  # type: ignore[misc]
    """Hands the next attempt to Tune."""

    def __init__(self, desk: SearchState) -> None:
        super().__init__()
        self.desk = desk

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """What Tune calls a trial's configuration; None for not now."""
        attempt = self.desk.ask(trial_id)
        if attempt is None:
            return str(Searcher.FINISHED) if self.desk.drawn else None
        return {"attempt": (attempt.place, attempt.values)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Nothing: the desk learns it from the listener, who hears why."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing: see the top of this file."""

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles it for a restoration that there will not be


class _ResultCallback(tune.Callback):  # type: ignore[misc]
    """Brings what happens in Tune to the desk; only a step's end may raise, elsewhere Tune would wrap it."""

    def __init__(self, desk: SearchState) -> None:
        self.desk = desk
        self.outcomes: dict[str, Any] = {}
        self.left: set[Path] = set()  # what Tune would leave in Ray's folder on this machine: one for each attempt

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """An attempt has a worker."""
        self.desk.running[trial.trial_id] = time.monotonic()
        self.desk.actors.add(trial.temporary_state.ray_actor)
        self.left.add(Path(trial.local_path).parents[1])

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: Any, **info: Any) -> None:
        """An attempt says how it ended."""
        self.outcomes[trial.trial_id] = result["outcome"][0]

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker is free."""
        self.desk.end(trial.trial_id, self.outcomes.pop(trial.trial_id))

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker is lost, and it waits for another."""
        self.desk.recover(trial.trial_id)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its worker is lost once too often."""
        self.desk.setbacks["worker"] += 1
        said = trial.error_file  # get_error reads a copy of it, which may come a moment later
        self.desk.lose(trial.trial_id, Path(said).read_text() if said and Path(said).exists() else "")

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Some ten times a second."""
        self.desk.look()

    def __getstate__(self) -> dict[str, Any]:
        return {}
