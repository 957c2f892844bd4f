"""What a run says of itself while it works: a record in its store that is written over every few seconds.

    progress.json    derived; a killed run leaves its last one, and a reader tells by its age that nobody writes it

It is the only sign of life on an object store, which has no lock, and the only file that knows how many models the
last command asked for: shards, receipts and failures say what there is, not what is still to come.

Whether somebody works on a store: by its lock, and by the record that a run writes over and over.
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
from memscore.store.parquet import CorruptFile

HEARTBEAT_PATH = "progress.json"
LOCAL_S, REMOTE_S = 10.0, 30.0  # between two records; on an object store each is a put
MISSED = 3  # records that may be late before their writer is taken for dead or frozen
SLACK_S = 5.0  # of clocks that differ, and of a busy machine


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """A run at one moment.

    Attributes:
        run: which run it is; two of one store differ.
        state: running; ended with its scores written; or stopped before that, by an error or by the user.
        phase: what it is at: models, originals, proxies, or the driver's own work, which is scores and reports.
        pid: of the driver.
        host: of the driver.
        began: when, in seconds since 1970.
        at: when this was so.
        every_s: seconds until the next record.
        planned: arm -> models that were asked for in all; None where a precision was.
        wish: that precision, the RMSE of memorization.
        models: arm -> models on file.
        rmse: arm -> RMSE of memorization that so many models leave, by the arm's first ones; None before there are any.
        done: models of the present phase that this run is through with, failed ones included.
        total: models that it has to do, of which `done` are done.
        trained: models of arms that this run put on file.
        failed: models, originals and proxies that have no result; the next command tries them again.
        diverged: models whose numbers were not finite.
        retried: what ended jobs that were then tried again (worker, node, memory, deadline) -> how often.
        workers: how many jobs may run at once.
        busy: how many do; None where the pool does not say.
        rate_per_s: models of arms a second, over the last few rounds; None before the first.
        eta_s: seconds until the models are done, at that rate.
        bytes: of the shards that this run put on file.
        line: about the job that ended last.
        space: of process ids, in which pid means the driver; containers of one host name differ in it.
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

    def fresh(self, now: float | None = None) -> bool:
        """Whether its writer may well be alive at a time, now if None."""
        age_s = (time.time() if now is None else now) - self.at
        return self.state == "running" and age_s <= MISSED * self.every_s + SLACK_S


def get_pid_namespace() -> str:
    """The space of process ids that this process lives in; empty where the system does not say."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def choose_period_s(folder: Folder) -> float:
    """Seconds between two records in this folder."""
    return LOCAL_S if folder.local else REMOTE_S


def write_heartbeat(folder: Folder, beat: Heartbeat) -> None:
    """Write the record over the one before; OSError at once if it cannot be, since the next one will say more."""
    folder.replace(HEARTBEAT_PATH, encode_record(asdict(beat)), retry_s=0)


def read_heartbeat(folder: Folder) -> Heartbeat | None:
    """The last record.

    Args:
        folder: of a store.

    Returns:
        It, or None where no run has left any: an imported bank, or one that an older version filled.

    Raises:
        CorruptFile: it is not what was written.
    """
    try:
        record: dict[str, Any] = read_record(folder, HEARTBEAT_PATH)
    except FileNotFoundError:
        return None
    known = {one.name for one in fields(Heartbeat)}
    try:
        return Heartbeat(**{
            name: value for name, value in record.items() if name in known
        })  # a later version may say more
    except TypeError as error:
        raise CorruptFile(
            f"{folder.display_path(HEARTBEAT_PATH)} is no record of a run: {error}; the next command writes it again"
        ) from None


HOLDER = re.compile(r"pid (?P<pid>\d+) on host (?P<host>.+)")


@dataclass(frozen=True, kw_only=True)
class Driver:
    """Who works on a store.

    Attributes:
        state: running: its last record is fresh; silent: it holds the lock and says nothing, as a command that fills
            no bank, or one that is frozen; died: it ended without a word; none: nobody; unknown: on an object store,
            which has no lock, no run has left a record.
        pid: of the driver; None where there is none.
        host: of the driver.
    """

    state: Literal["running", "silent", "died", "none", "unknown"]
    pid: int | None = None
    host: str | None = None


def find_driver(folder: Folder, beat: Heartbeat | None) -> Driver:
    """Who works on a store; the lock is read, never taken, so that no driver is kept out by a look.

    Args:
        folder: of the store.
        beat: the last record of a run there.

    Returns:
        The driver.
    """
    pid, host = holder_of(folder)
    seen = host == socket.gethostname() and not (
        beat and beat.pid == pid and beat.space not in {"", get_pid_namespace()}
    )
    if pid is not None and seen and has_exited(pid):
        return Driver(state="died", pid=pid, host=host)
    if beat and beat.fresh() and pid in {None, beat.pid}:
        return Driver(state="running", pid=beat.pid, host=beat.host)
    if pid is not None:
        return Driver(state="silent", pid=pid, host=host)
    if beat and beat.state == "running":
        return Driver(state="died", pid=beat.pid, host=beat.host)
    return Driver(state="none" if beat or folder.local else "unknown")


def has_exited(pid: int) -> bool:
    """Whether no such process works any more; one that has ended and that nobody asked after is gone too."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"Z", "X"}
    except OSError:
        return True


def holder_of(folder: Folder) -> tuple[int | None, str | None]:
    """Process and host that the lock of a local store names; a killed holder stays named."""
    if not folder.local:
        return None, None
    try:
        named = HOLDER.match(folder.read("lock").decode(errors="replace"))
    except OSError:  # never locked, or not for this user to read
        return None, None
    return (int(named["pid"]), named["host"].strip()) if named else (None, None)
