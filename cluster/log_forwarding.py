"""Forward the workers' warnings to the driver while they work.

A warning that a worker logs under the package of its job's function goes to a small actor on the driver's node, and the
driver logs it within a second or two. Ray's own way (`log_to_driver`) reads files that workers write, which does not
help with the warning that the disk is full, and forwards everything else that a worker prints.
"""

import hashlib
import logging
import socket
import time
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

POLL_S = 1.0
REPEAT_S = 60.0  # a hundred workers find the disk full together; once a minute is enough

_log = logging.getLogger(__name__)


class LogBuffer:
    """An actor: stores one warning of each kind until the driver takes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.warnings: dict[str, str] = {}

    def __repr__(self) -> str:
        return self.name

    def put(self, kind: str, text: str) -> None:
        """Store a warning, unless one of its kind is stored already."""
        self.warnings.setdefault(kind, text)

    def take(self) -> dict[str, str]:
        """Return all stored warnings by kind, and delete them."""
        taken, self.warnings = self.warnings, {}
        return taken


LogBufferActor: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(LogBuffer)


class ForwardingHandler(logging.Handler):
    """In a worker: sends warnings, with the worker's name, to the driver's LogBufferActor."""

    def __init__(self, buffer: Any, worker: str) -> None:
        super().__init__(logging.WARNING)
        self.buffer, self.worker = buffer, worker

    def emit(self, record: logging.LogRecord) -> None:
        """Send one warning, without waiting; a failure to send does not end the job."""
        # the kind is the message before its values are filled in, so that one cause on many files is one kind
        try:
            kind = hashlib.sha256(str(record.msg).encode()).hexdigest()
            self.buffer.put.remote(kind, f"{self.worker} on host {socket.gethostname()}: {record.getMessage()}")
        except Exception:
            self.handleError(record)


class LogCollector:
    """In the driver: logs the warnings of a pool's workers."""

    def __init__(self, name: str) -> None:
        self._name = f"{name}-warnings"
        self._buffer: Any = None
        self._pending: Any = None  # reference to the result of a take() that was requested
        self._requested_at = -REPEAT_S
        self._logged_at: dict[str, float] = {}

    @property
    def buffer(self) -> Any:
        """The actor that workers send to; created when it is first needed."""
        # on this node, so that the loss of another one loses no warnings; needing no CPU, it fits into a full cluster
        if self._buffer is None:
            this_node = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._buffer = LogBufferActor.options(scheduling_strategy=this_node).remote(self._name)
        return self._buffer

    def poll(self) -> None:
        """Log what is new, each kind of warning once a minute; requests once a second and never waits."""
        # one request at a time, whose answer a later call collects: a slow buffer delays warnings, never the run
        now = time.monotonic()
        if self._buffer is None or now - self._requested_at < POLL_S:
            return
        if self._pending is not None and ray.wait([self._pending], timeout=0)[0]:
            reference, self._pending = self._pending, None
            self._log_warnings(reference, now)
        if self._pending is None and now >= self._requested_at:
            self._pending, self._requested_at = self._buffer.take.remote(), now

    def _log_warnings(self, reference: Any, now: float) -> None:
        """Log what the buffer returned."""
        try:
            warnings = ray.get(reference)
        except RayError:
            # not replaced, since the workers hold a handle of this one; inf stops all further requests
            _log.warning("warnings of the workers are no longer forwarded, their log buffer was lost; jobs go on")
            self._requested_at = float("inf")
            return
        for kind, text in warnings.items():
            if now - self._logged_at.get(kind, now - REPEAT_S) >= REPEAT_S:
                self._logged_at[kind] = now
                _log.warning("%s", text)

    def close(self) -> None:
        """Kill the buffer, so that nothing is left in a cluster that was joined."""
        if self._buffer is not None and ray.is_initialized():
            ray.kill(self._buffer, no_restart=True)
        self._buffer = self._pending = None
        self._requested_at = -REPEAT_S
