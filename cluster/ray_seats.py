"""What a run is given by its pool, the seats and tasks it keeps, and what it asks of Ray about the cluster."""

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import ray

from cluster.pool import AGAIN, ClusterLost

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a run is given by its pool."""

    hire: Callable[[], Any]  # a new actor, perhaps not placed yet
    wanted: int | None  # how many are asked for; more than fit bring nodes, where nodes come on demand; None: what fits
    fit: Callable[[], int]  # how many there is room for, as things stand now
    deadline_s: float
    wait_s: float
    setbacks: Counter[str]
    home: str = ""  # id of this process's node
    own_gpu: bool = False  # each worker has whole GPUs, so no other is in its way
    keeps: bool = False  # workers without a job stay for the next run, where there is room for them


@dataclass(eq=False)
class Task:
    """A job and how often it was ended before it was done."""

    job: Any
    attempts: int = 0
    node_losses: int = 0


@dataclass(eq=False)
class Seat:
    """An actor: starting while it has no node, busy while it has a task, else idle."""

    actor: Any
    node: str = ""
    task: Task | None = None
    since: float = 0
    beside: int = 0  # seats that were busy when its task began, itself included
    proven: bool = False  # it worked in an earlier run


def dismiss(actors: Iterable[Any]) -> None:
    """Kill the processes; a call in flight raises at once, and nothing of it starts again."""
    for actor in actors:
        ray.kill(actor, no_restart=True)


def say_no_room(waited_s: float, wait_s: float) -> None:
    """Warn that no worker could be placed for so long, and of how long that will go on."""
    _log.warning(
        "no worker is ready after %.0f s: %s (what starting workers hold is not free). Machines may be busy, "
        "others may have the rest, or nodes are on their way; this run waits for %.0f s more, then it stops",
        waited_s,
        resources(),
        wait_s - waited_s,
    )


def refuse_to_wait(waited_s: float, wait_s: float, home: str) -> None:
    """Stop where nothing can come any more.

    Args:
        waited_s: how long nobody has worked.
        wait_s: how long to wait for a worker.
        home: id of this process's node.

    Raises:
        ClusterLost: this process's own node is dead.
        TimeoutError: the wait is over.
    """
    if home in dead_nodes():
        raise ClusterLost(f"the Ray node that this command runs on was lost; {AGAIN}")
    if waited_s > wait_s:
        raise TimeoutError(
            f"no worker could be placed for {wait_s:g} s: {resources()}; "
            f"wait for it, add nodes, or ask for less a worker; {AGAIN}"
        )


def resources() -> str:
    """What the cluster has and what of it is free, in one line."""
    kinds, there, free = ("CPU", "GPU", "memory"), ray.cluster_resources(), ray.available_resources()

    def line(of: Mapping[str, float]) -> str:
        gib = {kind: of.get(kind, 0) / (2**30 if kind == "memory" else 1) for kind in kinds}
        return f"{gib['CPU']:g} CPUs, {gib['GPU']:g} GPUs, {gib['memory']:.0f} GiB of memory"

    return f"the cluster has {line(there)} in all; free are {line(free)}"


def dead_nodes() -> set[str]:
    """Ids of the nodes that Ray has given up."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}


def parts_of(job: Any) -> list[Any]:
    """What the job splits into; text has a split() that means something else."""
    return [] if isinstance(job, (str, bytes)) or not hasattr(job, "split") else list(job.split())
