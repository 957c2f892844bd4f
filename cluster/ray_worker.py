"""The worker process that runs jobs on a Ray cluster, and how it reports an exception to the driver."""

import logging
import pickle
import traceback
from dataclasses import dataclass, field
from typing import Any, cast

import ray

from cluster.log_forwarding import ForwardingHandler
from cluster.pool import RunStopped, format_error, is_fatal


@dataclass(frozen=True)
class RemoteError:
    """What the driver needs to know of an exception in a job, in a form that can always be pickled.

    Attributes:
        error: one line: type and message.
        traceback: as text.
        gpu_memory: whether the GPU's memory ran out.
        stop: the exception, if it stops the run.
        worker_environment: variables for the successor of this worker, which has to be replaced; of an exception with
            that attribute.
    """

    error: str
    traceback: str
    gpu_memory: bool
    stop: Exception | None
    worker_environment: dict[str, str] = field(default_factory=dict)


class Worker:
    """An actor: runs one job at a time with the object that all jobs share."""

    name = "worker"  # Ray calls repr before __init__ where an argument cannot be read

    def __init__(self, name: str, code: bytes, shared: Any, log_buffer: Any) -> None:
        self.name, self.code, self.shared, self.log_buffer = name, code, shared, log_buffer

    def __repr__(self) -> str:
        return self.name

    def start(self) -> str | RemoteError:
        """Load the function; return the id of this node, or a RemoteError if it cannot be loaded."""
        # not in __init__, whose exceptions Ray reports as an actor that died; called again between two runs
        try:
            self.fn = ray.cloudpickle.loads(self.code)
        except Exception as error:  # most often a module that is not installed there
            return make_remote_error(error)
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(ForwardingHandler(self.log_buffer, self.name))
        return str(ray.get_runtime_context().get_node_id())

    def switch_run(self, code: bytes, shared: Any) -> str | RemoteError:
        """Replace the function and the shared object by those of another run; then as start."""
        self.code, self.shared = code, shared
        return self.start()

    def run_job(self, job: Any) -> Any:
        """Return the result of the job, or a RemoteError."""
        # Returned as data, not raised: the exception may not be picklable, and Ray would wrap it in an error of its own
        # class, which the driver takes for the loss of a worker or of a result.
        try:
            return self.fn(job, self.shared)
        except Exception as error:
            return make_remote_error(error)


# the driver alone decides about repetition: an actor that Ray restarts hangs after a lost node
WorkerActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Worker)


def make_remote_error(error: Exception) -> RemoteError:
    """Describe an exception that is being handled."""
    # by the class's name: jobs need not use torch, and importing it here would cost each worker seconds
    gpu_memory = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    stop = _make_picklable(error) if is_fatal(error) else None
    environment = dict(getattr(error, "worker_environment", {}))
    return RemoteError(format_error(error), traceback.format_exc(), gpu_memory, stop, environment)


def _make_picklable(error: Exception) -> Exception:
    """Return the exception as the driver will receive it, or a RunStopped with its message if it cannot be pickled."""
    # there and back: an exception whose __init__ takes more than a message is pickled, but cannot be rebuilt
    try:
        return cast("Exception", pickle.loads(pickle.dumps(error)))
    except Exception:
        return RunStopped(format_error(error))
