"""Functions that the search tests try values with: workers import them by name."""

import logging
import math
import os
import signal
import time
from pathlib import Path
from typing import Any

from tests.cluster.jobs import OutOfMemoryError, StoreGone, gpu_and_share, note_node_and_sleep


def named(job: tuple[str, Any], values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """The function of this module that the job names: so one search has arms of many kinds."""
    said: dict[str, Any] = globals()[job[0]](job[1], values, shared)
    return said


def square(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """Best at x = .3."""
    return {"objective": -((values["x"] - 0.3) ** 2), "job": job}


def product(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    return {"objective": float(math.prod(values.values()))}


def from_shared(job: int, values: dict[str, Any], shared: dict[str, Any]) -> dict[str, Any]:
    array = shared["scores"]
    return {
        "objective": float(array[job]),
        "writeable": bool(array.flags.writeable),
        "place": array.__array_interface__["data"][0],
        "pid": os.getpid(),
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES", "unset"),
        "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
        "folder": os.getcwd(),
    }


def nan(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    return {"objective": math.nan}


def nothing(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    return {"score": 1.0}


def raise_at_two(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    if values["k"] == 2:
        raise ValueError("two is\nnot allowed")
    return {"objective": float(values["k"])}


def stop_at_two(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    if values["k"] == 2:
        raise StoreGone("the disk is full")
    return {"objective": float(values["k"])}


def die_once(job: str, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """Kills its own process the first time that it is told of 2, and each time that it is told of 3."""
    mark = Path(job) / f"{values['k']}.mark"
    if values["k"] == 3 or (values["k"] == 2 and not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"objective": float(values["k"]), "pid": os.getpid()}


def full_gpu(job: str, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """Does not fit where values["k"] is 2; leaves a mark of each process that tried."""
    if values["k"] == 2:
        (Path(job) / f"{os.getpid()}.mark").touch()
        raise OutOfMemoryError("CUDA out of memory")
    return {"objective": float(values["k"])}


def meet(job: str, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """Waits for another attempt; says whether one came."""
    (Path(job) / f"{os.getpid()}.mark").touch()
    end = time.monotonic() + 30
    while (there := len(list(Path(job).iterdir()))) < 2 and time.monotonic() < end:
        time.sleep(0.05)
    return {"objective": float(there)}


def short(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    time.sleep(0.2)
    return {"objective": 1.0, "pid": os.getpid()}


def warn_and_wait(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    logging.getLogger("tests.cluster").warning("the disk is nearly full")
    time.sleep(3)
    return {"objective": 1.0}


def where_it_began(job: str, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    """As note_node_and_sleep: slow where values["k"] is 0, the first time."""
    said = note_node_and_sleep("slow" if values["k"] == 0 else f"quick{values['k']}", job)
    return {"objective": 0.0, "said": said}


def seen_gpu(job: Any, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    cuda, share = gpu_and_share(0, None)
    return {"objective": 0.0, "seen": f"GPU {cuda}, {share} of it"}


def sleep_long(job: str, values: dict[str, Any], shared: Any) -> dict[str, Any]:
    scratch = Path(job) / "new"
    scratch.write_text(str(os.getpid()))
    scratch.rename(Path(job) / "pid")
    time.sleep(300)
    return {"objective": 1.0}
