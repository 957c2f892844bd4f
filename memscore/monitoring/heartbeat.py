"""Write and read the heartbeat of a run, a record in its store that is overwritten every few seconds.

    progress.json    a killed run leaves its last one, and its age shows that nothing writes it any more

On an object store, which has no lock, it is the only sign that a run is alive; and it is the only file with the number
of models that the last command was to train: shards, receipts and failures show what exists, not what is still to come.
"""

import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from memscore.store.filesystem import Folder
from memscore.store.json_records import encode_record, read_record

HEARTBEAT_PATH = "progress.json"
LOCAL_S, REMOTE_S = 10.0, 30.0  # seconds between two records; on an object store each is a put
MAX_MISSED_RECORDS = 3  # late records after which their writer counts as dead or frozen
SLACK_S = 5.0  # allowance for clocks that differ, and for a busy machine
LOCK_HOLDER = re.compile(r"pid (?P<pid>\d+) on host (?P<host>.+)")


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """State of a run at one moment, as progress.json stores it.

    Attributes:
        run: id of the run, different for every run.
        state: running; ended with its scores written; or stopped before that, by an error or by the user.
        phase: current phase: models, originals, proxies, or scores and reports, which the driver computes itself.
        pid: of the driver.
        host: of the driver.
        began: start of the run, in seconds since 1970.
        at: time of this record.
        every_s: seconds until the next record.
        planned: arm -> models requested in total; None where an error was requested.
        wish: that error, the RMSE of memorization.
        models: arm -> stored models.
        rmse: arm -> RMSE of memorization, of the blend where it is defined, with so many models, forecast from the
            arm's first ones; None before these.
        done: models of the current phase that this run has finished, failed ones included.
        total: models of the phase, of which `done` are done.
        trained: models of arms that this run stored.
        failed: models, originals and proxies without a result; the next command tries them again.
        diverged: models whose numbers were not finite.
        retried: cause of the end of jobs that were then tried again -> how often: worker, node, gpu, memory, deadline,
            exception.
        workers: how many jobs can run at once.
        busy: how many jobs run; None where the pool does not tell.
        rate_per_s: models of arms per second, over the last few rounds; None before the first.
        eta_s: seconds until the models are done, at that rate.
        bytes: of the shards that this run stored.
        line: about the job that ended last.
        space: namespace of process ids in which pid is the driver; containers with the same host name differ in it.
    """

    run: str
    state: Literal["running", "ended", "stopped"] = "running"
    phase: str = "models"
    pid: int
    host: str
    began: float
    at: float
    every_s: float
    planned: Mapping[str, int | None] = field(default_factory=dict)
    wish: float | None = None
    models: Mapping[str, int] = field(default_factory=dict)
    rmse: Mapping[str, float | None] = field(default_factory=dict)
    done: int = 0
    total: int = 0
    trained: int = 0
    failed: int = 0
    diverged: int = 0
    retried: Mapping[str, int] = field(default_factory=dict)
    workers: int = 1
    busy: int | None = None
    rate_per_s: float | None = None
    eta_s: float | None = None
    bytes: int = 0
    line: str = ""
    space: str = ""

    def is_fresh(self, now: float | None = None) -> bool:
        """Return whether its writer may be alive at a time, now if None."""
        # the clock of the writer's host against that of the reader's, hence the slack
        age_s = (time.time() if now is None else now) - self.at
        return self.state == "running" and age_s <= MAX_MISSED_RECORDS * self.every_s + SLACK_S


def get_pid_namespace() -> str:
    """Return the name of this process's pid namespace; empty where the system has none, such as macOS."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def choose_period_s(folder: Folder) -> float:
    """Choose the seconds between two records in this folder."""
    return LOCAL_S if folder.local else REMOTE_S


def write_heartbeat(folder: Folder, heartbeat: Heartbeat) -> None:
    """Overwrite the record; raise OSError at once if that fails, since another one follows."""
    folder.replace(HEARTBEAT_PATH, encode_record(asdict(heartbeat)), retry_s=0)


def read_heartbeat(folder: Folder) -> Heartbeat | None:
    """Read the last record; None for an imported bank, or one that an older version trained.

    CorruptFile if its contents are not what was written.
    """
    try:
        record: dict[str, Any] = read_record(folder, HEARTBEAT_PATH)
    except FileNotFoundError:
        return None
    # a later version, on another machine that uses the store, may have more fields
    field_names = {field.name for field in fields(Heartbeat)}
    return Heartbeat(**{name: value for name, value in record.items() if name in field_names})


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Process that works on a store.

    Attributes:
        state: running: its last record is fresh; silent: it holds the lock and writes no record, as a command that
            trains no bank does, or a frozen one; died: it ended without a last record; none: no process; unknown: on an
            object store, which has no lock, without a record.
        pid: of the driver; None where there is none.
        host: of the driver.
    """

    state: Literal["running", "silent", "died", "none", "unknown"]
    pid: int | None = None
    host: str | None = None


def find_driver(folder: Folder, heartbeat: Heartbeat | None) -> Driver:
    """Find the process that works on a store, from the text of its lock and the last record of a run there."""
    # The lock's file is read and never locked: a test lock, however short, would refuse a driver that starts meanwhile.
    pid, host = read_lock_holder(folder)
    # A pid can be looked up only where it was given: on this host, and not in another container of the same host name.
    # The lock has no namespace; the record has the one of its own run.
    is_same_namespace = host == socket.gethostname() and not (
        heartbeat and heartbeat.pid == pid and heartbeat.space not in {"", get_pid_namespace()}
    )
    # first what is certain: a killed driver leaves its pid in the lock, and a record that is fresh for seconds more
    if pid is not None and is_same_namespace and has_exited(pid):
        return Driver(state="died", pid=pid, host=host)
    # under a lock of another pid the record is an earlier run's, however fresh; without a lock only the record counts
    if heartbeat and heartbeat.is_fresh() and pid in {None, heartbeat.pid}:
        return Driver(state="running", pid=heartbeat.pid, host=heartbeat.host)
    if pid is not None:
        return Driver(state="silent", pid=pid, host=host)
    # no holder, or an object store: a stale record without an end is of a run that could not write its last one
    if heartbeat and heartbeat.state == "running":
        return Driver(state="died", pid=heartbeat.pid, host=heartbeat.host)
    return Driver(state="none" if heartbeat or folder.local else "unknown")


def has_exited(pid: int) -> bool:
    """Return whether a process of this machine has ended; a zombie has ended too."""
    # "pid (name) state ...", where the name may contain spaces and parentheses: the state follows the last ")"
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def read_lock_holder(folder: Folder) -> tuple[int | None, str | None]:
    """Read pid and host from the lock of a local store; a holder that was killed is still named there."""
    if not folder.local:
        return None, None
    try:
        holder = LOCK_HOLDER.match(folder.read("lock").decode(errors="replace"))
    except OSError:  # never locked, or not for this user to read
        return None, None
    return (int(holder["pid"]), holder["host"].strip()) if holder else (None, None)
