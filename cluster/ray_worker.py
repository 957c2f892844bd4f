"""The process that runs jobs on a Ray cluster, and what it says when one raises."""

import logging
import pickle
import traceback
from dataclasses import dataclass
from typing import Any, cast

import ray

from cluster.log_forwarding import ForwardingHandler
from cluster.pool import RunStopped, format_error, is_fatal


@dataclass(frozen=True)
class RemoteError:
    """What the driver must know of an exception in a job; made so that it arrives whatever the exception was."""

    error: str
    traceback: str
    gpu_memory: bool
    stop: Exception | None


class Worker:
    """An actor: runs one job at a time with what all jobs share."""

    name = "worker"  # Ray asks for repr before __init__ where an argument cannot be read

    def __init__(self, name: str, code: bytes, shared: Any, box: Any) -> None:
        self.name, self.code, self.shared, self.box = name, code, shared, box

    def __repr__(self) -> str:
        return self.name

    def start(self) -> str | RemoteError:
        """The id of the node it is on, or Raised if the function cannot be had there."""
        try:
            self.fn = ray.cloudpickle.loads(self.code)
        except Exception as error:  # most often a module that is not installed there
            return make_remote_error(error)
        package = str(getattr(self.fn, "__module__", "")).partition(".")[0]
        logging.getLogger(package).addHandler(ForwardingHandler(self.box, self.name))
        return str(ray.get_runtime_context().get_node_id())

    def turn_to(self, code: bytes, shared: Any) -> str | RemoteError:
        """Take up another run's function and what its jobs share; then as start."""
        self.code, self.shared = code, shared
        return self.start()

    def run_job(self, job: Any) -> Any:
        """The result of the job, or Raised."""
        try:
            return self.fn(job, self.shared)
        except Exception as error:  # told as data: it may not survive the way, or be mistaken for one of Ray's
            return make_remote_error(error)


WorkerActor: Any = ray.remote(max_restarts=0, max_task_retries=0)(Worker)


def make_remote_error(error: Exception) -> RemoteError:
    """What is told of an exception that is being handled."""
    gpu_memory = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    stop = _make_picklable(error) if is_fatal(error) else None
    return RemoteError(format_error(error), traceback.format_exc(), gpu_memory, stop)


def _make_picklable(error: Exception) -> Exception:
    """The exception as the driver will see it, or its one line if it cannot travel."""
    try:
        return cast("Exception", pickle.loads(pickle.dumps(error)))
    except Exception:
        return RunStopped(format_error(error))
