"""What workers warn of reaches the driver while they work.

A warning that a worker logs under the package of its job's function goes to a small actor on the driver's node, and the
driver says it within a second or two. Ray's own way (`log_to_driver`) reads files that workers write, which is no use
for the warning that the disk is full, and brings everything else that is printed in a worker.
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
    """An actor: keeps one warning of each kind until the driver takes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.letters: dict[str, str] = {}

    def __repr__(self) -> str:
        return self.name

    def put(self, kind: str, text: str) -> None:
        """Keep a warning, unless one of its kind waits already."""
        self.letters.setdefault(kind, text)

    def take(self) -> dict[str, str]:
        """Everything that waits, by its kind."""
        taken, self.letters = self.letters, {}
        return taken


LogBufferActor: Any = ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)(LogBuffer)


class ForwardingHandler(logging.Handler):
    """In a worker: sends warnings to where the driver looks.

    Args:
        box: the run's letterbox.
        worker: the name that the driver is to say.
    """

    def __init__(self, box: Any, worker: str) -> None:
        super().__init__(logging.WARNING)
        self.box, self.worker = box, worker

    def emit(self, record: logging.LogRecord) -> None:
        """Send one warning; that it cannot be sent is no reason to end the job."""
        try:
            kind = hashlib.sha256(str(record.msg).encode()).hexdigest()
            self.box.put.remote(kind, f"{self.worker} on host {socket.gethostname()}: {record.getMessage()}")
        except Exception:
            self.handleError(record)


class LogCollector:
    """In the driver: listens to the workers of a pool.

    Args:
        name: of the pool.
    """

    def __init__(self, name: str) -> None:
        self._name = f"{name}-warnings"
        self._box: Any = None
        self._coming: Any = None  # the answer of a box that was asked
        self._asked_at = -REPEAT_S
        self._said_at: dict[str, float] = {}

    @property
    def box(self) -> Any:
        """What the workers must be given; made when it is first asked for."""
        if self._box is None:
            here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
            self._box = LogBufferActor.options(scheduling_strategy=here).remote(self._name)
        return self._box

    def poll(self) -> None:
        """Say what is new, each kind of warning once a minute; asks once a second and never waits."""
        now = time.monotonic()
        if self._box is None or now - self._asked_at < POLL_S:
            return
        if self._coming is not None and ray.wait([self._coming], timeout=0)[0]:
            answer, self._coming = self._coming, None
            self._say(answer, now)
        if self._coming is None and now >= self._asked_at:
            self._coming, self._asked_at = self._box.take.remote(), now

    def _say(self, answer: Any, now: float) -> None:
        """Log what a box has answered."""
        try:
            letters = ray.get(answer)
        except RayError:
            _log.warning("warnings of the workers cannot be heard any more, their letterbox was lost; jobs go on")
            self._asked_at = float("inf")
            return
        for kind, text in letters.items():
            if now - self._said_at.get(kind, now - REPEAT_S) >= REPEAT_S:
                self._said_at[kind] = now
                _log.warning("%s", text)

    def close(self) -> None:
        """Leave nothing in a cluster that was joined."""
        if self._box is not None and ray.is_initialized():
            ray.kill(self._box, no_restart=True)
        self._box = self._coming = None
        self._asked_at = -REPEAT_S
