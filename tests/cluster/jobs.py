"""Job functions of the pool tests: workers import them by name, so they stand in a module of their own."""

import logging
import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np


class StoreGone(OSError):
    """Nothing can be published any more; knows nothing of pools."""

    stops_the_run = True


class StubbornError(OSError):
    """Cannot be rebuilt from its message, so it cannot travel between processes."""

    stops_the_run = True

    def __init__(self, path: str, code: int) -> None:
        super().__init__(f"{path}: {code}")


class OutOfMemoryError(RuntimeError):
    """Called what torch calls it."""


def double(job: int, shared: Any) -> int:
    return 2 * job


def slow_double(job: int, shared: Any) -> int:
    time.sleep(1.2)  # longer than a driver waits between two looks
    return 2 * job


def double_or_raise(job: int, shared: Any) -> int:
    if job == 3:
        raise ValueError("three is\nnot allowed")
    return 2 * job


def add_shared(job: int, shared: dict[str, np.ndarray]) -> tuple[float, bool]:
    return float(shared["images"][job]), bool(shared["images"].flags.writeable)


def stop_at_three(job: int, shared: Any) -> int:
    if job == 3:
        raise StoreGone("the disk is full")
    return job


def stop_stubbornly(job: int, shared: Any) -> int:
    raise StubbornError("/store", job)


def unsendable(job: int, shared: Any) -> Any:
    return threading.Lock() if job == 1 else job


def environment(job: int, shared: Any) -> tuple[str | None, str | None, int]:
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("OMP_NUM_THREADS"), os.getpid()


def gpu_and_share(job: int, shared: Any) -> tuple[str | None, str | None]:
    """Which GPU the worker sees, and what part of it is its own."""
    time.sleep(0.2)
    return os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ.get("MEMSCORE_GPU_SHARE")


@dataclass(frozen=True)
class Stack:
    """Several models in one job; splits into single ones."""

    models: tuple[int, ...]
    guilty: int = -1

    def split(self) -> list["Stack"]:
        return [Stack((model,), self.guilty) for model in self.models]


def die_if_guilty(job: Stack, shared: Any) -> tuple[int, ...]:
    if job.guilty in job.models:
        os.kill(os.getpid(), signal.SIGKILL)
    return job.models


def hang_always(job: int, shared: Any) -> int:
    time.sleep(60 if job == 0 else 0)
    return job


def greedy(job: int, folder: str) -> int:
    """Fits only while it is alone: each running job has a mark, and two are too many; the first wait to be two."""
    marks, met = Path(folder) / "marks", Path(folder) / "met"
    marks.mkdir(exist_ok=True)
    mark, end = marks / f"{os.getpid()}-{job}", time.monotonic() + 30
    mark.touch()
    try:
        while not met.exists() and len(list(marks.iterdir())) < 2 and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(0.2)
        if len(list(marks.iterdir())) > 1:
            met.touch()
            raise OutOfMemoryError("CUDA out of memory")
        return job
    finally:
        mark.unlink()


def never_fits(job: Stack, shared: Any) -> int:
    if job.guilty in job.models:
        raise OutOfMemoryError("CUDA out of memory")
    return len(job.models)


def fits_alone(job: Stack, shared: Any) -> tuple[int, int, str | None]:
    """One model at a time fits; says who did it, where what is shared lies, and which GPU it saw."""
    if len(job.models) > 1:
        raise OutOfMemoryError("CUDA out of memory")
    return os.getpid(), id(shared), os.environ.get("CUDA_VISIBLE_DEVICES")


def note_node_and_sleep(job: str, folder: str) -> str:
    """The first to take the job 'slow' notes where it is and is slow; a second attempt is not."""
    mark = Path(folder) / f"{job}.mark"
    if mark.exists():
        return "again"
    scratch = Path(folder) / f"{job}.new"
    scratch.write_text(f"{ray_node()} {os.getpid()}")
    scratch.rename(mark)
    time.sleep(120 if job == "slow" else 0.1)
    return "first"


def warn_until_heard(job: str, folder: str) -> str:
    """Logs warnings as long as nobody has left a word in the folder, which says that somebody hears them."""
    heard, end = Path(folder) / "heard", time.monotonic() + 30
    while not heard.exists() and time.monotonic() < end:
        logging.getLogger("elsewhere.package").warning("not of the job's package")
        logging.getLogger("tests.cluster").info("no warning")
        logging.getLogger("tests.cluster").warning("cannot write %s", job)
        time.sleep(0.1)
    return "heard" if heard.exists() else "in vain"


def ray_node() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def nothing_wrong():
    return None


def not_visible():
    return "not visible there"


def disk_gone():
    raise OSError("the disk is gone")


def sleep_long():
    time.sleep(5)


class Greedy:
    def here(self):
        return True
