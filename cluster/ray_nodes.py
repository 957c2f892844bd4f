"""What the nodes of a Ray cluster have: how many workers fit, what is unused, and whether to wait any longer."""

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from cluster.pool import RERUN_HINT, ClusterLost

NO_WORKER_WARNING_S = 60.0
MIN_UNUSED = 0.01  # of a GPU; less is not worth a line

_log = logging.getLogger(__name__)


def count_fitting_workers(nodes: Sequence[Mapping[str, Any]], gpus: float = 0, memory: int | None = None) -> int:
    """Count the workers of one CPU that fit on the nodes that are alive, each worker on one node."""

    # rounded down on each node; the addend keeps a quotient such as 0.3 / 0.1 = 2.9999999999999996 from losing one
    def count_on_node(resources: Mapping[str, float]) -> int:
        limits = [resources.get("CPU", 0)]
        limits += [count_gpu_places(resources.get("GPU", 0), gpus)] if gpus else []
        limits += [resources.get("memory", 0) / memory] if memory else []
        return math.floor(min(limits) + 1e-9)

    return sum(count_on_node(node["Resources"]) for node in nodes if node["Alive"])


def count_gpu_places(gpus: float, share: float) -> int:
    """Count the workers that the GPUs of one node have room for."""
    # Ray takes a part of a GPU from one GPU: two GPUs have room for two workers of 0.6, not for three
    if share < 1:
        return math.floor(gpus + 1e-9) * math.floor(1 / share + 1e-9)
    return math.floor(gpus / share + 1e-9)


def require_gpu_share(share: float, nodes: Sequence[Mapping[str, Any]]) -> None:
    """Stop if no node has the GPUs that a worker needs: Ray would wait for them for ever."""
    if share < 0 or (share > 1 and share % 1):
        raise ValueError(f"gpus_per_worker must be a part of one GPU or a whole number of them, got {share:g}")
    largest = max((node["Resources"].get("GPU", 0) for node in nodes if node["Alive"]), default=0)
    if share > largest:
        raise ValueError(f"{share:g} GPU a worker, but no node has more than {largest:g}; use 0 to train on CPUs")


def warn_if_unused_or_too_few(workers: int | None, gpus_per_worker: float, *, grows: bool) -> None:
    """Warn of parts of GPUs that no worker can use, and of more workers requested than fit.

    `grows`: whether nodes may join the cluster later.
    """
    if gpus_per_worker and gpus_per_worker < 1:
        count = count_gpu_places(1, gpus_per_worker)
        if (unused := 1 - count * gpus_per_worker) > MIN_UNUSED + 1e-9:
            # rounded down to Ray's unit, a ten-thousandth
            _log.warning(
                "--gpus-per-worker %g: %d a GPU, %.0f %% of each GPU unused; %g uses all of it",
                gpus_per_worker,
                count,
                100 * unused,
                math.floor(10_000 / count) / 10_000,
            )
    fitting = count_fitting_workers(ray.nodes(), gpus_per_worker)
    if workers is not None and workers > fitting:
        _log.warning(
            "--workers %d, but the cluster has room for %d with 1 CPU%s each; %s",
            workers,
            fitting,
            f" and {gpus_per_worker:g} GPU" if gpus_per_worker else "",
            "the others wait for more nodes" if grows else "no more will run at once",
        )


def warn_no_worker(waited_s: float, wait_s: float) -> None:
    """Warn that no worker could be placed so far, and how much longer the run waits."""
    _log.warning(
        "no worker is ready after %.0f s: %s (what starting workers hold is not free). Machines may be busy, "
        "others may have the rest, or nodes are on their way; this run waits for %.0f s more, then it stops",
        waited_s,
        describe_resources(),
        wait_s - waited_s,
    )


def check_waiting_time(waited_s: float, wait_s: float, driver_node: str) -> None:
    """Stop if no worker can be placed any more, or the run has waited long enough for one.

    Raises ClusterLost if Ray has marked the driver's own node dead, TimeoutError after more than `wait_s`.
    """
    if driver_node in find_dead_nodes():
        raise ClusterLost(f"the Ray node that this command runs on was lost; {RERUN_HINT}")
    if waited_s > wait_s:
        raise TimeoutError(
            f"no worker could be placed for {wait_s:g} s: {describe_resources()}; "
            f"wait for it, add nodes, or ask for less a worker; {RERUN_HINT}"
        )


def describe_resources() -> str:
    """Return what the cluster has and what of it is free, in one line."""
    kinds, total, free = ("CPU", "GPU", "memory"), ray.cluster_resources(), ray.available_resources()

    def format_line(amounts: Mapping[str, float]) -> str:
        numbers = {kind: amounts.get(kind, 0) / (2**30 if kind == "memory" else 1) for kind in kinds}
        return f"{numbers['CPU']:g} CPUs, {numbers['GPU']:g} GPUs, {numbers['memory']:.0f} GiB of memory"

    return f"the cluster has {format_line(total)} in all; free are {format_line(free)}"


def find_dead_nodes() -> set[str]:
    """Return the ids of the nodes that Ray has marked dead."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"]}
