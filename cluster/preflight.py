"""Whether a cluster can be joined, found out within seconds and said in words.

Ray's own attempt says nothing for two minutes where nobody answers, and for 20 s to 40 s where the token is wrong.

What a driver asks of the cluster that it joined: are there free CPUs, who has them, does each node see a store.
"""

import logging
import os
import re
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import grpc

from cluster.auth import get_auth_mode

CONNECT_TIMEOUT_S = 5.0  # for one TCP connection
STATUS_TIMEOUT_S = 30.0  # for `ray status`, which takes one second
CHECK_ALIVE_METHOD = (
    "/ray.rpc.NodeInfoGcsService/CheckAlive"  # of the head's GCS; wants a token as everything else there
)
TOKEN_HINT = "RAY_AUTH_TOKEN or ~/.ray/auth_token here must hold the token of the cluster's head node"


def require_reachable(address: str) -> None:
    """Stop where no cluster is.

    Args:
        address: host:port, ray://host:port or "auto".

    Raises:
        ValueError: it is no address.
        ConnectionError: nothing listens there.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise ValueError(
            f"a cluster's address is host:port, got {address!r}; http://... is the address of `ray job submit`, "
            "not of a cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, OverflowError) as error:
        raise ConnectionError(
            f"no Ray cluster answers at {address} ({error}); check the address, or leave out --address and "
            "RAY_ADDRESS to start one on this machine"
        ) from error


def require_authorized(address: str) -> None:
    """Stop where a cluster is that does not let this user in; asks it through `ray status`.

    Args:
        address: host:port or "auto"; Ray Client's ray://host:port is left to Ray.

    Raises:
        ConnectionError: the token is refused, or what answers is no Ray cluster.
    """
    if address.startswith("ray://"):
        return
    try:
        asked = subprocess.run(
            [sys.executable, "-m", "ray.scripts.scripts", "status", "--address", address],
            capture_output=True,
            text=True,
            timeout=STATUS_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ConnectionError(
            f"what listens at {address} does not answer as a Ray cluster within {STATUS_TIMEOUT_S:.0f} s; check host "
            "and port (6379 is the usual one), or whether the head node is overloaded"
        ) from None
    if not asked.returncode:
        return
    said = asked.stdout + asked.stderr
    if "AuthenticationError" in said and get_auth_mode() != "token":
        raise ConnectionError(
            f"the Ray cluster at {address} wants a token, and RAY_AUTH_MODE={get_auth_mode()} sends none; unset it, "
            "or set "
            "it to token"
        )
    if "Could not find any running Ray instance" in said:
        raise ConnectionError(
            "no Ray cluster runs on this machine; start one (bash cluster/deploy/local.sh up), or leave out --address"
        )
    if "AuthenticationError" in said:
        raise ConnectionError(f"the Ray cluster at {address} refuses the token, or wants one; {TOKEN_HINT}")
    line = next((line.strip() for line in reversed(said.splitlines()) if line.strip()), "no word")
    raise ConnectionError(f"no Ray cluster can be joined at {address} ({line[:300]}); check the address")


def require_same_protection(address: str) -> None:
    """Stop where this process uses a token and the cluster has none: Ray lets it join, and ends each of its actors.

    `ray status` cannot tell: with a token it is answered, without one it takes half a minute where one is wanted.

    Args:
        address: host:port of a cluster that answers.

    Raises:
        ConnectionError: the cluster has no token; with both ways out.
    """
    if os.environ.get("RAY_AUTH_MODE", "").lower() == "token" and accepts_unauthenticated(address):
        raise ConnectionError(
            f"the Ray cluster at {address} runs without a token, so whoever reaches it runs code there, and workers of "
            "a process that has one cannot start; start it with RAY_AUTH_MODE=token, or set RAY_AUTH_MODE=disabled "
            "here to use it as it is"
        )


def accepts_unauthenticated(address: str) -> bool:
    """Whether a cluster's head answers a question that comes without a token.

    Args:
        address: host:port.

    Returns:
        True if it does; False if it refuses, or says nothing of the kind, as through TLS.
    """
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(CHECK_ALIVE_METHOD)(
                b"", timeout=CONNECT_TIMEOUT_S
            )  # an empty message is a whole one of its kind
        except grpc.RpcError:
            return False
        return True


def explain_join_failure(address: str, said: str) -> str:
    """Words for what Ray says when it cannot join a cluster that answers."""
    said = " ".join(said.split())
    versions = re.findall(r"Ray: (\S+) Python: (\S+)", said)
    if "ersion mismatch" in said and len(versions) == 2:
        (ray, python), (own_ray, own_python) = versions
        return (
            f"the Ray cluster at {address} runs Ray {ray} under Python {python}, this process Ray {own_ray} under "
            f"Python {own_python}; install the cluster's versions here, or run the command there: "
            "python -m memscore.submit -- python -m memscore.estimate"
        )
    return f"the Ray cluster at {address} answers but cannot be joined ({said[:500]}); {TOKEN_HINT}"


FREE_CPU_TIMEOUT_S = 5.0  # a cluster may be full for a moment: the driver before this one has just ended
NODE_TIMEOUT_S = 60.0  # a node that has to install a runtime environment first takes its time
LIST_TIMEOUT_S = 5

_log = logging.getLogger(__name__)


def warn_if_full(kind: str, share: float, limit_s: float) -> bool:
    """Warn where no worker can be placed at once, and of who is in the way; then it is the pool that waits.

    Args:
        kind: "CPU" or "GPU".
        share: how much of it a worker needs.
        limit_s: how long the pool will wait, for the words.

    Returns:
        Whether the cluster is full.
    """
    import ray  # not at the top of this file: connect() first chooses Ray's mode of authentication

    end = time.monotonic() + FREE_CPU_TIMEOUT_S
    while ray.available_resources().get(kind, 0) < share:
        if time.monotonic() > end:
            total = ray.cluster_resources().get(kind, 0)
            free = ray.available_resources().get(kind, 0)
            if total < share:
                there = f"the cluster has no {kind} for a worker yet"
            else:
                there = f"the cluster is full: {free:g} of {total:g} {kind}s are free{describe_holders(kind)}"
            _log.warning(
                "%s; waiting for at most %.0f s. Wait, stop what holds them, or add nodes; where nodes come on demand, "
                "--workers says how many are wanted",
                there,
                limit_s,
            )
            return True
        time.sleep(0.5)
    return False


def describe_holders(kind: str) -> str:
    """Who has a resource, as far as Ray tells, which needs its dashboard: '; held by: ...' or nothing."""
    from ray.util import state  # as in warn_if_full

    try:
        actors = state.list_actors(filters=[("state", "=", "ALIVE")], detail=True, limit=1000, timeout=LIST_TIMEOUT_S)
        jobs = {job.job_id: job for job in state.list_jobs(limit=1000, timeout=LIST_TIMEOUT_S)}
    except Exception as error:  # no dashboard; Ray has no class of its own for it
        _log.info("Ray does not say who holds %ss: %s", kind, error)
        return " (a cluster without a dashboard does not say who has them)"
    holds: Counter[str] = Counter()
    for actor in actors:
        holds[actor.job_id] += (actor.required_resources or {}).get(kind, 0)
    held = [f"{share:g} by {_describe_job(jobs.get(job), job)}" for job, share in holds.most_common(3) if share]
    return f"; held: {', '.join(held)}" if held else " (held by no actor that Ray lists)"


def _describe_job(job: Any, job_id: str) -> str:
    """A job's submission id or process, and what it runs."""
    if job is None:
        return f"job {job_id}"
    name = job.submission_id or f"job {job_id}"
    what = " ".join(str(job.entrypoint or "").split())
    return f"{name} ({what[:80]})" if what else name


def run_on_each_node(question: Callable[[], str | None]) -> dict[str, str]:
    """Ask on every node that may get workers, all at once, in a task that needs no CPU.

    Args:
        question: a function that workers can import; gives what is wrong, or None.

    Returns:
        Node -> what is wrong there, of those where something is. A node that does not answer is warned of and left
        out: it may be frozen, and its loss is no reason to begin nothing.
    """
    import ray  # as in warn_if_full
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

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

    nodes = {node["NodeID"]: _describe_node(node) for node in ray.nodes() if _has_workers(node)}
    task = ray.remote(num_cpus=0, max_retries=0)(answer)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(code): words
        for node, words in nodes.items()
    }
    answered, silent = ray.wait(list(asked), num_returns=len(asked), timeout=NODE_TIMEOUT_S) if asked else ([], [])
    for ref in silent:
        _log.warning("node %s did not answer within %.0f s; going on without its word", asked[ref], NODE_TIMEOUT_S)
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


def _describe_node(node: Mapping[str, Any]) -> str:
    """A node's name; its id too, because two of them may be on one machine."""
    return f"{node['NodeManagerHostname']} ({node['NodeID'][:8]})"
