"""What workers warn of reaches the driver while they work.

A warning that a worker logs under the package of its job's function goes into the cluster's own key-value store, in
memory, and the driver says it within a second. Ray's way (`log_to_driver`) reads files that workers write, which is no
use for the warning that the disk is full, and brings everything else that is printed in a worker.
"""

import hashlib
import logging
import secrets
import socket
import time

from ray.experimental import internal_kv as kv

SPACE = "memscore-words"
TICK_S = 1.0
PAUSE_S = 60.0  # a hundred workers find the disk full together; once a minute is enough

_log = logging.getLogger(__name__)


class Words(logging.Handler):
    """In a worker: puts a warning where the driver looks, unless one of its kind waits there already.

    Args:
        ear: of the run.
        worker: the name that the driver is to say.
    """

    def __init__(self, ear: str, worker: str) -> None:
        super().__init__(logging.WARNING)
        self.ear, self.worker = ear, worker

    def emit(self, record: logging.LogRecord) -> None:
        """Send one warning; that it cannot be sent is no reason to end the job."""
        try:
            kind = hashlib.sha256(str(record.msg).encode()).hexdigest()
            text = f"{self.worker} on host {socket.gethostname()}: {record.getMessage()}"
            kv._internal_kv_put(f"{self.ear}{kind}", text, overwrite=False, namespace=SPACE)
        except Exception:
            self.handleError(record)


class Ear:
    """In the driver: listens to the workers of one run.

    Attributes:
        name: what its workers must be given.
    """

    def __init__(self) -> None:
        self.name = f"{secrets.token_hex(8)}-"
        self._listened_at = time.monotonic()
        self._said_at: dict[bytes, float] = {}

    def listen(self) -> None:
        """Say what is new, each kind of warning once a minute; looks once a second."""
        now = time.monotonic()
        if now - self._listened_at < TICK_S:
            return
        self._listened_at = now
        for kind in kv._internal_kv_list(self.name, namespace=SPACE):
            text = kv._internal_kv_get(kind, namespace=SPACE)
            kv._internal_kv_del(kind, namespace=SPACE)
            if text and now - self._said_at.get(kind, now - PAUSE_S) >= PAUSE_S:
                self._said_at[kind] = now
                _log.warning("%s", text.decode())

    def close(self) -> None:
        """Leave nothing in a cluster that was joined."""
        kv._internal_kv_del(self.name, del_by_prefix=True, namespace=SPACE)
