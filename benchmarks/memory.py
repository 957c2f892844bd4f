"""How much memory a process has, and had at most: its own, and with the pages that it shares."""

import threading
from collections.abc import Iterable
from types import TracebackType
from typing import Self


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """Resident memory of a process, now and at its peak, in MB.

    Args:
        pid: of a process on this machine; this one if left out.
    """
    with open(f"/proc/{pid}/status") as status:
        lines = dict(line.split(":", 1) for line in status)
    return {"rss_mb": int(lines["VmRSS"].split()[0]) / 1000, "peak_mb": int(lines["VmHWM"].split()[0]) / 1000}


class OwnMemory:
    """The most memory that processes had for themselves while this was open.

    Resident memory without what is shared: pages of Ray's object store are counted in every process that has touched
    them, though the machine has them once.

    Args:
        pids: of processes on this machine.
        every_s: between two looks.

    Attributes:
        peak_mb: by pid.
    """

    def __init__(self, pids: Iterable[int], every_s: float = 0.1) -> None:
        self.peak_mb = dict.fromkeys(pids, 0.0)
        self._over, self._every_s = threading.Event(), every_s
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._over.wait(self._every_s):
            for pid, before in self.peak_mb.items():
                with open(f"/proc/{pid}/status") as status:
                    lines = dict(line.split(":", 1) for line in status)
                own = sum(int(lines[kind].split()[0]) for kind in ("RssAnon", "RssFile")) / 1000
                self.peak_mb[pid] = max(before, own)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
