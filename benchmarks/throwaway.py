"""A Ray cluster of several nodes on this machine, as a user would start it, and ways to harm it.

Every node is a `ray start --block` of its own with its own raylet, agents and workers; jobs come in by
`ray job submit`, and nothing here looks inside Ray: only at processes and at the files of the store.
"""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
PORT, DASHBOARD = 6379, 8265
STORE_BYTES = 200 * 2**20


@dataclass(eq=False)
class Node:
    """One raylet with all below it.

    Attributes:
        process: the `ray start --block` that it hangs on.
    """

    process: "subprocess.Popen[bytes]"

    def pids(self) -> list[int]:
        """Everything below it, itself last."""
        return [*below(self.process.pid), self.process.pid]

    def workers(self) -> list[int]:
        """Processes of its actors that do work."""
        return [pid for pid in below(self.process.pid) if words(pid).startswith("ray::Worker")]

    def signal(self, number: signal.Signals) -> None:
        """To all of its processes, the raylet before its workers."""
        for pid in self.pids():
            with suppress(ProcessLookupError):
                os.kill(pid, number)


@dataclass(eq=False)
class Cluster:
    """Nodes of one CPU each on a folder that is their home.

    Attributes:
        home: HOME of every process; the default store lies below it.
        nodes: the head first.
        added: how many nodes there have been.
    """

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    nodes: list[Node] = field(default_factory=list)
    added: int = 0

    def __post_init__(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "MEMSCORE_"))}
        self.environment = plain | {
            "HOME": str(self.home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ADDRESS": f"http://127.0.0.1:{DASHBOARD}",
            "OMP_NUM_THREADS": "1",
        }

    def start(self, nodes: int) -> None:
        """A head and further nodes, ready for jobs."""
        self.command("ray", "get-auth-token", "--generate")
        self.add("--head", f"--port={PORT}", "--dashboard-host=127.0.0.1", f"--dashboard-port={DASHBOARD}")
        wait_for(lambda: self.command("ray", "job", "list") is not None, 90)
        for _ in range(nodes - 1):
            self.add()

    def add(self, *role: str) -> Node:
        """Start one node, which joins the others unless its role is told; it is there some seconds later."""
        role = role or (f"--address=127.0.0.1:{PORT}",)
        self.added += 1
        own = f"--temp-dir=/tmp/ray/{os.getpid()}-{self.added}"  # nodes that share one delete each other's files
        command = ["ray", "start", "--block", "--num-cpus=1", f"--object-store-memory={STORE_BYTES}", own, *role]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        node = Node(subprocess.Popen(command, env=self.environment, cwd=self.home, **quiet, start_new_session=True))
        self.nodes.append(node)
        return node

    def command(self, *words: str) -> str | None:
        """What a command prints; None if it fails."""
        done = subprocess.run(words, env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False)
        return done.stdout if done.returncode == 0 else None

    def submit(self, name: str, *command: str) -> None:
        """`ray job submit`, without waiting for the end."""
        words = ("ray", "job", "submit", "--no-wait", "--submission-id", name, "--working-dir", str(ROOT), "--")
        done = subprocess.run(
            [*words, *command], env=self.environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"ray job submit failed: {done.stderr[-2000:]}")

    def status(self, name: str) -> str:
        """PENDING, RUNNING, SUCCEEDED, FAILED or STOPPED; empty while nobody answers."""
        said = self.command("ray", "job", "status", name) or ""
        states = ("SUCCEEDED", "FAILED", "STOPPED", "RUNNING", "PENDING")
        return next((state for state in states if state.lower() in said.lower()), "")

    def logs(self, name: str) -> str:
        """What a job has printed."""
        return self.command("ray", "job", "logs", name) or ""

    def driver(self) -> int:
        """Pid of the submitted command itself."""
        return next(pid for pid in self.nodes[0].pids() if words(pid).split(" ")[1:3] == ["-m", "memscore.estimate"])

    def stop(self) -> None:
        """End every process."""
        for node in self.nodes:
            node.signal(signal.SIGKILL)
            node.process.wait()
        self.nodes.clear()


@dataclass(eq=False)
class Watch:
    """Looks at the files of a bank: which models are there, since when, and how often each was finished.

    Attributes:
        store: folder of the bank.
        since: model -> monotonic time at which its shard was first seen.
        finished: model -> how many different receipts it had.
    """

    store: Path
    since: dict[str, float] = field(default_factory=dict)
    finished: dict[str, int] = field(default_factory=dict)
    _receipts: dict[str, tuple[int, int]] = field(default_factory=dict)

    def look(self) -> int:
        """Look once; gives how many models are there."""
        now = time.monotonic()
        for entry in files(self.store / "shards"):
            if entry.name.endswith(".parquet"):
                self.since.setdefault(entry.name, now)
        for entry in files(self.store / "receipts"):
            if not entry.name.endswith(".json"):
                continue  # a file that is being written changes under its scratch name
            with suppress(FileNotFoundError):
                mark = (entry.inode(), entry.stat().st_mtime_ns)
                if self._receipts.get(entry.name) != mark:
                    self._receipts[entry.name] = mark
                    self.finished[entry.name] = self.finished.get(entry.name, 0) + 1
        return len(self.since)

    def twice(self) -> int:
        """How many models were finished more than once."""
        return sum(count > 1 for count in self.finished.values())

    def next_after(self, moment: float) -> float | None:
        """Seconds from a moment to the first model after it."""
        return min((since - moment for since in self.since.values() if since > moment), default=None)

    def silence_after(self, moment: float) -> float:
        """The longest time without a new model, from a moment to the last model."""
        times = sorted([moment, *(since for since in self.since.values() if since > moment)])
        return max((late - early for early, late in itertools.pairwise(times)), default=0.0)


def wait_for(condition: Callable[[], bool], limit_s: float, every_s: float = 0.02) -> None:
    """Return when it is true; TimeoutError if it never is."""
    end = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not true within {limit_s:g} s")
        time.sleep(every_s)


def below(pid: int) -> list[int]:
    """Pids of all descendants, parents before children."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                parents.setdefault(parent, []).append(int(folder.name))
    found, front = [], [pid]
    while front:
        front = [child for parent in front for child in parents.get(parent, [])]
        found += front
    return found


def words(pid: int) -> str:
    """The command line of a process; empty once it is gone."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def files(folder: Path) -> Iterator["os.DirEntry[str]"]:
    """What lies in a folder; nothing while it is not there."""
    with suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield from entries
