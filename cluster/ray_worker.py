"""The worker process that runs jobs on a Ray cluster, and how it reports an exception to the driver."""

import logging
import pickle
import re
import socket
import traceback
from dataclasses import dataclass, field
from typing import Any, cast

import ray

from cluster.device_errors import is_broken_device, is_memory_shortage
from cluster.log_forwarding import ForwardingHandler
from cluster.pool import RunStopped, format_error, is_fatal


@dataclass(frozen=True)
class RemoteError:
    """What the driver needs to know of an exception in a job, in a form that can always be pickled.

    Attributes:
        error: one line: type and message.
        traceback: as text.
        gpu_memory: whether the GPU's memory ran out.
        broken_gpu: whether the process can no longer use its GPU.
        stop: the exception, if it stops the run.
        worker_environment: variables for the successor of this worker, which has to be replaced; of an exception with
            that attribute.
    """

    error: str
    traceback: str
    gpu_memory: bool
    stop: BaseException | None
    broken_gpu: bool = False
    worker_environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerInfo:
    """Where a worker runs.

    Attributes:
        node: id of its node.
        gpus: ids of its GPUs on that node.
        label: its name, host and GPUs, for messages.
    """

    node: str
    gpus: tuple[str, ...]
    label: str


def make_worker_environment(gpus: float) -> dict[str, str]:
    """Return the environment variables of a worker process with so many GPUs, or with a part of one."""
    # one CPU each, also for the compiler of torch.compile, which would otherwise start a process for each CPU there is
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    # Ray 2.60 leaves CUDA_VISIBLE_DEVICES unset for an actor without GPUs, which then sees all of them
    if not gpus:
        return variables | {"CUDA_VISIBLE_DEVICES": ""}
    return variables | ({"MEMSCORE_GPU_SHARE": f"{gpus:g}"} if gpus % 1 else {})


class Worker:
    """An actor: runs one job at a time with the object that all jobs share."""

    name = "worker"  # Ray calls repr before __init__ where an argument cannot be read

    def __init__(self, name: str, code: bytes, shared: Any, log_buffer: Any) -> None:
        self.name, self.code, self.shared = name, code, shared
        # one for all runs: a logger takes the same handler only once
        self.handler = ForwardingHandler(log_buffer, name)

    def __repr__(self) -> str:
        return self.name

    def start(self) -> WorkerInfo | RemoteError:
        """Load the function; return where this is, or a RemoteError if it cannot be loaded."""
        # not in __init__, whose exceptions Ray reports as an actor that died; called again between two runs
        try:
            self.fn = ray.cloudpickle.loads(self.code)
        except BaseException as error:  # most often a module that is not installed there
            return make_remote_error(error)
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(self.handler)
        context = ray.get_runtime_context()
        gpus = tuple(sorted(context.get_accelerator_ids()["GPU"]))
        label = f"{self.name} on host {socket.gethostname()}" + (f", GPU {', '.join(gpus)}," if gpus else "")
        return WorkerInfo(str(context.get_node_id()), gpus, label)

    def switch_run(self, code: bytes, shared: Any) -> WorkerInfo | RemoteError:
        """Replace the function and the shared object by those of another run; then as start."""
        self.code, self.shared = code, shared
        return self.start()

    def run_job(self, job: Any) -> Any:
        """Return the result of the job, or a RemoteError."""
        # Returned as data, not raised: the exception may not be picklable, and Ray would wrap it in an error of its own
        # class, which the driver takes for the loss of a worker or of a result.
        # Also what is no Exception: SystemExit would end this process, and no Ctrl-C of a user reaches it.
        try:
            return self.fn(job, self.shared)
        except BaseException as error:
            return make_remote_error(error)


# the driver alone decides about repetition: an actor that Ray restarts hangs after a lost node
WorkerActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Worker)


def describe_worker_loss(details: str) -> str:
    """Describe in one line how a worker process ended, from Ray's text; Ray knows no signals, and few exit codes."""
    if code := re.search(r"exit code (\d+)", details):
        return f"its worker process died with exit code {code[1]}"
    if "connection error" in details:
        return "its worker process died: killed by a signal, or ended by a crash outside of Python or by os._exit"
    return "its worker process died"


def make_remote_error(error: BaseException) -> RemoteError:
    """Describe an exception that is being handled."""
    stop = _make_picklable(error) if is_fatal(error) else None
    return RemoteError(
        format_error(error),
        traceback.format_exc(),
        gpu_memory=is_memory_shortage(error),
        broken_gpu=is_broken_device(error),
        stop=stop,
        worker_environment=dict(getattr(error, "worker_environment", {})),
    )


def _make_picklable(error: BaseException) -> BaseException:
    """Return the exception as the driver will receive it, or a RunStopped with its message if it cannot be pickled."""
    # there and back: an exception whose __init__ takes more than a message is pickled, but cannot be rebuilt
    try:
        return cast("BaseException", pickle.loads(pickle.dumps(error)))
    except Exception:
        return RunStopped(format_error(error))
