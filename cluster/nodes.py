"""What a driver asks of the cluster that it joined: are there free CPUs, who has them, does each node see a store."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
from ray.util import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

FULL_S = 5.0  # a cluster may be full for a moment: the driver before this one has just ended
ANSWER_S = 60.0  # a node that has to install a runtime environment first takes its time
LISTED_S = 5

_log = logging.getLogger(__name__)


def say_if_full(kind: str, share: float, limit_s: float) -> bool:
    """Warn where no worker can be placed at once, and of who is in the way; then it is the pool that waits.

    Args:
        kind: "CPU" or "GPU".
        share: how much of it a worker needs.
        limit_s: how long the pool will wait, for the words.

    Returns:
        Whether the cluster is full.
    """
    end = time.monotonic() + FULL_S
    while ray.available_resources().get(kind, 0) < share:
        if time.monotonic() > end:
            total = ray.cluster_resources().get(kind, 0)
            free = ray.available_resources().get(kind, 0)
            if total < share:
                there = f"the cluster has no {kind} for a worker yet"
            else:
                there = f"the cluster is full: {free:g} of {total:g} {kind}s are free{held_by(kind)}"
            _log.warning(
                "%s; waiting for at most %.0f s. Wait, stop what holds them, or add nodes; where nodes come on demand, "
                "--workers says how many are wanted",
                there,
                limit_s,
            )
            return True
        time.sleep(0.5)
    return False


def held_by(kind: str) -> str:
    """Who has a resource, as far as Ray tells, which needs its dashboard: '; held by: ...' or nothing."""
    try:
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000, timeout=LISTED_S)
        jobs = {job.job_id: job for job in state.list_jobs(limit=1000, timeout=LISTED_S)}
    except Exception as error:  # no dashboard; Ray has no class of its own for it
        _log.info("Ray does not say who holds %ss: %s", kind, error)
        return " (a cluster without a dashboard does not say who has them)"
    holds: Counter[str] = Counter()
    for actor in actors:
        holds[actor.job_id] += (actor.required_resources or {}).get(kind, 0)
    held = [f"{share:g} by {_job_words(jobs.get(job), job)}" for job, share in holds.most_common(3) if share]
    return f"; held: {', '.join(held)}" if held else " (held by no actor that Ray lists)"


def _job_words(job: Any, job_id: str) -> str:
    """A job's submission id or process, and what it runs."""
    if job is None:
        return f"job {job_id}"
    name = job.submission_id or f"job {job_id}"
    what = " ".join(str(job.entrypoint or "").split())
    return f"{name} ({what[:80]})" if what else name


def ask_each_node(question: Callable[[], str | None]) -> dict[str, str]:
    """Ask on every node that may get workers, all at once, in a task that needs no CPU.

    Args:
        question: a function that workers can import; gives what is wrong, or None.

    Returns:
        Node -> what is wrong there, of those where something is. A node that does not answer is warned of and left
        out: it may be frozen, and its loss is no reason to begin nothing.
    """
    code = ray.cloudpickle.dumps(question)

    def answer(code: bytes) -> str | None:  # nested, so that it travels by value to a node that lacks this package
        import pickle

        try:
            said: str | None = pickle.loads(code)()
            return said
        except ModuleNotFoundError as error:
            return f"{error}; install memscore there, or submit its folder as --working-dir"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    nodes = {node["NodeID"]: _node_words(node) for node in ray.nodes() if _has_workers(node)}
    task = ray.remote(num_cpus=0, max_retries=0)(answer)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(code): words
        for node, words in nodes.items()
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=ANSWER_S) if asked else ([], [])
    for ref in silent:
        _log.warning("node %s did not answer within %.0f s; going on without its word", asked[ref], ANSWER_S)
    wrong: dict[str, str] = {}
    for ref in answered:
        try:
            said = ray.get(ref)
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError, ray.exceptions.WorkerCrashedError):
            _log.warning("node %s was lost before it answered", asked[ref])
        except ray.exceptions.RayError as error:
            wrong[asked[ref]] = " ".join(str(error).split())[:300]
        else:
            wrong |= {asked[ref]: said} if said else {}
    return wrong


def _has_workers(node: Mapping[str, Any]) -> bool:
    return bool(node["Alive"]) and node["Resources"].get("CPU", 0) >= 1


def _node_words(node: Mapping[str, Any]) -> str:
    """A node's name; its id too, because two of them may be on one machine."""
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
